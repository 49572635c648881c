"""Events, captured while a test runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .._policy.checks import require, require_number, require_whole
from ..events import Event, subscribe

__all__ = ["CapturedEvents", "capture_events"]

#: Seconds that the end of a block waits for what was told in it; it takes a moment.
_LONGEST_WAIT = 10.0

_E = TypeVar("_E", bound=Event)


class CapturedEvents:
    """The events that were told while capturing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[_E]) -> list[_E]:
        """List those of one kind.

        Raises:
            ConfigurationError: It isn't a class of events, of which there could be none.
        """
        _check_kind(kind)
        with self._changed:
            return [event for event in self._events if isinstance(event, kind)]

    def wait_for(self, kind: type[_E], *, count: int = 1, timeout: float = 10.0) -> list[_E]:
        """Wait until there are `count` of a kind, for at most `timeout` real seconds.

        Raises:
            AssertionError: There weren't.
            ConfigurationError: An argument is wrong.
        """
        _check_kind(kind)
        require_whole("count", count, low=1)
        require_number("timeout", timeout, low=0.0, high=threading.TIMEOUT_MAX)
        ends = time.monotonic() + timeout
        with self._changed:
            while len(found := [event for event in self._events if isinstance(event, kind)]) < count:
                left = ends - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError(f"{len(found)} of {count} {kind.__name__} events within {timeout:g} s")
            return found

    def __iter__(self) -> Iterator[Event]:
        with self._changed:
            return iter(list(self._events))


def _check_kind(kind: object) -> None:
    fits = isinstance(kind, type) and issubclass(kind, Event)
    require(fits, f"kind must be a class of resilient_auth.events, such as BreakerOpened, not {kind!r}")


@contextmanager
def capture_events() -> Iterator[CapturedEvents]:
    """Capture the events that are told meanwhile. They come on a thread of their own: use `wait_for`.

    After the block all are there that were told in it.
    """
    captured = CapturedEvents()
    unsubscribe: Callable[..., None] = subscribe(captured)
    try:
        yield captured
    finally:
        unsubscribe(flush=_LONGEST_WAIT)
