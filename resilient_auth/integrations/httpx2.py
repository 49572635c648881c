"""Clients, bearer auth and resilient transports for httpx2, the maintained fork of httpx.

Its classes are unrelated to httpx's, so that an `httpx.Auth` fails in an `httpx2.Client`. These are the same auth and
the same pipeline, with errors that are both: `except resilient_auth.downstream.ApiCircuitOpen` catches them, and so
does `except httpx2.TransportError`. Needs the extra: `pip install 'resilient-auth[httpx2]'`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any

from .._policy.subject import SubjectOf
from .._process.extras import raise_missing
from ..downstream import errors
from ..downstream.bearer import BearerFlow
from ..downstream.client import Given, Kind, made_of
from ..downstream.options import TransportOptions
from ..downstream.pipeline.failure import Dialect
from ..downstream.pipeline.stream import AsyncTracked, SyncTracked
from ..downstream.transport import Awaiting, Blocking

try:
    import httpx2
except ImportError as error:
    raise_missing(__name__, "httpx2", error)

__all__ = ["AsyncResilientTransport", "BearerAuth", "ResilientTransport", "api_client", "async_api_client"]


class ApiCircuitOpen(errors.ApiCircuitOpen, httpx2.TransportError):
    """Say that the API wasn't asked, since it failed a moment ago or was isolated (G11)."""


class ApiDeadlinePassed(errors.ApiDeadlinePassed, httpx2.TimeoutException):
    """Say that the time for the whole call is over."""


class ApiAttemptTimeout(errors.ApiAttemptTimeout, httpx2.ReadTimeout):
    """Say that the API didn't answer one attempt in time."""


class ApiNameNotResolved(errors.ApiNameNotResolved, httpx2.ConnectError):
    """Say that the API's host name could not be resolved."""


class ApiConnectionRefused(errors.ApiConnectionRefused, httpx2.ConnectError):
    """Say that nothing listens at the API's address."""


class ApiBulkheadFull(errors.ApiBulkheadFull, httpx2.PoolTimeout):
    """Say that too many calls are under way."""


class ApiAnsweredError(errors.ApiAnsweredError, httpx2.TransportError):
    """Say that the API answered 429 or 5xx, to a fallback function."""


class TokenUnavailable(errors.TokenUnavailable, httpx2.TransportError):
    """Say that a credential gave no token, or that the provider denied it."""


_HTTPX2 = Dialect(
    library=httpx2,
    circuit_open=ApiCircuitOpen,
    deadline_passed=ApiDeadlinePassed,
    attempt_timeout=ApiAttemptTimeout,
    name_not_resolved=ApiNameNotResolved,
    connection_refused=ApiConnectionRefused,
    bulkhead_full=ApiBulkheadFull,
    answered_error=ApiAnsweredError,
)


class _Body(SyncTracked, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncTracked, httpx2.AsyncByteStream):
    pass


class BearerAuth(BearerFlow, httpx2.Auth):
    """Send a token with each request of an httpx2 client; see `resilient_auth.BearerAuth`."""

    _library = httpx2
    _unavailable = TokenUnavailable


class ResilientTransport(Blocking, httpx2.BaseTransport):
    """Keep calls of an `httpx2.Client` from hanging and hammering; see `resilient_auth.ResilientTransport`."""

    _dialect = _HTTPX2
    _body = _Body


class AsyncResilientTransport(Awaiting, httpx2.AsyncBaseTransport):
    """Do the same for an `httpx2.AsyncClient`."""

    _dialect = _HTTPX2
    _body = _AsyncBody


_BLOCKING = Kind(httpx2, httpx2.Client, httpx2.HTTPTransport, ResilientTransport, BearerAuth)
_AWAITING = Kind(httpx2, httpx2.AsyncClient, httpx2.AsyncHTTPTransport, AsyncResilientTransport, BearerAuth)


def api_client(
    base_url: str | httpx2.URL,
    credential: Any,
    scopes: str | Iterable[str] = (),
    *,
    options: TransportOptions | None = None,
    origins: Iterable[str] = (),
    tenant_id: str | None = None,
    subject: SubjectOf | None = None,
    key: Callable[[httpx2.Request], str] | None = None,
    fallback: Callable[[httpx2.Request, httpx2.TransportError], httpx2.Response | None] | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx2.BaseTransport | None = None,
    allow_http_loopback: bool = False,
    **client: Any,
) -> httpx2.Client:
    """Make an httpx2 client for one API, that gets its tokens and survives the API's failures.

    Takes what `resilient_auth.api_client` takes, with httpx2's classes in place of httpx's.

    Returns:
        A client to be used and closed like any other.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    given = Given(
        base_url, credential, scopes, options, origins, tenant_id, subject, key, fallback, verify, transport,
        allow_http_loopback, client,
    )  # fmt: skip
    return made_of(_BLOCKING, given)


def async_api_client(
    base_url: str | httpx2.URL,
    credential: Any,
    scopes: str | Iterable[str] = (),
    *,
    options: TransportOptions | None = None,
    origins: Iterable[str] = (),
    tenant_id: str | None = None,
    subject: SubjectOf | None = None,
    key: Callable[[httpx2.Request], str] | None = None,
    fallback: Callable[[httpx2.Request, httpx2.TransportError], Any] | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx2.AsyncBaseTransport | None = None,
    allow_http_loopback: bool = False,
    **client: Any,
) -> httpx2.AsyncClient:
    """Make an asyncio httpx2 client for one API; see `api_client`.

    Returns:
        A client to be used and closed like any other.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    given = Given(
        base_url, credential, scopes, options, origins, tenant_id, subject, key, fallback, verify, transport,
        allow_http_loopback, client,
    )  # fmt: skip
    return made_of(_AWAITING, given)
