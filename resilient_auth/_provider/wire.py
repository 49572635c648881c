"""Send one HTTP request and bound everything about it: its connection, its size, and its whole duration."""

from __future__ import annotations

import codecs
import os
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import certifi
import httpcore
import httpx
import requests

from .. import _forks
from ..clock import Clock
from ..errors import AttemptTimeout, ConnectionFailed, MalformedAnswer, NameNotResolved, ProviderUnavailable, TLSFailed

__all__ = ["Answer", "HttpxWire", "OwnersWire", "Wire", "as_failure"]

#: Bytes; no answer of a provider comes near.
LARGEST_ANSWER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What MSAL wants to know of a response."""

    status_code: int
    text: str
    #: With lower-case names.
    headers: Mapping[str, str]

    def raise_for_status(self) -> None:
        """Raise for a 4xx or 5xx status, as requests does."""
        if self.status_code >= 400:
            raise requests.HTTPError(f"HTTP status {self.status_code}")

    def __repr__(self) -> str:
        return f"Answer({self.status_code})"


class Wire(Protocol):
    """Send one request."""

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> Answer:
        """Send it and read the whole answer, by monotonic time `ends`."""
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


class _Bounded(threading.local):
    """The monotonic time by which this thread's request must be over."""

    ends: float | None = None


