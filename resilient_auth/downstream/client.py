"""Plain httpx clients with the token, the deadline, the retries, the breaker and the bulkhead in them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import httpx

from .._policy.checks import require, require_number
from .._policy.subject import SubjectOf
from .._wire.environment import proxy_for
from ..errors import ConfigurationError
from .bearer import BearerAuth, BearerFlow
from .connections import NO_HTTP2, limits_for
from .given import Verify, credential_of, trusted
from .options import TransportOptions, chosen
from .origins import named_origin
from .transport import AsyncResilientTransport, Awaiting, Blocking, ResilientTransport

__all__ = ["Given", "Kind", "api_client", "async_api_client", "made_of"]

_Client = TypeVar("_Client")


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
    verify: Verify = True,
    transport: httpx.BaseTransport | None = None,
    allow_http_loopback: bool = False,
    **client: Any,
) -> httpx.Client:
    """Make an httpx client for one API, that gets its tokens and survives the API's failures.

    Args:
        base_url: The API's https URL. The token goes to its origin alone.
        credential: As for `BearerAuth`, or an application of MSAL's for its own tokens; None for an API that wants no
            token. It is asked at each request, in the caller's context: a function may answer for the current user. A
            `ResilientCredential` holds what it is given; around such a function it needs its own `subject`.
        scopes: One scope, or several; none where the credential is a function.
        options: As for `ResilientTransport`.
        origins: Further origins that the token may go to.
        tenant_id: As for `BearerAuth`.
        subject: As for `BearerAuth`.
        key: As for `ResilientTransport`.
        fallback: As for `ResilientTransport`; it is asked too where there is no token.
        verify: Whom to trust, as in MSAL: False, or the path of a CA bundle; or an SSL context.
        transport: The transport underneath; one of httpx's with the environment's proxies when not given.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        client: Further arguments of `httpx.Client`. A `timeout` that is longer than the options' `attempt_timeout` goes
            before it, as each call's own does; None leaves the deadline alone. HTTP/2 is refused.

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
    verify: Verify = True,
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
    given = Given(
        base_url, credential, scopes, options, origins, tenant_id, subject, key, fallback, verify, transport,
        allow_http_loopback, client,
    )  # fmt: skip
    return made_of(_AWAITING, given)


class Kind(NamedTuple, Generic[_Client]):
    """A kind of client: its library, and the classes that it is made of."""

    library: Any
    client: Callable[..., _Client]
    transport: Any
    resilient: type[Blocking | Awaiting]
    auth: type[BearerFlow]


_BLOCKING = Kind(httpx, httpx.Client, httpx.HTTPTransport, ResilientTransport, BearerAuth)
_AWAITING = Kind(httpx, httpx.AsyncClient, httpx.AsyncHTTPTransport, AsyncResilientTransport, BearerAuth)


class Given(NamedTuple):
    """What was given to `api_client` or to one of its twins."""

    base_url: Any
    credential: Any
    scopes: str | Iterable[str]
    options: TransportOptions | None
    origins: Iterable[str]
    tenant_id: str | None
    subject: SubjectOf | None
    key: Callable[[Any], str] | None
    fallback: Callable[[Any, Any], Any] | None
    verify: Verify
    transport: Any
    allow_http_loopback: bool
    client: dict[str, Any]


