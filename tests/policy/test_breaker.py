"""How a breaker leaves a failing dependency alone and finds out that it works again."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pybreaker
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient_auth._policy.breaker import Breaker, BreakerOptions, Dependency, Permit
from resilient_auth.errors import CircuitOpen, ConfigurationError
from resilient_auth.events import BreakerClosed, BreakerHalfOpen, BreakerIsolated, BreakerOpened, Event


class ManualClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.offset + self.now

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        raise AssertionError("a breaker never waits")

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Bench:
    """A breaker whose time, luck and listener belong to the test."""

    breaker: Breaker
    clock: ManualClock
    told: list[Event]
    draws: list[tuple[float, float]] = field(default_factory=list)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.admit().failure("503")

    def open(self) -> None:
        self.fail(3)
        assert self.state == "open"

    def half_open(self) -> Permit:
        if self.state == "closed":
            self.open()
        retry_at = self.breaker.retry_at
        assert retry_at is not None
        self.clock.now = max(self.clock.now, retry_at)
        return self.breaker.admit()

    @property
    def state(self) -> str:
        return self.breaker.status().state

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.told]

    @property
    def break_left(self) -> float:
        retry_after = self.breaker.status().retry_after
        assert retry_after is not None
        return retry_after

    def refusal(self, call: Callable[[], object] | None = None) -> CircuitOpen:
        with pytest.raises(CircuitOpen) as refused:
            (call or self.breaker.admit)()
        return refused.value


def bench(luck: float = 0.5, **options: Any) -> Bench:
    """Make a breaker whose jitter picks the same share of every span."""
    clock, told, draws = ManualClock(), list[Event](), list[tuple[float, float]]()

    def jitter(low: float, high: float) -> float:
        draws.append((low, high))
        return low + luck * (high - low)

    breaker = Breaker(
        Dependency(authority="https://login.example", purpose="token"),
        BreakerOptions(**options),
        clock=clock,
        jitter=jitter,
        tell=told.append,
    )
    return Bench(breaker, clock, told, draws)


def ask(breaker: Breaker) -> Permit | CircuitOpen:
    """Ask for a permit and give back the refusal where there is none."""
    try:
        return breaker.admit()
    except CircuitOpen as refused:
        return refused


class TestOpening:
    def test_failures_in_a_row_open_it(self) -> None:
        """The third failure in a row opens it, and the event says for how long and why."""
        b = bench()
        b.fail(2)
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"
        (event,) = b.told
        assert isinstance(event, BreakerOpened)
        assert (event.authority, event.purpose, event.seconds, event.code) == (
            "https://login.example",
            "token",
            10.0,
            "503",
        )

    def test_a_success_between_failures_keeps_it_closed(self) -> None:
        """Failures count in a row only."""
        b = bench(minimum_throughput=1000)
        for _ in range(20):
            b.fail(2)
            b.breaker.admit().success()
        assert b.state == "closed"

    def test_a_high_share_of_failures_opens_it(self) -> None:
        """Half of ten calls in the window open it, though never three in a row failed."""
        b = bench()
        for _ in range(4):
            b.breaker.admit().success()
            b.fail()
        b.breaker.admit().success()
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"

    def test_a_share_of_few_calls_means_nothing(self) -> None:
        """Below the minimum throughput no rate opens it."""
        b = bench(consecutive_failures=100, minimum_throughput=10)
        b.fail(9)
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"

    @pytest.mark.parametrize("percent", range(1, 100))
    def test_it_opens_at_exactly_the_share_that_the_owner_wrote(self, percent: int) -> None:
        """So many failures in a hundred calls, and not one more, for every share of two decimals."""
        b = bench(consecutive_failures=1000, minimum_throughput=100, failure_rate=float(f"0.{percent:02d}"))
        for _ in range(100 - percent):
            b.breaker.admit().success()
        b.fail(percent - 1)
        b.breaker.admit().success()
        assert b.state == "closed"
        b = bench(consecutive_failures=1000, minimum_throughput=100, failure_rate=float(f"0.{percent:02d}"))
        for _ in range(100 - percent):
            b.breaker.admit().success()
        b.fail(percent)
        assert b.state == "open"

    def test_a_low_share_keeps_it_closed(self) -> None:
        """A third of the calls failing is under the rate of a half."""
        b = bench()
        for _ in range(60):
            b.breaker.admit().success()
            b.breaker.admit().success()
            b.fail()
        assert b.state == "closed"

    def test_old_calls_leave_the_window(self) -> None:
        """Failures that are a window old no longer count towards the rate."""
        b = bench(consecutive_failures=100)
        b.fail(9)
        b.clock.advance(60)
        b.fail(9)
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"

    def test_recent_calls_stay_in_the_window(self) -> None:
        """Failures nine tenths of a window old still count."""
        b = bench(consecutive_failures=100)
        b.fail(9)
        b.clock.advance(53)
        b.fail()
        assert b.state == "open"

    def test_the_window_begins_empty_after_a_recovery(self) -> None:
        """What failed before the break doesn't open it again."""
        b = bench(consecutive_failures=100)
        b.fail(10)
        b.half_open().success()
        b.fail(9)
        assert b.state == "closed"

    def test_none_neither_opens_nor_closes(self) -> None:
        """A denial or a cancellation leaves the row of failures as it is."""
        b = bench()
        b.fail(2)
        for _ in range(20):
            b.breaker.admit().none()
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"
        probe = b.half_open()
        probe.none()
        assert b.state == "half-open"


