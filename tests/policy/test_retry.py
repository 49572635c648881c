"""When a failed attempt is made again, on a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.retry import Budget, RetryOptions, may_repeat, retrying
from resilient_auth.clock import Jitter
from resilient_auth.errors import (
    AttemptTimeout,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    MalformedAnswer,
    NameNotResolved,
    Overloaded,
    ProviderUnavailable,
    ServerFailed,
    Throttled,
    TLSFailed,
)
from resilient_auth.testing import ManualClock, no_jitter

LOW: Jitter = lambda low, high: low  # noqa: E731
HIGH: Jitter = lambda low, high: high  # noqa: E731
TRANSIENT = [ServerFailed, AttemptTimeout, ConnectionFailed, NameNotResolved, TLSFailed, MalformedAnswer]


@dataclass
class Run:
    """One exchange's attempts: what each ended with, and when it was made."""

    answers: list[BaseException | str]
    options: RetryOptions = field(default_factory=RetryOptions)
    deadline: float = 1e9
    replayable: bool = True
    budget: Budget = field(default_factory=lambda: Budget(20))
    refused: Callable[[], bool] = lambda: False
    jitter: Jitter = no_jitter
    clock: ManualClock = field(default_factory=lambda: ManualClock(0.0))
    attempts: int | None = None
    at: list[float] = field(default_factory=list)
    told: list[tuple[int, float, str]] = field(default_factory=list)

    def go(self) -> str:
        began = self.clock.monotonic()
        left = iter(self.answers)

        def attempt() -> str:
            self.at.append(self.clock.monotonic() - began)
            answer = next(left)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        controller = retrying(
            options=self.options,
            attempts=self.attempts or self.options.attempts,
            deadline=began + self.deadline,
            replayable=self.replayable,
            spend=self.budget.spend,
            refused=self.refused,
            clock=self.clock,
            jitter=self.jitter,
            sleep=self.clock.advance,
            before_sleep=lambda n, delay, error: self.told.append((n, delay, getattr(error, "code", ""))),
        )
        return str(controller(attempt))

    def fail(self) -> BaseException:
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            self.go()
        return caught.value


def never_sent() -> ConnectionFailed:
    error = ConnectionFailed("refused")
    error.sent = False
    return error


class TestDelays:
    @pytest.mark.parametrize("kind", TRANSIENT)
    @pytest.mark.parametrize("jitter", [LOW, HIGH, no_jitter])
    def test_the_first_retry_comes_no_sooner_than_5_s(self, kind: type[ProviderUnavailable], jitter: Jitter) -> None:
        """After a 5xx, a time-out or a broken connection alike (G9, G10)."""
        run = Run([kind("x"), "token"], jitter=jitter)
        assert run.go() == "token"
        assert 5.0 <= run.at[1] <= 10.0

    def test_delays_grow_with_full_jitter_above_the_first(self) -> None:
        """Twice the span each time, never over the longest delay."""
        run = Run([ServerFailed("x")] * 6, RetryOptions(attempts=6), jitter=HIGH)
        run.fail()
        assert run.at == [0.0, 10.0, 25.0, 50.0, 80.0, 110.0]
        run = Run([ServerFailed("x")] * 4, RetryOptions(attempts=4), jitter=LOW)
        run.fail()
        assert run.at == [0.0, 5.0, 10.0, 15.0]

    @pytest.mark.parametrize("kind", [Throttled, ServerFailed])
    @pytest.mark.parametrize("seconds", [2.0, 7.0, 40.0, 300.0])
    @pytest.mark.parametrize("jitter", [LOW, HIGH])
    def test_retry_after_is_honoured_and_never_undercut(
        self, kind: type[ProviderUnavailable], seconds: float, jitter: Jitter
    ) -> None:
        """What the provider asked for, up to three seconds more, also beyond our own longest delay (G8)."""
        run = Run([kind("x", retry_after=seconds), "token"], jitter=jitter)
        run.go()
        assert seconds <= run.at[1] <= seconds + 3.0

    @pytest.mark.parametrize("kind", [ServerFailed, Throttled])
    def test_a_retry_after_of_nothing_is_no_leave_to_hammer(self, kind: type[ProviderUnavailable]) -> None:
        """`Retry-After: 0` leaves no fast retry loop."""
        run = Run([kind("x", retry_after=0.0)] * 3, jitter=HIGH)
        run.fail()
        assert run.at[1] >= 1.0

    @given(
        errors=st.lists(
            st.builds(
                lambda kind, after: kind("x", retry_after=after),
                st.sampled_from([*TRANSIENT, Throttled]),
                st.none() | st.floats(1, 100),
            ),
            min_size=1,
            max_size=8,
        ),
        attempts=st.integers(1, 8),
        deadline=st.floats(0, 300),
        luck=st.floats(0, 1),
    )
    def test_no_order_of_failures_makes_it_hurry(
        self, errors: list[ProviderUnavailable], attempts: int, deadline: float, luck: float
    ) -> None:
        """Every gap keeps to Retry-After or to 5 s, and no attempt starts after the deadline."""
        run = Run(
            [*errors, *([ServerFailed("x")] * 8)],
            RetryOptions(attempts=attempts),
            deadline=deadline,
            jitter=lambda low, high: low + luck * (high - low),
        )
        run.fail()
        assert 1 <= len(run.at) <= attempts
        for n, error in enumerate(errors[: len(run.at) - 1]):
            wanted = 5.0 if error.retry_after is None else error.retry_after
            assert run.at[n + 1] - run.at[n] >= wanted - 1e-6
        assert run.at[-1] == 0.0 or run.at[-1] < deadline

    def test_each_wait_is_told_before_it(self) -> None:
        """With the attempt's number, the delay and the error."""
        run = Run([ServerFailed("x"), Throttled("y", retry_after=20.0), "token"], jitter=LOW)
        run.go()
        assert run.told == [(1, 5.0, "server_failed"), (2, 20.0, "throttled")]


