"""What users' own tests are given: a clock that moves when told, captured events, the emulator."""

from __future__ import annotations

import threading
import time

import pytest

from resilient_auth.emulator import Emulator
from resilient_auth.events import BreakerHalfOpen, BreakerOpened, emit
from resilient_auth.testing import ManualClock, capture_events, identity_provider, no_jitter

__all__ = ["identity_provider"]


class TestManualClock:
    def test_it_stands_still(self) -> None:
        """Until it is told to move."""
        clock = ManualClock(1_700_000_000.0)
        first = clock.wall(), clock.monotonic()
        time.sleep(0.01)
        assert (clock.wall(), clock.monotonic()) == first

    def test_it_starts_now_by_default(self) -> None:
        """MSAL's own cache knows no other time."""
        assert abs(ManualClock().wall() - time.time()) < 5.0

    def test_advance_moves_both_sides(self) -> None:
        """Time passes."""
        clock = ManualClock(1_700_000_000.0)
        before = clock.monotonic()
        clock.advance(12.5)
        assert clock.wall() == 1_700_000_012.5
        assert clock.monotonic() == before + 12.5

    @pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
    def test_jump_moves_the_wall_alone(self, seconds: float) -> None:
        """Somebody sets the clock, either way."""
        clock = ManualClock(1_700_000_000.0)
        before = clock.monotonic()
        clock.jump(seconds)
        assert clock.wall() == 1_700_000_000.0 + seconds
        assert clock.monotonic() == before

    def test_time_doesnt_pass_backwards(self) -> None:
        """The message says what to use instead."""
        with pytest.raises(ValueError, match="jump"):
            ManualClock().advance(-1)

    def test_waiting_ends_when_the_clock_has_moved_far_enough(self) -> None:
        """And not before."""
        clock, condition, done = ManualClock(), threading.Condition(threading.Lock()), threading.Event()
        ends = clock.monotonic() + 60.0

        def wait() -> None:
            with condition:
                while clock.monotonic() < ends:
                    clock.wait(condition, ends - clock.monotonic())
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        clock.advance(59.0)
        assert not done.wait(0.12)
        clock.advance(1.0)
        assert done.wait(5.0)
        thread.join()

    def test_waiting_ends_when_notified(self) -> None:
        """A wait without a limit needs no move of the clock."""
        clock, condition, told = ManualClock(), threading.Condition(threading.Lock()), []

        def wait() -> None:
            with condition:
                while not told:
                    clock.wait(condition, None)

        thread = threading.Thread(target=wait)
        thread.start()
        with condition:
            told.append(True)
            condition.notify_all()
        thread.join(5.0)
        assert not thread.is_alive()

    def test_a_wait_for_nothing_returns_at_once(self) -> None:
        """The time ran out."""
        clock, condition = ManualClock(), threading.Condition(threading.Lock())
        with condition:
            assert clock.wait(condition, 0.0) is False


def test_no_jitter_picks_the_middle() -> None:
    """Always."""
    assert no_jitter(-1.0, 1.0) == 0.0
    assert no_jitter(5.0, 10.0) == 7.5


class TestCapturedEvents:
    def test_events_are_captured_in_order_and_by_kind(self) -> None:
        """Only those that are told meanwhile."""
        emit(BreakerHalfOpen(at=0.0, name="before"))
        with capture_events() as events:
            for n in range(5):
                emit(BreakerHalfOpen(at=0.0, name=str(n)))
            emit(BreakerOpened(at=0.0, name="x", seconds=1.0, cause="503"))
            events.wait_for(BreakerOpened)
        assert [e.name for e in events.of(BreakerHalfOpen)] == list("01234")
        assert len(list(events)) == 6
        emit(BreakerHalfOpen(at=0.0, name="after"))
        time.sleep(0.02)
        assert len(list(events)) == 6

    def test_waiting_in_vain_says_what_was_missing(self) -> None:
        """How many of which kind."""
        with capture_events() as events, pytest.raises(AssertionError, match="0 of 2 BreakerOpened events"):
            events.wait_for(BreakerOpened, count=2, timeout=0.02)


def test_the_emulator_is_a_fixture(identity_provider: Emulator) -> None:
    """It is up when a test begins."""
    assert isinstance(identity_provider, Emulator)