class TestBreak:
    def test_an_open_breaker_says_when_why_and_whom(self) -> None:
        """The refusal carries the seconds left, the authority and the last cause."""
        b = bench()
        b.open()
        b.clock.advance(4)
        for call in (b.breaker.check, b.breaker.admit):
            error = b.refusal(call)
            assert error.retry_after == pytest.approx(6)
            assert error.authority == "https://login.example"
            assert str(error) == "https://login.example token: circuit open after 503; next probe in 6.0 s"

    def test_a_check_takes_nothing(self) -> None:
        """After the break check passes as often as it is asked, and changes no state."""
        b = bench()
        b.open()
        b.clock.advance(10)
        for _ in range(5):
            b.breaker.check()
        assert b.state == "open"
        b.breaker.admit()
        assert b.state == "half-open"
        b.refusal(b.breaker.check)

    def test_whoever_sleeps_for_retry_after_is_admitted(self) -> None:
        """The remainder on the refusal is exact, at any age of the machine and of the break."""
        for start in range(500):
            b = bench(luck=start / 500)
            b.clock.now = 60 + start * 1e5 / 7
            b.open()
            b.clock.advance(start / 111)
            b.clock.advance(b.refusal().retry_after or 0.0)
            assert isinstance(ask(b.breaker), Permit)

    def test_breaks_grow_with_failed_probes_up_to_the_longest(self) -> None:
        """Each failed probe doubles the break; the longest keeps its jitter, so that a fleet stays spread."""
        b = bench(1.0)
        b.open()
        spans = [b.break_left]
        for _ in range(4):
            b.half_open().failure("503")
            spans.append(b.break_left)
        assert spans == pytest.approx([15, 30, 60, 90, 90])
        low, high = b.draws[-2]
        assert (low, high) == pytest.approx((30, 90))

    def test_a_long_outage_overflows_nothing(self) -> None:
        """Thousands of failed probes still leave a break of a minute, and one recovery halves it."""
        b = bench()
        b.open()
        for _ in range(2000):
            b.half_open().failure("503")
        assert b.break_left == pytest.approx(60)
        b.half_open().success()
        b.open()
        assert b.break_left == pytest.approx(45)

    def test_breaks_shrink_by_a_step_with_each_recovery(self) -> None:
        """A provider that flaps gets longer breaks than one that failed once."""
        b = bench()
        b.open()
        b.half_open().failure("503")
        b.half_open().failure("503")
        assert b.break_left == pytest.approx(40)
        b.half_open().success()
        b.open()
        assert b.break_left == pytest.approx(20)
        b.half_open().success()
        b.open()
        assert b.break_left == pytest.approx(10)

    def test_a_quiet_window_brings_the_first_break_back(self) -> None:
        """A minute of work without a failure ends the memory of the outage; half a minute doesn't."""
        for quiet, expected in ((61.0, 10.0), (30.0, 20.0)):
            b = bench()
            b.open()
            b.half_open().failure("503")
            b.half_open().failure("503")
            b.half_open().success()
            b.clock.advance(quiet)
            b.open()
            assert b.break_left == pytest.approx(expected)

    @pytest.mark.parametrize("luck", [0.0, 1.0])
    def test_no_break_is_under_five_seconds_or_over_the_longest(self, luck: float) -> None:
        """Jitter crosses neither G9's bound nor the owner's."""
        b = bench(luck, first_break=5.0, longest_break=5.0, urgent_break=(5.0, 5.0))
        b.open()
        (event,) = b.told
        assert isinstance(event, BreakerOpened)
        assert event.seconds == b.break_left == 5.0

    def test_a_wall_clock_that_jumps_moves_no_break(self) -> None:
        """Breaks run on the monotonic clock."""
        b = bench()
        b.open()
        b.clock.offset += 86_400
        b.refusal()
        b.clock.offset -= 2 * 86_400
        b.clock.advance(10)
        b.breaker.admit()

    def test_a_late_failure_moves_a_break_that_is_about_to_end(self) -> None:
        """No probe goes out within five seconds of any failure, though the failed call went out before the break."""
        b = bench()
        late = b.breaker.admit()
        b.open()
        b.clock.advance(8)
        late.failure("timed out")
        assert b.break_left == pytest.approx(5)
        assert b.kinds == ["BreakerOpened"]


