"""The two drivers of the pipeline: threads wait in one, tasks in the other."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, ClassVar

import httpx

from .._policy.breaker import BreakerStatus
from .._policy.checks import require
from .bounded import bound
from .failure import HTTPX, Dialect
from .options import TransportOptions
from .pipeline import Close, Consult, Effect, LineUp, Pipeline, Race, Result, Send, Wait
from .stream import AsyncBody, Body

__all__ = ["AsyncDriver", "AsyncResilientTransport", "Driver", "ResilientTransport"]

Fallback = Callable[[Any, Any], Any]


class _Resilient:
    """What both drivers offer an operator."""

    _dialect: ClassVar[Dialect] = HTTPX
    _body: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        wrapped: Any,
        options: TransportOptions | None,
        key: Callable[[Any], str] | None,
        fallback: Fallback | None,
    ) -> None:
        require(
            options is None or isinstance(options, TransportOptions),
            f"options must be TransportOptions(...), not {options!r}",
        )
        require(key is None or callable(key), f"key must be a function of a request, not {key!r}")
        require(
            fallback is None or callable(fallback),
            f"fallback must be a function of request and error, not {fallback!r}",
        )
        self._options = options or TransportOptions()
        self._wrapped = wrapped
        self._fallback = fallback
        self._pipeline = Pipeline(
            self._options,
            key=key,
            has_fallback=fallback is not None,
            body=type(self)._body,
            dialect=self._dialect,
        )

    @property
    def options(self) -> TransportOptions:
        """The owner's choices."""
        return self._options

    def isolate(self, key: str) -> None:
        """Refuse every call with this key until `reset`. The key is an origin unless `key` makes others."""
        self._pipeline.circuit(key.rstrip("/")).breaker.isolate()

    def reset(self, key: str) -> None:
        """Let calls with this key through, and forget its failures."""
        self._pipeline.circuit(key.rstrip("/")).breaker.reset()

    def breakers(self) -> tuple[BreakerStatus, ...]:
        """Tell how the breaker of each key that was used stands."""
        return self._pipeline.breakers()

    def _limits(self) -> Any:
        # A pool that is smaller than the bulkhead would be a second queue, with errors of its own.
        most = self._options.concurrency
        return self._dialect.library.Limits(max_connections=most, max_keepalive_connections=min(most, 100))


class Driver(_Resilient):
    """The driver for threads; see `ResilientTransport`."""

    _body = Body

    def __init__(
        self,
        wrapped: Any = None,
        *,
        options: TransportOptions | None = None,
        key: Callable[[Any], str] | None = None,
        fallback: Fallback | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(wrapped, options, key, fallback)
        if wrapped is None:
            self._wrapped = self._dialect.library.HTTPTransport(limits=self._limits())
        self._pipeline.bounded = bound(self._wrapped)
        self._sleep = sleep

    def handle_request(self, request: Any) -> Any:
        """Send a request as the options say.

        Raises:
            httpx.TransportError: There is no answer; see `resilient_auth.downstream.errors`.
        """
        return self._drive(self._pipeline.call(request))

    def close(self) -> None:
        """Close the wrapped transport."""
        self._wrapped.close()

    def _drive(self, steps: Generator[Effect, Any, Any]) -> Any:
        advance: Callable[[Any], Effect] = steps.send
        told: Any = None
        try:
            while True:
                effect = advance(told)
                try:
                    told = self._perform(effect)
                    advance = steps.send
                except BaseException as error:  # noqa: BLE001 - the generator decides about it
                    told, advance = error, steps.throw
        except StopIteration as end:
            return end.value
        finally:
            steps.close()
            told = None

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            return self._wrapped.handle_request(effect.request)
        if isinstance(effect, Wait):
            return self._sleep(effect.seconds)
        if isinstance(effect, LineUp):
            turn = threading.Event()
            effect.bulkhead.when_granted(effect.place, turn.set)
            return turn.wait(max(0.0, effect.seconds))
        if isinstance(effect, Close):
            return effect.response.close()
        if isinstance(effect, Race):
            return self._race(effect)
        return self._consult(effect)

    def _consult(self, effect: Consult) -> Any:
        assert self._fallback is not None  # noqa: S101 - the pipeline asks only where there is one
        return self._fallback(effect.request, effect.error)

    def _race(self, race: Race) -> Result:
        """Run attempts on threads of their own; a thread can't be stopped, so the loser closes what it gets."""
        ended: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        settled: list[bool] = []
        lock = threading.Lock()

        def run(steps: Generator[Effect, Any, Result]) -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = self._drive(steps)
            except BaseException as raised:  # noqa: BLE001 - it is raised in the caller
                error = raised
            with lock:
                if not settled:
                    ended.put((result, error))
                    return
            if result is not None and result.response is not None:
                result.response.close()

        def start(steps: Generator[Effect, Any, Result]) -> None:
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(run, steps), name="resilient-auth-hedge", daemon=True).start()

        start(race.first)
        running = 1
        outcome: tuple[Result | None, BaseException | None] | None = None
        try:
            try:
                outcome = ended.get(timeout=race.seconds)
                running -= 1
            except queue.Empty:
                second = race.second()
                if second is not None:
                    start(second)
                    running += 1
            while running and (outcome is None or not _won(outcome)):
                later = ended.get()
                running -= 1
                outcome = _better(outcome, later, lambda response: response.close())
        finally:
            with lock:
                settled.append(True)
            while not ended.empty():
                _discard(ended.get(), lambda response: response.close())
        result, error = outcome if outcome is not None else (None, None)
        if error is not None:
            raise error
        assert result is not None  # noqa: S101 - each run ends in a result or an error
        return result


