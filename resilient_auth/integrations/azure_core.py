"""Bearer policies for azure-core's pipelines, which tell the credential of a plain 401, and hold no token themselves.

azure-core's own policy keeps a token and meets claims challenges alone. These ask the credential for each request, and
go by the rules of `resilient_auth.BearerAuth`. Clients that azure-core's generator made take one:

    VaultClient(url, credential, authentication_policy=BearerTokenPolicy(credential, "https://vault.azure.net/.default"))

Needs the extra: `pip install 'resilient-auth[azure]'`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .._engine.steps import Invoke, run, run_async
from .._policy.endpoint import origin_from
from .._policy.subject import SubjectOf
from .._process.extras import raise_missing
from ..clock import Clock, SystemClock
from ..downstream import errors
from ..downstream.origins import Origins
from ..downstream.refusals import BearerCall, BearerRules
from ..downstream.source import TokenSource
from ..errors import ConfigurationError

try:
    from azure.core.exceptions import ClientAuthenticationError
    from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
except ImportError as error:
    raise_missing(__name__, "azure", error)

__all__ = ["AsyncBearerTokenPolicy", "BearerTokenPolicy", "TokenUnavailable"]

_SYSTEM = SystemClock()


class TokenUnavailable(errors.TokenUnavailable, ClientAuthenticationError):
    """Say that a credential gave no token; it is azure-core's error too, after which nothing is sent again."""


class _Policy:
    """What both kinds share."""

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
        super().__init__()
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id, unavailable=TokenUnavailable)
        self._rules = BearerRules(source, clock=clock, subject=subject)

    def _origin(self, http_request: Any) -> str | None:
        """Return the origin of a request that gets a token; None for one that goes without."""
        try:
            parts = urlsplit(http_request.url)
            scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            raise ConfigurationError("the request's URL can't be read") from None
        return origin_from(scheme, host, port) if self._origins.allow(scheme, host, port) else None


class BearerTokenPolicy(_Policy, HTTPPolicy):  # type: ignore[misc]
    """Sign the requests of a blocking pipeline (G17, G22).

    Args:
        credential: Anything with `get_token` or `get_token_info`, or a function; one of asyncio's for the awaited
            policy alone.
        scopes: What the token is for; none where the credential is a function.
        origins: Where the token may go, such as `https://shop.vault.azure.net`. Requests to other origins go without
            it. When not given, the origin of the first request is the one.
        tenant_id: Another tenant than the credential's own.
        cae: Ask for tokens that can be revoked early: claims challenges are handled here.
        subject: For a function that answers for the current user; see `resilient_auth.BearerAuth`.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong; or, at a request, its URL is http.
    """

    def send(self, request: Any) -> Any:
        """Send a request with a token, and once more with another one where the answer wants that."""
        sent = request.http_request
        origin = self._origin(sent)
        if origin is None:
            return self.next.send(request)
        start = _position(sent)
        call = run(self._rules.begin(origin))
        _sign(sent, call)
        response = self.next.send(request)
        while (challenges := _challenges(response)) is not None:
            read = Invoke(partial(_read, response.http_response))
            if not run(call.go_on(challenges, replayable=lambda: start is not None, read=read)):
                break
            _rewind(sent, start)
            _sign(sent, call)
            response = self.next.send(request)
        return response


class AsyncBearerTokenPolicy(_Policy, AsyncHTTPPolicy):  # type: ignore[misc]
    """Sign the requests of an asyncio pipeline; arguments as for `BearerTokenPolicy`."""

    async def send(self, request: Any) -> Any:
        """Send a request with a token, and once more with another one where the answer wants that."""
        sent = request.http_request
        origin = self._origin(sent)
        if origin is None:
            return await self.next.send(request)
        start = _position(sent)
        call = await run_async(self._rules.begin(origin))
        _sign(sent, call)
        response = await self.next.send(request)
        while (challenges := _challenges(response)) is not None:
            read = Invoke(partial(_read, response.http_response))
            if not await run_async(call.go_on(challenges, replayable=lambda: start is not None, read=read)):
                break
            _rewind(sent, start)
            _sign(sent, call)
            response = await self.next.send(request)
        return response


def _sign(http_request: Any, call: BearerCall) -> None:
    http_request.headers["Authorization"] = f"Bearer {call.token}"


def _challenges(response: Any) -> list[str] | None:
    """Return a 401's challenges; None for any other answer."""
    answer = response.http_response
    if answer.status_code != 401:
        return None
    header = answer.headers.get("WWW-Authenticate")
    return [] if header is None else [header]


def _read(http_response: Any) -> Any:
    """Read an answer, which frees its connection: of azure-core's newer kind, or the older."""
    read = getattr(http_response, "read", None) or getattr(http_response, "load_body", None) or http_response.body
    return read()


def _body(http_request: Any) -> Any:
    return http_request.content if hasattr(http_request, "content") else http_request.body


def _position(http_request: Any) -> int | None:
    """Return where a body begins, so that it can be wound back there; None where it can't be sent again."""
    body = _body(http_request)
    if body is None or isinstance(body, (bytes, str, dict)):
        return 0
    try:
        return int(body.tell()) if body.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def _rewind(http_request: Any, start: int | None) -> None:
    body = _body(http_request)
    if hasattr(body, "seek"):
        body.seek(start)
