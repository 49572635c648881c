"""Calls to come: one thread for all of them, which lives while there are any."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from flow_bench import until

from resilient_auth._engine.timers import Timers
from resilient_auth.clock import SystemClock
from resilient_auth.testing import ManualClock


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resilient-auth-timers"]


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.done: list[object] = []

    def call_in(self, seconds: float, name: object) -> object:
        return self.timers.call_at(self.clock.monotonic() + seconds, lambda: self.done.append(name))


def test_calls_come_in_the_order_of_their_times() -> None:
    """Whatever the order in which they were asked for."""
    rig = Rig()
    for seconds in (30, 10, 20, 10.5):
        rig.call_in(seconds, seconds)
    rig.clock.advance(9.9)
    time.sleep(0.06)
    assert rig.done == []
    rig.clock.advance(0.2)
    until(lambda: rig.done == [10])
    rig.clock.advance(100)
    until(lambda: rig.done == [10, 10.5, 20, 30])


def test_one_asked_for_later_may_come_sooner() -> None:
    """The thread that waits for the first is woken."""
    rig = Rig()
    rig.call_in(3600, "late")
    until(lambda: threads())
    rig.call_in(5, "soon")
    rig.clock.advance(5.1)
    until(lambda: rig.done == ["soon"])
    rig.clock.advance(3600)
    until(lambda: rig.done == ["soon", "late"])


def test_a_time_that_has_passed_means_now() -> None:
    """As soon as the thread gets to it."""
    rig = Rig()
    rig.call_in(-100, "past")
    until(lambda: rig.done == ["past"])


def test_one_that_is_cancelled_doesnt_come() -> None:
    """And cancelling it again, or after it came, is harmless."""
    rig = Rig()
    cancelled = rig.timers.call_at(rig.clock.monotonic() + 1, lambda: rig.done.append("cancelled"))
    kept = rig.timers.call_at(rig.clock.monotonic() + 2, lambda: rig.done.append("kept"))
    assert cancelled.pending
    cancelled.cancel()
    cancelled.cancel()
    assert not cancelled.pending
    rig.clock.advance(3)
    until(lambda: rig.done == ["kept"])
    assert not kept.pending
    kept.cancel()


def test_one_that_raises_doesnt_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""
    rig = Rig()

    def bad() -> None:
        raise ValueError("a timer's own")

    with caplog.at_level(logging.ERROR, "resilient_auth"):
        rig.timers.call_at(rig.clock.monotonic() + 1, bad)
        rig.call_in(2, "fine")
        rig.clock.advance(3)
        until(lambda: rig.done == ["fine"])
    assert "A timer failed" in caplog.text


def test_all_share_one_thread_which_ends_with_them() -> None:
    """And it comes again when needed."""
    rig = Rig()
    before = set(threads())
    for _ in range(2):
        for n in range(50):
            rig.call_in(n, n)
        assert len(set(threads()) - before) == 1
        rig.clock.advance(60)
        until(lambda: len(rig.done) == 50)
        until(lambda: not set(threads()) - before)
        rig.done.clear()


def test_a_timer_may_ask_for_another() -> None:
    """From within its own call."""
    rig = Rig()
    rig.timers.call_at(rig.clock.monotonic() + 1, lambda: rig.call_in(1, "second"))  # type: ignore[arg-type,return-value]
    rig.clock.advance(1.1)
    time.sleep(0.06)
    rig.clock.advance(1.1)
    until(lambda: rig.done == ["second"])


def test_on_the_machines_clock() -> None:
    """A tenth of a second is one."""
    clock, done = SystemClock(), threading.Event()
    began = clock.monotonic()
    Timers(clock).call_at(began + 0.1, done.set)
    assert done.wait(5.0)
    assert clock.monotonic() - began >= 0.1


def test_a_wall_clock_that_jumps_moves_no_timer() -> None:
    """Timers go by the monotonic one."""
    rig = Rig()
    rig.call_in(100, "x")
    rig.clock.jump(10_000)
    time.sleep(0.06)
    assert rig.done == []
    rig.clock.jump(-20_000)
    rig.clock.advance(101)
    until(lambda: rig.done == ["x"])


class RestoredClock(ManualClock):
    """A clock that can be set back on both sides, as when a machine is restored from its image."""

    def set_back(self, seconds: float) -> None:
        self._monotonic -= seconds
        self._wall -= seconds
        self._wake()


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    """What was to come in a minute comes in a minute, and in its order."""
    rig = Rig()
    rig.clock = RestoredClock()
    rig.timers = Timers(rig.clock)
    rig.call_in(60, "first")
    rig.call_in(90, "second")
    rig.clock.advance(1)
    time.sleep(0.15)
    rig.clock.set_back(900)
    time.sleep(0.15)
    rig.call_in(70, "between")
    rig.clock.advance(58.5)
    time.sleep(0.15)
    assert rig.done == []
    rig.clock.advance(1)
    until(lambda: rig.done == ["first"])
    rig.clock.advance(30)
    until(lambda: rig.done == ["first", "between", "second"])
