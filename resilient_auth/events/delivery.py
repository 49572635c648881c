"""How events get to whoever wants to know: the log, and listeners on threads of their own.

A listener's thread ends when there is nothing to tell; one that raises or blocks harms nobody but itself.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from .._process import forks
from .event import Event

__all__ = ["Delivery", "Listener", "emit", "subscribe", "told_later"]

_log = logging.getLogger("resilient_auth")
_log.addHandler(logging.NullHandler())

_T = TypeVar("_T")

#: Seconds that a fork waits for records that are being written, and those that come meanwhile for the fork.
_LONGEST_WRITE = 1.0
#: How often a thread that gathers looks in vain before it ends.
_LOOKS = 20
#: The threads that are writing a record. A file's lock that one holds at a fork would be held in the child for ever.
_writing: set[int] = set()
_may_write = threading.Event()
_may_write.set()


class Listener(Protocol):
    """Anything that can be called with an event."""

    def __call__(self, event: Event, /) -> object: ...


class Delivery(Generic[_T]):
    """Deliver events, or what else is told, to one listener, in order, on a thread that lives while there are any.

    Args:
        listener: Whom.
        capacity: How many are kept while it blocks.
        gather: Seconds after which the thread looks again, a few times, before it ends: for what is told so often that
            a thread for each would cost more than the telling.
    """

    CAPACITY = 1024

    def __init__(
        self, listener: Callable[[_T], object], *, capacity: int = CAPACITY, gather: float | None = None
    ) -> None:
        self.listener = listener
        self._capacity = capacity
        self._gather = gather
        self.dropped = 0
        self.ended = False
        self.renew()

    def end(self) -> None:
        """Deliver nothing more, not even what is queued."""
        with self._lock:
            self.ended = True
            self._queue.clear()

    def renew(self) -> None:
        """Begin with nothing to deliver: at first, and in a forked child."""
        self._lock = threading.Lock()
        self._queue: deque[_T] = deque()
        self._running = False

    def put(self, event: _T) -> None:
        """Have one delivered; the oldest is dropped where too many wait."""
        with self._lock:
            if self.ended:
                return
            if len(self._queue) >= self._capacity:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(event)
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._deliver, name="resilient-auth-events", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down, or no thread can be had: events are the least of it
            self._running = False

    def flush(self, seconds: float) -> None:
        """Wait until all is handed on, or so many seconds have passed."""
        ends = time.monotonic() + seconds
        while self._queue and time.monotonic() < ends:
            time.sleep(0.01)

    def _deliver(self) -> None:
        looks = 0 if self._gather is None else _LOOKS
        while True:
            with self._lock:
                if not self._queue and not looks:
                    self._running = False
                    return
                event = self._queue.popleft() if self._queue else None
            if event is None:
                looks -= 1
                time.sleep(self._gather or 0.0)
                continue
            looks = 0 if self._gather is None else _LOOKS
            try:
                self.listener(event)
            except BaseException as error:  # noqa: BLE001 - its faults, exits included, stay its own
                _log.warning("A listener failed on %s: %s", type(event).__name__, type(error).__name__)


_subscriptions: tuple[Delivery[Event], ...] = ()
_changing = threading.Lock()
_here = threading.local()


@contextmanager
def told_later() -> Iterator[None]:
    """Hold back what is emitted on this thread in this block until its end.

    For what holds a lock, or has others wait: a log handler runs on the thread that emits, and may ask for a token.
    """
    if getattr(_here, "held", None) is not None:
        yield
        return
    held: list[Event] = []
    _here.held = held
    try:
        yield
    finally:
        _here.held = None
        for event in held:
            emit(event)


def emit(event: Event) -> None:
    """Log an event and hand it to the listeners, without waiting for any of them."""
    held = getattr(_here, "held", None)
    if held is not None:
        held.append(event)
        return
    if _log.isEnabledFor(event.level):
        _write(event)
    for subscription in _subscriptions:
        subscription.put(event)


def _write(event: Event) -> None:
    me = threading.get_ident()
    nested = me in _writing  # a handler may do what has something emitted
    _writing.add(me)
    if not nested and not _may_write.is_set():
        _writing.discard(me)
        _may_write.wait(_LONGEST_WRITE)
        _writing.add(me)
    try:
        _log.log(event.level, "%s", event, extra={f"ra_{name}": value for name, value in event.to_dict().items()})
    finally:
        if not nested:
            _writing.discard(me)


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have `listener` called with every event from now on.

    Args:
        listener: Called with one `Event` at a time, in order, on a background thread. What it raises is logged by type
            and goes no further; while it blocks, up to 1,024 events are kept for it, the newest.

    Returns:
        A function that ends the subscription.

    Raises:
        TypeError: `listener` can't be called, or is a coroutine function, which nobody would await.
    """
    if not callable(listener) or inspect.iscoroutinefunction(listener):
        kind = "a coroutine function" if callable(listener) else type(listener).__name__
        raise TypeError(f"listener must be a plain function that takes an event, not {kind}")
    global _subscriptions
    forks.notice()
    subscription: Delivery[Event] = Delivery(listener)
    with _changing:
        _subscriptions = (*_subscriptions, subscription)

    def unsubscribe() -> None:
        global _subscriptions
        forks.notice()
        with _changing:
            _subscriptions = tuple(s for s in _subscriptions if s is not subscription)
        subscription.end()

    return unsubscribe


def _before_fork() -> None:
    _may_write.clear()
    ends = time.monotonic() + _LONGEST_WRITE
    while _writing - {threading.get_ident()} and time.monotonic() < ends:
        time.sleep(0.0005)


@forks.renewed
def _after_fork() -> None:
    global _changing, _may_write
    _changing, _may_write = threading.Lock(), threading.Event()
    _may_write.set()
    _writing.intersection_update({threading.get_ident()})
    for subscription in _subscriptions:
        subscription.renew()


forks.around(_before_fork, lambda: _may_write.set())
