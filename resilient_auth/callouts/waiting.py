"""Which writes wait, as one process knows it; the store knows better."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

from .write import Kept

__all__ = ["Waiting"]


class Waiting:
    """Know what waits and what was given up; all of it may be asked by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: When each is due, and when it was taken.
        self._pending: dict[str, tuple[float, float]] = {}
        self._dead: set[str] = set()
        #: Those that are made, of which the store couldn't be told, by what tells them from others with their key.
        self._made: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def dead(self) -> int:
        """How many were given up."""
        return len(self._dead)

    def taken_at(self) -> list[float]:
        """Return when those that wait were taken, without the lock: a signal's handler may ask."""
        return [taken_at for _, taken_at in list(self._pending.values())]

    def noted(self, key: str) -> float | None:
        """Return when the write that is known to wait under a key was taken; None where none is."""
        noted = self._pending.get(key)
        return None if noted is None else noted[1]

    def wait_until(self, due: float, key: str, kept: Kept) -> None:
        """Note that a write waits, and until when."""
        with self._lock:
            self._pending[key] = (due, kept.taken_at)

    def due(self, now: float, farthest: float, most: int) -> list[str]:
        """Return the keys of those that are due, the first ones first.

        Args:
            now: In seconds since the epoch.
            farthest: How many seconds ahead a write may be due: what is later still was written by a wrong clock.
            most: So many at most.
        """
        with self._lock:
            pending = list(self._pending.items())
        due = ((at, key) for key, (at, _) in pending if not now < at <= now + farthest)
        return [key for _, key in heapq.nsmallest(most, due)]

    def put_off(self, key: str, due: float) -> None:
        """Let another look not take up what one has."""
        with self._lock:
            if key in self._pending:
                self._pending[key] = (due, self._pending[key][1])

    def learn(self, found: Iterable[tuple[str, Kept]], old: float) -> None:
        """Note all that the store has.

        Args:
            found: What was found there.
            old: Seconds since the epoch: what was due after that may have been missed; what was before is gone.
        """
        pending: dict[str, tuple[float, float]] = {}
        dead: set[str] = set()
        for key, kept in found:
            if kept.dead:
                dead.add(key)
            else:
                pending[key] = (kept.due, kept.taken_at)
        with self._lock:
            missed = {key: one for key, one in self._pending.items() if key not in pending and one[0] >= old}
            # What this process has noted of one counts on.
            self._pending = missed | {key: self._pending.get(key, one) for key, one in pending.items()}
            self._dead = dead
            self._made = {key: one for key, one in self._made.items() if key in self._pending}

    def given_up(self, key: str, kept: Kept) -> int:
        """Note that a write was given up; return how many were."""
        self.over(key, kept)
        with self._lock:
            self._dead.add(key)
            return len(self._dead)

    def discarded(self, key: str) -> None:
        """Note that one which was given up is so no more."""
        with self._lock:
            self._dead.discard(key)

    def made(self, key: str, kept: Kept) -> None:
        """Note that a write is made, before the store is told."""
        with self._lock:
            self._made[key] = kept.id

    def is_made(self, key: str, kept: Kept) -> bool:
        """Return whether a write that the store has is made, and not another one with its key."""
        return self._made.get(key) == kept.id

    def over(self, key: str, kept: Kept) -> None:
        """Note that a write is made, after it was given up maybe."""
        self.gone(key, kept.taken_at)
        self.discarded(key)

    def gone(self, key: str, taken_at: float | None) -> None:
        """Note that a write waits no more; another one may have been taken under its key since."""
        with self._lock:
            if taken_at is not None and self.noted(key) == taken_at:
                del self._pending[key]
                self._made.pop(key, None)
