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

#: Ends that wait for a store at the same time; further ones take the place of the oldest.
_MOST: Final = 10_000
#: Seconds between two tries.
_EVERY: Final = 0.5
#: Seconds by which the clocks of two machines may differ: what began so shortly after an end may have begun before it.
SKEW: Final = 5.0


class PendingEnds:
    """Hold what was ended until the store has it.

    Args:
        clock: Gives the time.
        write: Ends in the store what is on all of these lists, or a session by its id; given when that was,
            and by when what it ends had begun.
        life: Seconds after which one is no longer needed: what it ends is over by itself.
    """

    def __init__(self, clock: Clock, write: Callable[[tuple[str, ...], float, float], object], life: float) -> None:
        self._clock = clock
        self._write = write
        self._life = life
        self._pending: cachetools.LRUCache[tuple[str, ...], float] = cachetools.LRUCache(_MOST)
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child; the parent writes what it has to."""
        self._lock = threading.Lock()
        self._trying = False

    def cover(self, session: Session) -> bool:
        """Return whether a session is one of those that were ended."""
        if not self._pending:
            return False
        names, own, now = {*names_of(session.who), session.id}, (session.id,), self._clock.wall()
        with self._lock:
            # Whatever clock it was begun by: who ends a session by its id means that one.
            return any(
                names.issuperset(wanted) and (wanted == own or session.begun_by(at + SKEW, now))
                for wanted, at in self._pending.items()
            )

    @contextmanager
    def until_done(self, *names: str, begun_by: float = inf) -> Iterator[float]:
        """Have an end hold here from now on; where the block fails for the store's sake, it is tried again.

        Args:
            names: The lists on all of which those are that it ends, or a session's id.
            begun_by: What began later than that isn't meant.
        """
        at = min(self._clock.wall(), begun_by)
        with self._lock:
            # What ends more includes what ends less.
            at = self._pending[names] = max(at, self._pending.get(names, 0.0))
        try:
            yield at
        except StoreUnavailable:
            self._again()
            raise
        with self._lock:
            if self._pending.get(names) == at:
                del self._pending[names]

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
            waiting = list(self._pending.items())
            self._trying = False
        for names, at in waiting:
            if self._clock.wall() - at < self._life:
                try:
                    self._write(names, at, at + SKEW)
                except StoreUnavailable:
                    self._again()
                    return
            with self._lock, suppress(KeyError):
                if self._pending[names] == at:
                    del self._pending[names]
