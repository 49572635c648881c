"""Call for long while the database behind the handler is dead, slow or flapping; and kill what writes meanwhile.

Two callouts over one store's file stand for two processes; a part of the requests is sent twice, to one or to both.
`python -m tests.callouts.many_calls --calls 100000 --kills 50`
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from provider_requests import event, posed

import resilient_auth as ra
from resilient_auth.callouts import BasicCaller, Callout, Continue, LastKnown, TokenIssuanceStart
from resilient_auth.emulator.callouts.contracts import Unfit, judge

WRITER = Path(__file__).with_name("killed_writer.py")
MODES = ("dead", "slow", "flapping")
TIMEOUT = 1.0
_THREADS = 8
_USERS = 500


class Database:
    """What the handler waits for."""

    def __init__(self, mode: str, dice: random.Random) -> None:
        self._mode = mode
        self._dice = dice
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.effects: Counter[str] = Counter()

    def ask(self, request: TokenIssuanceStart) -> Continue:
        with self._lock:
            self.effects[request.correlation_id] += 1
        up = self._mode == "flapping" and int((time.monotonic() - self._began) / 2.0) % 2 == 0
        if self._mode == "slow":
            time.sleep(self._dice.choice((0.001, 0.001, 0.01, 0.05, 0.4, 1.5)))
        elif not up:
            if self._dice.random() < 0.2:
                time.sleep(3.0)  # no answer at all
            raise OSError("the database is dead")
        return Continue({"tier": "gold", "user": request.user_id})


@dataclass
class Found:
    """What was seen."""

    calls: int = 0
    outside: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def at(self, share: float) -> float:
        """Return the time within which such a share of the calls was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def call_for_long(mode: str, calls: int, place: Path, seed: int) -> Found:
    """Make so many calls in one mode."""
    dice, found = random.Random(seed), Found()
    database = Database(mode, dice)
    stores = [ra.FileStore(place / f"{mode}.db") for _ in range(2)]
    callouts = [
        Callout(
            TokenIssuanceStart,
            database.ask,
            caller=BasicCaller({"entra": "a password, in tests"}),
            default=LastKnown(otherwise=Continue({"tier": "none"})),
            timeout=TIMEOUT,
            store=store,
            # A store that is too slow under this load mustn't cost a second effect.
            when_store_fails="default",
        )
        for store in stores
    ]
    numbers = count()

    def call_once(callout: Any, body: dict[str, Any]) -> None:
        began = time.monotonic()
        reply = posed(callout, body)
        took = time.monotonic() - began
        user = body["data"]["authenticationContext"]["user"]["id"]
        try:
            claims = judge("tokenIssuanceStart", reply.status, "application/json", reply.body).says["claims"]
        except Unfit as error:
            found.outside.append(str(error))
            return
        if claims.get("user", user) != user:
            found.others.append(user)
        found.seconds.append(took)
        found.answers["of the handler, or last known" if claims["tier"] == "gold" else "the default"] += 1

    def work() -> None:
        while next(numbers) < calls * 10 // 13:
            user, sent_again, both = dice.randrange(_USERS), dice.random() < 0.3, dice.random() < 0.5
            body = event(user=f"u-{user}")
            first = dice.choice(callouts)
            if not sent_again:
                call_once(first, body)
                continue
            second = callouts[1 - callouts.index(first)] if both else first
            # As a provider does that got no answer: while the first one runs, or after it.
            early = threading.Thread(target=call_once, args=(first, body))
            early.start()
            if dice.random() < 0.5:
                early.join()
            call_once(second, body)
            early.join()

    with ThreadPoolExecutor(_THREADS) as threads:
        for worker in [threads.submit(work) for _ in range(_THREADS)]:
            worker.result()
    found.twice = [one for one, effects in database.effects.items() if effects > 1]
    found.calls = len(found.seconds) + len(found.outside)
    for store in stores:
        store.close()
    return found


def kill_for_long(kills: int, place: Path, seed: int) -> tuple[int, int, int]:
    """Kill a process that takes writes so often; return how many were taken, lost, and made more than once."""
    dice = random.Random(seed)
    taken: set[str] = set()
    for life in range(kills + 1):
        last = life == kills
        process = subprocess.Popen(
            [sys.executable, WRITER, str(place), "last" if last else str(life)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if last:
            process.wait(60.0)
        else:
            process.stdout.readline()  # it has begun
            time.sleep(dice.uniform(0.02, 0.5))
            process.send_signal(signal.SIGKILL)
        taken.update(line.strip() for line in process.stdout if line.endswith("\n") and line.startswith("w-"))
        process.wait()
        process.stdout.close()
    made = Counter((place / "made").read_text().split())
    return len(taken), len(taken - made.keys()), sum(1 for times in made.values() if times > 1)


def main() -> None:
    """Run it by command."""
    parser = argparse.ArgumentParser(prog="python -m tests.callouts.many_calls", description=main.__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    wrong = 0
    with tempfile.TemporaryDirectory() as root:
        for mode in MODES:
            began = time.monotonic()
            found = call_for_long(mode, options.calls // len(MODES), Path(root), seed)
            wrong += len(found.outside) + len(found.twice) + len(found.others) + (found.at(0.999) >= 0.6 * TIMEOUT)
            print(
                f"{mode}, seed {seed}: {found.calls} calls in {time.monotonic() - began:.0f} s; "
                f"{len(found.outside)} answers outside the contract, {len(found.twice)} requests with two effects, "
                f"{len(found.others)} with another user's claims; p50 {found.at(0.5) * 1000:.0f} ms, "
                f"p99 {found.at(0.99) * 1000:.0f} ms, p99.9 {found.at(0.999) * 1000:.0f} ms of {TIMEOUT * 1000:.0f}; "
                f"{json.dumps(found.answers)}",
                flush=True,
            )
        taken, lost, again = kill_for_long(options.kills, Path(root), seed)
        wrong += lost
        print(f"{options.kills} kills: {taken} writes taken, {lost} lost, {again} made more than once", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
