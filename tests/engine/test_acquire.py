"""The way of one token, on real threads and tasks: who is served what, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest
import requests
from flow_bench import HERE, HOST, Bench, Threads, until

from resilient_auth._engine.acquire import Served, Source, asking_once, wait_at_most
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._engine.steps import run
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.fallback import FallbackOptions
from resilient_auth._policy.freshness import FreshnessOptions
from resilient_auth.errors import (
    AcquisitionTimeout,
    CircuitOpen,
    ConfigurationError,
    Overloaded,
    ProviderUnavailable,
    ServerFailed,
    Throttled,
)
from resilient_auth.events import ExchangeDenied, GraceServed, TokenDropped, TokenServed
from resilient_auth.testing import ManualClock, capture_events

CROWD = 400


def failed() -> ServerFailed:
    return ServerFailed("503", authority=HOST)


def secret(served: Served) -> str | None:
    return None if served.token is None else served.token.secret


class TestFresh:
    def test_a_fresh_token_is_served_without_asking(self) -> None:
        """Nothing runs, nobody waits, and nothing is said about it."""
        bench = Bench()
        token = bench.hold()
        served = bench.ask()
        assert (served.source, served.token, served.reason, served.error) == (Source.CACHE, token, None, None)
        assert bench.exchanges.made == 0

    def test_it_is_served_while_the_breaker_is_open(self) -> None:
        """An outage is no news to who holds a fresh token."""
        bench = Bench()
        token = bench.hold()
        bench.open_breaker()
        assert bench.ask().token is token


class TestDue:
    def test_it_is_served_at_once_and_refreshed_behind_once(self) -> None:
        """A crowd of threads is served the old token while one exchange hangs."""
        bench = Bench()
        token = bench.hold(age=1800.0)
        gate = bench.exchanges.hold()
        began = time.monotonic()
        crowd = Threads(CROWD, bench.ask)
        crowd.join()
        assert {secret(served) for served in crowd.got} == {token.secret}
        assert {served.reason for served in crowd.got} == {"refreshing"}
        assert time.monotonic() - began < 10.0
        assert bench.exchanges.entered.wait(5.0)
        assert bench.exchanges.made == 1
        gate.set()
        bench.rest()
        assert bench.entry.token is not token
        assert bench.ask().reason is None
        assert bench.exchanges.made == 1

    async def test_tasks_are_served_at_once_and_it_is_refreshed_behind_once(self) -> None:
        """A crowd of tasks, likewise, without giving way to the loop."""
        bench = Bench()
        token = bench.hold(age=1800.0)
        gate = bench.exchanges.hold()
        served = await asyncio.gather(*(bench.ask_async() for _ in range(CROWD)))
        assert {secret(s) for s in served} == {token.secret}
        assert bench.exchanges.entered.wait(5.0)
        assert bench.exchanges.made == 1
        gate.set()
        bench.rest()

    def test_a_failed_refresh_is_told_once_and_the_token_served(self) -> None:
        """With the reason and what is known of the provider."""
        bench = Bench()
        token = bench.hold(age=1800.0)
        bench.exchanges.fail(failed())
        with capture_events() as events:
            bench.ask()
            bench.rest()
            for _ in range(50):
                served = bench.ask()
            assert (served.token, served.reason) == (token, "server_failed")
            assert isinstance(served.error, ServerFailed)
            (told,) = events.wait_for(TokenServed)
            assert told.remaining == 1800.0
        assert bench.exchanges.made == 1
        assert len(events.of(TokenServed)) == 1

    def test_no_refresh_begins_before_the_back_off_is_over(self) -> None:
        """7.5 to 15 s after a first failure, where the provider asked for nothing."""
        bench = Bench()
        bench.hold(age=1800.0)
        bench.exchanges.fail(failed())
        bench.ask()
        bench.rest()
        bench.entry.renew = None
        left = bench.entry.not_before - bench.clock.monotonic()
        assert 5.0 <= left <= 15.0
        bench.clock.advance(left - 0.01)
        bench.ask()
        bench.rest()
        assert bench.exchanges.made == 1
        bench.clock.advance(0.02)
        bench.ask()
        bench.rest()
        assert bench.exchanges.made == 2

    def test_a_token_with_less_than_msals_300_s_is_served(self) -> None:
        """Those five minutes are worth having."""
        bench = Bench()
        token = bench.hold(age=3500.0)
        bench.exchanges.fail(failed())
        assert bench.ask().token is token
        bench.rest()


class TestExpiring:
    def test_a_caller_waits_a_moment_for_a_new_one(self) -> None:
        """Within the margin, a refresh that is quick is worth it."""
        bench = Bench()
        token = bench.hold(age=3590.0)
        served = bench.ask()
        assert served.source is Source.IDENTITY_PROVIDER
        assert served.token is not token

    def test_a_caller_waits_at_most_margin_wait_and_only_once(self) -> None:
        """The first one waits 0.2 s in vain; whoever comes next is served at once."""
        bench = Bench()
        token = bench.hold(age=3590.0)
        gate = bench.exchanges.hold()
        first = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.02)
        assert first.done() == 0
        bench.clock.advance(0.2)
        first.join()
        assert first.got[0].token is token
        later = Threads(20, bench.ask)
        until(lambda: later.done() == 20, 2.0)
        assert {secret(served) for served in later.got} == {token.secret}
        assert bench.exchanges.made == 1
        gate.set()
        bench.rest()

    def test_after_a_failure_it_is_served_at_once(self) -> None:
        """Within the back-off nobody waits for what is known to fail."""
        bench = Bench()
        token = bench.hold(age=3580.0)
        bench.exchanges.fail(failed())
        assert bench.ask().token is token
        bench.exchanges.hold()
        assert bench.ask().token is token
        assert bench.exchanges.made == 1

    def test_who_waited_until_it_expired_waits_on(self) -> None:
        """A token that ran out meanwhile isn't served."""
        bench = Bench()
        token = bench.hold(age=3599.9)
        gate = bench.exchanges.hold()
        caller = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.02)
        bench.clock.advance(0.3)
        time.sleep(0.1)
        assert caller.done() == 0
        gate.set()
        caller.join()
        assert caller.got[0].token is not token

    def test_an_owner_may_choose_a_margin_wait_of_nothing(self) -> None:
        """Then the token is served until its last moment without any wait."""
        bench = Bench(freshness=FreshnessOptions(margin_wait=0.0))
        token = bench.hold(age=3590.0)
        gate = bench.exchanges.hold()
        assert bench.ask().token is token
        gate.set()
        bench.rest()


