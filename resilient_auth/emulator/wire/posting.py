"""A request that the emulator makes itself: to an API in a sign-in, to whoever is told of something, to another one."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import NamedTuple
from urllib.parse import urlsplit


class Posted(NamedTuple):
    """What was answered."""

    status: int
    #: By names in lower case.
    headers: Mapping[str, str]
    body: bytes


def post(
    url: str,
    body: bytes | str,
    headers: Mapping[str, str],
    seconds: float,
    *,
    most: int,
    trust: ssl.SSLContext | None = None,
) -> Posted:
    """Post something, and return the answer.

    Args:
        url: Where to; http or https.
        body: What.
        headers: As they are sent.
        seconds: Within which the whole answer must be there.
        most: Bytes of it that are read.
        trust: Whom to trust under https.

    Raises:
        OSError: There is no answer in time.
        http.client.HTTPException: What came isn't one.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=trust)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=seconds)

    began = time.monotonic()
    with closing(connection):
        connection.connect()
        # The connection lets go of it where the answer ends with it.
        connected = connection.sock

        def give_up() -> None:
            # A socket's own time-out begins anew with each byte.
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(began + seconds - time.monotonic(), give_up)
        timer.daemon = True
        timer.start()
        try:
            path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read(most)
        finally:
            timer.cancel()
        if time.monotonic() - began >= seconds:
            raise TimeoutError
        return Posted(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