def _won(outcome: tuple[Result | None, BaseException | None]) -> bool:
    return outcome[0] is not None and outcome[0].good


def _better(
    first: tuple[Result | None, BaseException | None] | None,
    second: tuple[Result | None, BaseException | None],
    close: Callable[[Any], object],
) -> tuple[Result | None, BaseException | None]:
    """Choose between two ends of a race, and close the other one's answer."""
    if first is None:
        return second
    keep_first = _won(first) or (not _won(second) and second[0] is None)
    _discard(second if keep_first else first, close)
    return first if keep_first else second


def _discard(outcome: tuple[Result | None, BaseException | None], close: Callable[[Any], object]) -> None:
    result = outcome[0]
    if result is not None and result.response is not None:
        close(result.response)


class AsyncDriver(_Resilient):
    """The driver for asyncio tasks; see `AsyncResilientTransport`."""

    _body = AsyncBody

    def __init__(
        self,
        wrapped: Any = None,
        *,
        options: TransportOptions | None = None,
        key: Callable[[Any], str] | None = None,
        fallback: Fallback | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(wrapped, options, key, fallback)
        if wrapped is None:
            self._wrapped = self._dialect.library.AsyncHTTPTransport(limits=self._limits())
        self._pipeline.bounded = bound(self._wrapped)
        self._sleep = sleep

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request as the options say.

        Raises:
            httpx.TransportError: There is no answer; see `resilient_auth.downstream.errors`.
        """
        return await self._drive(self._pipeline.call(request))

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._wrapped.aclose()

    async def _drive(self, steps: Generator[Effect, Any, Any]) -> Any:
        advance: Callable[[Any], Effect] = steps.send
        told: Any = None
        try:
            while True:
                effect = advance(told)
                try:
                    told = await self._perform(effect)
                    advance = steps.send
                except BaseException as error:  # noqa: BLE001 - the generator decides about it
                    told, advance = error, steps.throw
        except StopIteration as end:
            return end.value
        finally:
            steps.close()
            told = None

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            if self._pipeline.bounded:
                return await self._wrapped.handle_async_request(effect.request)
            async with asyncio.timeout(effect.seconds):
                return await self._wrapped.handle_async_request(effect.request)
        if isinstance(effect, Wait):
            return await self._sleep(effect.seconds)
        if isinstance(effect, LineUp):
            return await _turn(effect)
        if isinstance(effect, Close):
            return await effect.response.aclose()
        if isinstance(effect, Race):
            return await self._race(effect)
        return await self._consult(effect)

    async def _consult(self, effect: Consult) -> Any:
        assert self._fallback is not None  # noqa: S101 - the pipeline asks only where there is one
        answer = self._fallback(effect.request, effect.error)
        return await answer if inspect.isawaitable(answer) else answer

    async def _race(self, race: Race) -> Result:
        tasks: list[asyncio.Task[Result]] = [asyncio.create_task(self._drive(race.first))]
        try:
            await asyncio.wait(tasks, timeout=race.seconds)
            if not tasks[0].done():
                second = race.second()
                if second is not None:
                    tasks.append(asyncio.create_task(self._drive(second)))
            running = set(tasks)
            winner: asyncio.Task[Result] | None = None
            while running and winner is None:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                winner = next((task for task in done if task.exception() is None and task.result().good), None)
            chosen = winner or next((task for task in tasks if task.exception() is None), tasks[0])
            result = chosen.result()
            tasks.remove(chosen)
            return result
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Result) and ended.response is not None:
                    await ended.response.aclose()


async def _turn(effect: LineUp) -> bool:
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()

    def take() -> None:
        if not turn.done():
            turn.set_result(None)

    effect.bulkhead.when_granted(effect.place, lambda: loop.call_soon_threadsafe(take))
    try:
        async with asyncio.timeout(max(0.0, effect.seconds)):
            await turn
    except TimeoutError:
        return False
    return True


class ResilientTransport(Driver, httpx.BaseTransport):
    """Keep calls from hanging, from hammering an API that is down, and from failing for a moment's fault (G11, G19).

    Args:
        wrapped: The transport underneath; httpx's own when not given.
        options: The owner's choices; see `TransportOptions`.
        key: Tells which calls share a breaker and a bulkhead, as a string made of a request, to split a host by API or
            to join several; their origin when not given.
        fallback: Called with the request and the error where there is no good answer, for a reduced experience; returns
            an `httpx.Response`, or None for the API's own answer or the error. Its answers are marked: an extension
            `fallback` and a header `X-Fallback`, which says `stale` where the answer has an `Age`.
        sleep: Waits between attempts; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """


class AsyncResilientTransport(AsyncDriver, httpx.AsyncBaseTransport):
    """Do for asyncio what `ResilientTransport` does for threads. `fallback` may be a coroutine function.

    Args:
        wrapped: The transport underneath; httpx's own when not given.
        options: The owner's choices; see `TransportOptions`.
        key: See `ResilientTransport`.
        fallback: See `ResilientTransport`.
        sleep: Waits between attempts; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """
