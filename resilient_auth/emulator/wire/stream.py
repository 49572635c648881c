"""Bytes in and out of a socket, before and after TLS.

asyncio's own streams lose their transport when a client leaves in the moment that its handshake ends.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Final

_HANDSHAKE_LIMIT: Final = 30.0
_WRITE_LIMIT: Final = 30.0
_UNREAD_LIMIT: Final = 4_000_000
_LINGER_FORMAT: Final = "hh" if sys.platform == "win32" else "ii"


class Stream(asyncio.Protocol):
    """A connection's bytes; it calls `on_connected` with itself once it stands."""

    def __init__(self, on_connected: Callable[[Stream], None]) -> None:
        self._on_connected = on_connected
        self._received = bytearray()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what TCP servers get)
        self._tcp = self._transport = transport
        self._writable.set()
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._readable.set()
        if len(self._received) > _UNREAD_LIMIT:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._readable.set()
        self._writable.set()

    def eof_received(self) -> None:
        # Clients that end their half don't wait for an answer; the transport closes itself.
        self._readable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Become the server's side of TLS."""
        transport = await asyncio.get_running_loop().start_tls(
            self._tcp, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_LIMIT
        )
        if transport is None:
            raise ConnectionResetError("the client left after the handshake")
        self._transport = transport

    async def read(self) -> bytes:
        """Return what has arrived, waiting for at least a byte; nothing when the client is gone."""
        while not self._received and not self._lost.is_set():
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._received)
        self._received.clear()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while the client is slow to take them."""
        self._transport.write(data)
        async with asyncio.timeout(_WRITE_LIMIT):
            await self._writable.wait()
        if self._lost.is_set():
            raise ConnectionResetError("the client left")

    async def close(self) -> None:
        """Close after what was written."""
        self._transport.close()
        async with asyncio.timeout(_WRITE_LIMIT):
            await self._lost.wait()

    def abort(self) -> None:
        """Reset the connection: the client sees RST, not a close."""
        connected = self._tcp.get_extra_info("socket")
        if connected is not None and not self._tcp.is_closing():
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER_FORMAT, 1, 0))
        # Under TLS, the inner transport would say goodbye first.
        self._tcp.abort()