class TestUrgency:
    def test_hastening_shortens_a_running_break_once(self) -> None:
        """It ends within the urgent bounds from its beginning, however often somebody asks."""
        b = bench(first_break=60.0)
        b.open()
        b.clock.advance(2)
        for _ in range(10):
            b.breaker.hasten()
            assert b.break_left == pytest.approx(9.0 - 2)
        assert len(b.draws) == 2

    def test_hastening_never_lengthens(self) -> None:
        """A break that ends sooner anyway keeps its end."""
        b = bench(0.0, first_break=5.0)
        b.open()
        before = b.breaker.retry_at
        b.breaker.hasten()
        assert b.breaker.retry_at == before

    def test_hastening_respects_a_late_failure(self) -> None:
        """The five seconds after a failure hold for the desperate too."""
        b = bench(first_break=60.0)
        late = b.breaker.admit()
        b.open()
        b.clock.advance(8)
        late.failure("timed out")
        b.breaker.hasten()
        assert b.break_left == pytest.approx(5)

    def test_it_holds_through_failed_probes_until_relaxed(self) -> None:
        """Breaks after it are urgent again, and grow again once the need is gone."""
        b = bench()
        b.open()
        b.breaker.hasten()
        for _ in range(5):
            b.half_open().failure("503")
            assert b.break_left == pytest.approx(9.0)
        b.breaker.relax()
        assert b.break_left == pytest.approx(9.0), "callers were told this end"
        b.half_open().failure("503")
        assert b.break_left == pytest.approx(60)

    @pytest.mark.parametrize("ending", ["close", "success while closed", "reset"])
    def test_it_ends_with_the_outage(self, ending: str) -> None:
        """The next outage begins with a calm break."""
        b = bench()
        if ending == "success while closed":
            b.breaker.hasten()
            b.breaker.admit().success()
        else:
            b.open()
            b.breaker.hasten()
            b.half_open().success() if ending == "close" else b.breaker.reset()
        b.open()
        assert b.break_left == pytest.approx(10)

    def test_it_can_be_asked_before_the_break(self) -> None:
        """Somebody who has nothing while the failures are still being counted gets an urgent first break."""
        b = bench(first_break=60.0)
        b.fail(2)
        b.breaker.hasten()
        b.fail()
        assert b.break_left == pytest.approx(9.0)


