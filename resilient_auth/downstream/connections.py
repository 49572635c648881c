"""The connections of httpx's own transports: time-outs that end at a moment, and pools that don't outlive a fork."""

# ruff: noqa: ASYNC109 - the signatures are httpcore's

from __future__ import annotations

import contextlib
import copy
from collections.abc import Awaitable, Iterable
from typing import Any

from .._wire.network.bounded import UNSAID, BoundedBackend, left_of
from .._wire.network.connect import racing

__all__ = ["NO_HTTP2", "after_fork", "bound", "limits_for", "proxy_of", "speaks_http2"]

#: httpcore reads one connection for all of its streams, in whichever call comes first: a time-out there ends them all,
#: and a thread that waits for another one's read has no time-out.
NO_HTTP2 = (
    "http2=True is refused: on a connection that calls share, the deadline of one breaks the others (httpcore has no "
    "time-outs of a stream's own); leave it out, and HTTP/1.1 keeps a connection for each call"
)


class _AsyncStream:
    """A `BoundedStream` for asyncio.

    What is awaited is the stream's own coroutine: one of ours around it would cost twice.
    """

    def __init__(self, stream: Any, within: float | None) -> None:
        self._stream = stream
        self._within = within
        self._read = stream.read
        self._write = stream.write
        self.aclose = stream.aclose
        self.get_extra_info = stream.get_extra_info

    def read(self, max_bytes: int, timeout: float | None = UNSAID) -> Awaitable[bytes]:
        read: Awaitable[bytes] = self._read(max_bytes, left_of(self._within if timeout is UNSAID else timeout))
        return read

    def write(self, buffer: bytes, timeout: float | None = UNSAID) -> Awaitable[None]:
        within = self._within if timeout is UNSAID else timeout
        written: Awaitable[None] = self._write(buffer, left_of(within) if buffer else within)
        return written

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _AsyncStream:
        try:
            return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, left_of(timeout)), None)
        except BaseException:
            await self.aclose()  # a handshake that is cancelled would leave it to the collector
            raise


class _AsyncBackend:
    def __init__(self, backend: Any) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _AsyncStream:
        stream = await self._backend.connect_tcp(host, port, left_of(timeout), local_address, socket_options)
        return _AsyncStream(stream, timeout)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> _AsyncStream:
        return _AsyncStream(await self._backend.connect_unix_socket(path, left_of(timeout), socket_options), timeout)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def bound(transport: Any) -> bool:
    """Have a transport of httpx's or httpx2's own honour `Until`; others are left as they are.

    httpx offers no way to hand httpcore a network backend; a test pins this one.

    Returns:
        Whether it does so.
    """
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if pool is None or backend is None:
        return False
    if not isinstance(backend, (BoundedBackend, _AsyncBackend)):
        awaits = hasattr(pool, "handle_async_request")
        pool._network_backend = _AsyncBackend(backend) if awaits else BoundedBackend(racing(backend))
    return True


def limits_for(library: Any, concurrency: int) -> Any:
    """Return the limits of a pool: one smaller than the bulkhead would be a second queue, with errors of its own."""
    return library.Limits(max_connections=concurrency, max_keepalive_connections=min(concurrency, 100))


def speaks_http2(transport: Any) -> bool:
    """Return whether a transport of httpx's or httpx2's own may share a connection among calls."""
    return bool(getattr(getattr(transport, "_pool", None), "_http2", False))


def proxy_of(transport: Any) -> str | None:
    """Return the origin of the proxy that a transport of httpx's or httpx2's own goes through; None for none."""
    url = getattr(getattr(transport, "_pool", None), "_proxy_url", None)
    return None if url is None else str(url.origin)


def after_fork(transport: Any) -> None:
    """Give a forked child a pool of its own, or parent and child would read each other's answers.

    The child's copies of idle connections are closed, which the parent doesn't notice: nothing is sent. Those of
    asyncio are left to the collector, since their event loop is the parent's.
    """
    pool = getattr(transport, "_pool", None)
    if pool is None or not hasattr(pool, "_optional_thread_lock"):
        return
    # The call that the forking thread is in the middle of ends on the old one.
    transport._pool = fresh = copy.copy(pool)
    for one in (pool, fresh):
        one._optional_thread_lock = type(pool._optional_thread_lock)()
    fresh._connections = []
    fresh._requests = []
    if not hasattr(pool, "handle_async_request"):
        for connection in pool._connections:
            if connection.is_idle():
                with contextlib.suppress(Exception):
                    connection.close()
