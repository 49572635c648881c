"""The connections of httpx's own transports: time-outs that end at a moment, and pools that don't outlive a fork.

Nor does a pool outlive its event loop, or serve another one.
"""

# ruff: noqa: ASYNC109 - the signatures are httpcore's

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import weakref
from collections.abc import Awaitable, Iterable
from typing import Any

from .._wire.network.bounded import UNSAID, BoundedBackend, left_of
from .._wire.network.connect import racing

__all__ = ["NO_HTTP2", "EachLoops", "after_fork", "bound", "limits_for", "proxy_of", "speaks_http2"]

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


def _empty_pool(pool: Any) -> Any:
    """Return a pool of httpcore's like another one, without its connections and the requests that wait there."""
    fresh = copy.copy(pool)
    fresh._optional_thread_lock = type(pool._optional_thread_lock)()
    fresh._connections = []
    fresh._requests = []
    return fresh


def after_fork(transport: Any) -> None:
    """Give a forked child a pool of its own, or parent and child would read each other's answers.

    The child's copies of idle connections are closed, which the parent doesn't notice: nothing is sent. Those of
    asyncio are left to the collector, since their event loop is the parent's.
    """
    pool = getattr(transport, "_pool", None)
    if pool is None or not hasattr(pool, "_optional_thread_lock"):
        return
    # The call that the forking thread is in the middle of ends on the old one.
    transport._pool = _empty_pool(pool)
    pool._optional_thread_lock = type(pool._optional_thread_lock)()
    if not hasattr(pool, "handle_async_request"):
        for connection in pool._connections:
            if connection.is_idle():
                with contextlib.suppress(Exception):
                    connection.close()


class EachLoops:
    """Have a transport's connections made anew in each event loop, such as those of jobs that are `asyncio.run` each.

    A connection belongs to the loop that made it: in another one it can be neither used nor closed.

    Args:
        transport: One of httpx's or httpx2's own for asyncio, which is that of the first loop.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._given = False

    @property
    def _pool(self) -> Any:
        return self._transport._pool

    def handle_async_request(self, request: Any) -> Awaitable[Any]:
        """Send a request over connections of this event loop's."""
        answered: Awaitable[Any] = self._here().handle_async_request(request)
        return answered

    async def aclose(self) -> None:
        """Close the connections of this event loop's; those of others end with them."""
        await self._here().aclose()

    def after_fork(self) -> None:
        """Begin without connections in a forked child: the parent's loops aren't there."""
        after_fork(self._transport)
        self._begin()

    def _here(self) -> Any:
        loop = asyncio.get_running_loop()
        over: list[Any] = []
        with self._lock:
            found = self._of.get(loop)
            if found is None:
                # What they hold refers to the loop, so that nothing else would let go of it.
                over = [self._of.pop(one) for one in list(self._of) if one.is_closed()]
                found = self._of[loop] = copy.copy(self._transport) if self._given else self._transport
                if self._given:
                    found._pool = _empty_pool(found._pool)
                self._given = True
        for transport in over:
            _let_go(transport)
        return found


def _let_go(transport: Any) -> None:
    """Close the sockets of a loop that is closed: its transports can't, and would wait for the collector."""
    for connection in transport._pool._connections:
        with contextlib.suppress(Exception):
            held = connection._connection._network_stream.get_extra_info("socket")
            getattr(held, "_sock", held).close()
    transport._pool = _empty_pool(transport._pool)