class TestHalfOpen:
    @pytest.mark.parametrize("probes", [1, 3])
    def test_exactly_so_many_probes_are_out(self, probes: int) -> None:
        """The next caller is refused for a second until a verdict comes."""
        b = bench(probes=probes)
        b.half_open()
        for _ in range(probes - 1):
            b.breaker.admit()
        error = b.refusal()
        assert error.retry_after == 1.0
        assert "a probe is out, try again in 1.0 s" in str(error)
        assert b.kinds == ["BreakerOpened", "BreakerHalfOpen"]

    def test_a_success_closes_it(self) -> None:
        """The event counts from the first failure, not from the break."""
        b = bench()
        b.fail(2)
        b.clock.advance(3)
        b.fail()
        b.half_open().success()
        assert b.state == "closed"
        event = b.told[-1]
        assert isinstance(event, BreakerClosed)
        assert event.seconds == pytest.approx(13)

    def test_several_successes_may_be_wanted(self) -> None:
        """One of two doesn't close it, and a failure after it opens it again."""
        b = bench(successes_to_close=2)
        b.half_open().success()
        assert b.state == "half-open"
        b.breaker.admit().failure("503")
        assert b.state == "open"
        b.half_open().success()
        assert b.state == "half-open"
        b.breaker.admit().success()
        assert b.state == "closed"

    def test_a_permit_without_a_verdict_is_free_for_the_next_caller(self) -> None:
        """A probe that was cancelled or denied neither closes it nor blocks the next one."""
        b = bench()
        for _ in range(5):
            with b.half_open():
                b.refusal()
        with pytest.raises(KeyboardInterrupt), b.breaker.admit():
            raise KeyboardInterrupt
        b.breaker.admit().success()
        assert b.state == "closed"

    def test_an_abandoned_probe_is_given_up_after_its_lease(self) -> None:
        """Its permit is free again, and what it says later counts for nothing."""
        b = bench(probe_lease=30.0)
        lost = b.half_open()
        b.clock.advance(29.5)
        assert b.refusal().retry_after == pytest.approx(0.5)
        b.clock.advance(0.5)
        found = b.breaker.admit()
        b.refusal()
        lost.success()
        assert b.state == "half-open"
        b.refusal()
        found.success()
        assert b.state == "closed"

    def test_a_lease_that_ends_just_after_a_late_failure_waits_for_it(self) -> None:
        """Of two reasons to wait the longer one holds."""
        b = bench()
        late = b.breaker.admit()
        b.half_open()
        b.clock.advance(28)
        late.failure("timed out")
        b.clock.advance(2)
        b.refusal()
        b.clock.advance(3)
        b.breaker.admit()

    def test_a_late_failure_of_an_abandoned_probe_opens_nothing(self) -> None:
        """But the next probe leaves the dependency its five seconds."""
        b = bench()
        lost = b.half_open()
        b.clock.advance(30)
        lost.failure("timed out")
        assert b.state == "half-open"
        assert b.break_left == pytest.approx(5)


class TestEras:
    @pytest.mark.parametrize("verdict", ["success", "failure", "none"])
    def test_a_call_from_before_the_break_decides_nothing(self, verdict: str) -> None:
        """Open, half-open and closed again stay as they are, whatever it says."""
        b = bench(consecutive_failures=1)
        stale = [b.breaker.admit() for _ in range(3)]

        def speak() -> None:
            permit = stale.pop()
            permit.failure("late") if verdict == "failure" else getattr(permit, verdict)()

        b.fail()
        speak()
        assert b.state == "open"
        probe = b.half_open()
        speak()
        assert b.state == "half-open"
        probe.success()
        speak()
        assert b.state == "closed"
        assert b.breaker.failing() == (False, 0.0)
        assert b.breaker.status().last_code == "503"

    def test_a_success_from_before_the_break_doesnt_hide_new_failures(self) -> None:
        """Closed again, it counts new failures in a row whatever old calls say."""
        b = bench()
        stale = b.breaker.admit()
        b.half_open().success()
        b.fail(2)
        stale.success()
        b.fail()
        assert b.state == "open"

    def test_a_probe_of_an_earlier_break_doesnt_close_a_later_one(self) -> None:
        """Two probes went out, one failed: the success of the other comes too late."""
        b = bench(probes=2)
        first = b.half_open()
        second = b.breaker.admit()
        first.failure("503")
        second.success()
        assert b.state == "open"
        third = b.half_open()
        b.breaker.admit()
        b.refusal()
        third.success()
        assert b.state == "closed"

    def test_the_first_verdict_counts(self) -> None:
        """A permit that was settled can't be used again, nor be freed twice."""
        b = bench()
        permit = b.breaker.admit()
        permit.success()
        for _ in range(10):
            permit.failure("again")
        assert b.state == "closed"
        probe = b.half_open()
        probe.none()
        probe.success()
        assert b.state == "half-open"

    def test_eras_are_counted(self) -> None:
        """Every change of state begins one."""
        b = bench()
        eras = [b.breaker.status().era]
        for change in (b.open, lambda: b.half_open().none(), lambda: b.breaker.admit().success(), b.breaker.isolate):
            change()
            eras.append(b.breaker.status().era)
        assert eras == sorted(set(eras))


