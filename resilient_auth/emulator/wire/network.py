"""Ports that can stop listening without being lost, and certificates for whatever name is asked for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

import cachetools
import trustme

from .stream import Stream

LOOPBACK: Final = "127.0.0.1"

_BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 64
_CERTIFICATE_LIMIT: Final = 1000


class Listener:
    """A port on loopback; refusing connections on it doesn't give it to anybody else."""

    def __init__(self, port: int, on_connection: Callable[[Stream], None]) -> None:
        self._on_connection = on_connection
        # Bound and never listening: it keeps the port while nothing listens there.
        self._reservation = _reserved(port)
        self.port: int = self._reservation.getsockname()[1]
        self._listening: socket.socket | None = None
        self._closed = False
        self._welcoming: set[asyncio.Task[None]] = set()

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._listening is not None

    def listen(self) -> None:
        """Accept connections from now on, unless the port was given back."""
        if self._listening is None and not self._closed:
            self._listening = _listening(self.port)
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def refuse(self) -> None:
        """Refuse connections from now on, those in the backlog included."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def close(self) -> None:
        """Refuse connections and give the port back."""
        self._closed = True
        self.refuse()
        self._reservation.close()

    def _accept(self, listening: socket.socket) -> None:
        # asyncio's own server would lose connections that it has accepted when it is closed at that moment.
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            accepted.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._welcome(accepted))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, accepted: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Stream(self._on_connection), accepted)


class Certificates:
    """A certificate authority that vouches for every host name."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._contexts: cachetools.FIFOCache[str, ssl.SSLContext] = cachetools.FIFOCache(_CERTIFICATE_LIMIT)

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate."""
        return self._authority.cert_pem.bytes()

    def context(self, *names: str) -> ssl.SSLContext:
        """Return the TLS configuration of a server with these names."""
        key = names[0]
        context: ssl.SSLContext | None = self._contexts.get(key)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_alpn_protocols(["http/1.1"])
            self._authority.issue_cert(*names).configure_cert(context)
            self._contexts[key] = context
        return context


def _reserved(port: int) -> socket.socket:
    """Bind a port for good: this fails where anybody has it, and makes anybody else fail from then on."""
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, port))
        # Only now may a socket share the port, and only one that says so and has this user's rights.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        reserved.close()
        raise OSError(error.errno, f"port {port}: {error.strerror}") from None
    return reserved


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.setblocking(False)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
