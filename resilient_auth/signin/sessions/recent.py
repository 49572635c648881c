"""Sessions as this process has read them last: to go by for a moment, and for the forecast."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Final, NamedTuple

from ..._process import forks
from ..._process.living import unlocked
from ...clock import Clock
from .record import Session, names_of

__all__ = ["Recent"]

#: Sessions that a process remembers: for `recheck` seconds to go by, and longer for the forecast.
_MOST: Final = 10_000


class Mark(NamedTuple):
    """When a session was read or written, and how many ends there had been."""

    at: float
    ends: int


class Recent:
    """What was read of the sessions, for as long as they aren't ended here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[Session, str, float]]
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Begin with nothing remembered: at first, and in a forked child."""
        self._lock = threading.Lock()
        #: By its id, a session as it was read last, its version, and when that was; what was read last comes last.
        self._known = OrderedDict()
        #: By the names of their lists, the ids of these: what ends one needn't look at all.
        self._listed: dict[str, set[str]] = {}
        #: Grows with each end: what was read before one isn't remembered after it.
        self._ends = 0

    def mark(self) -> Mark:
        """Return what `put` is to be given: taken before the store is asked."""
        return Mark(self._clock.monotonic(), self._ends)

    def put(self, session: Session, version: str, mark: Mark) -> None:
        """Remember a session, unless one was ended since."""
        with self._lock:
            if self._ends == mark.ends:
                if session.id not in self._known:
                    for name in names_of(session.who):
                        self._listed.setdefault(name, set()).add(session.id)
                self._known[session.id] = session, version, mark.at
                self._known.move_to_end(session.id)
                if len(self._known) > _MOST:
                    self._forget(next(iter(self._known)))

    def get(self, session_id: str, most: float) -> tuple[Session, str] | None:
        """Return a session and its version as they were read at most so many seconds ago."""
        with self._lock:
            kept = self._known.get(session_id)
        if kept is None or self._clock.monotonic() - kept[2] > most:
            return None
        return kept[0], kept[1]

    def all(self) -> list[Session]:
        """List the sessions without the lock: a signal's handler may ask."""
        return [session for session, *_ in unlocked(lambda: list(self._known.values()))]

    def drop(self, session_id: str) -> None:
        """Forget a session that the store hasn't, or has otherwise."""
        with self._lock:
            self._forget(session_id)

    def end(self, session_id: str) -> None:
        """Forget a session that is ended."""
        with self._lock:
            self._ends += 1
            self._forget(session_id)

    def end_all(self, names: Collection[str]) -> None:
        """Forget what is on all of these lists: another process may have ended it already, and taken it off them."""
        with self._lock:
            self._ends += 1
            for session_id in set.intersection(*(self._listed.get(name, set()) for name in names)):
                self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        """Forget one; called with the lock held."""
        known = self._known.pop(session_id, None)
        for name in () if known is None else names_of(known[0].who):
            ids = self._listed.get(name, set())
            ids.discard(session_id)
            if not ids:
                self._listed.pop(name, None)
