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
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from .._process import forks, observing
from .._process.saying import LOG, say
from .event import Event

__all__ = ["Delivery", "Listener", "emit", "subscribe", "subscribe_to", "told_later"]

LOG.addHandler(logging.NullHandler())

_T = TypeVar("_T")

#: How often a thread that gathers looks in vain before it ends.
_LOOKS = 20


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
        # It may be taken again by who holds it: a signal's handler, or a finaliser, amid a few instructions.
        self._lock = threading.RLock()
        self._queue: deque[_T] = deque()
        self._running = False
        #: Whether one is being told now.
        self._telling = False

    def put(self, event: _T) -> bool:
        """Have one delivered; the oldest is dropped where too many wait.

        Returns:
            False where no thread can be had: then it waits for the next one, or for `revive`.
        """
        with self._lock:
            if self.ended:
                return True
            if len(self._queue) >= self._capacity:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(event)
            if self._running:
                return True
            self._running = True
        return self._start()

    def revive(self) -> None:
        """Start the thread where there is none, since it couldn't be had for a moment, and something waits."""
        with self._lock:
            if self._running or not self._queue:
                return
            self._running = True
        self._start()

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._deliver, name="resilient-auth-events", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down, or no thread can be had: events are the least of it
            self._running = False
            return False
        return True

    def flush(self, seconds: float) -> None:
        """Wait until all is told, the last one to its end, or so many seconds have passed."""
        self.revive()
        ends = time.monotonic() + seconds
        while (self._queue or self._telling) and time.monotonic() < ends:
            time.sleep(0.001)

    def _deliver(self) -> None:
        looks = 0 if self._gather is None else _LOOKS
        while True:
            with self._lock:
                if not self._queue and not looks:
                    self._running = False
                    return
                self._telling = bool(self._queue)
                event = self._queue.popleft() if self._queue else None
            if event is None:
                looks -= 1
                time.sleep(self._gather or 0.0)
                continue
            looks = 0 if self._gather is None else _LOOKS
            try:
                self.listener(event)
            except BaseException as error:  # noqa: BLE001 - its faults, exits included, stay its own
                with suppress(BaseException):  # and so do those of who is told of them
                    say(logging.WARNING, "A listener failed on %s: %s", type(event).__name__, type(error).__name__)
            finally:
                self._telling = False


#: Each with the kinds of events that it wants.
_subscriptions: tuple[tuple[Delivery[Event], tuple[type[Event], ...]], ...] = ()
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
    """Log an event, have it counted, and hand it to the listeners, without waiting for any of them."""
    held = getattr(_here, "held", None)
    if held is not None:
        held.append(event)
        return
    observer = observing.observer
    if observer is not None:
        observer.decided(event)
    if LOG.isEnabledFor(event.level):
        with forks.held_off():  # a file that it is written to has a lock
            say(event.level, "%s", event, extra={f"ra_{name}": value for name, value in event.to_dict().items()})
    for subscription, kinds in _subscriptions:
        if isinstance(event, kinds):
            subscription.put(event)


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
    return subscribe_to((Event,), listener)


def subscribe_to(kinds: tuple[type[Event], ...], listener: Listener) -> Callable[[], None]:
    """Have `listener` called with events of these kinds alone: a flood of others takes none of the room for them."""
    global _subscriptions
    forks.notice()
    subscription: Delivery[Event] = Delivery(listener)
    with _changing:
        _subscriptions = (*_subscriptions, (subscription, kinds))

    def unsubscribe(flush: float = 0.0) -> None:
        global _subscriptions
        forks.notice()
        with _changing:
            _subscriptions = tuple(each for each in _subscriptions if each[0] is not subscription)
        if flush:
            subscription.flush(flush)
        subscription.end()

    return unsubscribe


@forks.renewed
def _after_fork() -> None:
    global _changing
    _changing = threading.Lock()
    for subscription, _ in _subscriptions:
        subscription.renew()
