"""A TLS handshake within a time-out, whose every step a fork waits for, and whose waits none does.

A step takes locks of OpenSSL's: a child that is forked in the middle of one would hang in its own first handshake.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time

from ..._process import forks

__all__ = ["secure"]


def secure(one: socket.socket, context: ssl.SSLContext, name: str | None, seconds: float | None) -> ssl.SSLSocket:
    """Return a connection's TLS; the connection is closed where there is none to be had.

    Args:
        one: A connected socket, which is used up.
        context: Whom to trust.
        name: The host's, or None where it isn't to be checked.
        seconds: For all of it; None for as long as the other end takes.

    Raises:
        TimeoutError: The other end didn't answer in time.
        OSError: It can't be trusted, or hung up.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    secured = one
    try:
        one.setblocking(False)
        with forks.held_off():
            secured = context.wrap_socket(one, server_hostname=name, do_handshake_on_connect=False)
        while (wanted := _step(secured)) is not None:
            _wait(secured, wanted, ends)
    except BaseException:
        secured.close()
        raise
    return secured


def _step(secured: ssl.SSLSocket) -> int | None:
    """Take a handshake as far as it goes, and return what it waits for; None where it is over."""
    try:
        with forks.held_off():
            secured.do_handshake()
    except ssl.SSLWantReadError:
        return selectors.EVENT_READ
    except ssl.SSLWantWriteError:
        return selectors.EVENT_WRITE
    return None


def _wait(one: socket.socket, wanted: int, ends: float | None) -> None:
    left = None if ends is None else ends - time.monotonic()
    # One that takes descriptors past 1024.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        selector.register(one, wanted)
        if (left is not None and left <= 0) or not selector.select(left):
            raise TimeoutError("the handshake timed out")
