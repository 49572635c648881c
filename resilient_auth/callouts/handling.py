"""How the owner's handler is run: once for each request, on a worker thread or in the framework's event loop.

Whoever waits for it has a deadline and leaves it behind then; it goes on, and its answer is there for a repeated
request. It isn't begun when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .._engine.lanes import Job
from .._engine.single_flight import Flight, Outcome, WaitFor
from .._engine.steps import Invoke, Steps, run, run_async
from .._engine.threads import lasting_loop
from .._engine.timers import timers_of
from .._engine.workers import Workers
from .._policy.breaker import Breaker, Dependency, prepare
from .._policy.checks import require
from .._policy.circuit.options import BreakerOptions
from .._process import forks
from .._process.living import LiveObjects
from ..clock import Clock, Jitter
from ..downstream.deadlines import deadline as handed_down
from ..downstream.pipeline.bulkhead import Bulkhead
from ..errors import Overloaded, ResilientAuthError
from ..store import Store
from .answers import Answer, LastKnown
from .contract import CalloutRequest, Reply, UnfitAnswer
from .last_known import LastClaims
from .once import Claimed, Once, Run

__all__ = ["Begin", "Handling", "outcome_of", "place_of"]

_R = TypeVar("_R", bound=CalloutRequest)

#: Of the handler's time, what a store may take before it counts as failing.
_STORE_SHARE: Final = 0.25
#: Seconds between two looks at a request that runs elsewhere.
_LOOK: Final = 0.03
#: Seconds that a task has to end when it is cancelled; and how many times the places may be given to others, since
#: tasks haven't: as many as threads' are at once.
_MOMENT: Final = 1.0
_ROUNDS: Final = 4


class _Unanswered(ResilientAuthError):
    """Say why there is no answer of the handler's."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]
        self.detail = detail