class TestByHand:
    def test_an_isolated_breaker_refuses_everything_until_reset(self) -> None:
        """Neither time nor a success of a running call lets anybody through."""
        b = bench()
        running = b.breaker.admit()
        b.breaker.isolate()
        b.breaker.isolate()
        running.success()
        b.clock.advance(1e6)
        error = b.refusal()
        assert error.retry_after is None
        assert "reset()" in str(error)
        assert b.breaker.retry_at is None
        b.breaker.reset()
        b.breaker.admit().success()
        assert [e.isolated for e in b.told if isinstance(e, BreakerIsolated)] == [True, False]

    def test_reset_closes_and_forgets(self) -> None:
        """No failure, break, cause or step survives it."""
        b = bench()
        b.open()
        b.half_open().failure("503")
        b.breaker.reset()
        assert b.kinds[-1] == "BreakerClosed"
        status = b.breaker.status()
        assert (status.state, status.retry_after, status.failing_since, status.last_code) == (
            "closed",
            None,
            None,
            None,
        )
        b.fail(2)
        assert b.state == "closed"
        b.fail()
        assert b.break_left == pytest.approx(10)

    def test_resetting_an_isolated_breaker_that_was_open_tells_both(self) -> None:
        """Whoever counts openings and closings ends even."""
        b = bench()
        b.open()
        b.breaker.isolate()
        b.breaker.reset()
        assert b.kinds == ["BreakerOpened", "BreakerIsolated", "BreakerIsolated", "BreakerClosed"]

    def test_events_are_told_outside_of_the_lock(self) -> None:
        """A listener may ask the breaker anything, at every change."""
        seen: list[str] = []
        clock = ManualClock()

        def listen(event: Event) -> None:
            seen.append(breaker.status().state)

        breaker = Breaker(Dependency(target="x"), BreakerOptions(), clock=clock, jitter=max, tell=listen)
        for _ in range(3):
            breaker.admit().failure("503")
        clock.advance(60)
        breaker.admit().success()
        breaker.isolate()
        breaker.reset()
        assert seen == ["open", "half-open", "closed", "isolated", "closed"]


