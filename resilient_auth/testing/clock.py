"""A clock that stands still until a test moves it, and jitter that isn't any."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from .._policy.checks import require, require_number

__all__ = ["ManualClock", "no_jitter"]

#: The last second of the year 9999, after which no date can be written.
_LAST: Final = 253_402_300_799.0


def no_jitter(low: float, high: float) -> float:
    """Pick the middle, always."""
    return (low + high) / 2


class ManualClock:
    """A clock that moves when told to. Give it to `Settings(clock=...)`.

    Args:
        start: Seconds since the epoch at which its wall clock starts; the real time when not given, since MSAL's own
            cache knows no other.
        patience: Real seconds after which a caller that waits for this clock fails the test when nobody has moved it.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(self, start: float | None = None, *, patience: float = 30.0) -> None:
        if start is not None:
            require_number("start", start, low=0.0, high=_LAST)
        require_number("patience", patience, low=0.01, high=threading.TIMEOUT_MAX)
        self._wall = time.time() if start is None else start
        self._monotonic = 1_000.0
        self._patience = patience
        self._lock = threading.Lock()
        #: Who waits, for what, and until when by this clock, by a key of theirs.
        self._waiting: dict[int, _Wait] = {}
        #: The last wait of each thread.
        self._last = threading.local()

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake whoever waits for it.

        Raises:
            ConfigurationError: It isn't a number of seconds from 0.
        """
        require_number("seconds", seconds, low=-_LAST, high=_LAST)
        require(seconds >= 0, "time passes forwards: set the wall clock back with jump()")
        self._monotonic += seconds
        self._wall += seconds
        self._wake()

    def jump(self, seconds: float) -> None:
        """Set the wall clock, and it alone, forwards or back.

        Raises:
            ConfigurationError: It isn't a number of seconds.
        """
        require_number("seconds", seconds, low=-_LAST, high=_LAST)
        self._wall += seconds
        self._wake()

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        """Wait on a condition until it is notified, or this clock has moved by `timeout` seconds."""
        thread = threading.current_thread()
        ends = None if timeout is None else self._monotonic + timeout
        wait = _Wait(thread.name, condition, ends, self._monotonic)
        last: _Wait | None = getattr(self._last, "wait", None)
        if last is not None and last.goes_on_in(wait):
            wait.since = last.since
        self._last.wait = wait
        with self._lock:
            self._waiting[id(wait)] = wait
        try:
            # Real time is looked at now and then, so that a move between the caller's look and this wait isn't missed.
            woken = condition.wait(0.05) if ends is None or self._monotonic < ends else False
        finally:
            wait.until = time.monotonic()
            with self._lock:
                self._waiting.pop(id(wait), None)
        # The package's own threads may wait for ever: it is a caller that must not hang.
        if not woken and ends is not None and not thread.name.startswith("resilient-auth"):
            self._check(wait)
        return woken

    async def wait_in_task(self, future: asyncio.Future[None], seconds: float) -> None:
        """Wait in a task until a future is done, or this clock has moved by so many seconds."""
        task = asyncio.current_task()
        ends = self._monotonic + seconds
        wait = _Wait(task.get_name() if task else "a task", None, ends, self._monotonic)
        with self._lock:
            self._waiting[id(wait)] = wait
        try:
            while not future.done() and self._monotonic < ends:
                await asyncio.wait((future,), timeout=0.05)
                if wait.moved(self._monotonic):
                    wait.since = time.monotonic()
                if not future.done():
                    self._check(wait)
        finally:
            with self._lock:
                self._waiting.pop(id(wait), None)

    def _check(self, wait: _Wait) -> None:
        if time.monotonic() - wait.since < self._patience:
            return
        with self._lock:
            others = [other for other in self._waiting.values() if other is not wait]
        told = "; ".join(each.describe(self._monotonic) for each in (wait, *others))
        raise AssertionError(
            f"this ManualClock wasn't moved for {self._patience:g} real seconds. {told}. Call advance() from "
            "another thread than the one that waits"
        )

    def _wake(self) -> None:
        with self._lock:
            waiting = [wait.condition for wait in self._waiting.values()]
        for condition in waiting:
            if condition is not None:
                with condition:
                    condition.notify_all()


@dataclass(slots=True)
class _Wait:
    """Somebody who waits for a manual clock."""

    name: str
    condition: threading.Condition | None
    #: The clock's time at which it ends, and at which it was looked at last.
    ends: float | None
    seen: float
    #: Real times of the begin, and of the end.
    since: float = field(default_factory=time.monotonic)
    until: float = 0.0

    def goes_on_in(self, other: _Wait) -> bool:
        """Return whether another wait of this thread is the same one, begun again after a look."""
        return self.condition is other.condition and self.seen == other.seen and other.since - self.until < 1.0

    def moved(self, now: float) -> bool:
        """Note the clock's time, and return whether it has changed."""
        moved, self.seen = now != self.seen, now
        return moved

    def describe(self, now: float) -> str:
        """Say who waits for how long."""
        return f"{self.name} waits for " + ("a call" if self.ends is None else f"{self.ends - now:g} s more of it")
