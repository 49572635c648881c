"""One exchange for all who want the same token, each with a deadline of their own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._policy.levels import ProviderRequest
from .._process.observing import Operation
from ..clock import Clock, SystemClock
from ..errors import ProviderUnavailable
from ..token import Token, TokenRequest

__all__ = ["Exchange", "Flight", "Flights", "LeaseLost", "Outcome", "WaitFor", "carrying"]

#: Hashes of the keys of the flights that this context carries out: no key, since contexts may live for long.
_carried: ContextVar[frozenset[int]] = ContextVar("resilient_auth_carried", default=frozenset())


@contextmanager
def carrying(key: Hashable) -> Iterator[None]:
    """Let nobody in this block wait for the flight with this key, which can't land before the block's end.

    A log handler may ask for the very token whose exchange it is told of, and so may a function of the owner's. With
    None, what is begun in the block is no part of the flights around it.
    """
    token = _carried.set(frozenset() if key is None else _carried.get() | {hash(key)})
    try:
        yield
    finally:
        _carried.reset(token)


#: Real seconds between two looks of a waiting task at a clock that isn't the machine's.
_LOOK = 0.05


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """How an exchange ended: with a token, with an answer that holds none, or with an error."""

    #: What the provider gave.
    token: Token | None = None
    #: MSAL's own result: with the token, or the error dict of a denial; None is a valid answer of the silent flow.
    result: Any = None
    #: Why there is no answer.
    error: BaseException | None = None
    #: The home account that the token belongs to, where the request doesn't say.
    owner: str | None = None
    #: The token was found in the store: nobody asked the provider.
    stored: bool = False
    #: No exchange was begun.
    refused: bool = False

    @property
    def denied(self) -> bool:
        """Return whether the provider works and said no."""
        return isinstance(self.result, Mapping) and "error" in self.result


class LeaseLost(Exception):
    """Another process may ask for this token by now: what would be the next attempt isn't made."""


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Flight:
    """An exchange under way. Threads and asyncio tasks wait for it; when they give up, it goes on."""

    key: Hashable
    #: Monotonic time after which nobody should count on it any more.
    deadline: float
    _clock: Clock
    #: The attempts that it has made; and where its time went, in seconds.
    attempts: int = 0
    in_queue: float = 0.0
    in_store: float = 0.0
    in_http: float = 0.0
    #: Monotonic time since when it waits for a worker.
    begun: float | None = None
    #: Monotonic time before which the provider must not be asked: the last exchange's back-off (G9, G10).
    earliest: float = 0.0
    #: Set when somebody with a valid token has waited for it in vain.
    doubted: bool = False
    #: The one whose place it has taken since that should have been over, and wasn't.
    replaced: Flight | None = None
    #: What is asked for, where that is held: what fails with it alone is its own matter.
    request: TokenRequest | None = None
    #: The same for each authority that can give it.
    ways: tuple[ProviderRequest, ...] = ()
    #: Whether a valid token was held when it began.
    spare: bool = False
    #: How its last attempt failed, and the monotonic time of the next one.
    last_error: ProviderUnavailable | None = None
    next_attempt: float | None = None
    #: Told, on its worker, for how many seconds it leaves the provider alone before it asks again.
    on_back_off: Callable[[float], None] | None = None
    #: Asked, on its worker, before each attempt, whether the exchange is still this process's.
    before_attempt: Callable[[], bool] | None = None
    #: Told, on its worker, how an attempt failed that isn't the last one.
    on_failed_attempt: Callable[[Flight, ProviderUnavailable], None] | None = None
    #: What whoever observes this process is told of it.
    observed: Operation | None = None
    #: The owner's code that it has called and that hasn't come back, by name.
    calls: str | None = None
    #: Whether somebody waits for it who carries another one out, and so holds what it may need; see `hurry`.
    hurried: bool = False
    #: Lets it wait for no place in a lane.
    on_hurry: Callable[[], None] | None = None
    outcome: Outcome | None = None
    #: Set when nothing is asked any more: it lands as soon as what it means is noted.
    over: bool = False
    _done: threading.Condition = field(default_factory=lambda: threading.Condition(threading.Lock()))
    #: What wakes each task. Those who give up take theirs out without the lock: a task that is never resumed is ended
    #: by the collector, on a thread that may hold it.
    _callbacks: dict[int, Callable[[], None]] | None = field(default_factory=dict)

    def attempt_failed(self, error: ProviderUnavailable, next_attempt: float) -> None:
        """Note how an attempt failed, and the monotonic time of the next one."""
        self.doubted = True
        self.last_error, self.next_attempt = error, next_attempt
        if self.on_failed_attempt is not None:
            self.on_failed_attempt(self, error)

    def hurry(self) -> None:
        """Let it wait for no place that a chain of exchanges, each waiting for the next one, may hold itself."""
        self.hurried = True
        on_hurry = self.on_hurry
        if on_hurry is not None:
            on_hurry()

    def land(self, outcome: Outcome) -> None:
        """Hand the outcome to all who wait; the first one counts."""
        with self._done:
            if self.outcome is not None:
                return
            self.outcome = outcome
            callbacks, self._callbacks = self._callbacks, None
            self.on_hurry = None
            self._done.notify_all()
        while callbacks:
            try:
                _, callback = callbacks.popitem()
            except KeyError:  # the last one has just given up
                break
            callback()
        if self.observed is not None:
            self.observed.end(outcome, outcome.error)

    def wait(self, seconds: float) -> Outcome | None:
        """Wait on this thread for at most `seconds`; None when it isn't over by then, or this thread is to end it."""
        carried = _carried.get()
        if hash(self.key) in carried:
            return self.outcome
        if carried:
            self.hurry()
        ends = self._clock.monotonic() + seconds
        with self._done:
            while self.outcome is None:
                left = ends - self._clock.monotonic()
                if left <= 0:
                    return None
                self._clock.wait(self._done, left)
            return self.outcome

    async def wait_async(self, seconds: float) -> Outcome | None:
        """Wait in this task; None when it isn't over after `seconds` of the clock, or this task is to end it."""
        carried = _carried.get()
        if hash(self.key) in carried:
            return self.outcome
        if carried:
            self.hurry()
        import asyncio  # which an awaiting caller has loaded

        loop = asyncio.get_running_loop()
        ends = self._clock.monotonic() + seconds
        # A clock that isn't the machine's may say how its tasks wait; else it is looked at now and then.
        wait = getattr(self._clock, "wait_in_task", None)
        most = None if isinstance(self._clock, SystemClock) else _LOOK
        woken: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:  # the loop closed: whoever waited there is gone
                return

        me = id(woken)
        with self._done:
            if self._callbacks is None:
                return self.outcome
            self._callbacks[me] = wake
        try:
            while not woken.done() and (left := ends - self._clock.monotonic()) > 0:
                if wait is not None:
                    await wait(woken, left)
                else:
                    await asyncio.wait((woken,), timeout=left if most is None else min(left, most))
        finally:
            callbacks = self._callbacks
            if callbacks is not None:
                callbacks.pop(me, None)
        return self.outcome


