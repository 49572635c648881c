"""What tests of applications need: a clock that stands still, captured events, and the emulator as a pytest fixture.

Register the fixtures with `pytest_plugins = ["resilient_auth.testing"]` in the top-level `conftest.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ._store.conformance import check_backend
from .events import Event, subscribe

if TYPE_CHECKING:
    from .emulator import Emulator

__all__ = [
    "CapturedEvents",
    "ManualClock",
    "capture_events",
    "chaos",
    "check_backend",
    "identity_provider",
    "no_jitter",
]

_E = TypeVar("_E", bound=Event)


def no_jitter(low: float, high: float) -> float:
    """Pick the middle, always."""
    return (low + high) / 2


class ManualClock:
    """A clock that moves when told to. Give it to `Settings(clock=...)`.

    Args:
        start: Seconds since the epoch at which its wall clock starts; the real time when not given, since MSAL's own
            cache knows no other.
        patience: Real seconds after which a caller that waits for this clock fails the test when nobody has moved it.
    """

    def __init__(self, start: float | None = None, *, patience: float = 30.0) -> None:
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
        """Let time pass, and wake whoever waits for it."""
        if seconds < 0:
            raise ValueError("time passes forwards: set the wall clock back with jump()")
        self._monotonic += seconds
        self._wall += seconds
        self._wake()

    def jump(self, seconds: float) -> None:
        """Set the wall clock, and it alone, forwards or back."""
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
        """List those of one kind."""
        with self._changed:
            return [event for event in self._events if isinstance(event, kind)]

    def wait_for(self, kind: type[_E], *, count: int = 1, timeout: float = 10.0) -> list[_E]:
        """Wait until there are `count` of a kind, for at most `timeout` real seconds.

        Raises:
            AssertionError: There weren't.
        """
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


@contextmanager
def capture_events() -> Iterator[CapturedEvents]:
    """Capture the events that are told meanwhile. They come on a thread of their own: use `wait_for`."""
    captured = CapturedEvents()
    unsubscribe: Callable[[], None] = subscribe(captured)
    try:
        yield captured
    finally:
        unsubscribe()


def chaos(
    wrapped: Any,
    *,
    rate: float = 1.0,
    status: int | None = None,
    error: type[Exception] | None = None,
    delay: float = 0.0,
    seed: int | None = None,
) -> Any:
    """Put faults in front of an httpx transport, blocking or asyncio's, to see how an application takes them (G23).

    Args:
        wrapped: The transport that answers the requests that are spared; give the result to `ResilientTransport`.
        rate: Share of requests that fail, from 0 to 1; may be changed while it runs, as an attribute.
        status: Answer these with this status.
        error: Raise this error of httpx's for them instead, such as `httpx.ConnectError`.
        delay: Seconds for which each of them is held up first. Where neither status nor error is given, that is all.
        seed: Makes the choice of requests repeatable.

    Returns:
        A transport for `httpx.Client` and `httpx.AsyncClient`, with `rate` and `hits`, the number of faults so far.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    import random

    import httpx

    from ._policy.checks import require, require_number

    require_number("rate", rate, low=0.0, high=1.0, unit="")
    require_number("delay", delay, low=0.0)
    require(status is None or error is None, "give a status or an error, not both")
    luck = random.Random(seed)  # noqa: S311 - nothing secret hangs on it

    class Chaos(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.rate = rate
            self.hits = 0

        def _strikes(self) -> bool:
            struck = luck.random() < self.rate
            self.hits += struck
            return struck

        def _fault(self, request: httpx.Request) -> httpx.Response | None:
            if error is not None:
                raise error("a fault on command")
            return None if status is None else httpx.Response(status, request=request)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = None
            if self._strikes():
                time.sleep(delay)
                answer = self._fault(request)
            return answer if answer is not None else wrapped.handle_request(request)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = None
            if self._strikes():
                await asyncio.sleep(delay)
                answer = self._fault(request)
            return answer if answer is not None else await wrapped.handle_async_request(request)

        def close(self) -> None:
            wrapped.close()

        async def aclose(self) -> None:
            await wrapped.aclose()

    return Chaos()


try:
    import pytest
except ModuleNotFoundError:  # outside of tests
    pass
else:

    @pytest.fixture
    def identity_provider() -> Iterator[Emulator]:
        """An identity provider on loopback that fails on command; see `resilient_auth.emulator`."""
        from .emulator import Emulator

        with Emulator() as emulator:
            yield emulator
