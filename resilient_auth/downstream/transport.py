"""The pipeline as transports: one kind for threads, one for tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import httpx

from .._engine.steps import run, run_async
from .._policy.breaker import BreakerStatus
from .._policy.checks import awaits, require, require_clock, require_function
from .._policy.endpoint import origin_from
from .._process import forks
from .connections import NO_HTTP2, EachLoops, after_fork, bound, limits_for, speaks_http2
from .options import TransportOptions, chosen
from .pipeline.call import Pipeline
from .pipeline.failure import HTTPX, Dialect
from .pipeline.stream import AsyncBody, Body

__all__ = ["AsyncResilientTransport", "Awaiting", "Blocking", "ResilientTransport"]


class _Resilient:
    """What both kinds have in common, and what they offer an operator."""

    _dialect: ClassVar[Dialect] = HTTPX
    _body: ClassVar[Callable[..., Any]]
    #: The library's own transport.
    _plain: ClassVar[str]
    _pause: ClassVar[Callable[..., Any]]
    _awaits: ClassVar[bool]

    def __init__(
        self,
        wrapped: Any = None,
        *,
        options: TransportOptions | None = None,
        key: Callable[[Any], str] | None = None,
        fallback: Callable[[Any, Any], Any] | None = None,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        self._options = chosen(options)
        if key is not None:
            require_function("key", key, of="a request")
        require_clock(self._options.clock)
        require(
            fallback is None or callable(fallback),
            f"fallback must be a function of request and error, not {fallback!r}",
        )
        require(
            self._awaits or not awaits(fallback),
            "an async fallback in a sync transport: use AsyncResilientTransport, or a plain function",
        )
        plain = getattr(self._dialect.library, self._plain)
        if wrapped is None:
            wrapped = plain(limits=limits_for(self._dialect.library, self._options.concurrency))
        way = "handle_async_request" if self._awaits else "handle_request"
        given = wrapped.__name__ if isinstance(wrapped, type) else type(wrapped).__name__
        require(
            callable(getattr(wrapped, way, None)) and not isinstance(wrapped, type),
            f"wrapped, or an api_client's transport, must have {way}, such as {plain.__name__}() has, not {given}",
        )
        require(not speaks_http2(wrapped), NO_HTTP2)
        own = type(wrapped) is plain
        bounded = bound(wrapped)
        if own and self._awaits:
            wrapped = EachLoops(wrapped)
        self._wrapped = wrapped
        self._by_origin = key is None
        self._pipeline = Pipeline(
            self._options,
            key=key,
            fallback=fallback,
            sleep=sleep or type(self)._pause,
            wrapped=wrapped,
            body=type(self)._body,
            bounded=bounded,
            nests=fallback is not None or not own,
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
        self._pipeline.circuits.find(self._named(key)).breaker.isolate()

    def reset(self, key: str) -> None:
        """Let calls with this key through, and forget its failures."""
        forks.notice()
        self._pipeline.circuits.find(self._named(key)).breaker.reset()

    def breakers(self) -> tuple[BreakerStatus, ...]:
        """Return how the breaker of each key that was used stands."""
        forks.notice()
        return self._pipeline.circuits.statuses()

    def after_fork(self) -> None:
        """Make it usable in a forked child, which keeps what is known of each API."""
        if isinstance(self._wrapped, EachLoops):
            self._wrapped.after_fork()
        else:
            after_fork(self._wrapped)
        self._pipeline.after_fork()

    def _named(self, key: str) -> str:
        if not self._by_origin:
            return key
        url = self._dialect.library.URL(key)
        return origin_from(url.scheme, url.raw_host.decode("ascii"), url.port)


class Blocking(_Resilient):
    """What the transports for threads have in common; see `ResilientTransport`."""

    _body = Body
    _plain = "HTTPTransport"
    _pause = time.sleep
    _awaits = False

    def handle_request(self, request: Any) -> Any:
        """Send a request as the options say.

        Raises:
            httpx.TransportError: There is no answer; see `resilient_auth.downstream.errors`.
        """
        return run(self._pipeline.call(request))

    def close(self) -> None:
        """Close the wrapped transport."""
        self._wrapped.close()


class Awaiting(_Resilient):
    """What the transports for asyncio tasks have in common; see `AsyncResilientTransport`."""

    _body = AsyncBody
    _plain = "AsyncHTTPTransport"
    _pause = asyncio.sleep
    _awaits = True

    def handle_async_request(self, request: Any) -> Coroutine[Any, Any, Any]:
        """Send a request as the options say.

        Raises:
            httpx.TransportError: There is no answer; see `resilient_auth.downstream.errors`.
        """
        return run_async(self._pipeline.call(request))

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._wrapped.aclose()


class ResilientTransport(Blocking, httpx.BaseTransport):
    """Keep calls from hanging, from hammering an API that is down, and from failing for a moment's fault (G11, G19).

    Args:
        wrapped: The transport underneath; httpx's own when not given.
        options: The owner's choices; see `TransportOptions`.
        key: Returns, for a request, the name under which calls share a breaker and a bulkhead, to split a host by API
            or to join several; their origin when not given.
        fallback: Called with the request and the error where there is no good answer, for a reduced experience; returns
            an `httpx.Response`, or None for the API's own answer or the error. Its answers are marked: an extension
            `fallback` and a header `X-Fallback`, which says `stale` where the answer has an `Age`.
        sleep: Waits between attempts; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """


class AsyncResilientTransport(Awaiting, httpx.AsyncBaseTransport):
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
