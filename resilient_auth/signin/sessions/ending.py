"""Ends that hold in this process at once, and are written when the store works again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Final

import cachetools

from ..._engine.threads import submit
from ..._engine.timers import timers_of
from ..._process import forks
from ...clock import Clock
from ...errors import Overloaded, StoreUnavailable
from .record import Session, names_of

__all__ = ["SKEW", "PendingEnds"]

#: Ends that wait for a store at the same time; further ones take the place of the oldest. Those that anybody may ask
#: for take none of the others'.
_MOST, _MOST_UNPROVED = 10_000, 1_000
#: Why an end can't be written though others can: a newer release has written its list, or others do all the time.
_OF_ONE_RECORD: Final = frozenset({"busy", "newer_schema"})
#: Seconds between two tries.
_EVERY: Final = 0.5
#: Seconds by which the clocks of two machines may differ: what began so shortly after an end may have begun before it.
SKEW: Final = 5.0


class PendingEnds:
    """Hold what was ended until the store has it.

    Args:
        clock: Gives the time.
        write: Ends in the store what is on all of these lists, or a session by its id; given when that was,
            by when what it ends had begun, and whether who said so has proved it.
        life: Seconds after which one is no longer needed: what it ends is over by itself.
    """

    def __init__(
        self, clock: Clock, write: Callable[[tuple[str, ...], float, float, bool], object], life: float
    ) -> None:
        self._clock = clock
        self._write = write
        self._life = life
        self._pending: cachetools.LRUCache[tuple[str, ...], float] = cachetools.LRUCache(_MOST)
        self._unproved: cachetools.LRUCache[tuple[str, ...], float] = cachetools.LRUCache(_MOST_UNPROVED)
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child; the parent, which may be amid a change, writes what it has to."""
        self._lock, self._trying = threading.Lock(), False
        self._pending, self._unproved = forks.rebuilt(self._pending), forks.rebuilt(self._unproved)

    def cover(self, session: Session) -> bool:
        """Return whether a session is one of those that were ended."""
        if not self._pending and not self._unproved:
            return False
        names, own, now = {*names_of(session.who), session.id}, (session.id,), self._clock.wall()
        with self._lock:
            # Whatever clock it was begun by: who ends a session by its id means that one.
            return any(
                names.issuperset(wanted) and (wanted == own or session.begun_by(at + SKEW, now))
                for pending in (self._pending, self._unproved)
                for wanted, at in pending.items()
            )

    @contextmanager
    def until_done(self, *names: str, begun_by: float = inf, proved: bool = True) -> Iterator[float]:
        """Have an end hold here from now on; where the block fails for the store's sake, it is tried again.

        Args:
            names: The lists on all of which those are that it ends, or a session's id.
            begun_by: What began later than that isn't meant.
            proved: Whether who said so has proved it.
        """
        at, pending = min(self._clock.wall(), begun_by), self._pending if proved else self._unproved
        with self._lock:
            # What ends more includes what ends less.
            at = pending[names] = max(at, pending.get(names, 0.0))
        try:
            yield at
        except StoreUnavailable:
            self._again()
            raise
        with self._lock:
            if pending.get(names) == at:
                del pending[names]

    def soon(self, name: str) -> None:
        """Have the end of a session hold here from now on; it is written on another thread."""
        with self._lock:
            self._pending[name,] = self._clock.wall()
        self._begin()

    def _again(self) -> None:
        with self._lock:
            if self._trying:
                return
            self._trying = True
        timers_of(self._clock).call_at(self._clock.monotonic() + _EVERY, self._begin)

    def _begin(self) -> None:
        try:
            submit("sessions", self._try)
        except Overloaded:
            with self._lock:
                self._trying = False
            self._again()

    def _try(self) -> None:
        with self._lock:
            kinds = (self._pending, True), (self._unproved, False)
            waiting = [(pending, names, at, proved) for pending, proved in kinds for names, at in pending.items()]
            self._trying = False
        for pending, names, at, proved in waiting:
            if self._clock.wall() - at < self._life:
                try:
                    self._write(names, at, at + SKEW, proved)
                except StoreUnavailable as error:
                    self._again()
                    if error.reason in _OF_ONE_RECORD:
                        continue  # it holds up no other end
                    return
            with self._lock, suppress(KeyError):
                if pending[names] == at:
                    del pending[names]