class TestBounds:
    def test_the_last_error_is_raised_as_it_is(self) -> None:
        """Three attempts, then the third one's error and no wrapper around it."""
        last = ServerFailed("third")
        run = Run([ServerFailed("first"), AttemptTimeout("second"), last, "token"])
        assert run.fail() is last
        assert len(run.at) == 3

    def test_one_attempt_means_no_retry(self) -> None:
        """And no wait."""
        run = Run([ServerFailed("x"), "token"], RetryOptions(attempts=1))
        run.fail()
        assert run.at == [0.0]
        assert run.told == []

    @pytest.mark.parametrize(("deadline", "made"), [(4.9, 1), (5.0, 1), (5.1, 2), (9.9, 2), (10.1, 3)])
    def test_no_attempt_starts_at_or_after_the_deadline(self, deadline: float, made: int) -> None:
        """The wait for it is counted beforehand: nobody sleeps in vain."""
        run = Run([ServerFailed("x")] * 3, deadline=deadline, jitter=LOW)
        run.fail()
        assert len(run.at) == made
        assert run.clock.monotonic() - 1000.0 == run.at[-1]

    def test_a_retry_after_beyond_the_deadline_ends_it_at_once(self) -> None:
        """The caller learns it now, and not after a wait in vain."""
        run = Run([Throttled("x", retry_after=120.0), "token"], deadline=30.0)
        error = run.fail()
        assert isinstance(error, Throttled)
        assert error.retry_after == 120.0
        assert run.at == [0.0]

    def test_it_stops_when_the_next_attempt_would_be_refused(self) -> None:
        """Once the breaker has opened there is nothing to wait for."""
        open_after = iter([False, True])
        run = Run([ServerFailed("x")] * 9, RetryOptions(attempts=9), refused=lambda: next(open_after))
        run.fail()
        assert len(run.at) == 2

    @pytest.mark.parametrize(
        "error", [ValueError("x"), KeyboardInterrupt(), CircuitOpen("x", retry_after=1.0), Overloaded("x")]
    )
    def test_what_isnt_the_providers_failure_isnt_retried(self, error: BaseException) -> None:
        """A bug, an interrupt, an open breaker, a full queue."""
        run = Run([error, "token"])
        assert run.fail() is error
        assert run.at == [0.0]


class TestWithASpare:
    @pytest.mark.parametrize("error", [Throttled("x", retry_after=9.0), ServerFailed("x", retry_after=9.0)])
    def test_who_was_told_when_comes_back_later(self, error: ProviderUnavailable) -> None:
        """Apart from others who were told the same; who has nothing waits, and comes then."""
        assert not may_repeat(error, replayable=True, spare=True)
        assert may_repeat(error, replayable=True)
        assert may_repeat(ServerFailed("x"), replayable=True, spare=True)


