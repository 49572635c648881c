"""Bearer auth for aiohttp's clients: the rules of `resilient_auth.BearerAuth`, as a client middleware.

    async with aiohttp.ClientSession(middlewares=[BearerMiddleware(credential, "api://orders/.default")]) as session:
        ...

Needs aiohttp 3.12 or newer, and the extra: `pip install 'resilient-auth[aiohttp]'`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .._engine.steps import Invoke, run_async
from .._policy.endpoint import origin_from
from .._policy.subject import SubjectOf
from .._process.extras import raise_missing
from ..clock import Clock, SystemClock
from ..downstream import errors
from ..downstream.origins import Origins
from ..downstream.refusals import BearerRules
from ..downstream.source import TokenSource

try:
    import aiohttp
except ImportError as error:
    raise_missing(__name__, "aiohttp", error)

__all__ = ["BearerMiddleware", "TokenUnavailable"]

_SYSTEM = SystemClock()
_AUTHORIZATION = "Authorization"


class TokenUnavailable(errors.TokenUnavailable, aiohttp.ClientError):  # type: ignore[misc]
    """Say that a credential gave no token, or that the provider denied it; it is aiohttp's error too."""


class BearerMiddleware:
    """Send a token with each request of an aiohttp session (G17, G22).

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, of either kind, or a function.
        scopes: What the token is for; none where the credential is a function.
        origins: Where the token may go, such as `https://api.example`. Requests to other origins go without it. When
            not given, the origin of the first request is the one.
        tenant_id: Another tenant than the credential's own.
        cae: Ask for tokens that can be revoked early: claims challenges are handled here.
        subject: For a function that answers for the current user; see `resilient_auth.BearerAuth`.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong; or, at a request, its URL is http.
    """

    def __init__(
        self,
        credential: Any,
        *scopes: str,
        origins: str | Iterable[str] | None = None,
        tenant_id: str | None = None,
        cae: bool = True,
        subject: SubjectOf | None = None,
        allow_http_loopback: bool = False,
        clock: Clock = _SYSTEM,
    ) -> None:
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id, unavailable=TokenUnavailable)
        self._rules = BearerRules(source, clock=clock, subject=subject)

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Sign a request, and see to its answer; aiohttp's way to call a middleware, for each redirect too."""
        url = request.url
        if not self._origins.allow(url.scheme, url.raw_host or "", url.port):
            return await handler(request)
        call = await run_async(self._rules.begin(origin_from(url.scheme, url.raw_host or "", url.port)))
        request.headers[_AUTHORIZATION] = f"Bearer {call.token}"
        response = await handler(request)
        while (challenges := _challenges(response)) is not None:
            again = call.go_on(challenges, replayable=lambda: _is_there(request.body), read=Invoke(response.read))
            if not await run_async(again):
                break
            response.release()
            request.headers[_AUTHORIZATION] = f"Bearer {call.token}"
            response = await handler(request)
        return response


def _challenges(response: Any) -> list[str] | None:
    """Return a 401's challenges; None for any other answer."""
    return list(response.headers.getall("WWW-Authenticate", [])) if response.status == 401 else None


def _is_there(body: Any) -> bool:
    """Return whether a body can be sent again: what gave its parts one by one is over."""
    return isinstance(body, (bytes, bytearray)) or not getattr(body, "consumed", True)