class TestStatus:
    def test_health_sees_how_it_stands(self) -> None:
        """Times are on the wall clock, the remainder in seconds."""
        b = bench()
        b.fail()
        failed_at = b.clock.wall()
        b.clock.advance(1)
        b.fail(2)
        opened_at = b.clock.wall()
        b.clock.advance(4)
        status = b.breaker.status()
        assert (status.name, status.state, status.last_code) == ("https://login.example token", "open", "503")
        assert status.since == pytest.approx(opened_at)
        assert status.failing_since == pytest.approx(failed_at)
        assert status.retry_after == pytest.approx(6)
        assert b.breaker.retry_at == pytest.approx(b.clock.now + 6)

    def test_failing_is_observed_and_counts_from_the_first_failure(self) -> None:
        """A single failure is no outage; isolation isn't observed; a success ends it."""
        b = bench()
        assert b.breaker.failing() == (False, 0.0)
        b.fail()
        b.clock.advance(2)
        assert b.breaker.failing() == (False, 2.0)
        b.breaker.admit().success()
        assert b.breaker.failing() == (False, 0.0)
        b.fail()
        b.clock.advance(2)
        b.fail(2)
        b.clock.advance(10)
        assert b.breaker.failing() == (True, 12.0)
        b.breaker.admit().none()
        assert b.breaker.failing() == (True, 12.0)
        b.breaker.isolate()
        assert b.breaker.failing() == (False, 12.0)
        b.breaker.reset()
        assert b.breaker.failing() == (False, 0.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"consecutive_failures": 0}, "consecutive_failures"),
        ({"consecutive_failures": 2.5}, "consecutive_failures"),
        ({"failure_rate": 0.0}, "failure_rate"),
        ({"failure_rate": 50}, "failure_rate"),
        ({"window": 0}, "window"),
        ({"minimum_throughput": 0}, "minimum_throughput"),
        ({"first_break": 4.9}, "first_break"),
        ({"first_break": math.nan}, "first_break"),
        ({"first_break": "10"}, "first_break"),
        ({"first_break": 91.0}, "longest_break"),
        ({"break_growth": 0.5}, "break_growth"),
        ({"longest_break": math.inf}, "longest_break"),
        ({"longest_break": 9.0}, "first_break"),
        ({"urgent_break": 8.0}, "urgent_break"),
        ({"urgent_break": (8.0,)}, "urgent_break"),
        ({"urgent_break": (4.0, 8.0)}, "urgent_break"),
        ({"urgent_break": (9.0, 8.0)}, "swap"),
        ({"urgent_break": (9.0, 91.0)}, "longest_break"),
        ({"probes": True}, "probes"),
        ({"probe_lease": 0.0}, "probe_lease"),
        ({"successes_to_close": 0}, "successes_to_close"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    """A value out of range, or two that don't fit, raise an error that names the option."""
    with pytest.raises(ConfigurationError, match=named):
        BreakerOptions(**options)


class TestSharing:
    def test_of_two_hundred_threads_exactly_so_many_probe(self) -> None:
        """Threads that arrive at once at the end of a break get the probes' permits and not one more."""
        for probes in (1, 3):
            b = bench(probes=probes)
            b.open()
            b.clock.advance(10)
            barrier = threading.Barrier(200)
            admitted: list[Permit] = []

            def call(b: Bench = b, barrier: threading.Barrier = barrier, admitted: list[Permit] = admitted) -> None:
                barrier.wait()
                answer = ask(b.breaker)
                if isinstance(answer, Permit):
                    admitted.append(answer)

            threads = [threading.Thread(target=call) for _ in range(200)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(admitted) == probes
            assert b.kinds == ["BreakerOpened", "BreakerHalfOpen"]

    def test_threads_lose_no_verdict(self) -> None:
        """Eight threads' verdicts add up: 8,000 failures among twice as many calls stay under a rate of 0.6."""
        b = bench(consecutive_failures=10**9, failure_rate=0.6, minimum_throughput=1)
        b.breaker.admit().success()

        def call() -> None:
            for _ in range(1000):
                b.breaker.admit().success()
                b.breaker.admit().failure("503")

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b.breaker._window._slices[-1][1:] == [16_001, 8_000]

    async def test_tasks_share_it_and_cancelled_ones_leak_no_permit(self) -> None:
        """Of 200 tasks one at a time probes; each that is cancelled frees the permit, and a later one closes it."""
        b = bench()
        b.open()
        b.clock.advance(10)
        out = most = probed = 0

        async def call(number: int) -> None:
            nonlocal out, most, probed
            while True:
                permit = ask(b.breaker)
                if isinstance(permit, CircuitOpen):
                    await asyncio.sleep(0)
                    continue
                if b.state == "closed":
                    permit.success()
                    return
                with permit:
                    out, probed = out + 1, probed + 1
                    most = max(most, out)
                    try:
                        await asyncio.sleep(0 if number >= 100 else 3600)
                    finally:
                        out -= 1
                    permit.success()
                    return

        tasks = [asyncio.create_task(call(number)) for number in range(200)]
        for doomed in tasks[:100]:
            await asyncio.sleep(0)
            doomed.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True] * 100 + [False] * 100
        assert most == 1
        assert probed > 1, "at least one probe was cancelled"
        assert b.state == "closed"

    def test_calls_from_before_a_fork_are_forgotten(self) -> None:
        """Their verdicts belong to the parent, the failures that it has seen to both."""
        b = bench()
        parents = b.breaker.admit()
        b.fail(2)
        b.breaker.renew_lock()
        parents.failure("503")
        assert b.state == "closed"
        b.fail()
        assert b.state == "open"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_renews_it(self) -> None:
        """Though another thread of the parent holds the lock and the probe, the child can probe; the state stays."""
        b = bench()
        parents = b.half_open()
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with b.breaker._lock, b.breaker._window.circuit._lock:
                held.set()
                release.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what this is about
            child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                b.breaker.renew_lock()
                right = b.state == "half-open"
                parents.success()
                right = right and b.state == "half-open"
                b.breaker.admit().success()
                status = 0 if right and b.state == "closed" else 2
            finally:
                os._exit(status)
        release.set()
        holder.join()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        parents.success()
        assert b.state == "closed"


@dataclass
class Call:
    """A permit as the model sees it."""

    permit: Permit
    era: int
    lease_ends: float
    settled: bool = False


class BreakerModel(RuleBasedStateMachine):
    """Any order of calls, verdicts, time and commands, against the rules written down a second time."""

    @initialize(
        consecutive=st.integers(1, 3),
        probes=st.integers(1, 3),
        wanted=st.integers(1, 2),
        luck=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    )
    def begin(self, consecutive: int, probes: int, wanted: int, luck: list[float]) -> None:
        self.options = BreakerOptions(
            consecutive_failures=consecutive,
            probes=probes,
            successes_to_close=wanted,
            minimum_throughput=10**6,
            probe_lease=20.0,
        )
        self.clock = ManualClock()
        self.told: list[Event] = []
        drawn = 0

        def jitter(low: float, high: float) -> float:
            nonlocal drawn
            drawn += 1
            return low + luck[drawn % len(luck)] * (high - low)

        self.breaker = Breaker(
            Dependency(target="x"), self.options, clock=self.clock, jitter=jitter, tell=self.told.append
        )
        self.calls: list[Call] = []
        self.clear()
        self.era = 0

    def clear(self) -> None:
        self.state = "closed"
        self.row = self.successes = 0
        self.failed_at = -math.inf
        self.break_ends = -math.inf
        self.opened_at = -math.inf

    def out(self) -> list[Call]:
        """The probes that hold a permit now."""
        now = self.clock.now
        return [c for c in self.calls if c.era == self.era and not c.settled and c.lease_ends > now]

    def admissible(self) -> bool:
        if self.state == "isolated":
            return False
        if self.state == "closed":
            return True
        rested = self.clock.now >= max(self.break_ends, self.failed_at + 5.0)
        return rested and (self.state == "open" or len(self.out()) < self.options.probes)

    def opened(self) -> None:
        self.state = "open"
        self.era += 1
        self.opened_at = self.clock.now
        retry_at = self.breaker.retry_at
        assert retry_at is not None
        assert self.opened_at + 5.0 <= retry_at <= self.opened_at + self.options.longest_break + 1e-9
        self.break_ends = retry_at

    @rule(seconds=st.one_of(st.floats(0, 12), st.sampled_from([4.999, 5.0, 20.0, 70.0])))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.state in ("open", "half-open"))
    @rule()
    def advance_to_the_end(self) -> None:
        retry_at = self.breaker.retry_at
        assert retry_at is not None
        self.clock.now = max(self.clock.now, retry_at)
        assert self.admissible()

    @rule()
    def admit(self) -> None:
        expected = self.admissible()
        answer = ask(self.breaker)
        assert isinstance(answer, Permit) == expected
        if isinstance(answer, CircuitOpen):
            assert (answer.retry_after is None) == (self.state == "isolated")
            return
        if self.state == "open":
            self.state, self.era, self.successes = "half-open", self.era + 1, 0
        lease = math.inf if self.state == "closed" else self.clock.now + self.options.probe_lease
        self.calls.append(Call(answer, self.era, lease))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), verdict=st.sampled_from(["success", "failure", "none", "exit"]))
    def settle(self, data: st.DataObject, verdict: str) -> None:
        call = data.draw(st.sampled_from(self.calls))
        counts = call in self.out()
        if verdict == "exit":
            call.permit.__exit__(None, None, None)
        elif verdict == "failure":
            call.permit.failure("503")
        else:
            getattr(call.permit, verdict)()
        if verdict == "failure" and not call.settled:
            self.failed_at = self.clock.now
        call.settled = True
        if not counts or verdict in ("none", "exit"):
            return
        if verdict == "success":
            self.row = 0
            self.successes += self.state == "half-open"
            if self.state == "half-open" and self.successes >= self.options.successes_to_close:
                self.state, self.era = "closed", self.era + 1
        else:
            self.row += 1
            if self.state == "half-open" or self.row >= self.options.consecutive_failures:
                self.row = 0
                self.opened()

    @rule()
    def hasten(self) -> None:
        self.breaker.hasten()
        if self.state == "open":
            now_ends = self.breaker.retry_at
            assert now_ends is not None
            assert now_ends <= max(self.break_ends, self.failed_at + 5.0)
            assert now_ends >= self.failed_at + 5.0
            if now_ends < self.break_ends:
                assert now_ends >= self.opened_at + self.options.urgent_break[0]
            assert now_ends <= max(self.opened_at + self.options.urgent_break[1], self.failed_at + 5.0)
            self.break_ends = min(self.break_ends, now_ends)
            self.breaker.hasten()
            assert self.breaker.retry_at == now_ends

    @rule()
    def relax(self) -> None:
        self.breaker.relax()

    @rule()
    def isolate(self) -> None:
        self.breaker.isolate()
        if self.state != "isolated":
            self.state, self.era = "isolated", self.era + 1

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.clear()
        self.era += 1

    @rule()
    def renew(self) -> None:
        self.breaker.renew_lock()
        self.era += 1

    @invariant()
    def it_is_as_the_rules_say(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.status().state == self.state
        if self.state == "half-open":
            assert len(self.out()) <= self.options.probes
            assert len(self.breaker._probes) <= self.options.probes
        else:
            assert not self.breaker._probes
        if self.admissible():
            self.breaker.check()
        else:
            with pytest.raises(CircuitOpen):
                self.breaker.check()
        if self.state == "open":
            assert self.breaker.retry_at == max(self.break_ends, self.failed_at + 5.0)
        openings = [e for e in self.told if isinstance(e, (BreakerOpened, BreakerHalfOpen, BreakerClosed))]
        for before, after in pairwise(openings):
            allowed = {
                BreakerOpened: (BreakerHalfOpen, BreakerClosed),
                BreakerHalfOpen: (BreakerOpened, BreakerClosed),
                BreakerClosed: (BreakerOpened,),
            }
            assert isinstance(after, allowed[type(before)])


BreakerModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestModel = BreakerModel.TestCase


class TestPybreaker:
    """Facts of pybreaker that the gate stands on."""

    class Storage(pybreaker.CircuitMemoryStorage):
        def __init__(self) -> None:
            super().__init__(pybreaker.STATE_CLOSED)
            self.heard: list[str] = []
            self.trips = False

        def increment_counter(self) -> None:
            self.heard.append("failure")

        def reset_counter(self) -> None:
            self.heard.append("success")

        @property
        def counter(self) -> int:
            return int(self.trips)

    def make(self) -> tuple[pybreaker.CircuitBreaker, TestPybreaker.Storage]:
        storage = self.Storage()
        return pybreaker.CircuitBreaker(fail_max=1, state_storage=storage, throw_new_error_on_trip=False), storage

    def replay_failure(self, circuit: pybreaker.CircuitBreaker) -> None:
        def fail() -> None:
            raise KeyError("503")

        with pytest.raises(KeyError, match="503"):
            circuit.call(fail)

    def test_a_storage_hears_each_outcome_and_its_counter_trips(self) -> None:
        """One `increment_counter` a failure, then `counter` is compared; one `reset_counter` a success."""
        circuit, storage = self.make()
        self.replay_failure(circuit)
        circuit.call(lambda: None)
        assert storage.heard == ["failure", "success"]
        assert circuit.current_state == "closed"
        storage.trips = True
        self.replay_failure(circuit)
        assert circuit.current_state == "open"

    def test_half_open_a_failure_opens_whatever_the_counter_says(self) -> None:
        """The storage isn't asked."""
        circuit, _ = self.make()
        circuit.half_open()
        self.replay_failure(circuit)
        assert circuit.current_state == "open"

    def test_half_open_so_many_successes_close(self) -> None:
        """They are counted anew each time that it opens half."""
        circuit = pybreaker.CircuitBreaker(fail_max=1, success_threshold=2, throw_new_error_on_trip=False)
        for _ in range(2):
            circuit.half_open()
            circuit.call(lambda: None)
            assert circuit.current_state == "half-open"
            self.replay_failure(circuit)
        circuit.half_open()
        circuit.call(lambda: None)
        circuit.call(lambda: None)
        assert circuit.current_state == "closed"

    def test_closing_resets_the_counter_once_more(self) -> None:
        """Which is why the window is emptied after it."""
        circuit, storage = self.make()
        circuit.open()
        storage.heard.clear()
        circuit.close()
        assert storage.heard == ["success"]

    def test_a_new_breaker_takes_over_a_storage_as_it_is(self) -> None:
        """State and counts stay: a forked child relies on that."""
        for state in ("closed", "open", "half-open"):
            _, storage = self.make()
            storage.state = state
            circuit = pybreaker.CircuitBreaker(state_storage=storage)
            assert circuit.current_state == circuit.state.name == state
            assert storage.heard == []
