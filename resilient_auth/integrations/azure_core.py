"""Bearer policies for azure-core's pipelines, which tell the credential of a plain 401, and hold no token themselves.

azure-core's own policy keeps a token and meets claims challenges alone. These ask the credential for each request, and
go by the rules of `resilient_auth.BearerAuth`. Clients that azure-core's generator made take one:

    VaultClient(url, credential, authentication_policy=BearerTokenPolicy(credential, "https://vault.azure.net/.default"))

Needs the extra: `pip install 'resilient-auth[azure]'`.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .._engine.steps import Invoke, Steps, run, run_async
from .._process.extras import raise_missing
from ..downstream import errors
from ..downstream.bearer import Signer
from ..downstream.signed import position, rewind
from ..errors import ConfigurationError

try:
    from azure.core.exceptions import ClientAuthenticationError
    from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
except ImportError as error:
    raise_missing(__name__, "azure", error)

__all__ = ["AsyncBearerTokenPolicy", "BearerTokenPolicy", "TokenUnavailable"]


class TokenUnavailable(errors.TokenUnavailable, ClientAuthenticationError):
    """Say that a credential gave no token; it is azure-core's error too, after which nothing is sent again."""


class _Policy(Signer):
    """What both kinds share."""

    next: Any
    _unavailable = TokenUnavailable

    def _steps(self, request: Any) -> Steps[Any]:
        """Send a request with a token, and once more with another one where the answer wants that."""
        sent, send = request.http_request, Invoke(partial(self.next.send, request))
        origin = self._origin_of(sent)
        if origin is None:
            return (yield send)
        start = position(_body(sent))
        call = yield from self._rules.begin(origin)
        while True:
            sent.headers["Authorization"] = f"Bearer {call.token}"
            response = yield send
            answer = response.http_response
            if answer.status_code != 401:
                return response
            header = answer.headers.get("WWW-Authenticate")
            challenges = [] if header is None else [header]
            read = Invoke(partial(_read, answer))
            if not (yield from call.go_on(challenges, replayable=lambda: start is not None, read=read)):
                return response
            rewind(_body(sent), start)

    def _origin_of(self, http_request: Any) -> str | None:
        try:
            parts = urlsplit(http_request.url)
            scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            raise ConfigurationError("the request's URL can't be read") from None
        return self._signed_at(scheme, host, port)


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
        return run(self._steps(request))


class AsyncBearerTokenPolicy(_Policy, AsyncHTTPPolicy):  # type: ignore[misc]
    """Sign the requests of an asyncio pipeline; arguments as for `BearerTokenPolicy`."""

    async def send(self, request: Any) -> Any:
        """Send a request with a token, and once more with another one where the answer wants that."""
        return await run_async(self._steps(request))


def _read(http_response: Any) -> Any:
    """Read an answer, which frees its connection: of azure-core's newer kind, or the older."""
    read = getattr(http_response, "read", None) or getattr(http_response, "load_body", None) or http_response.body
    return read()


def _body(http_request: Any) -> Any:
    return http_request.content if hasattr(http_request, "content") else http_request.body