class TestReplay:
    @pytest.mark.parametrize("kind", [ServerFailed, AttemptTimeout, ConnectionFailed, MalformedAnswer])
    def test_a_code_isnt_redeemed_twice_after_an_ambiguous_failure(self, kind: type[ProviderUnavailable]) -> None:
        """The provider may have taken it in."""
        run = Run([kind("x"), "token"], replayable=False)
        run.fail()
        assert run.at == [0.0]

    @pytest.mark.parametrize("make", [never_sent, lambda: Throttled("x", retry_after=3.0)])
    def test_a_code_is_sent_again_when_nothing_was_taken_in(self, make: Callable[[], ProviderUnavailable]) -> None:
        """The connection was never made, or the provider said that it didn't look."""
        run = Run([make(), "token"], replayable=False)
        assert run.go() == "token"

    def test_a_connection_counts_as_used_unless_said_otherwise(self) -> None:
        """Not knowing is the ambiguous case."""
        assert not may_repeat(ConnectionFailed("x"), replayable=False)
        assert may_repeat(never_sent(), replayable=False)


class TestBudget:
    def test_it_bounds_an_authoritys_retries(self) -> None:
        """Many exchanges at once make no more retries than there are."""
        budget = Budget(5)
        made = 0
        for _ in range(10):
            run = Run([ServerFailed("x")] * 3, budget=budget)
            run.fail()
            made += len(run.at) - 1
        assert made == 5

    def test_one_request_takes_its_share_alone(self) -> None:
        """A quarter of it, until it succeeds: what is left is the others'."""
        budget = Budget(20)
        assert [budget.spend("broken") for _ in range(7)] == [True] * 5 + [False] * 2
        assert all(budget.spend(f"other {n}") for n in range(15))
        assert not budget.spend("another")

    def test_a_request_that_succeeds_has_its_share_again(self) -> None:
        """As far as there is any left."""
        budget = Budget(20)
        while budget.spend("flapping"):
            pass
        budget.earn("flapping")
        assert budget.spend("flapping")

    def test_ten_successes_earn_one_retry(self) -> None:
        """And no more than it began with."""
        budget = Budget(1)
        assert budget.spend()
        assert not budget.spend()
        for _ in range(9):
            budget.earn()
        assert not budget.spend()
        budget.earn()
        assert budget.spend()
        assert not budget.spend()
        for _ in range(100):
            budget.earn()
        assert budget.spend()
        assert not budget.spend()

    def test_a_retry_that_isnt_made_costs_nothing(self) -> None:
        """The deadline, the attempts and the breaker are asked first."""
        budget = Budget(1)
        Run([ServerFailed("x")] * 3, RetryOptions(attempts=1), budget=budget).fail()
        Run([ServerFailed("x")] * 3, deadline=1.0, budget=budget).fail()
        Run([ServerFailed("x")] * 3, refused=lambda: True, budget=budget).fail()
        assert budget.spend()

    def test_a_budget_of_none_allows_none(self) -> None:
        """An owner may choose that nothing is retried."""
        run = Run([ServerFailed("x"), "token"], budget=Budget(0))
        run.fail()
        assert run.at == [0.0]

    def test_threads_cant_overdraw_it(self) -> None:
        """Sixteen threads get exactly what there is."""
        budget, spent, start = Budget(500), [0] * 16, threading.Barrier(16)

        def spend(me: int) -> None:
            start.wait()
            for _ in range(100):
                spent[me] += budget.spend()

        threads = [threading.Thread(target=spend, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(spent) == 500


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": 21}, "attempts"),
        ({"attempts": 2.0}, "attempts must be a whole number"),
        ({"attempts": True}, "attempts"),
        ({"first_delay": 4.9}, "first_delay must be from 5 to 600 s"),
        ({"first_delay": "5"}, "first_delay must be a number"),
        ({"longest_delay": 4.0}, "longest_delay"),
        ({"budget": -1}, "budget must be at least 0"),
        ({"first_delay": 40.0}, "first_delay of 40 s exceeds longest_delay of 30 s: lower the one or raise the other"),
    ],
)
def test_options_that_break_the_guidance_are_refused(options: dict[str, Any], told: str) -> None:
    """Under 5 s isn't to be had, and the message says what is."""
    with pytest.raises(ConfigurationError, match=told):
        RetryOptions(**options)
