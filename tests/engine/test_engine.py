"""What application objects share, and what a forked child starts with."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable

import pytest
from flow_bench import HERE, HOST, until

from resilient_auth._engine import recovery, schedule
from resilient_auth._engine.acquire import acquiring
from resilient_auth._engine.cache import CacheEntry, Memory
from resilient_auth._engine.engine import Engine
from resilient_auth._engine.exchange import begin
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._engine.steps import run
from resilient_auth._fleet.engines import engine_for
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.levels import ProviderRequest
from resilient_auth.errors import CircuitOpen, ServerFailed, Throttled
from resilient_auth.events import subscribe
from resilient_auth.settings import Settings
from resilient_auth.testing import ManualClock
from resilient_auth.token import Token, TokenRequest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def in_a_child(work: Callable[[], str], seconds: float = 10.0) -> str:
    """Fork, do the work in the child, and tell what it said; fails when it hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(write, work().encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    try:
        ready, _, _ = select.select([read], [], [], seconds)
        assert ready, "the child hangs"
        return os.read(read, 10_000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


class Warm:
    """A process that has done much: workers, timers, an open breaker, exchanges under way."""

    def __init__(self, **options: object) -> None:
        # Settings of its own, so that the engine is nobody else's.
        self.engine: Engine = engine_for(Settings(wait=5.0, keep_trying=float(id(self) % 80_000)))
        self.memory = Memory(100, self.engine)
        self.gate = threading.Event()
        self.hanging = threading.Semaphore(0)
        self.lives = 3600.0

    def entry(self, name: str) -> CacheEntry:
        entry = self.memory.entry(TokenRequest(HOST, "app", "client_credentials", (name,)), (HERE,))
        entry.renew = self.exchange
        return entry

    def exchange(self, _: Flight) -> Outcome:
        clock = self.engine.clock
        return Outcome(Token(f"by {os.getpid()}", "Bearer", clock.wall(), clock.monotonic(), self.lives, 1800.0), {})

    def hang(self, _: Flight) -> Outcome:
        self.hanging.release()
        self.gate.wait(20.0)
        return Outcome(result={"error": "hung"})

    def ask(self, entry: CacheEntry) -> str:
        served = run(acquiring(self.engine, entry, self.exchange))
        assert served.token is not None
        return served.token.secret


@needs_fork
class TestFork:
    def test_a_child_of_a_warm_process_acquires_at_once(self) -> None:
        """With workers idle and busy, timers to come, and an exchange for the very token under way."""
        warm = Warm()
        held, cold, wanted = warm.entry("held"), warm.entry("cold"), warm.entry("wanted")
        warm.ask(held)
        schedule.keep_fresh(warm.engine, held)
        for n in range(8):
            begin(warm.engine, wanted if n == 0 else warm.entry(f"hung {n}"), warm.hang, landed=recovery.landed)
        for _ in range(8):
            assert warm.hanging.acquire(timeout=5.0)
        parent = os.getpid()

        def work() -> str:
            began = time.monotonic()
            got = [warm.ask(held), warm.ask(cold), warm.ask(wanted)]
            assert got == [f"by {parent}", f"by {os.getpid()}", f"by {os.getpid()}"]
            assert time.monotonic() - began < 1.0
            return "served"

        try:
            assert in_a_child(work) == "served"
        finally:
            warm.gate.set()
            schedule.release(held)

    def test_whatever_the_parent_is_in_the_middle_of(self) -> None:
        """Forked again and again while sixteen threads look up, drop, fail and subscribe."""
        warm = Warm()
        warm.lives = 0.02
        stop = threading.Event()

        def work(me: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                entry = warm.entry(f"{me} {n % 30}")
                with contextlib.suppress(CircuitOpen, ServerFailed, Throttled):
                    warm.ask(entry)
                warm.memory.drop_subject(None, "removed")
                warm.engine.breaker(Endpoint(f"https://{n % 40}.example"), Purpose.TOKEN).check()
                warm.engine.budget(Endpoint(f"https://{n % 40}.example")).spend()
                subscribe(lambda _: None)()
                time.sleep(0.0005)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
        for thread in threads:
            thread.start()
        try:
            for n in range(15):
                said = in_a_child(lambda n=n: warm.ask(warm.entry(f"child {n}")))  # type: ignore[misc]
                assert said.startswith("by ")
                assert said != f"by {os.getpid()}"
        finally:
            stop.set()
            for thread in threads:
                thread.join(10.0)
        assert warm.ask(warm.entry("parent")) == f"by {os.getpid()}"

    def test_what_is_pinned_stays_fresh_in_the_child(self) -> None:
        """On timers of its own."""
        warm = Warm()
        entry = warm.entry("pinned")
        schedule.keep_fresh(warm.engine, entry)
        until(lambda: entry.token is not None)
        clock = warm.engine.clock
        old = Token("old", "Bearer", clock.wall(), clock.monotonic(), 4.0, 0.2)
        warm.memory.put(entry, old)
        entry.token = old

        def work() -> str:
            ends = time.monotonic() + 5.0
            while entry.token is old and time.monotonic() < ends:
                time.sleep(0.01)
            assert entry.token is not None
            return entry.token.secret

        try:
            said = in_a_child(work)
            assert said.startswith("by ")
            assert said != f"by {os.getpid()}"
        finally:
            schedule.release(entry)

    def test_the_child_knows_what_the_parent_knew(self) -> None:
        """An open breaker stays open, a cool-down lasts."""
        warm = Warm()
        breaker = warm.engine.breaker(HERE, Purpose.TOKEN)
        while breaker.status().state == "closed":
            breaker.admit().failure("503")
        elsewhere = ProviderRequest(Endpoint("https://other.example"), client_id="app")
        warm.engine.cool_down(elsewhere, 60.0)

        def work() -> str:
            said = []
            try:
                warm.ask(warm.entry("a"))
            except CircuitOpen:
                said.append("open")
            try:
                warm.engine.check_cooldown(elsewhere)
            except Throttled:
                said.append("throttled")
            return " ".join(said)

        assert in_a_child(work) == "open throttled"

    def test_a_grandchild_works_too(self) -> None:
        """Fork in a fork."""
        warm = Warm()
        warm.ask(warm.entry("a"))

        def work() -> str:
            warm.ask(warm.entry("b"))
            return in_a_child(lambda: warm.ask(warm.entry("c")), 5.0)

        assert in_a_child(work).startswith("by ")

    def test_the_parent_goes_on(self) -> None:
        """No lock stays taken."""
        warm = Warm()
        in_a_child(lambda: "x")
        warm.engine.breaker(Endpoint("https://new.example"), Purpose.TOKEN)
        assert warm.ask(warm.entry("after")) == f"by {os.getpid()}"


class TestShared:
    def test_breakers_and_budgets_are_one_for_each_authority(self) -> None:
        """And a breaker for each purpose: a failing document doesn't stop tokens."""
        engine = Engine(Settings(clock=ManualClock()))
        assert engine.breaker(HERE, Purpose.TOKEN) is engine.breaker(HERE, Purpose.TOKEN)
        assert engine.breaker(HERE, Purpose.TOKEN) is not engine.breaker(HERE, Purpose.DISCOVERY)
        assert engine.breaker(HERE, Purpose.TOKEN) is not engine.breaker(
            Endpoint("https://other.example"), Purpose.TOKEN
        )
        assert engine.budget(HERE) is engine.budget(HERE)
        assert engine.budget(HERE) is not engine.budget(Endpoint("https://other.example"))

    def test_a_shorter_cool_down_doesnt_end_a_longer_one(self) -> None:
        """The longest counts."""
        clock = ManualClock()
        engine = Engine(Settings(clock=clock))
        asked = ProviderRequest(HERE, client_id="app")
        engine.cool_down(asked, 60.0)
        engine.cool_down(asked, 5.0)
        clock.advance(59.0)
        with pytest.raises(Throttled) as refused:
            engine.check_cooldown(asked)
        assert refused.value.retry_after == pytest.approx(1.0)
        clock.advance(1.1)
        engine.check_cooldown(asked)

    def test_a_refusal_tells_the_shortest_wait(self) -> None:
        """Of all that could answer."""
        engine = Engine(Settings(clock=ManualClock()))
        a, b, here = (ProviderRequest(e) for e in (Endpoint("https://a.example"), Endpoint("https://b.example"), HERE))
        engine.cool_down(a, 60.0)
        engine.cool_down(b, 20.0)
        refusal = engine.refusal((a, b))
        assert refusal is not None
        assert refusal.retry_after == pytest.approx(20.0)
        assert engine.refusal((a, here)) is None

    def test_an_engine_starts_no_thread_by_itself(self) -> None:
        """Only what is asked for runs."""
        before = threading.active_count()
        engine_for(Settings(wait=29.0))
        assert threading.active_count() == before


def test_the_modules_of_the_engine_read_no_clock_of_their_own() -> None:
    """Time and randomness are injected: neither module is imported by flow or policy."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("resilient_auth._engine", "resilient_auth._policy")):
            assert "time" not in vars(module), name
            assert "random" not in vars(module), name
