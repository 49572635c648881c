"""How many calls may be under way at a time, and how many may wait for their turn (G11).

enter() ─ a slot is free ──────────────▶ in ── leave() ──▶ out, and its slot goes to the first in line
   └───── none is ─ line_up() ─▶ in line ──▲
                                    └── give_up() ──▶ out
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Bulkhead", "QueuePlace"]


class QueuePlace:
    """A place in line. Threads and tasks wait for `granted` each in their own way."""

    __slots__ = ("_gone", "_wake", "granted")

    def __init__(self) -> None:
        self.granted = False
        self._gone = False
        self._wake: Callable[[], object] | None = None


class Bulkhead:
    """Count the calls of one key. The lock is held for a few instructions; slots are handed over in order."""

    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self._queue = queue
        self._in_use = 0
        self._line: deque[QueuePlace] = deque()
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        """Return how many calls are under way."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """Return how many wait for their turn."""
        with self._lock:
            return len(self._line)

    def enter(self) -> bool:
        """Take a slot if one is free."""
        with self._lock:
            if self._in_use >= self._slots:
                return False
            self._in_use += 1
            return True

    def line_up(self) -> QueuePlace | None:
        """Take a place in line, which may be granted already; None where the line is full."""
        place = QueuePlace()
        with self._lock:
            if self._in_use < self._slots:
                self._in_use += 1
                place.granted = True
            elif len(self._line) >= self._queue:
                return None
            else:
                self._line.append(place)
        return place

    def when_granted(self, place: QueuePlace, wake: Callable[[], object]) -> None:
        """Have `wake` called when it is this place's turn: at once if it is, else on the thread of whoever leaves."""
        with self._lock:
            if not place.granted:
                place._wake = wake
                return
        wake()

    def give_up(self, place: QueuePlace) -> bool:
        """Leave the line; True if a slot had been granted, which is the caller's to use or to leave."""
        with self._lock:
            if place.granted:
                return not place._gone
            place._gone = True
            self._line.remove(place)
            return False

    def leave(self) -> None:
        """Give a slot back."""
        while True:
            with self._lock:
                if not self._line:
                    self._in_use -= 1
                    return
                place = self._line.popleft()
                place.granted = True
                wake = place._wake
            try:
                if wake is not None:
                    wake()
            except RuntimeError:  # an event loop that was closed: nobody waits there any more
                with self._lock:
                    place._gone = True
                continue
            return

    def after_fork(self) -> Bulkhead:
        """Give a forked child its own, in which none of the parent's calls are.

        The one call that the child may be in the middle of, that of the thread which forked, leaves this one.
        """
        self._lock = threading.Lock()
        self._line.clear()
        return Bulkhead(self._slots, self._queue)