class _BoundedStream(httpcore.NetworkStream):
    """Make every read and write end in time, so that an answer that trickles can't take for ever."""

    def __init__(self, stream: httpcore.NetworkStream, backend: _BoundedBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = self._backend.left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self.bounded = _Bounded()

    def left(self, timeout: float | None, error: type[Exception]) -> float | None:
        if self.bounded.ends is None:
            return timeout
        left = self.bounded.ends - self._clock.monotonic()
        if left <= 0:
            raise error("the time for this request is over")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = self.left(timeout, httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _BoundedStream(stream, self)


@dataclass(slots=True)
class _Open:
    """A client with its connections, and how many requests are on them."""

    client: httpx.Client
    backends: list[_BoundedBackend]
    users: int = 0


class HttpxWire:
    """Send requests with httpx, taking `verify`, `proxies` and `timeout` as MSAL takes them.

    Args:
        clock: Bounds each request's duration.
        connect_timeout: Seconds for making a connection.
        verify: False, or the path of a CA bundle or directory, or True for the environment's or certifi's.
        proxies: By scheme, as requests takes them; None for the environment's.
        timeout: Seconds, or a pair for connecting and reading; None for the settings'.
    """

    def __init__(
        self,
        clock: Clock,
        connect_timeout: float,
        *,
        verify: bool | str | ssl.SSLContext | None = True,
        proxies: Mapping[str, str] | None = None,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> None:
        self._clock = clock
        self._verify = verify
        self._proxies = dict(proxies or {})
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._timeout = httpx.Timeout(read, connect=connect_timeout if connect is None else connect)
        self.after_fork()
        _forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without connections, also in a child: it must not talk on its parent's, nor close them."""
        self._lock = threading.Lock()
        self._open: _Open | None = None

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> Answer:
        """Send a request and read its whole answer."""
        opened = self._enter()
        try:
            return self._send(opened, method, url, ends, options)
        finally:
            self._leave(opened)

    def _send(self, opened: _Open, method: str, url: str, ends: float, options: dict[str, Any]) -> Answer:
        for backend in opened.backends:
            backend.bounded.ends = ends
        headers = {k: v for k, v in (options.get("headers") or {}).items() if v is not None}
        body = options.get("data")
        if isinstance(body, Mapping):
            body = _form(body)
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        query = _form(options.get("params") or {})
        if query:
            url = f"{url}{'&' if urlsplit(url).query else '?'}{query}"
        timeout = options.get("timeout")
        wanted: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        redirects = method == "GET" and options.get("redirects", True)
        largest = options.get("largest", LARGEST_ANSWER)
        with opened.client.stream(
            method, url, content=body, headers=headers, follow_redirects=redirects, **wanted
        ) as response:
            parts: list[bytes] = []
            size = 0
            for part in response.iter_bytes():
                size += len(part)
                if size > largest:
                    raise MalformedAnswer(f"an answer of more than {largest} bytes")
                parts.append(part)
            text = b"".join(parts).decode(_charset(response), errors="replace")
            return Answer(response.status_code, text, {k.lower(): v for k, v in response.headers.items()})

    def close(self) -> None:
        """Close connections: idle ones now, and those in use with the last request on them.

        A connection that another thread reads must not be closed: its descriptor may be the next connection's by then.
        The next request opens new ones.
        """
        _forks.notice()
        with self._lock:
            opened, self._open = self._open, None
            idle = opened is not None and opened.users == 0
        if idle and opened is not None:
            opened.client.close()

    def abandon(self) -> None:
        """Close the connections of an owner that is gone: called by the collector, where no lock may be taken."""
        opened, self._open = self._open, None
        if opened is not None and not opened.users and not _forks.unnoticed():
            opened.client.close()

    def _enter(self) -> _Open:
        _forks.notice()
        with self._lock:
            if self._open is None:
                self._open = self._build()
            self._open.users += 1
            return self._open

    def _leave(self, opened: _Open) -> None:
        with self._lock:
            opened.users -= 1
            last = opened.users == 0 and opened is not self._open
        if last:
            opened.client.close()

    def _build(self) -> _Open:
        context = _tls(self._verify)
        # Exchanges are rare. A connection kept for long is most likely dead, and finding that out costs a back-off.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=5.0)
        mounts: dict[str, httpx.BaseTransport | None] = {}
        for scheme, proxy in self._proxies.items():
            pattern = "all://" if scheme == "all" else scheme if "://" in scheme else f"{scheme}://"
            mounts[pattern] = httpx.HTTPTransport(verify=context, proxy=proxy, limits=limits) if proxy else None
        client = httpx.Client(verify=context, mounts=mounts or None, limits=limits, timeout=self._timeout)
        transports = (client._transport, *client._mounts.values())
        return _Open(client, [self._bound(t) for t in transports if isinstance(t, httpx.HTTPTransport)])

    def _bound(self, transport: httpx.HTTPTransport) -> _BoundedBackend:
        # httpx offers no way to hand httpcore a network backend; a test pins this one.
        pool = transport._pool
        backend = pool._network_backend = _BoundedBackend(pool._network_backend, self._clock)
        return backend


def _form(fields: Mapping[str, Any]) -> str:
    """Encode fields as requests does, which MSAL is used to: without those that are None, bytes as they are."""
    return urlencode([(k, v) for k, v in fields.items() if v is not None], doseq=True)


def _charset(response: httpx.Response) -> str:
    try:
        return codecs.lookup(response.charset_encoding or "utf-8").name
    except LookupError:
        return "utf-8"


def _tls(verify: bool | str | ssl.SSLContext | None) -> ssl.SSLContext | bool:
    """Trust what requests would trust."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        return httpx.create_ssl_context(verify=False)
    # As in requests, the environment's bundle beats a mere True.
    given = verify if isinstance(verify, (str, os.PathLike)) else None
    bundle = given or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    bundle = os.fspath(bundle or os.environ.get("SSL_CERT_FILE") or certifi.where())
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


class OwnersWire:
    """Send requests with the `http_client` that the application gave to MSAL."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self.client = client
        self._clock = clock

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> Answer:
        """Send a request. How long it takes is the owner's client's business, but for a session without a time-out."""
        if "timeout" not in options and _has_no_timeout(self.client):
            options["timeout"] = max(0.1, ends - self._clock.monotonic())
        response = (self.client.get if method == "GET" else self.client.post)(url, **options)
        headers = {str(k).lower(): str(v) for k, v in getattr(response, "headers", {}).items()}
        return Answer(response.status_code, response.text, headers)

    def close(self) -> None:
        """Close the owner's client, as MSAL would."""
        close = getattr(self.client, "close", None)
        if close is not None:
            close()


def _has_no_timeout(client: Any) -> bool:
    """Tell whether this is a requests session that would wait for ever."""
    if not isinstance(client, requests.Session):
        return False
    # MSAL, and who follows its advice, wraps `request` in a partial that has the time-out.
    keywords = getattr(client.request, "keywords", {})
    return keywords.get("timeout") is None


def as_failure(error: Exception, authority: str) -> ProviderUnavailable:
    """Turn what a client raised into the error that says what happened, to whom."""
    if isinstance(error, ProviderUnavailable):
        error.authority = error.authority or authority
        return error
    causes = list(_causes(error))

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    names = {type(cause).__name__ for cause in causes}
    if any_of(socket.gaierror) or "NameResolutionError" in names:
        failure: ProviderUnavailable = NameNotResolved(
            f"the name of {authority} could not be resolved", authority=authority
        )
        failure.sent = False
        return failure
    if any_of(ssl.SSLError, requests.exceptions.SSLError):
        return TLSFailed(f"no trusted TLS connection to {authority}: {_tls_reason(causes)}", authority=authority)
    never_sent = any_of(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, requests.ConnectTimeout)
    if never_sent or "NewConnectionError" in names or any_of(ConnectionRefusedError):
        refused = any_of(ConnectionRefusedError) or any("refused" in str(cause).lower() for cause in causes[:2])
        how = "refused the connection" if refused else "could not be reached"
        failure = ConnectionFailed(f"{authority} {how}", authority=authority)
        failure.sent = False
        return failure
    if any_of(httpx.TimeoutException, requests.Timeout, TimeoutError):
        return AttemptTimeout(f"{authority} didn't answer in time", authority=authority)
    return ConnectionFailed(f"the connection to {authority} broke: {type(error).__name__}", authority=authority)


def _tls_reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or "the certificate is not trusted"
    return "the handshake failed"


def _causes(error: BaseException) -> Iterable[BaseException]:
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending and len(seen) < 20:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
