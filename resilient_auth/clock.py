"""Time and randomness as values, so that every rule can be tested on a clock that stands still."""

from __future__ import annotations

import functools
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Jitter", "SystemClock", "system_jitter"]


class Clock(Protocol):
    """The time, in both of the ways that tokens need."""

    @property
    def wall(self) -> Callable[[], float]:
        """Read seconds since the epoch: what `exp` and `Retry-After` dates mean. It can jump."""
        ...

    @property
    def monotonic(self) -> Callable[[], float]:
        """Read seconds that only ever grow, and grow while the machine is suspended: tokens age by them."""
        ...

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        """Wait on a condition that the caller holds, for at most `timeout` seconds of this clock.

        Returns False when the time ran out. May return early: callers re-check what they wait for.
        """
        ...


Jitter = Callable[[float, float], float]
"""Pick a number between two bounds; the system's is uniform."""


def _counting_sleep() -> Callable[[], float]:
    # Python's monotonic clock stands still on Linux and macOS while the machine is suspended and its tokens age. On
    # Windows it doesn't. Elsewhere there is no other.
    name = "CLOCK_MONOTONIC_RAW" if sys.platform == "darwin" else "CLOCK_BOOTTIME"
    clock: int | None = getattr(time, name, None)
    return time.monotonic if clock is None else functools.partial(time.clock_gettime, clock)


class SystemClock:
    """The machine's own clocks."""

    wall: Callable[[], float] = staticmethod(time.time)
    monotonic: Callable[[], float] = staticmethod(_counting_sleep())

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        """Wait on a condition that the caller holds."""
        return condition.wait(timeout)


# Processes that were started or forked at the same instant must not share a sequence.
_random = random.SystemRandom()


def system_jitter(low: float, high: float) -> float:
    """Pick uniformly between `low` and `high`, independently in every process."""
    return _random.uniform(low, high)
