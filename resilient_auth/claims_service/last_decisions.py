"""The last decisions of a service, for the time in which it can't be asked.

A kept yes is found for the same subject and the same question alone, for a bounded time, and never after the service
said no to that subject: neither to this question nor to another one, nor in a call that was under way meanwhile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

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


class LastDecisions:
    """Keep up to `most` decisions, each for `longest_age` seconds.

    Args:
        most: How many, at most; the least recently used go first.
        longest_age: Seconds.
        now: A monotonic clock.
    """

    def __init__(self, most: int, longest_age: float, now: Callable[[], float]) -> None:
        self._most = most
        self._longest_age = longest_age
        self._now = now
        self.after_fork()
        self._place = 0
        # Each change of these is whole, and what is over goes last: a fork may come between any two steps.
        self._kept: OrderedDict[tuple[bytes, bytes], _Kept] = OrderedDict()
        #: When each subject was refused last, in that order; one that goes in its time counts for everybody.
        self._refusals: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._everybody = 0
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
            self._kept.move_to_end((subject, question))
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def refuse(self, subject: bytes) -> None:
        """Note that the service refused a subject without a decision."""
        with self._lock:
            self._refuse(subject)

    def find(self, subject: bytes, question: bytes) -> tuple[Decision, float] | None:
        """Find what was last decided about a subject by the same question, and its age in seconds."""
        with self._lock:
            kept = self._kept.get((subject, question))
            if kept is None:
                return None
            age = self._now() - kept.at
            if age > self._longest_age or (kept.decision.allowed and kept.began <= self._refused(subject)):
                del self._kept[subject, question]
                return None
            self._kept.move_to_end((subject, question))
            return kept.decision, age

    def _refuse(self, subject: bytes) -> None:
        self._place += 1
        now = self._now()
        self._refusals[subject] = (self._place, now)
        self._refusals.move_to_end(subject)
        while len(self._refusals) > self._most:
            first, (place, at) = next(iter(self._refusals.items()))
            # Longer than a yes is kept, by as long as a call may take: one that began before may end after.
            if now - at <= self._longest_age + _LONGEST_CALL:
                self._everybody = place
            del self._refusals[first]

    def _refused(self, subject: bytes) -> int:
        place, _ = self._refusals.get(subject, (0, 0.0))
        return max(place, self._everybody)
