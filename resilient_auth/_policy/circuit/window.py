"""What pybreaker decides by, in a module of its own: it loads redis' clients where they are installed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

import pybreaker

from .options import BreakerOptions

__all__ = ["Window"]

#: The failure window moves on in steps of this share of it.
_SLICES = 10


class _ReplayedError(Exception):
    """A failure, replayed."""


def _fail() -> None:
    raise _ReplayedError


class Window(pybreaker.CircuitMemoryStorage):
    """Make pybreaker, which knows failures in a row alone, see the failure rate too.

    In the rate there is only what anybody would have seen fail: one of many that now fails and now succeeds isn't.

    Its `counter` reads 1 when either limit is reached: the breaker that uses it has a `fail_max` of 1.
    """

    def __init__(self, options: BreakerOptions, now: Callable[[], float]) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self._options = options
        self._now = now
        self._pace = _SLICES / options.window
        #: Whether the failure that comes belongs to the rate.
        self.rated = True
        self._in_a_row = 0
        #: [number of the slice, verdicts, failures], oldest first.
        self._slices: deque[list[int]] = deque()

    def renew_lock(self) -> None:
        """Take a breaker of pybreaker's anew: a forked child hasn't got the thread that may hold the lock of the one.

        State and counts are in the window.
        """
        self.circuit = pybreaker.CircuitBreaker(
            fail_max=1,
            success_threshold=self._options.successes_to_close,
            state_storage=self,
            throw_new_error_on_trip=False,
        )

    def succeeded(self) -> None:
        """Replay a success through pybreaker, which may close."""
        self.circuit.call(lambda: None)

    def failed(self) -> None:
        """Replay a failure through pybreaker, which may open."""
        with suppress(_ReplayedError):
            self.circuit.call(_fail)

    def forget(self) -> None:
        """Begin with an empty window."""
        self._in_a_row = 0
        self._slices = deque()

    def begin_anew(self) -> None:
        """Forget when what was seen, and keep the failures in a row."""
        self._slices = deque()

    def _slice(self) -> list[int]:
        number = int(self._now() * self._pace)
        slices = self._slices
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] <= number - _SLICES:
                slices.popleft()
        return slices[-1]

    def increment_counter(self) -> None:
        """Note a failure: pybreaker calls this for each."""
        self._in_a_row += 1
        if self.rated:
            current = self._slice()
            current[1] += 1
            current[2] += 1

    def reset_counter(self) -> None:
        """Note a success: pybreaker calls this for each, and once more when it closes."""
        self._in_a_row = 0
        self._slice()[1] += 1

    @property
    def counter(self) -> int:
        """Tell pybreaker whether there are too many failures, as 1 or 0."""
        options = self._options
        verdicts = sum(s[1] for s in self._slices)
        failures = sum(s[2] for s in self._slices)
        return int(
            self._in_a_row >= options.consecutive_failures
            # Divided, not multiplied: a quotient of whole numbers is the float that the owner wrote, where it is equal.
            or (verdicts >= options.minimum_throughput and failures / verdicts >= options.failure_rate)
        )
