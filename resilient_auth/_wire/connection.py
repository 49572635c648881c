"""Send one HTTP request and bound everything about it: its connection, its size, and its whole duration."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

import httpcore
import httpx

from .._policy.checks import require, require_number
from .._policy.endpoint import origin_of
from .._process import forks
from .._process.saying import say
from .._process.sockets import acknowledged, shortest_way
from ..clock import Clock
from ..errors import ConfigurationError
from .answers import WireResponse, followed, read
from .environment import Authorities, check_proxies, proxy_for, proxy_setting
from .failures import Unsendable, fault_of_proxy
from .identity import identity_of
from .network.bounded import UNSAID, BoundedBackend, BoundedStream, Until, left_of
from .network.connect import racing
from .trail import Trail

__all__ = ["HttpxWire"]


#: The bytes that a header's value may have: a tab, and all that isn't a control character.
_SENDABLE = bytes([9, *range(32, 127), *range(128, 256)])
#: What a request may be given, beside its method and its address.
_OPTIONS = frozenset({"data", "headers", "largest", "params", "redirects", "timeout", "trail"})


class _Attempt(NamedTuple):
    """When an attempt ends, by which clock, and what is told how far it comes."""

    ends: float
    now: Callable[[], float]
    trail: Trail


class _Traced(Until):
    """A time-out of one attempt, which is told how far it comes."""

    __slots__ = ("late", "trail")
    late: type[Exception]
    trail: Trail

    @classmethod
    def of(cls, attempt: _Attempt, most: float | None, late: type[Exception]) -> Self:
        """Make one that ends with an attempt, and after `most` seconds of silence, by raising `late`."""
        left = attempt.ends - attempt.now()
        until = cls(left if most is None or most > left else most)
        until.ends, until.now, until.trail, until.late = attempt.ends, attempt.now, attempt.trail, late
        return until

    def is_over(self) -> Exception:
        return self.late("the deadline of this request has passed")


class _TracedStream(BoundedStream):
    """A stream that tells an attempt's trail what becomes of it."""

    handshakes = 0
    certificate: bytes | None = None

    def read(self, max_bytes: int, timeout: Any = UNSAID) -> Any:
        try:
            return self._read(max_bytes, left_of(self._within if timeout is UNSAID else timeout))
        except Exception:
            # Here, as it will be closed.
            if timeout is not UNSAID:
                timeout.trail.acknowledged = acknowledged(self.get_extra_info("socket"))
            raise

    def write(self, buffer: bytes, timeout: Any = UNSAID) -> None:
        if buffer:
            if timeout is UNSAID:
                timeout = self._within
            else:
                trail: Trail = timeout.trail
                trail.stream, trail.certificate, trail.connected = self, self.certificate, True
            self._write(buffer, left_of(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: Any = None) -> Self:
        timeout.trail.begun = self.handshakes + 1
        secured = super().start_tls(ssl_context, server_hostname, timeout)
        shown = secured.get_extra_info("ssl_object")
        secured.handshakes = self.handshakes + 1
        secured.certificate = None if shown is None else shown.getpeercert(True)
        return secured


class _TracedBackend(BoundedBackend):
    stream = _TracedStream

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Any = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> BoundedStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        timeout.trail.connected, timeout.trail.seconds = True, shortest_way(stream.get_extra_info("socket"))
        return stream


@dataclass(slots=True)
class _Open:
    """Whom to trust, the clients that do, by proxy, and how many requests are on them."""

    trust: ssl.SSLContext
    #: Of the bundle that was read for it.
    state: object
    clients: dict[str | None, httpx.Client] = field(default_factory=dict)
    users: int = 0

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


class HttpxWire:
    """Send requests with httpx, taking `verify`, `proxies` and `timeout` as MSAL takes them.

    A bundle of certificate authorities that is replaced on disk is read again for the next request.

    Args:
        clock: Bounds each request's duration.
        connect_timeout: Seconds for making a connection, the look-up of the name and all of its addresses included.
        verify: False, or the path of a CA bundle or directory, or True for the environment's or certifi's.
        proxies: By scheme, as requests takes them; None for the environment's.
        timeout: Seconds, or a pair for connecting and reading; None for the settings'.

    Raises:
        ConfigurationError: The bundle or a proxy that somebody named can't be used.
    """

    def __init__(
        self,
        clock: Clock,
        connect_timeout: float,
        *,
        verify: bool | str | os.PathLike[str] | ssl.SSLContext | None = True,
        proxies: Mapping[str, str | None] | None = None,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> None:
        check_proxies(proxies)
        self._clock = clock
        self._authorities = Authorities(verify)
        self._proxies = dict(proxies or {})
        #: What tells it from other wires; as it was built, whatever the environment becomes.
        self.identity = identity_of(verify, self._proxies)
        self._timeout = _timeouts(timeout, connect_timeout)
        self.after_fork()
        if self._authorities.named:
            self._leave(self._enter())
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without connections, also in a child: it must not talk on its parent's, nor close them."""
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._told: object = None

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        """Send a request and read its whole answer.

        A GET goes where its answer leads, but only over https and to the same origin.

        Raises:
            ConfigurationError: It is asked for what can't be sent, or with an option that would have no effect.
        """
        for unknown in sorted(options.keys() - _OPTIONS):
            raise Unsendable(
                f"{unknown} has no effect on a request: leave it out; verify, proxies and timeout are for the "
                "constructor, and what else requests takes is for a session of your own, given as http_client"
            )
        if (trail := options.get("trail")) is not None:
            trail.ours = True
        opened = self._enter()
        try:
            return followed(method, url, partial(self._send, opened, method, ends, options), options)
        finally:
            self._leave(opened)

    def _send(
        self, opened: _Open, method: str, ends: float, options: dict[str, Any], url: str, first: bool
    ) -> tuple[WireResponse, str | None]:
        headers = _encoded(options.get("headers") or {})
        body = options.get("data")
        if isinstance(body, Mapping):
            body = _form(body)
            headers.setdefault(b"Content-Type", b"application/x-www-form-urlencoded")
        query = _form(options["params"]) if first and options.get("params") else ""
        if query:
            url = f"{url}{'&' if urlsplit(url).query else '?'}{query}"
        trail: Trail = options.get("trail") or Trail(https=False, trusted_wire=False)
        trail.proxied = True  # until it is known: a proxy that can't be used is named before
        proxy = proxy_for(url, self._proxies)
        trail.proxied, trail.layers = proxy is not None, int(trail.https) + str(proxy).startswith("https:")
        wanted, attempt = options.get("timeout"), _Attempt(ends, self._clock.monotonic, trail)
        try:
            bounds = self._timeout if wanted is None else _timeouts(wanted, None)
        except ConfigurationError as error:
            raise Unsendable(str(error)) from None
        rest = _Traced.of(attempt, bounds.read, httpcore.ReadTimeout)
        to_connect = _Traced.of(attempt, bounds.connect, httpcore.ConnectTimeout)
        timeout = httpx.Timeout(connect=to_connect, read=rest, write=rest, pool=bounds.pool)
        try:
            with self._client(opened, proxy).stream(
                method, url, content=body, headers=headers, timeout=timeout
            ) as response:
                return read(response.status_code, response.headers, response.iter_raw(), options)
        except (httpx.ProxyError, httpx.ConnectError) as error:
            fault = None if proxy is None else fault_of_proxy(error, proxy)
            if fault is None:
                raise
            trail.beyond_proxy = fault.heals and isinstance(error, httpx.ProxyError)
        # Raised here and not there: what a client raises holds the request, and so its secrets.
        told = f"{proxy_setting(url, self._proxies)} names a proxy {fault.text}"
        if not fault.heals:
            raise ConfigurationError(told)
        failure = fault.failed(f"{told}, so that {origin_of(url)} can't be reached", authority=origin_of(url))
        failure.sent = False
        raise failure

    def close(self) -> None:
        """Close connections: idle ones now, and those in use with the last request on them.

        A connection that another thread reads must not be closed: its descriptor may be the next connection's by then.
        The next request opens new ones.
        """
        forks.notice()
        with self._lock:
            opened, self._open = self._open, None
            idle = opened is not None and opened.users == 0
        if idle and opened is not None:
            opened.close()

    def abandon(self) -> None:
        """Close the connections of an owner that is gone: called by the collector, where no lock may be taken."""
        opened, self._open = self._open, None
        if opened is not None and not opened.users and not forks.unnoticed():
            opened.close()

    def _enter(self) -> _Open:
        forks.notice()
        state = self._authorities.state()
        with self._lock:
            stale = self._open
            if stale is not None and stale.state == state:
                stale.users += 1
                return stale
        try:
            fresh: _Open | None = _Open(self._authorities.context(), state)
        except (ConfigurationError, OSError) as error:
            if stale is None:
                raise
            fresh = None
            # It is being replaced, perhaps: who was trusted until now goes on to be, and the next request looks again.
            if self._told != state:
                self._told = state
                told = "A CA bundle was replaced and can't be read; the previous one stays in use: %s"
                say(logging.WARNING, told, error)
        with self._lock:
            if self._open is stale and fresh is not None:
                self._open = fresh
            opened = self._open
            if opened is None:  # closed meanwhile
                opened = self._open = fresh or _Open(stale.trust, stale.state)  # type: ignore[union-attr]
            opened.users += 1
            idle = stale is not None and stale is not opened and stale.users == 0
        if idle and stale is not None:
            stale.close()
        return opened

    def _leave(self, opened: _Open) -> None:
        with self._lock:
            opened.users -= 1
            last = opened.users == 0 and opened is not self._open
        if last:
            opened.close()

    def _client(self, opened: _Open, proxy: str | None) -> httpx.Client:
        with self._lock:
            found = opened.clients.get(proxy)
            if found is None:
                found = opened.clients[proxy] = self._build(opened.trust, proxy)
            return found

    def _build(self, trust: ssl.SSLContext, proxy: str | None) -> httpx.Client:
        # Exchanges are rare. A connection kept for long is most likely dead, and finding that out costs a back-off.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=5.0)
        secured = proxy is not None and proxy.startswith("https:")
        through = None if proxy is None else httpx.Proxy(proxy, ssl_context=trust if secured else None)
        transport = httpx.HTTPTransport(verify=trust, proxy=through, limits=limits, trust_env=False)
        # httpx offers no way to hand httpcore a network backend; a test pins this one.
        pool: Any = transport._pool
        pool._network_backend = _TracedBackend(racing(pool._network_backend))
        return httpx.Client(
            transport=transport,
            trust_env=False,
            # What a few bytes unpack to would only be known when it is there.
            headers={"Accept-Encoding": "identity"},
        )


def _form(fields: Mapping[str, Any]) -> str:
    """Encode fields as requests does, which MSAL is used to: without those that are None, bytes as they are.

    Raises:
        Unsendable: One can't be encoded, such as a password that holds half of a character.
    """
    if None in fields.values():
        fields = {name: value for name, value in fields.items() if value is not None}
    with contextlib.suppress(UnicodeEncodeError):
        return urlencode(fields, doseq=True)
    # Not shown, nor raised from that: it may be a secret.
    raise Unsendable(f"one of {', '.join(map(repr, fields))} can't be sent, since it isn't text: it has no UTF-8")


def _encoded(headers: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Encode headers as requests does, which MSAL is used to: without those that are None, texts as Latin-1.

    Raises:
        Unsendable: One can't be sent, such as an `app_name` with a line end.
    """
    encoded = {}
    for name, value in headers.items():
        if value is None:
            continue
        raw = value
        if isinstance(value, str):
            with contextlib.suppress(UnicodeEncodeError):
                raw = value.encode("latin-1")
        if not isinstance(raw, bytes) or raw.translate(None, _SENDABLE):
            # Not shown: it may be a secret.
            raise Unsendable(
                f"the header {name!r} can't be sent, since it must be one line of text in Latin-1: see app_name, "
                "app_version and headers, and the user's name"
            )
        encoded[str(name).encode("ascii", "backslashreplace")] = raw.strip(b" \t")
    return encoded


def _timeouts(timeout: object, connect: float | None) -> httpx.Timeout:
    """Return the time-outs that requests would make of a number of seconds, a pair of them, or None.

    Args:
        timeout: What was given.
        connect: Seconds for connecting where it doesn't say.

    Raises:
        ConfigurationError: It is none of these.
    """
    given = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    require(len(given) == 2, "timeout must be a number of seconds, or a pair of them for connecting and reading")
    for seconds in given:
        if seconds is not None:
            require_number("timeout", seconds, low=0.001)
    return httpx.Timeout(given[1], connect=connect if given[0] is None else given[0])
