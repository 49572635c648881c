"""Several real processes over one real Valkey, or one file: one exchange for all, whoever dies in the middle of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault, Slow, WrongAnswer

WORKER = Path(__file__).with_name("fleet_worker.py")

over_valkey = pytest.mark.parametrize("where", ["redis"], indirect=True)


class Worker:
    """A process of the fleet."""

    def __init__(self, where: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def tell(self, do: str, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=["redis", "file"])
def where(request: pytest.FixtureRequest, idp: Emulator, tmp_path: Path) -> dict[str, Any]:
    """Where the processes find the provider and their store."""
    store = request.getfixturevalue("redis_url") if request.param == "redis" else str(tmp_path / "tokens")
    if request.param == "file":
        tmp_path.chmod(0o700)
    return {request.param: store, "key": os.urandom(32).hex(), "authority": idp.authority("contoso"),
            "ca_file": idp.ca_file}  # fmt: skip


@pytest.fixture
def fleet(where: dict[str, Any]) -> Iterator[Callable[..., list[Worker]]]:
    """Start so many processes, each with an application."""
    started: list[Worker] = []

    def start(processes: int, **settings: Any) -> list[Worker]:
        workers = [Worker(where) for _ in range(processes)]
        started.extend(workers)
        for worker in workers:
            worker.tell("build", settings=settings)
        for worker in workers:
            assert worker.hear() == "built"
        return workers

    yield start
    for worker in started:
        worker.end()


def _ask(workers: list[Worker], *, threads: int = 1, wait: float = 30.0) -> list[dict[str, Any]]:
    for worker in workers:
        worker.tell("ask", threads=threads, wait=wait)
    return [answer for worker in workers for answer in worker.hear()]


@pytest.mark.slow
def test_a_fleet_asks_once(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """Eight processes of fifty threads, all cold: one call at the provider, one token for all."""
    idp.fail(Slow(0.3), "token")
    workers = fleet(8)
    answers = _ask(workers, threads=50)
    assert len(answers) == 400
    assert len({answer["token"] for answer in answers}) == 1
    assert len(idp.ledger.token_calls()) == 1


@pytest.mark.slow
@over_valkey
def test_a_fleet_refreshes_once(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """All are due at the same moment: they go on with the token that they have, and one refreshes it."""
    idp.token_lifetime, idp.refresh_in = 60, 4
    workers = fleet(8)
    _ask(workers, threads=5)
    (first,) = idp.ledger.token_calls()
    time.sleep(max(0.0, first.monotonic + 4.5 - time.monotonic()))
    idp.refresh_in = 50
    answers = _ask(workers, threads=50)
    assert {answer["source"] for answer in answers} == {"cache"}
    assert max(answer["took"] for answer in answers) < 2.0
    ends = time.monotonic() + 8
    while len(idp.ledger.token_calls()) < 2 and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(idp.ledger.token_calls()) == 2


@pytest.mark.slow
def test_another_process_takes_over_from_one_that_was_killed(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """The holder of the lease dies in the middle of its exchange; nobody else fails."""
    first, *others = fleet(3)
    hole = idp.fail(Fault.black_hole(), "token")
    first.tell("ask", threads=1, wait=30.0)
    while not idp.ledger.token_calls():
        time.sleep(0.01)
    begun = time.monotonic()
    first.kill()
    hole.stop()
    answers = _ask(others, threads=20)
    assert {answer.get("error") for answer in answers} == {None}
    assert time.monotonic() - begun < 15.0
    assert len({answer["token"] for answer in answers}) == 1


@pytest.mark.slow
@over_valkey
def test_a_fleet_learns_of_an_outage_from_one(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """Not every process finds out by failing for itself."""
    idp.fail(WrongAnswer(503), "token")
    workers = fleet(6)
    answers = _ask(workers, threads=5, wait=3.0)
    assert {answer["error"] for answer in answers} <= {"AcquisitionTimeout", "ServerFailed", "CircuitOpen"}
    assert len(idp.ledger.token_calls()) <= 2


@pytest.mark.slow
@over_valkey
def test_a_throttled_fleet_waits_as_one(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """One `Retry-After` holds for all processes (G8)."""
    idp.fail(WrongAnswer(429, retry_after=20), "token")
    first, *others = fleet(6)
    _ask([first], wait=2.0)
    answers = _ask(others, threads=5, wait=2.0)
    assert {answer["error"] for answer in answers} == {"Throttled"}
    assert len(idp.ledger.token_calls()) == 1


@pytest.mark.slow
def test_an_outage_a_restart_and_a_recovery(idp: Emulator, fleet: Callable[..., list[Worker]]) -> None:
    """Processes that are born in an outage serve what the dead ones had."""
    workers = fleet(2)
    told = {answer["token"] for answer in _ask(workers)}
    for worker in workers:
        worker.kill()
    outage = idp.fail(Fault.refuse())
    with contextlib.ExitStack() as ending:
        ending.callback(outage.stop)
        answers = _ask(fleet(2), threads=10)
    assert {answer["token"] for answer in answers} == told
    assert max(answer["took"] for answer in answers) < 0.3
