"""A TLS handshake within a time-out, whose every step a fork waits for, and whose waits none does.

A step takes locks of OpenSSL's: a child that is forked in the middle of one would hang in its own first handshake.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

from ..._process import forks

__all__ = ["first_words", "secure"]

_T = TypeVar("_T")


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
        _in_steps(secured, secured.do_handshake, ends)
    except BaseException:
        secured.close()
        raise
    return secured


def first_words(one: ssl.SSLSocket, most: int, seconds: float | None) -> bytes:
    """Return what the other end says first: tickets for its session come before it, which OpenSSL keeps under a lock.

    Raises:
        TimeoutError: It didn't say anything in time.
        OSError: It hung up.
    """
    one.setblocking(False)
    return _in_steps(one, lambda: one.recv(most), None if seconds is None else time.monotonic() + seconds)


def _in_steps(one: ssl.SSLSocket, step: Callable[[], _T], ends: float | None) -> _T:
    """Take what OpenSSL does as far as it goes, wait for the other end, and so on until it is over."""
    while True:
        try:
            with forks.held_off():
                return step()
        except ssl.SSLWantReadError:
            wanted = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            wanted = selectors.EVENT_WRITE
        _wait(one, wanted, ends)


def _wait(one: socket.socket, wanted: int, ends: float | None) -> None:
    left = None if ends is None else ends - time.monotonic()
    # One that takes descriptors past 1024.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        selector.register(one, wanted)
        if (left is not None and left <= 0) or not selector.select(left):
            raise TimeoutError("the other end didn't answer in time")
