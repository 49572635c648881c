"""A bench for the flow on real threads: one engine on a manual clock, and an exchange in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from resilient_auth._engine.acquire import Served, acquiring
from resilient_auth._engine.cache import CacheEntry, Memory
from resilient_auth._engine.engine import Engine
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._engine.steps import run, run_async
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth.settings import Settings
from resilient_auth.testing import ManualClock, no_jitter
from resilient_auth.token import Token, TokenRequest

HOST = "https://login.example"
HERE = Endpoint(HOST)


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds, for a moment at most."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never held"
        time.sleep(0.001)


class Exchanges:
    """A provider's answers, one for each exchange; each waits for its gate, where it has one."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._lock = threading.Lock()
        self.made = 0
        self.most_at_once = 0
        self._at_once = 0
        self.gate: threading.Event | None = None
        self.entered = threading.Event()
        self.answer: Callable[[Flight], Outcome] = lambda _: self._bench.good()

    def __call__(self, flight: Flight) -> Outcome:
        with self._lock:
            self.made += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            gate = self.gate
        self.entered.set()
        try:
            if gate is not None:
                assert gate.wait(20.0)
            return self.answer(flight)
        finally:
            with self._lock:
                self._at_once -= 1

    def hold(self) -> threading.Event:
        """Make the next ones wait until the event is set."""
        self.entered.clear()
        self.gate = threading.Event()
        return self.gate

    def fail(self, error: BaseException) -> None:
        """Make the next ones raise."""

        def answer(_: Flight) -> Outcome:
            raise error

        self.answer = answer

    def deny(self, error: str = "invalid_grant") -> None:
        """Make the next ones say no."""
        self.answer = lambda _: Outcome(result={"error": error})


class Bench:
    """An engine, a memory, one cache entry and its exchanges."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(1_700_000_000.0)
        self.engine = Engine(Settings(clock=self.clock, jitter=settings.pop("jitter", no_jitter), **settings))
        self.memory = Memory(self.engine.settings.max_tokens, self.engine)
        self.exchanges = Exchanges(self)
        self.entry = self.new_slot("a")
        self._serial = 0

    def new_slot(self, scope: str, *, host: str = HOST, subject: str | None = None, flow: str = "silent") -> CacheEntry:
        entry = self.memory.entry(TokenRequest(host, "app", flow, (scope,), subject), (Endpoint(host),))
        entry.renew = self.exchanges
        return entry

    def token(self, *, age: float = 0.0, life: float = 3600.0, due: float | None = None) -> Token:
        self._serial += 1
        return Token(
            f"token {self._serial}",
            "Bearer",
            self.clock.wall() - age,
            self.clock.monotonic() - age,
            life,
            life / 2 if due is None else due,
        )

    def good(self) -> Outcome:
        token = self.token()
        return Outcome(token, {"access_token": token.secret})

    def hold(self, *, age: float = 0.0, life: float = 3600.0, due: float | None = None) -> Token:
        token = self.token(age=age, life=life, due=due)
        self.memory.put(self.entry, token)
        return token

    def ask(self, entry: CacheEntry | None = None, **options: Any) -> Served:
        return run(acquiring(self.engine, entry or self.entry, self.exchanges, **options))

    async def ask_async(self, entry: CacheEntry | None = None, **options: Any) -> Served:
        return await run_async(acquiring(self.engine, entry or self.entry, self.exchanges, **options))

    def open_breaker(self, host: str = HOST) -> None:
        breaker = self.engine.breaker(Endpoint(host), Purpose.TOKEN)
        while breaker.status().state == "closed":
            breaker.admit().failure("503")

    def landed(self) -> bool:
        """Return whether no exchange is under way."""
        return not self.engine.flights._flights

    def rest(self) -> None:
        """Wait until what was begun is over."""
        until(self.landed)


class Threads:
    """Callers on threads, each with what it got."""

    def __init__(self, count: int, call: Callable[[], Any]) -> None:
        self.got: list[Any] = []
        self.errors: list[BaseException] = []
        self._start = threading.Barrier(count + 1)
        self._call = call
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        self._start.wait(20.0)

    def _run(self) -> None:
        self._start.wait(20.0)
        try:
            got = self._call()
        except BaseException as error:
            with self._lock:
                self.errors.append(error)
        else:
            with self._lock:
                self.got.append(got)

    def done(self) -> int:
        with self._lock:
            return len(self.got) + len(self.errors)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20.0)
            assert not thread.is_alive()