def made_of(kind: Kind[_Client], given: Given) -> _Client:
    """Make a client of one kind."""
    origins = given.origins
    require(isinstance(origins, Iterable), f"origins must be URLs such as 'https://api.example', not {origins!r}")
    given = given._replace(origins=(origins,) if isinstance(origins, str) else tuple(origins))
    scopes = given.scopes
    require(isinstance(scopes, Iterable), f"scopes must be such as ['api://orders/.default'], not {scopes!r}")
    options, client = _checked(given), dict(given.client)
    url = given.base_url
    base_url = str(url) if isinstance(url, (httpx.URL, kind.library.URL)) else url
    origin = named_origin("base_url", base_url, allow_http_loopback=given.allow_http_loopback, bare=False)
    auth = _auth(kind, given, options, origin)
    timeout = _timeout(kind.library, options, client)

    def around(wrapped: Any) -> Any:
        return kind.resilient(wrapped, options=options, key=given.key, fallback=given.fallback)

    parts = {"base_url": base_url, "auth": auth, "timeout": timeout}
    if given.transport is not None:
        return kind.client(transport=around(given.transport), **parts, **client)
    wire = _wire(kind.library, options, given.verify, client)
    # A client that is given a transport doesn't look at the environment's proxies any more.
    usual, *others = (proxy_for(at, None, trust_env=wire["trust_env"]) for at in (base_url, *given.origins))

    def through(proxy: str | None) -> Any:
        return around(kind.transport(**wire, proxy=_proxy(kind.library, proxy, given.verify)))

    ways = zip(given.origins, others, strict=True)
    mounts = {at: through(proxy) for at, proxy in ways if proxy != usual}
    return kind.client(transport=through(usual), mounts=mounts, **parts, **client)


def _checked(given: Given) -> TransportOptions:
    options, client = chosen(given.options), given.client
    for name in ("auth", "mounts", "proxy", "cert"):
        require(name not in client, f"{name} has no place here: use transport=, or make a client of your own")
    if given.transport is not None:
        for name in ("verify", "http1", "http2", "limits"):
            said = given.verify is not True if name == "verify" else name in client
            require(not said, f"{name} has no effect beside transport=: give it to the transport")
    require(not client.get("http2"), NO_HTTP2)
    return options


def _auth(kind: Kind[Any], given: Given, options: TransportOptions, origin: str) -> BearerFlow | None:
    scopes, origins = given.scopes, given.origins
    if given.credential is not None:
        auth = kind.auth(
            credential_of(given.credential, asynchronous=issubclass(kind.resilient, Awaiting)),
            *((scopes,) if isinstance(scopes, str) else tuple(scopes)),
            origins=[origin, *origins],
            tenant_id=given.tenant_id,
            deadline=options.deadline,
            subject=given.subject,
            allow_http_loopback=given.allow_http_loopback,
            clock=options.clock,
        )
        auth.hands_on = given.fallback is not None
        return auth
    for name, said in (
        ("scopes", scopes),
        ("origins", origins),
        ("tenant_id", given.tenant_id),
        ("subject", given.subject),
    ):
        require(not said, f"{name} has no effect without a token: give the credential as well")
    return None


def _timeout(library: Any, options: TransportOptions, client: dict[str, Any]) -> Any:
    """Return the client's time-outs: the options', or its own where they can hold."""
    if "timeout" not in client:
        return library.Timeout(options.attempt_timeout, connect=options.connect_timeout)
    try:
        timeout = library.Timeout(client.pop("timeout"))
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise ConfigurationError(f"timeout must be a number of seconds, None, or a Timeout: {error}") from None
    for part, seconds in timeout.as_dict().items():
        if seconds is not None:
            require_number(f"timeout ({part})", seconds, low=0.001)
            require(
                seconds <= options.deadline,
                f"timeout of {seconds:g} s ({part}) can't hold within the deadline of {options.deadline:g} s: lower "
                "it, or give options=TransportOptions(deadline=...) or options=TransportOptions.for_slow_apis()",
            )
    return timeout


def _wire(library: Any, options: TransportOptions, verify: Verify, client: dict[str, Any]) -> dict[str, Any]:
    return {name: client.pop(name) for name in ("http1", "http2") if name in client} | {
        "verify": trusted(verify, trust_env=client.get("trust_env", True)),
        "trust_env": client.get("trust_env", True),
        "limits": client.pop("limits", limits_for(library, options.concurrency)),
    }


def _proxy(library: Any, proxy: str | None, verify: Verify) -> Any:
    if proxy is None:
        return None
    own = isinstance(verify, ssl.SSLContext) and proxy.startswith("https:")
    return library.Proxy(proxy, ssl_context=verify if own else None)
