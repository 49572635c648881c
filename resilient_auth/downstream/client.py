"""Plain httpx clients with the token, the deadline, the retries, the breaker and the bulkhead in them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from .._policy.checks import require
from .._policy.subject import SubjectOf
from .._wire.environment import proxy_for
from .bearer import BearerAuth
from .options import TransportOptions
from .origins import named_origin
from .transport import AsyncResilientTransport, ResilientTransport

__all__ = ["api_client", "async_api_client"]


def api_client(
    base_url: str | httpx.URL,
    credential: Any,
    scopes: str | Iterable[str] = (),
    *,
    options: TransportOptions | None = None,
    origins: Iterable[str] = (),
    tenant_id: str | None = None,
    subject: SubjectOf | None = None,
    key: Callable[[httpx.Request], str] | None = None,
    fallback: Callable[[httpx.Request, httpx.TransportError], httpx.Response | None] | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.BaseTransport | None = None,
    allow_http_loopback: bool = False,
    **client: Any,
) -> httpx.Client:
    """Make an httpx client for one API, that gets its tokens and survives the API's failures.

    Args:
        base_url: The API's https URL. The token goes to its origin alone.
        credential: As for `BearerAuth`; None for an API that wants no token. It is asked at each request, in the
            caller's context: a function may answer for the current user. A `ResilientCredential` holds what it is
            given; around such a function it needs its own `subject`.
        scopes: One scope, or several; none where the credential is a function.
        options: As for `ResilientTransport`.
        origins: Further origins that the token may go to.
        tenant_id: As for `BearerAuth`.
        subject: As for `BearerAuth`.
        key: As for `ResilientTransport`.
        fallback: As for `ResilientTransport`; it is asked too where there is no token.
        verify: Whom to trust, as for httpx.
        transport: The transport underneath; one of httpx's with the environment's proxies when not given.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        client: Further arguments of `httpx.Client`.

    Returns:
        A client to be used and closed like any other.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    options = _checked(options, transport, verify, client)
    parts = _parts(base_url, credential, scopes, options, origins, tenant_id, subject, allow_http_loopback, client)
    if credential is not None:
        parts["auth"].hands_on = fallback is not None
    wrapped = transport or httpx.HTTPTransport(**_wire(base_url, options, verify, client))
    return httpx.Client(
        transport=ResilientTransport(wrapped, options=options, key=key, fallback=fallback), **parts, **client
    )


def async_api_client(
    base_url: str | httpx.URL,
    credential: Any,
    scopes: str | Iterable[str] = (),
    *,
    options: TransportOptions | None = None,
    origins: Iterable[str] = (),
    tenant_id: str | None = None,
    subject: SubjectOf | None = None,
    key: Callable[[httpx.Request], str] | None = None,
    fallback: Callable[[httpx.Request, httpx.TransportError], Any] | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
    allow_http_loopback: bool = False,
    **client: Any,
) -> httpx.AsyncClient:
    """Make an asyncio httpx client for one API; see `api_client` for the arguments.

    Returns:
        A client to be used and closed like any other.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    options = _checked(options, transport, verify, client)
    parts = _parts(base_url, credential, scopes, options, origins, tenant_id, subject, allow_http_loopback, client)
    if credential is not None:
        parts["auth"].hands_on = fallback is not None
    wrapped = transport or httpx.AsyncHTTPTransport(**_wire(base_url, options, verify, client))
    return httpx.AsyncClient(
        transport=AsyncResilientTransport(wrapped, options=options, key=key, fallback=fallback), **parts, **client
    )


def _checked(
    options: TransportOptions | None, transport: object, verify: ssl.SSLContext | bool, client: dict[str, Any]
) -> TransportOptions:
    require(
        options is None or isinstance(options, TransportOptions),
        f"options must be TransportOptions(...), not {options!r}",
    )
    for name in ("auth", "mounts", "proxy", "cert"):
        require(name not in client, f"{name} has no place here: use transport=, or make an httpx.Client of your own")
    if transport is not None:
        for name in ("verify", "http1", "http2", "limits"):
            given = verify is not True if name == "verify" else name in client
            require(not given, f"{name} has no effect beside transport=: give it to the transport")
    return options or TransportOptions()


def _parts(
    base_url: str | httpx.URL,
    credential: Any,
    scopes: str | Iterable[str],
    options: TransportOptions,
    origins: Iterable[str],
    tenant_id: str | None,
    subject: SubjectOf | None,
    allow_http_loopback: bool,
    client: dict[str, Any],
) -> dict[str, Any]:
    origin = named_origin("base_url", base_url, allow_http_loopback=allow_http_loopback, bare=False)
    parts: dict[str, Any] = {"base_url": base_url}
    if credential is not None:
        parts["auth"] = BearerAuth(
            credential,
            *((scopes,) if isinstance(scopes, str) else tuple(scopes)),
            origins=[origin, *((origins,) if isinstance(origins, str) else origins)],
            tenant_id=tenant_id,
            deadline=options.deadline,
            subject=subject,
            allow_http_loopback=allow_http_loopback,
            clock=options.clock,
        )
    else:
        for name, given in (("scopes", scopes), ("origins", origins), ("tenant_id", tenant_id), ("subject", subject)):
            require(not given, f"{name} has no effect without a token: give the credential as well")
    if "timeout" not in client:
        parts["timeout"] = httpx.Timeout(options.attempt_timeout, connect=options.connect_timeout)
    return parts


def _wire(
    base_url: str | httpx.URL, options: TransportOptions, verify: ssl.SSLContext | bool, client: dict[str, Any]
) -> dict[str, Any]:
    most = options.concurrency
    trusts = client.get("trust_env", True)
    wire: dict[str, Any] = {name: client.pop(name) for name in ("http1", "http2") if name in client} | {
        "verify": verify,
        "trust_env": trusts,
        "limits": client.pop("limits", httpx.Limits(max_connections=most, max_keepalive_connections=min(most, 100))),
    }
    url = httpx.URL(base_url)
    # A client that is given a transport doesn't look at the environment's proxies any more.
    proxy = proxy_for(str(url), None, trust_env=trusts)
    if proxy is not None:
        wire["proxy"] = proxy
    return wire