class Handling(Generic[_R]):
    """Run one callout's handler; see `Callout` for the arguments."""

    def __init__(
        self,
        asks: type[_R],
        handler: Callable[[_R], Answer | Awaitable[Answer]],
        *,
        name: str,
        deadline: float,
        window: float,
        store: Store | None,
        runs_without_store: bool,
        last_known: LastKnown | None,
        concurrency: int,
        queue: int,
        breaker: BreakerOptions,
        clock: Clock,
        jitter: Jitter,
    ) -> None:
        self.awaits = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - of an object with such a method
        )
        self._asks = asks
        self._handler = handler
        self._lane = f"callout {name}"
        self._store_lane = f"the store of callout {name}"
        self._deadline = deadline
        self._window = window
        self._store = store
        self._runs_without_store = runs_without_store
        self._concurrency, self._queue = concurrency, queue
        self._clock = clock
        self.once = Once(name, window, store, clock)
        self._last = None if last_known is None else LastClaims(name, last_known, store, clock)
        prepare()
        about = Dependency(target=self._lane, purpose="handler")
        self._breaker = Breaker(about, breaker, clock=clock, jitter=jitter)
        self._begin()
        for other in _living.all():
            alone = store is None or other._store is not store or other._lane != self._lane
            require(alone, f"another callout with this store is named {name!r} too: give name=, or they share answers")
        _living.add(self)
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Begin with threads and locks of one's own: what the parent runs is the parent's."""
        self.once.after_fork()
        if self._last is not None:
            self._last.after_fork()
        self._breaker.renew_lock()
        self._begin()

    def _begin(self) -> None:
        self._workers = Workers(
            per_lane=self._concurrency,
            queue=self._queue,
            now=self._clock.monotonic,
            wall=self._clock.wall,
            call_at=timers_of(self._clock).call_at,
        )
        self._places = Bulkhead(self._concurrency, 0)
        self._left_behind = Bulkhead(_ROUNDS * self._concurrency, 0)
        #: An event loop keeps no more than a weak hold of a task.
        self._tasks: set[asyncio.Task[None]] = set()

    def look_up(self, request: _R, ends: float) -> Flight | None:
        """Begin to look for the last claims about a user, so that they are there when they are needed."""
        return None if self._last is None else self.call(self._store_lane, partial(self._last.find, request), ends)

    def last_known(self, request: _R, known: Flight | None, ends: float) -> Steps[Mapping[str, Any] | None]:
        """Return the last claims about a user, None where there are none."""
        if self._last is None or known is None:
            return None
        found: Outcome | None = yield WaitFor(known, max(0.0, ends - self._clock.monotonic()))
        return self._last.claims(request, None if found is None else found.result)

    def call(self, lane: str, call: Callable[[], Any], ends: float) -> Flight:
        """Have something called on a worker; the flight lands with what came of it."""
        flight = Flight(lane, ends, self._clock)

        def late() -> None:
            flight.land(Outcome(error=_Unanswered("slow")))

        try:
            self._workers.take(Job((lane,), lambda: flight.land(outcome_of(call)), ends=ends, late=late))
        except Overloaded as error:
            flight.land(Outcome(error=error))
        return flight

    def begin_on_thread(self, handled: Run) -> None:
        """Begin a run for a thread that waits; a coroutine function's in an event loop that this process has for it."""
        context = contextvars.copy_context()
        if self.awaits:
            try:
                lasting_loop(self._lane).call_soon_threadsafe(self.begin_task, handled, context=context)
            except RuntimeError:
                self._refused(handled, _Unanswered("overloaded", "no thread could be started"))
            return

        def late() -> None:
            self._refused(handled, _Unanswered("overloaded", "its turn didn't come in time"))

        work = partial(context.run, run, self._running(handled))
        try:
            self._workers.take(Job((self._lane,), work, ends=handled.ends, late=late))
        except Overloaded as error:
            self._refused(handled, error)

    def begin_task(self, handled: Run) -> None:
        """Begin a run as a task of the event loop that this is called in."""
        if not self._places.enter():
            text = f"{self._concurrency} calls of the handler are under way"
            self._refused(handled, _Unanswered("overloaded", text))
            return
        task = asyncio.get_running_loop().create_task(self._drive(handled))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refused(self, handled: Run, error: Exception) -> None:
        """Let a run that didn't begin be begun by a repeated request."""
        self.once.forget(handled)
        handled.flight.land(Outcome(error=error))

    async def _drive(self, handled: Run) -> None:
        holds = [self._places]

        def leave_behind() -> None:
            if self._left_behind.enter():
                holds[0].leave()
                holds[0] = self._left_behind

        # A handler that never comes back gives its place back when nobody can want its answer any more, one that
        # swallows its cancellation too.
        timer = asyncio.get_running_loop().call_later(self._window + _MOMENT, leave_behind)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._window):
                    await run_async(self._running(handled))
        finally:
            timer.cancel()
            holds[0].leave()

    def _running(self, handled: Run) -> Steps[None]:
        try:
            reply = yield from self._claimed(handled)
            if reply is None:
                reply = yield from self._handled(handled)
            outcome = Outcome(result=reply)
        except ResilientAuthError as error:
            # An exception holds the frames that it came through, and these what was asked.
            outcome = Outcome(error=_Unanswered(error.code, getattr(error, "detail", "")))
        except (asyncio.CancelledError, GeneratorExit):
            handled.flight.land(Outcome(error=_Unanswered("slow")))
            raise
        except BaseException as error:  # noqa: BLE001 - the owner's code may raise anything, and end nothing but itself
            outcome = Outcome(error=_Unanswered("handler_error", place_of(error)))
        finally:
            handled.request = None  # which may hold a password
        handled.flight.land(outcome)
        reply, told = None if outcome.error is not None else outcome.result, handled.told
        handled.told = None  # which names the user
        # What failed without a claim says nothing about whoever has that.
        if self._store is not None and not handled.repeated and (handled.claimed or reply is not None):
            # Nobody waits for it, and so it takes no place of a handler's.
            note = partial(self._note, handled.key, reply, told)
            self.call(self._store_lane, note, self._clock.monotonic() + self._window)

    def _claimed(self, handled: Run) -> Steps[Reply | None]:
        """Return the answer to a request that was answered elsewhere; None where it is this run's to answer."""
        if self._store is None:
            return None
        while True:
            left = handled.ends - self._clock.monotonic()
            if left <= 0:
                raise _Unanswered("slow", "it runs in another process")
            claim = self.call(self._store_lane, partial(self.once.claim, handled.key), handled.ends)
            outcome: Outcome | None = yield WaitFor(claim, min(left, self._deadline * _STORE_SHARE))
            if outcome is not None and outcome.error is None:
                found: Claimed | Reply = outcome.result
                if found is Claimed.OURS:
                    handled.repeated, handled.claimed = False, True
                    return None
                handled.repeated = True
                if isinstance(found, Reply):
                    return found
                if found is Claimed.FAILED:
                    raise _Unanswered("failed_before")
            elif not handled.repeated:  # else it runs elsewhere, whatever has become of the store since it said so
                if self._runs_without_store:
                    return None
                raise _Unanswered("store_unavailable")
            yield WaitFor(Flight("pause", handled.ends, self._clock), _LOOK)

    def _handled(self, handled: Run) -> Steps[Reply]:
        request = handled.request
        # One user whose data always fails is no outage.
        permit = handled.permit = self._breaker.admit((request.tenant_id, request.user_id) if request.user_id else None)
        with permit:
            try:
                left = max(0.001, handled.ends - self._clock.monotonic())
                answer = yield Invoke(partial(self._ask, request, left))
                reply = self._asks.write(answer, request)
            except UnfitAnswer as error:
                permit.failure(error.code)
                raise _Unanswered(error.code, str(error)) from None
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                permit.failure(error.code if isinstance(error, ResilientAuthError) else "handler_error")
                raise
            permit.success()
            # Before anybody is told: the next request may be this user's, and fail.
            told = None if self._last is None else self._last.keep(request, answer)
            handled.told = told if self._store is not None else None
            return reply

    def _ask(self, request: _R, left: float) -> Any:
        if self.awaits:
            return self._ask_async(request, left)
        try:
            with handed_down(left):
                return self._handler(request)
        except (asyncio.CancelledError, GeneratorExit) as error:
            # Nobody cancels a thread: these are the handler's own.
            raise _Unanswered("handler_error", place_of(error)) from None

    async def _ask_async(self, request: _R, left: float) -> Any:
        with handed_down(left):
            answer: Any = self._handler(request)
            return await answer

    def _note(self, key: str, reply: Reply | None, told: Any) -> None:
        """Tell the store how a run ended."""
        with contextlib.suppress(ResilientAuthError):
            self.once.note(key, reply)
        if self._last is not None and told is not None:
            self._last.tell(*told)


_living: LiveObjects[Handling[Any]] = LiveObjects()


class Begin(NamedTuple):
    """The step that begins a run, where the handler belongs."""

    handling: Handling[Any]
    handled: Run

    def run(self) -> None:
        """Begin it for a thread that waits."""
        self.handling.begin_on_thread(self.handled)

    async def run_async(self) -> None:
        """Begin it for a task that waits."""
        if self.handling.awaits:
            self.handling.begin_task(self.handled)
        else:
            self.handling.begin_on_thread(self.handled)


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """Call something, and return what came of it."""
    try:
        return Outcome(result=call())
    except Exception as error:  # noqa: BLE001 - whoever waits decides about it
        return Outcome(error=error)


def place_of(error: BaseException | None) -> str:
    """Return an exception's type and where it was raised; its text may hold anything of a user's."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    where = f" in {PurePath(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
