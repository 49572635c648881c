"""What is counted in this process, until somebody reads it: a few nanoseconds to a microsecond each."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator

from .._process.observing import Count
from .metrics import METRICS, MOST_SERIES, folded

__all__ = ["BOUNDS", "Labels", "Summed", "Tally"]

#: Upper bounds of the buckets in seconds: those of the semantic conventions for durations, and longer ones for lives.
BOUNDS: tuple[float, ...] = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0),
)

#: What goes up and down as callers come and go.
_GAUGES = frozenset(metric.name for metric in METRICS.values() if metric.kind == "gauge")

#: The values of a metric's labels, in its order; "" where one is absent.
Labels = tuple[str, ...]


class Summed:
    """A histogram's buckets."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        #: How many were at most each bound and above the one before; the last one has no bound.
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0


class Tally:
    """Count and sum. Its lock is held for a few instructions.

    It may be taken again by who holds it: a signal's handler or a finaliser, amid these, that has something counted.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, Count]] = {}
        self._summed: dict[str, dict[Labels, Summed]] = {}
        self._lock = threading.RLock()

    def counter(self, name: str, labels: Labels) -> Count:
        """Return the number of a counter or a gauge, to be added to without a lock."""
        with self._lock:
            kept = self._counts.setdefault(name, {})
            labels = _bounded(name, kept, labels)
            return kept.setdefault(labels, Count())

    def add(self, name: str, labels: Labels, number: int = 1) -> None:
        """Add to a counter or a gauge."""
        self.counter(name, labels).count += number

    def record(self, name: str, labels: Labels, value: float) -> None:
        """Note one of a histogram's values."""
        with self._lock:
            kept = self._summed.setdefault(name, {})
            labels = _bounded(name, kept, labels)
            summed = kept.setdefault(labels, Summed())
            summed.buckets[bisect_left(BOUNDS, value)] += 1
            summed.total += value

    def counts(self, name: str) -> Iterator[tuple[Labels, int]]:
        """Return a counter's numbers."""
        with self._lock:
            found = list(self._counts.get(name, {}).items())
        return ((labels, number.count) for labels, number in found)

    def summed(self, name: str) -> list[tuple[Labels, list[int], float]]:
        """Return a histogram's buckets and sums."""
        with self._lock:
            return [(labels, list(one.buckets), one.total) for labels, one in self._summed.get(name, {}).items()]

    def begin_anew(self) -> None:
        """Count from nothing, also in a forked child, where whoever counts there holds the same numbers."""
        self._lock = threading.RLock()
        for kept in list(self._counts.values()):
            for number in list(kept.values()):
                number.count = 0
        # Who waits goes on to count down the number that it counted up, which is nobody's any more.
        self._counts = {name: dict(kept) for name, kept in list(self._counts.items()) if name not in _GAUGES}
        self._summed = {}


def _bounded(name: str, kept: dict[Labels, Count] | dict[Labels, Summed], labels: Labels) -> Labels:
    return labels if labels in kept or len(kept) < MOST_SERIES else folded(name, labels)
