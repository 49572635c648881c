"""A breaker on a monotonic clock that is set back, as when a machine is restored from its image."""

from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.breaker import Breaker, BreakerOptions, Dependency
from resilient_auth.errors import CircuitOpen
from resilient_auth.testing import no_jitter


class BareClock:
    def __init__(self) -> None:
        self.now = 10_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        raise AssertionError("a breaker never waits")


def opened() -> tuple[Breaker, BareClock]:
    clock = BareClock()
    host = Dependency(target="host")
    breaker = Breaker(host, BreakerOptions(), clock=clock, jitter=no_jitter, tell=lambda event: None)
    for _ in range(3):
        breaker.admit().failure("503")
    assert breaker.status().state == "open"
    return breaker, clock


@pytest.mark.parametrize("back", [0.5, 60.0, 9_999.0])
def test_a_break_ends_when_it_would_have(back: float) -> None:
    """Not as much later as the clock was set back."""
    breaker, clock = opened()
    clock.now += 4.0
    with pytest.raises(CircuitOpen) as refused:
        breaker.check()
    clock.now -= back
    with pytest.raises(CircuitOpen) as again:
        breaker.check()
    assert again.value.retry_after == pytest.approx(refused.value.retry_after)
    assert breaker.failing()[1] == pytest.approx(4.0)
    clock.now += 6.1
    breaker.admit().success()
    assert breaker.status().state == "closed"


def test_a_probe_that_is_out_is_given_up_in_time() -> None:
    """Its lease goes back with the clock."""
    breaker, clock = opened()
    clock.now += 11.0
    breaker.admit()
    clock.now -= 5_000.0
    with pytest.raises(CircuitOpen):
        breaker.check()
    clock.now += 30.1
    breaker.admit().success()
    assert breaker.status().state == "closed"


@given(st.lists(st.floats(-5_000, 120), min_size=1, max_size=20))
def test_no_steps_keep_it_open_for_ever(steps: list[float]) -> None:
    """However the clock jumps, nobody is told to wait for more than the longest break."""
    breaker, clock = opened()
    for step in steps:
        clock.now += step
        with contextlib.suppress(CircuitOpen):
            breaker.admit().failure("503")
        left = breaker.status().retry_after
        assert left is not None
        assert 0 <= left <= BreakerOptions().longest_break


def test_when_it_opens_is_told_by_the_clock_as_it_is_now() -> None:
    """And since when it stands so, by the wall's."""
    breaker, clock = opened()
    began = clock.wall()
    ahead = (breaker.retry_at or 0.0) - clock.now
    clock.now += 3.0
    assert breaker.status().since == pytest.approx(began, abs=0.01)
    clock.now -= 5_000.0
    assert (breaker.retry_at or 0.0) - clock.now == pytest.approx(ahead - 3.0)


def test_who_has_failed_is_told_when_they_are_let_through() -> None:
    """While others wait: after these, and not later than that."""
    clock = BareClock()
    options = BreakerOptions(consecutive_failures=1)
    breaker = Breaker(Dependency(target="h"), options, clock=clock, jitter=no_jitter, tell=lambda event: None)
    breaker.admit("ada").failure("503")
    with pytest.raises(CircuitOpen):
        breaker.check("bob")
    with pytest.raises(CircuitOpen) as refused:
        breaker.check("ada")
    clock.now += (refused.value.retry_after or 0.0) - 0.1
    with pytest.raises(CircuitOpen):
        breaker.check("ada")
    clock.now += 0.2
    breaker.check("ada")
