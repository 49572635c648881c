"""When sessions end in an outage: those that this process has read, and all that the store has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from ...clock import Clock
from ...store import Store
from .options import SessionOptions
from .recent import Recent
from .record import GUEST, KIND, Session

__all__ = ["Outlook"]

#: Sessions that a look into the store reads at most, and for how many seconds at most.
_MOST_LOOKED_AT: Final = 4096
_LONGEST_LOOK: Final = 5.0


class Outlook:
    """Say for sessions until when they last, were their providers down from now on.

    No guest's: nobody has signed them in.

    Args:
        recent: Those that this process has read.
        store: Where all are.
        options: The owner's bounds.
        clock: Where the time comes from.
        name: Returns the name of a session in the store, by its id: a store may have those of several applications.
    """

    def __init__(
        self, recent: Recent, store: Store, options: SessionOptions, clock: Clock, name: Callable[[str], str]
    ) -> None:
        self._recent, self._store, self._options, self._clock, self._name = recent, store, options, clock, name
        #: The provider of each session in the store, and when an outage ends it, as they were found last.
        self._stock: tuple[tuple[str, float], ...] = ()

    def read(self) -> Iterator[tuple[str, float]]:
        """Yield for each session that this process has read its provider, and the seconds until an outage ends it.

        No lock is waited for: a signal's handler may ask.
        """
        now = self._clock.wall()
        return self._left((each.who.provider, each.dark(self._options, now)) for each in self._recent.all())

    def stored(self) -> Iterator[tuple[str, float]]:
        """Yield the same of all that the store was found to have, as `take_stock` has seen them."""
        return self._left(self._stock)

    def take_stock(self) -> None:
        """See what all processes have in the store, of 4,096 sessions at most.

        Raises:
            StoreUnavailable: It can't tell; what was seen last holds.
        """
        found, now, until = [], self._clock.wall(), time.monotonic() + _LONGEST_LOOK
        for record in islice(self._store.scan(KIND), _MOST_LOOKED_AT):
            session = Session.loads(record.value)
            if session is not None and record.name == self._name(session.id):
                found.append((session.who.provider, session.dark(self._options, now)))
            if time.monotonic() > until:
                break
        self._stock = tuple(found)

    def _left(self, ends: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
        now = self._clock.wall()
        return ((provider, end - now) for provider, end in ends if provider != GUEST and end > now)
