"""Servers that load an application and fork, through an outage of the provider: every request gets its token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import resilient_auth
from resilient_auth.emulator import Emulator, Fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

Look = Callable[..., dict[str, Any]]


@pytest.fixture
def serve(idp: Emulator, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a server's command beside the sample application."""
    started: list[subprocess.Popen[bytes]] = []
    idp.refresh_in = 3

    def start(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        here, root = Path(__file__).parent, Path(resilient_auth.__file__).parents[1]
        told = {
            "PYTHONPATH": os.pathsep.join([str(here), str(root), *filter(None, sys.path)]),
            "SERVED_AUTHORITY": idp.authority("contoso"),
            "SERVED_CA_FILE": idp.ca_file,
        }
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=os.environ | told | environment, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def live_through_an_outage(idp: Emulator, look: Look, log: Path) -> None:
    """Look from many processes before, while and after the provider is down."""

    def looks(seconds: float, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        seen, ends = [], time.monotonic() + seconds
        while not enough(seen):
            assert time.monotonic() < ends, (seen[-4:], log.read_text()[-4000:])
            seen.append(look())
            time.sleep(0.05)
        return seen

    def processes(seen: list[dict[str, Any]]) -> set[int]:
        return {one["process"] for one in seen}

    both = processes(looks(30, lambda seen: len(processes(seen)) == 2))
    # A token that nobody has yet, in each of them: their workers' threads are their own.
    fresh = [look(f"api://{number}/.default")["token"] for number in range(8)]
    assert len(set(fresh)) >= 4
    idp.fail(Fault.refuse())
    begun = time.monotonic()
    outage = looks(20, lambda seen: time.monotonic() - begun > 5)
    assert processes(outage) <= both
    before = {one["token"] for one in outage}
    idp.heal()
    # Timers run in each: what is pinned is new again, with or without traffic.
    after = looks(40, lambda seen: {one["process"] for one in seen if one["token"] not in before} == both)
    assert processes(after) <= both


def over_http(port: int) -> Look:
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    def look(*scope: str) -> dict[str, Any]:
        ends = time.monotonic() + 20
        while True:
            try:
                # A connection each, so that all processes get some.
                answer = client.get("/", params={"scope": scope}, headers={"Connection": "close"}, timeout=10)
            except httpx.ConnectError:  # it is starting
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)
                continue
            assert answer.status_code == 200, answer.text
            told: dict[str, Any] = answer.json()
            return told

    return look


def test_gunicorn_that_preloads(
    idp: Emulator, serve: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path
) -> None:
    """Two workers with threads, forked from a parent that holds a token."""
    pytest.importorskip("gunicorn")
    port = free_port()
    serve(sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "--threads", "2", "-b", f"127.0.0.1:{port}",
          "--worker-tmp-dir", str(tmp_path), "preforked_site:application")  # fmt: skip
    live_through_an_outage(idp, over_http(port), tmp_path / "log")


def test_uwsgi_which_forks_in_c(
    idp: Emulator, serve: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path
) -> None:
    """Two workers with threads, which no hook has told that they were forked."""
    uwsgi = Path(sys.executable).with_name("uwsgi")
    if not uwsgi.exists():
        pytest.skip("uWSGI isn't installed")
    port = free_port()
    serve(str(uwsgi), "--http-socket", f"127.0.0.1:{port}", "--module", "preforked_site:application", "--master",
          "--processes", "2", "--threads", "2", "--enable-threads", "--die-on-term")  # fmt: skip
    live_through_an_outage(idp, over_http(port), tmp_path / "log")


def test_celery_that_preforks(idp: Emulator, serve: Callable[..., Any], tmp_path: Path) -> None:
    """Two processes of a pool, whose tasks come from a directory."""
    pytest.importorskip("celery")
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    folder = {"SERVED_FOLDER": str(tmp_path)}
    serve(sys.executable, "-m", "celery", "-A", "preforked_site:celery_app", "worker", "--pool", "prefork", "-c", "2",
          "-O", "fair", "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
          **folder)  # fmt: skip
    from celery import Celery

    sender = Celery("sender", broker="filesystem://", backend=f"file://{tmp_path}/results")
    sender.conf.broker_transport_options = {
        "data_folder_in": f"{tmp_path}/queue",
        "data_folder_out": f"{tmp_path}/queue",
        "control_folder": f"{tmp_path}/control",
    }

    def look(*scope: str) -> dict[str, Any]:
        # Several at once, so that all processes get some.
        sent = [sender.send_task("look", [list(scope)]) for _ in range(2)]
        told: list[dict[str, Any]] = [one.get(timeout=30, interval=0.05) for one in sent]
        looked.extend(told)
        return looked.pop(0)

    looked: list[dict[str, Any]] = []
    live_through_an_outage(idp, look, tmp_path / "log")