class WaitFor(NamedTuple):
    """The step that waits for a flight; gives its outcome, or None when it isn't over after `seconds`."""

    flight: Flight
    seconds: float

    def run(self) -> Outcome | None:
        """Wait on this thread."""
        return self.flight.wait(self.seconds)

    def run_async(self) -> Awaitable[Outcome | None]:
        """Wait in this task."""
        return self.flight.wait_async(self.seconds)


#: Ask the provider: given the flight, which has the deadline, return how it ended. Runs on a worker.
Exchange = Callable[[Flight], Outcome]


class Flights:
    """Know which exchanges are under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight] = {}

    def find(self, key: Hashable) -> Flight | None:
        """Find the flight for a key, unless it is overdue."""
        flight = self._flights.get(key)
        if flight is not None and flight.outcome is None and self._clock.monotonic() < flight.deadline:
            return flight
        return None

    def join(self, key: Hashable, deadline: float) -> tuple[Flight, bool]:
        """Join the flight for a key, or begin one; tells which of the two."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and flight.outcome is None and self._clock.monotonic() < flight.deadline:
                return flight, False
            begun = Flight(key, deadline, self._clock)
            if flight is not None and flight.outcome is None:
                begun.replaced, flight.replaced = flight, None
            self._flights[key] = begun
            return begun, True

    def is_current(self, flight: Flight) -> bool:
        """Return whether no other flight has taken this one's place, it being overdue."""
        return self._flights.get(flight.key) is flight

    def end(self, flight: Flight) -> None:
        """Forget a flight, so that the next one who asks begins a new one."""
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def land(self, flight: Flight, outcome: Outcome) -> None:
        """Forget a flight, and hand its outcome to all who wait."""
        self.end(flight)
        flight.land(outcome)
