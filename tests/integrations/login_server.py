"""So much of a PostgreSQL server as it takes to be told who logs in."""

from __future__ import annotations

import socket
import struct
import threading
from typing import BinaryIO

_SSL_REQUEST = 80877103


def _opening(read: BinaryIO) -> tuple[int, int]:
    """Return a message's length and version; zeros from a client that goes away without a word."""
    try:
        length, version = struct.unpack("!II", read.read(8))
    except (OSError, struct.error):
        return 0, 0
    return length, version


class Server:
    """So much of PostgreSQL as it takes to be told a password; it answers no query."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as read:
            length, version = _opening(read)
            if version == _SSL_REQUEST:
                connection.sendall(b"N")
                length, version = _opening(read)
            if not length:
                return
            words = read.read(length - 8).split(b"\0")
            user = words[words.index(b"user") + 1].decode()
            connection.sendall(b"R" + struct.pack("!II", 8, 3))  # a password in clear text
            kind, length = read.read(1), struct.unpack("!I", read.read(4))[0]
            assert kind == b"p"
            self.logins.append((user, read.read(length - 4).rstrip(b"\0").decode()))
            told = b"R" + struct.pack("!II", 8, 0)
            for name, value in ((b"server_version", b"16.0"), (b"client_encoding", b"UTF8")):
                told += b"S" + struct.pack("!I", 4 + len(name) + len(value) + 2) + name + b"\0" + value + b"\0"
            connection.sendall(told + b"K" + struct.pack("!III", 12, 1, 1) + b"Z" + struct.pack("!I", 5) + b"I")
            read.read(1)
