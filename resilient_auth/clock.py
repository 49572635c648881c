"""Time and randomness as values, so that every rule can be tested on a clock that stands still."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Jitter", "SystemClock", "system_jitter"]


class Clock(Protocol):
    """Tell the time in both of the ways that tokens need."""

    @property
    def wall(self) -> Callable[[], float]:
        """Read seconds since the epoch: what `exp` and `Retry-After` dates mean. It can jump."""
        ...

    @property
    def monotonic(self) -> Callable[[], float]:
        """Read seconds that only ever grow, and grow while the machine is suspended where the system can tell."""
        ...

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        """Wait on a condition that the caller holds, for at most `timeout` seconds of this clock.

        Returns False when the time ran out. May return early: callers re-check what they wait for.
        """
        ...


Jitter = Callable[[float, float], float]
"""Pick a number between two bounds; the system's is uniform."""


class SystemClock:
    """The machine's own clocks."""

    # A suspended laptop's monotonic clock stands still on Linux while its tokens age; the boot clock doesn't.
    wall: Callable[[], float] = staticmethod(time.time)
    monotonic: Callable[[], float] = staticmethod(
        functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic
    )

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        """Wait on a condition that the caller holds."""
        return condition.wait(timeout)


# Processes that were started or forked at the same instant must not share a sequence.
_random = random.SystemRandom()


def system_jitter(low: float, high: float) -> float:
    """Pick uniformly between `low` and `high`, independently in every process."""
    return _random.uniform(low, high)