class TestNothingToServe:
    @pytest.mark.parametrize("age", [None, 3600.0, 9000.0])
    def test_a_crowd_of_threads_makes_one_exchange(self, age: float | None) -> None:
        """Cold or expired, 400 threads share it and its token."""
        bench = Bench()
        if age is not None:
            bench.hold(age=age)
        gate = bench.exchanges.hold()
        crowd = Threads(CROWD, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        gate.set()
        crowd.join()
        assert bench.exchanges.made == 1
        assert len({secret(served) for served in crowd.got}) == 1
        assert {served.source for served in crowd.got} <= {Source.IDENTITY_PROVIDER, Source.CACHE}

    async def test_a_crowd_of_tasks_makes_one_exchange(self) -> None:
        """Asyncio waits through the same flight."""
        bench = Bench()
        gate = bench.exchanges.hold()
        tasks = [asyncio.create_task(bench.ask_async()) for _ in range(CROWD)]
        while not bench.exchanges.entered.is_set():
            await asyncio.sleep(0.001)
        gate.set()
        served = await asyncio.gather(*tasks)
        assert bench.exchanges.made == 1
        assert len({secret(s) for s in served}) == 1

    async def test_threads_and_tasks_share_one_exchange(self) -> None:
        """On two loops and a hundred threads."""
        bench = Bench()
        gate = bench.exchanges.hold()

        async def tasks() -> list[Any]:
            return await asyncio.gather(*(bench.ask_async() for _ in range(50)))

        threads = Threads(100, bench.ask)
        other_loop = Threads(1, lambda: asyncio.run(tasks()))
        mine = asyncio.create_task(tasks())
        await asyncio.sleep(0.05)
        gate.set()
        served = await mine
        threads.join()
        other_loop.join()
        assert bench.exchanges.made == 1
        assert len({secret(s) for s in [*served, *threads.got, *other_loop.got[0]]}) == 1

    def test_a_failure_is_shared_and_each_raises_a_copy(self) -> None:
        """One exchange, one error, and no traceback that grows with the crowd."""
        bench = Bench()
        error = ServerFailed("503", authority=HOST, retry_after=17.0)
        bench.exchanges.fail(error)
        gate = bench.exchanges.hold()
        crowd = Threads(CROWD, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        until(lambda: len(threading.enumerate()) > CROWD)
        time.sleep(0.1)
        gate.set()
        crowd.join()
        assert bench.exchanges.made == 1
        assert crowd.got == []
        for raised in crowd.errors:
            assert isinstance(raised, ServerFailed | Throttled | CircuitOpen)
            assert raised is not error
        assert sum(isinstance(raised, ServerFailed) for raised in crowd.errors) >= CROWD * 0.9
        assert all(raised.retry_after == 17.0 for raised in crowd.errors if isinstance(raised, ServerFailed))

    @pytest.mark.parametrize("error", [ValueError("an assertion couldn't be made"), SystemExit(3), KeyError("x")])
    def test_what_isnt_the_providers_failure_reaches_all(self, error: BaseException) -> None:
        """As it is, and the worker lives on."""
        bench = Bench()
        bench.exchanges.fail(error)
        gate = bench.exchanges.hold()
        crowd = Threads(10, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        gate.set()
        crowd.join()
        assert crowd.errors == [error] * 10
        bench.exchanges.gate = None
        bench.exchanges.answer = lambda _: bench.good()
        bench.clock.advance(100.0)
        assert bench.ask().source is Source.IDENTITY_PROVIDER

    def test_an_error_of_the_callers_own_leaves_a_valid_token_served(self) -> None:
        """An assertion function that fails is no reason to stop while a token is in hand."""
        bench = Bench()
        token = bench.hold(age=3590.0)
        bench.exchanges.fail(ValueError("no key"))
        served = bench.ask()
        assert (served.token, served.reason) == (token, "exchange_error")


class TestDeadlines:
    def test_each_waiter_has_his_own(self) -> None:
        """The impatient one goes, the exchange goes on, and the patient one gets the token."""
        bench = Bench()
        gate = bench.exchanges.hold()

        def impatient() -> Any:
            with wait_at_most(2.0):
                return bench.ask()

        hasty, patient = Threads(1, impatient), Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(2.1)
        hasty.join()
        (error,) = hasty.errors
        assert isinstance(error, AcquisitionTimeout)
        assert isinstance(error, requests.Timeout)
        assert "2 s" in str(error)
        assert patient.done() == 0
        gate.set()
        patient.join()
        assert patient.got[0].source is Source.IDENTITY_PROVIDER
        assert bench.exchanges.made == 1

    def test_a_caller_waits_30_s_by_default(self) -> None:
        """And no longer, though the exchange hangs."""
        bench = Bench()
        gate = bench.exchanges.hold()
        caller = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(29.9)
        time.sleep(0.1)
        assert caller.done() == 0
        bench.clock.advance(0.2)
        caller.join()
        assert isinstance(caller.errors[0], AcquisitionTimeout)
        gate.set()
        bench.rest()

    async def test_tasks_have_deadlines_of_their_own_too(self) -> None:
        """By the clock that is injected, and leave nothing behind."""
        bench = Bench()
        gate = bench.exchanges.hold()
        patient = asyncio.create_task(bench.ask_async())
        await asyncio.sleep(0)
        with wait_at_most(5.0):
            hasty = asyncio.create_task(bench.ask_async())
        await asyncio.sleep(0.1)
        bench.clock.advance(4.9)
        await asyncio.sleep(0.1)
        assert not hasty.done()
        bench.clock.advance(0.2)
        with pytest.raises(AcquisitionTimeout):
            await asyncio.wait_for(hasty, 5.0)
        gate.set()
        assert (await patient).source is Source.IDENTITY_PROVIDER
        assert bench.exchanges.made == 1

    def test_the_shorter_of_nested_waits_holds(self) -> None:
        """And it ends with its block."""
        bench = Bench()
        gate = bench.exchanges.hold()

        def nested() -> Any:
            with wait_at_most(1.0), wait_at_most(50.0):
                return bench.ask()

        caller = Threads(1, nested)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(1.1)
        caller.join()
        assert "1 s" in str(caller.errors[0])
        gate.set()
        bench.rest()

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", None])
    def test_a_wait_that_isnt_one_is_refused(self, seconds: Any) -> None:
        """By name."""
        with pytest.raises(ConfigurationError, match="seconds"), wait_at_most(seconds):
            pass

    def test_a_flight_that_is_overdue_is_replaced(self) -> None:
        """An exchange that hangs past its deadline holds nobody up, and may still land."""
        bench = Bench()
        gate = bench.exchanges.hold()
        lost = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(31.0)
        lost.join()
        assert isinstance(lost.errors[0], AcquisitionTimeout)
        bench.exchanges.gate = None
        served = bench.ask()
        assert served.source is Source.IDENTITY_PROVIDER
        assert bench.exchanges.made == 2
        gate.set()
        bench.rest()

    def test_an_overdue_flight_doesnt_replace_a_newer_token(self) -> None:
        """What comes late is older."""
        bench = Bench()
        gate = bench.exchanges.hold()
        old = bench.token()
        bench.exchanges.answer = lambda _: Outcome(old, {})
        lost = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(31.0)
        lost.join()
        bench.exchanges.gate, bench.exchanges.answer = None, lambda _: bench.good()
        newer = bench.ask().token
        lane = bench.engine.workers._lanes
        gate.set()
        until(lambda: not lane)
        assert bench.entry.token is newer


class TestCancellation:
    async def test_a_cancelled_task_harms_nobody(self) -> None:
        """Half of a crowd is cancelled; the other half gets the token of the one exchange."""
        bench = Bench()
        gate = bench.exchanges.hold()
        tasks = [asyncio.create_task(bench.ask_async()) for _ in range(100)]
        while not bench.exchanges.entered.is_set():
            await asyncio.sleep(0.001)
        (flight,) = bench.engine.flights._flights.values()
        assert flight._callbacks is not None
        assert len(flight._callbacks) == 100
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert len(flight._callbacks) == 50
        gate.set()
        served = await asyncio.gather(*tasks[1::2])
        assert all(s.source is Source.IDENTITY_PROVIDER for s in served)
        assert bench.exchanges.made == 1
        assert all(task.cancelled() for task in tasks[::2])
        assert flight._callbacks is None

    async def test_when_all_are_cancelled_the_exchange_goes_on(self) -> None:
        """And whoever comes next finds its token."""
        bench = Bench()
        gate = bench.exchanges.hold()
        task = asyncio.create_task(bench.ask_async())
        while not bench.exchanges.entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        bench.rest()
        assert (await bench.ask_async()).source is Source.CACHE
        assert bench.exchanges.made == 1

    @pytest.mark.parametrize("age", [None, 1800.0, 3590.0, 3700.0])
    @pytest.mark.parametrize("answer", ["good", "fails"])
    async def test_cancelled_at_any_await_it_leaves_nothing_behind(self, age: float | None, answer: str) -> None:
        """Driven by hand and cancelled at its n-th suspension, for every n there is."""
        for n in range(1, 10):
            bench = Bench()
            if age is not None:
                bench.hold(age=age)
            if answer == "fails":
                bench.exchanges.fail(failed())
            gate = bench.exchanges.hold()
            suspended = await cancelled_at(n, bench.ask_async(), bench.clock)
            for flight in bench.engine.flights._flights.values():
                assert not flight._callbacks
            gate.set()
            bench.rest()
            assert bench.exchanges.made <= 1
            assert suspended or n > 1 or age == 1800.0
            if not suspended:
                return
        raise AssertionError("it is suspended without end")

    async def test_a_loop_that_closed_is_no_concern_of_the_worker(self) -> None:
        """Its tasks are gone; the flight lands for the others."""
        bench = Bench()
        gate = bench.exchanges.hold()

        async def abandoned() -> None:
            asyncio.ensure_future(bench.ask_async())  # noqa: RUF006
            await asyncio.sleep(0.01)

        await asyncio.to_thread(asyncio.run, abandoned())
        mine = asyncio.create_task(bench.ask_async())
        await asyncio.sleep(0.01)
        gate.set()
        assert (await mine).source is Source.IDENTITY_PROVIDER

    async def test_a_callers_own_timeout_passes_through(self) -> None:
        """`asyncio.timeout` around a call means what it says."""
        bench = Bench()
        gate = bench.exchanges.hold()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await bench.ask_async()
        gate.set()
        bench.rest()


async def cancelled_at(n: int, work: Coroutine[Any, Any, Any], clock: ManualClock) -> bool:
    """Drive a coroutine by hand and cancel it at its n-th suspension; tells whether it got that far."""
    for _ in range(n):
        try:
            waiting_for = work.send(None)
        except (StopIteration, ProviderUnavailable):
            return False
        if _ < n - 1 and waiting_for is not None:
            # Hand it its own time-out: what else would wake it stands at the gate.
            clock.advance(31.0)
            waiting_for._asyncio_future_blocking = False
            waiting_for.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        work.throw(asyncio.CancelledError())
    return True


class TestRefused:
    def test_an_open_breaker_answers_at_once(self) -> None:
        """With the time when an attempt makes sense, and without an exchange."""
        bench = Bench()
        bench.open_breaker()
        with pytest.raises(CircuitOpen) as refused:
            bench.ask()
        assert refused.value.retry_after == pytest.approx(10.0, abs=2.5)
        assert refused.value.authority == HOST
        assert bench.exchanges.made == 0

    def test_a_cool_down_answers_at_once(self) -> None:
        """Nothing is asked inside of a Retry-After (G8)."""
        bench = Bench()
        bench.engine.cool_down(bench.entry.ways[0], 42.0)
        with pytest.raises(Throttled) as refused:
            bench.ask()
        assert refused.value.retry_after == pytest.approx(42.0)
        bench.clock.advance(42.1)
        assert bench.ask().source is Source.IDENTITY_PROVIDER

    def test_one_users_cool_down_isnt_everybodys(self) -> None:
        """A throttled subject leaves the others be; three that are throttled in a row are all of that client's."""
        bench = Bench()
        ann, bob = bench.new_slot("a", subject="ann"), bench.new_slot("a", subject="bob")
        bench.engine.cool_down(ann.ways[0], 42.0)
        with pytest.raises(Throttled):
            bench.ask(ann)
        assert bench.ask(bob).token is not None
        for subject in ("cy", "dee"):
            bench.engine.cool_down(bench.new_slot("a", subject=subject).ways[0], 42.0)
        with pytest.raises(Throttled):
            bench.ask(bench.new_slot("other", subject="bob"))

    def test_a_second_authority_is_asked_when_the_first_may_not_be(self) -> None:
        """A refusal needs all of them."""
        bench = Bench()
        bench.entry.ask_of((HERE, Endpoint("https://global.example")))
        bench.open_breaker()
        assert bench.ask().source is Source.IDENTITY_PROVIDER

    def test_a_full_queue_is_said_at_once(self) -> None:
        """One worker, no queue: the second key is told, the first one's waiters aren't harmed."""
        bench = Bench(workers_per_authority=1, queue_per_authority=0)
        gate = bench.exchanges.hold()
        first = Threads(3, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        with pytest.raises(Overloaded) as refused:
            bench.ask(bench.new_slot("b"))
        assert refused.value.retry_after == 1.0
        gate.set()
        first.join()
        assert len(first.got) == 3

    def test_asking_during_a_cool_down_doesnt_make_it_longer(self) -> None:
        """What was never asked can't have failed."""
        bench = Bench()
        bench.engine.cool_down(bench.entry.ways[0], 60.0)
        for _ in range(5):
            with pytest.raises(Throttled):
                bench.ask()
            bench.clock.advance(11.9)
        assert bench.entry.failures == 0
        bench.clock.advance(1.0)
        earliest: list[float] = []

        def answer(flight: Flight) -> Outcome:
            earliest.append(flight.earliest)
            return bench.good()

        bench.exchanges.answer = answer
        bench.ask()
        assert earliest[0] <= bench.clock.monotonic()


class TestIsolation:
    def test_a_second_key_isnt_delayed_by_the_first_ones_hang(self) -> None:
        """At the same authority, in another lane's place; and at another one, though the first one's lane is full."""
        bench = Bench(workers_per_authority=4)
        gate = bench.exchanges.hold()
        hung = [Threads(1, partial(bench.ask, bench.new_slot(f"hung {n}"))) for n in range(3)]
        until(lambda: bench.exchanges.made == 3)
        bench.exchanges.gate = None
        began = time.monotonic()
        assert bench.ask(bench.new_slot("b")).source is Source.IDENTITY_PROVIDER
        bench.exchanges.gate = gate
        hung += [Threads(1, partial(bench.ask, bench.new_slot(f"more {n}"))) for n in range(9)]
        until(lambda: bench.exchanges.made == 5)
        bench.exchanges.gate = None
        elsewhere = bench.new_slot("c", host="https://other.example")
        assert bench.ask(elsewhere).source is Source.IDENTITY_PROVIDER
        assert time.monotonic() - began < 5.0
        gate.set()
        for caller in hung:
            caller.join()
        assert bench.exchanges.most_at_once <= 5

    def test_a_callers_context_travels_to_the_exchange(self) -> None:
        """Trace ids and the like; and nothing comes back."""
        bench = Bench()
        trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")
        seen: list[str] = []

        def answer(_: Flight) -> Outcome:
            seen.append(trace.get())
            trace.set("the worker's")
            return bench.good()

        bench.exchanges.answer = answer
        trace.set("the caller's")
        bench.ask()
        assert seen == ["the caller's"]
        assert trace.get() == "the caller's"

    async def test_a_tasks_context_travels_too(self) -> None:
        """Each task's own."""
        bench = Bench()
        trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace2", default="none")
        seen: list[str] = []

        def answer(_: Flight) -> Outcome:
            seen.append(trace.get())
            return bench.good()

        bench.exchanges.answer = answer

        async def ask(name: str) -> None:
            trace.set(name)
            await bench.ask_async(bench.new_slot(name))

        await asyncio.gather(ask("one"), ask("two"))
        assert sorted(seen) == ["one", "two"]


class TestDenial:
    def test_with_nothing_held_the_denial_is_the_answer(self) -> None:
        """As MSAL gives it: no exception."""
        bench = Bench()
        bench.exchanges.deny()
        with capture_events() as events:
            served = bench.ask()
            assert events.wait_for(ExchangeDenied)[0].code == "invalid_grant"
        assert served.token is None
        assert served.result == {"error": "invalid_grant"}

    def test_none_is_an_answer_too(self) -> None:
        """MSAL's silent flow gives it when there is no account."""
        bench = Bench()
        bench.exchanges.answer = lambda _: Outcome(result=None)
        served = bench.ask()
        assert (served.token, served.result, served.error) == (None, None, None)

    @pytest.mark.parametrize("age", [1800.0, 3301.0, 3599.0])
    def test_a_valid_token_is_served_to_its_end_after_a_denial(self, age: float) -> None:
        """In its last 300 s too, in which MSAL would have thrown it away."""
        bench = Bench()
        token = bench.hold(age=age)
        bench.exchanges.deny()
        bench.ask()
        bench.rest()
        served = bench.ask()
        assert (served.token, served.reason) == (token, "denied")
        assert bench.exchanges.made == 1
        bench.clock.advance(3600.0 - age)
        served = bench.ask()
        assert served.token is None
        assert served.result == {"error": "invalid_grant"}

    @pytest.mark.parametrize("more", [{"suberror": "bad_token"}, {"error_codes": [50057]}, {"claims": "{}"}])
    @pytest.mark.parametrize("age", [1800.0, 3599.0])
    def test_a_token_whose_account_is_gone_is_dropped(self, age: float, more: dict[str, Any]) -> None:
        """By the refresh that nobody waits for too: the next caller gets the denial."""
        bench = Bench()
        bench.hold(age=age)
        denial = {"error": "invalid_grant", **more}
        bench.exchanges.answer = lambda _: Outcome(result=denial)
        with capture_events() as events:
            bench.ask()
            bench.rest()
            assert events.wait_for(TokenDropped)[0].code == "revoked"
        assert bench.entry.token is None
        served = bench.ask()
        assert (served.token, served.result) == (None, denial)

    def test_a_denial_of_an_older_sign_in_drops_no_newer_token(self) -> None:
        """What was signed in meanwhile isn't what the provider spoke of."""
        bench = Bench()
        bench.hold(age=1800.0)
        gate = bench.exchanges.hold()
        bench.exchanges.answer = lambda _: Outcome(result={"error": "invalid_grant", "suberror": "bad_token"})
        bench.ask()
        bench.memory.drop_all("the account was removed")
        newer = bench.hold()
        gate.set()
        bench.rest()
        assert bench.entry.token is newer

    def test_after_a_denial_a_refresh_waits_a_minute(self) -> None:
        """MSAL would replay it for as long."""
        bench = Bench()
        bench.hold(age=1800.0)
        bench.exchanges.deny()
        for _ in range(5):
            bench.ask()
            bench.rest()
        assert bench.exchanges.made == 1
        bench.clock.advance(60.1)
        bench.ask()
        bench.rest()
        assert bench.exchanges.made == 2

    def test_a_denial_is_forgotten_with_the_next_success(self) -> None:
        """The provider may change its mind."""
        bench = Bench()
        bench.exchanges.deny()
        bench.ask()
        bench.exchanges.answer = lambda _: bench.good()
        assert bench.ask().token is not None
        assert bench.ask().reason is None

    def test_a_flow_that_cant_renew_serves_what_is_valid(self) -> None:
        """None without an error means that there is nothing to renew with."""
        bench = Bench()
        token = bench.hold(age=3590.0)
        bench.exchanges.answer = lambda _: Outcome(result=None)
        served = bench.ask()
        assert (served.token, served.reason) == (token, "not_renewable")


class TestGrace:
    def make(self, age: float = 3700.0) -> Bench:
        bench = Bench(fallback=FallbackOptions(grace=600.0, grace_outage=1800.0))
        bench.hold(age=age)
        return bench

    def test_an_expired_token_is_served_by_opt_in_and_told_each_time(self) -> None:
        """While the breaker is open: the audit has one event for each."""
        bench = self.make()
        bench.open_breaker()
        with capture_events() as events:
            for _ in range(3):
                served = bench.ask()
                assert (served.source, served.token, served.reason) == (Source.GRACE, bench.entry.token, "circuit_open")
            told = events.wait_for(GraceServed, count=3)
        assert [event.past_expiry for event in told] == [100.0] * 3

    def test_one_failure_is_no_outage(self) -> None:
        """Grace needs a provider that is observed to be down."""
        bench = self.make()
        bench.exchanges.fail(failed())
        with pytest.raises(ServerFailed):
            bench.ask()

    def test_not_beyond_its_bounds(self) -> None:
        """Past the token's, or the outage's, there is an error."""
        bench = self.make(age=4201.0)
        bench.open_breaker()
        with pytest.raises(CircuitOpen):
            bench.ask()

    def test_never_after_a_denial(self) -> None:
        """The provider said no before it fell silent."""
        bench = self.make(age=3200.0)
        bench.exchanges.deny()
        bench.ask()
        bench.rest()
        bench.clock.advance(500.0)
        bench.open_breaker()
        with pytest.raises(CircuitOpen):
            bench.ask()

    @pytest.mark.parametrize("options", [{"claims": "{}"}, {"force": True}])
    def test_never_for_who_wants_another_one(self, options: dict[str, Any]) -> None:
        """A challenged token isn't served again."""
        bench = self.make()
        bench.open_breaker()
        with pytest.raises(CircuitOpen):
            bench.ask(**options)

    def test_not_by_default(self) -> None:
        """Nobody gets it who didn't ask for it."""
        bench = Bench()
        bench.hold(age=3700.0)
        bench.open_breaker()
        with pytest.raises(CircuitOpen):
            bench.ask()

    def test_not_while_another_authority_works(self) -> None:
        """All that could answer must be down."""
        bench = self.make()
        bench.entry.ask_of((HERE, Endpoint("https://global.example")))
        bench.open_breaker()
        bench.exchanges.fail(failed())
        with pytest.raises(ServerFailed):
            bench.ask()


class TestClaims:
    @pytest.mark.parametrize("options", [{"claims": '{"access_token": {}}'}, {"force": True}])
    def test_what_is_held_isnt_served(self, options: dict[str, Any]) -> None:
        """A fresh token notwithstanding (G17)."""
        bench = Bench()
        token = bench.hold()
        served = bench.ask(**options)
        assert served.token is not token
        assert bench.entry.token is served.token
        bench.exchanges.fail(failed())
        with pytest.raises(ServerFailed):
            bench.ask(**options)

    def test_a_challenge_isnt_answered_by_an_exchange_without_its_claims(self) -> None:
        """Nor by one with other claims; equal claims share one."""
        bench = Bench()
        gate = bench.exchanges.hold()
        callers = [Threads(1, bench.ask)]
        # Who comes first without claims would else join the forced one.
        until(lambda: bench.exchanges.made == 1)
        callers += [Threads(3, lambda: bench.ask(claims="a"))]
        callers += [Threads(1, lambda: bench.ask(claims="b")), Threads(2, lambda: bench.ask(force=True))]
        until(lambda: bench.exchanges.made == 4)
        time.sleep(0.05)
        gate.set()
        for caller in callers:
            caller.join()
            assert not caller.errors
        assert bench.exchanges.made == 4


class TestRemoval:
    def test_a_late_success_isnt_kept(self) -> None:
        """An exchange that began before the application removed the token brings nothing back."""
        bench = Bench()
        bench.hold(age=1800.0)
        gate = bench.exchanges.hold()
        bench.ask()
        assert bench.exchanges.entered.wait(5.0)
        bench.memory.drop_all("removed")
        gate.set()
        bench.rest()
        assert bench.entry.token is None

    def test_even_where_nothing_was_held(self) -> None:
        """A sign-out during the first sign-in counts."""
        bench = Bench()
        gate = bench.exchanges.hold()
        caller = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        bench.memory.drop_subject(None, "removed")
        gate.set()
        caller.join()
        assert bench.entry.token is None

    def test_who_asks_afterwards_doesnt_get_it(self) -> None:
        """A removal takes effect at once: the next caller begins an exchange of his own."""
        bench = Bench()
        gate = bench.exchanges.hold()
        before = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.02)
        bench.memory.drop_all("removed")
        bench.exchanges.deny("no_account")
        after = Threads(1, bench.ask)
        time.sleep(0.05)
        gate.set()
        before.join()
        after.join()
        assert bench.exchanges.made == 2

    def test_a_token_removed_during_the_wait_isnt_fallen_back_on(self) -> None:
        """A waiter whose exchange fails looks again at what may still be served."""
        bench = Bench()
        bench.hold(age=3590.0)
        gate = bench.exchanges.hold()
        caller = Threads(1, bench.ask)
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.02)
        bench.memory.drop_all("removed")
        bench.exchanges.fail(failed())
        gate.set()
        caller.join()
        assert [type(error) for error in caller.errors] == [ServerFailed]


class TestOnce:
    def ask(self, bench: Bench) -> Any:
        return run(asking_once(bench.engine, (HERE,), "app", "ann", bench.exchanges))

    def test_each_call_has_an_exchange_of_its_own(self) -> None:
        """A code's result is nobody else's, and is held nowhere."""
        bench = Bench()
        crowd = Threads(5, lambda: self.ask(bench))
        crowd.join()
        assert bench.exchanges.made == 5
        assert bench.entry.token is None
        assert len({served.result["access_token"] for served in crowd.got}) == 5

    def test_its_failure_is_the_callers(self) -> None:
        """As it is, and nothing else is tried."""
        bench = Bench()
        error = failed()
        bench.exchanges.fail(error)
        with pytest.raises(ServerFailed) as raised:
            self.ask(bench)
        assert str(raised.value) == str(error)
        assert bench.exchanges.made == 1

    def test_it_is_refused_while_the_breaker_is_open(self) -> None:
        """Nothing of the code is used up."""
        bench = Bench()
        bench.open_breaker()
        with pytest.raises(CircuitOpen):
            self.ask(bench)
        assert bench.exchanges.made == 0

    def test_its_caller_gives_up_in_time(self) -> None:
        """Though the exchange hangs."""
        bench = Bench()
        gate = bench.exchanges.hold()
        caller = Threads(1, lambda: self.ask(bench))
        assert bench.exchanges.entered.wait(5.0)
        time.sleep(0.05)
        bench.clock.advance(30.1)
        caller.join()
        assert isinstance(caller.errors[0], AcquisitionTimeout)
        gate.set()


def test_a_dropped_application_is_collected_though_its_caller_gave_up() -> None:
    """Neither flights nor workers keep it once its exchange is over."""
    bench = Bench()
    engine = bench.engine
    bench.ask()
    bench.rest()
    memory = weakref.ref(bench.memory)
    del bench
    until(lambda: engine.workers._idle)
    gc.collect()
    assert memory() is None
