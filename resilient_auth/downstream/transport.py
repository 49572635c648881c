"""The two drivers of the pipeline: threads wait in one, tasks in the other."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, ClassVar

import httpx

from .._policy.breaker import BreakerStatus
from .._policy.checks import require
from .._process import forks
from .connections import after_fork, bound
from .options import TransportOptions
from .origins import origin_of
from .pipeline.call import Pipeline
from .pipeline.effects import CallFallback, Close, Effect, JoinQueue, Race, Send, Wait
from .pipeline.failure import HTTPX, Dialect
from .pipeline.race import race_of_tasks, race_of_threads
from .pipeline.stream import AsyncBody, Body

__all__ = ["AsyncDriver", "AsyncResilientTransport", "Driver", "ResilientTransport"]

Fallback = Callable[[Any, Any], Any]


class _Resilient:
    """What both drivers offer an operator."""

    _dialect: ClassVar[Dialect] = HTTPX
    _body: ClassVar[Callable[..., Any]]
    #: The library's own transport.
    _plain: ClassVar[str]

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
        plain = getattr(self._dialect.library, self._plain)
        if wrapped is None:
            wrapped = plain(limits=self._limits())
        self._wrapped = wrapped
        self._bounded = bound(wrapped)
        self._by_origin = key is None
        self._fallback = fallback
        self._pipeline = Pipeline(
            self._options,
            key=key,
            has_fallback=fallback is not None,
            body=type(self)._body,
            bounded=self._bounded,
            nests=fallback is not None or type(wrapped) is not plain,
            dialect=self._dialect,
        )
        forks.renew_in_children(self)

    @property
    def options(self) -> TransportOptions:
        """The owner's choices."""
        return self._options

    def isolate(self, key: str) -> None:
        """Refuse every call with this key until `reset`. The key is an origin unless `key` makes others."""
        forks.notice()
        self._pipeline.circuit(self._named(key)).breaker.isolate()

    def reset(self, key: str) -> None:
        """Let calls with this key through, and forget its failures."""
        forks.notice()
        self._pipeline.circuit(self._named(key)).breaker.reset()

    def breakers(self) -> tuple[BreakerStatus, ...]:
        """Return how the breaker of each key that was used stands."""
        forks.notice()
        return self._pipeline.breakers()

    def after_fork(self) -> None:
        """Make it usable in a forked child, which keeps what is known of each API."""
        after_fork(self._wrapped)
        self._pipeline.after_fork()

    def _named(self, key: str) -> str:
        if not self._by_origin:
            return key
        url = self._dialect.library.URL(key)
        return origin_of(url.scheme, url.raw_host.decode("ascii"), url.port)

    def _limits(self) -> Any:
        # A pool that is smaller than the bulkhead would be a second queue, with errors of its own.
        most = self._options.concurrency
        return self._dialect.library.Limits(max_connections=most, max_keepalive_connections=min(most, 100))


class Driver(_Resilient):
    """The driver for threads; see `ResilientTransport`."""

    _body = Body
    _plain = "HTTPTransport"

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
        try:
            effect = next(steps)
            while True:
                try:
                    if type(effect) is Send:
                        told = self._wrapped.handle_request(effect.request)
                    else:
                        told = self._perform(effect)
                except BaseException as error:  # noqa: BLE001 - the generator decides about it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(told)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Wait):
            return self._sleep(effect.seconds)
        if isinstance(effect, JoinQueue):
            turn = threading.Event()
            effect.bulkhead.when_granted(effect.place, turn.set)
            return turn.wait(max(0.0, effect.seconds))
        if isinstance(effect, Close):
            return effect.response.close()
        if isinstance(effect, Race):
            return race_of_threads(effect, self._drive)
        assert isinstance(effect, CallFallback) and self._fallback is not None  # noqa: S101, PT018
        return self._fallback(effect.request, effect.error)


class AsyncDriver(_Resilient):
    """The driver for asyncio tasks; see `AsyncResilientTransport`."""

    _body = AsyncBody
    _plain = "AsyncHTTPTransport"

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
        self._sleep = sleep

    def handle_async_request(self, request: Any) -> Coroutine[Any, Any, Any]:
        """Send a request as the options say.

        Raises:
            httpx.TransportError: There is no answer; see `resilient_auth.downstream.errors`.
        """
        return self._drive(self._pipeline.call(request))

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._wrapped.aclose()

    async def _drive(self, steps: Generator[Effect, Any, Any]) -> Any:
        try:
            effect = next(steps)
            while True:
                try:
                    if self._bounded and type(effect) is Send:
                        told = await self._wrapped.handle_async_request(effect.request)
                    else:
                        told = await self._perform(effect)
                except BaseException as error:  # noqa: BLE001 - the generator decides about it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(told)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            async with asyncio.timeout(effect.seconds):
                return await self._wrapped.handle_async_request(effect.request)
        if isinstance(effect, Wait):
            return await self._sleep(effect.seconds)
        if isinstance(effect, JoinQueue):
            return await _turn(effect)
        if isinstance(effect, Close):
            return await effect.response.aclose()
        if isinstance(effect, Race):
            return await race_of_tasks(effect, self._drive)
        assert isinstance(effect, CallFallback) and self._fallback is not None  # noqa: S101, PT018
        answer = self._fallback(effect.request, effect.error)
        return await answer if inspect.isawaitable(answer) else answer


async def _turn(effect: JoinQueue) -> bool:
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
