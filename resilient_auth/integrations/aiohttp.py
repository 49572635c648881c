"""Bearer auth for aiohttp's clients: the rules of `resilient_auth.BearerAuth`, as a client middleware.

    async with aiohttp.ClientSession(middlewares=[BearerMiddleware(credential, "api://orders/.default")]) as session:
        ...

Needs aiohttp 3.12 or newer, and the extra: `pip install 'resilient-auth[aiohttp]'`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .._engine.steps import Invoke, run_async
from .._process.extras import raise_missing
from ..downstream import errors
from ..downstream.bearer import Signer

try:
    import aiohttp
except ImportError as error:
    raise_missing(__name__, "aiohttp", error)

__all__ = ["BearerMiddleware", "TokenUnavailable"]


class TokenUnavailable(errors.TokenUnavailable, aiohttp.ClientError):  # type: ignore[misc]
    """Say that a credential gave no token, or that the provider denied it; it is aiohttp's error too."""


class BearerMiddleware(Signer):
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

    _unavailable = TokenUnavailable

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Sign a request, and see to its answer; aiohttp's way to call a middleware, for each redirect too."""
        url = request.url
        origin = self._signed_at(url.scheme, url.raw_host or "", url.port)
        if origin is None:
            return await handler(request)
        call = await run_async(self._rules.begin(origin))
        while True:
            request.headers["Authorization"] = f"Bearer {call.token}"
            response = await handler(request)
            if response.status != 401:
                return response
            challenges = list(response.headers.getall("WWW-Authenticate", []))
            again = call.go_on(challenges, replayable=lambda: _is_there(request.body), read=Invoke(response.read))
            if not await run_async(again):
                return response
            response.release()


def _is_there(body: Any) -> bool:
    """Return whether a body can be sent again: what gave its parts one by one is over."""
    return isinstance(body, (bytes, bytearray)) or not getattr(body, "consumed", True)
