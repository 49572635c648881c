"""Faults of an API, put in front of any httpx transport."""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["chaos"]


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
        error: Raise this transport error of httpx's for them instead, such as `httpx.ConnectError`.
        delay: Seconds for which each of them is held up first. Where neither status nor error is given, that is all.
        seed: Makes the choice of requests repeatable.

    Returns:
        A transport for `httpx.Client` and `httpx.AsyncClient`, with `rate` and `hits`, the number of faults so far.

    Raises:
        ConfigurationError: An argument is wrong, or `rate` is set to what isn't a share.
    """
    import random

    import httpx

    from .._policy.checks import require, require_number, require_whole

    answers = any(callable(getattr(wrapped, f"handle_{kind}request", None)) for kind in ("", "async_"))
    require(
        answers and not isinstance(wrapped, type),
        f"wrapped must be a transport, such as httpx.HTTPTransport(), not {wrapped!r}",
    )
    require_number("delay", delay, low=0.0, high=3600.0)
    require(status is None or error is None, "give a status or an error, not both")
    if status is not None:
        require_whole("status", status, low=200, high=599)
    if error is not None:
        require(
            isinstance(error, type) and issubclass(error, (httpx.TransportError, OSError)),
            f"error must be a class of httpx's transport errors, such as httpx.ConnectError, not {error!r}",
        )
    if seed is not None:
        require_whole("seed", seed, low=0)
    luck = random.Random(seed)  # noqa: S311 - nothing secret hangs on it

    class Chaos(httpx.BaseTransport, httpx.AsyncBaseTransport):
        @property
        def rate(self) -> float:
            return self._rate

        @rate.setter
        def rate(self, share: float) -> None:
            require_number("rate", share, low=0.0, high=1.0, unit="")
            self._rate = share

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
