"""The last decisions of a service, for the time in which it can't be asked.

A kept yes is found for the same subject and the same question alone, for a bounded time, and never after the service
said no to that subject: neither to this question nor to another one, nor in a call that was under way meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import cachetools

from .._process import forks
from .decision import Decision

__all__ = ["LastDecisions"]

#: Seconds: no deadline is longer.
_LONGEST_CALL = 3600.0


class _Kept(NamedTuple):
    decision: Decision
    #: On the monotonic clock.
    at: float
    #: The place of its call in the order of calls.
    began: int


class _Refusals(cachetools.LRUCache[bytes, tuple[int, float]]):
    """When each subject was last refused; one that is evicted in its time counts for everybody from then on."""

    def __init__(self, most: int, is_over: Callable[[float], bool]) -> None:
        super().__init__(most)
        self._is_over = is_over
        self.everybody = 0

    def popitem(self) -> tuple[bytes, tuple[int, float]]:
        subject, (place, at) = super().popitem()
        if not self._is_over(at):
            self.everybody = max(self.everybody, place)
        return subject, (place, at)


class LastDecisions:
    """Keep up to `most` decisions, each for `longest_age` seconds.

    Args:
        most: How many, at most; the least recently used go first.
        longest_age: Seconds.
        now: A monotonic clock.
    """

    def __init__(self, most: int, longest_age: float, now: Callable[[], float]) -> None:
        self._longest_age = longest_age
        self._now = now
        self.after_fork()
        self._place = 0
        self._kept: cachetools.LRUCache[tuple[bytes, bytes], _Kept] = cachetools.LRUCache(most)
        # Longer than a yes is kept, by as long as a call may take: one that began before may end after.
        self._refusals = _Refusals(most, lambda at: now() - at > longest_age + _LONGEST_CALL)
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of one's own."""
        self._lock = threading.Lock()

    def begin(self) -> int:
        """Note that a call begins; returns its place in the order of calls."""
        with self._lock:
            self._place += 1
            return self._place

    def keep(self, subject: bytes, question: bytes, decision: Decision, began: int) -> None:
        """Keep what the service said in a call that began at `began`."""
        with self._lock:
            if not decision.allowed:
                self._refuse(subject)
            elif began <= self._refused(subject):
                return
            self._kept[subject, question] = _Kept(decision, self._now(), began)

    def refuse(self, subject: bytes) -> None:
        """Note that the service refused a subject without a decision."""
        with self._lock:
            self._refuse(subject)

    def find(self, subject: bytes, question: bytes) -> tuple[Decision, float] | None:
        """Find what was last decided about a subject by the same question, and its age in seconds."""
        with self._lock:
            kept: _Kept | None = self._kept.get((subject, question))
            if kept is None:
                return None
            age = self._now() - kept.at
            if age > self._longest_age or (kept.decision.allowed and kept.began <= self._refused(subject)):
                del self._kept[subject, question]
                return None
            return kept.decision, age

    def _refuse(self, subject: bytes) -> None:
        self._place += 1
        self._refusals[subject] = (self._place, self._now())

    def _refused(self, subject: bytes) -> int:
        place, _ = self._refusals.get(subject, (0, 0.0))
        return max(int(place), self._refusals.everybody)
