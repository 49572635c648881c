"""Call functions at a time: one thread a process for all timers, which lives while there are any."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from collections.abc import Callable

import cachetools

from .._process import forks
from .._process.saying import say
from ..clock import Clock

__all__ = ["Timer", "Timers", "timers_of"]

_LONGEST_WAIT = 10.0  # timers get cancelled and clocks jump: look at least so often


class Timer:
    """A call to come, which may be cancelled."""

    __slots__ = ("_call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call
        #: The monotonic time for which it was set.
        self.when = when

    def cancel(self) -> None:
        """Let it not come; harmless when it has."""
        self._call = None

    @property
    def pending(self) -> bool:
        """Return whether it is still to come."""
        return self._call is not None

    def _run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Timers:
    """Keep calls in the order of their times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False
        #: When the clock was looked at last.
        self._seen = -math.inf

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call a quick function at monotonic time `when`, on the timers' thread."""
        timer = Timer(when, call)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if self._running:
                self._changed.notify()
                return timer
        self.revive()
        return timer

    def revive(self) -> None:
        """Start the thread where there is none: it couldn't be had for a moment, and timers wait."""
        if self._running or not self._heap:
            return
        with self._changed:
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name="resilient-auth-timers", daemon=True).start()
        except RuntimeError:  # the system has none to give, or the interpreter is shutting down
            with self._changed:
                self._running = False

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._heap and not self._heap[0][2].pending:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._running = False
                    return
                now = self._clock.monotonic()
                if now < self._seen:  # set back, as when a machine is restored: nothing is to come that much later
                    self._heap = [(when - self._seen + now, n, timer) for when, n, timer in self._heap]
                self._seen = now
                wait = self._heap[0][0] - now
                if wait > 0:
                    self._clock.wait(self._changed, min(wait, _LONGEST_WAIT))
                    continue
                timer = heapq.heappop(self._heap)[2]
            try:
                timer._run()
            except Exception:  # noqa: BLE001 - one timer must not end the thread of all
                say(logging.ERROR, "A timer failed", traced=True)
            del timer


_timers: cachetools.LRUCache[int, tuple[Clock, Timers]] = cachetools.LRUCache(64)
_registry = threading.Lock()


def timers_of(clock: Clock) -> Timers:
    """Return the timers of a clock: one scheduler a process, which all engines of the clock share."""
    with _registry:
        kept = _timers.get(id(clock))
        if kept is None:
            kept = _timers[id(clock)] = (clock, Timers(clock))
        return kept[1]


@forks.renewed
def _after_fork() -> None:
    global _timers, _registry
    _timers, _registry = cachetools.LRUCache(64), threading.Lock()
