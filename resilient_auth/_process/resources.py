"""Whether a failure is this machine's own: without descriptors, memory or threads nothing is seen of anybody else."""

from __future__ import annotations

import errno
import socket
import ssl

from .causes import causes_of

__all__ = ["exhausted"]

_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def exhausted(error: BaseException) -> bool:
    """Return whether something failed because this process or machine has run out of something.

    Args:
        error: What was raised, with all that led to it.
    """
    causes = list(causes_of(error))
    if any(isinstance(cause, MemoryError) or _no_thread(cause) for cause in causes):
        return True
    numbers = {number for cause in causes if (number := _number(cause)) is not None}
    # A host without IPv6 says EADDRNOTAVAIL too, before the other address is tried.
    if numbers & _LOCAL or numbers == {errno.EADDRNOTAVAIL}:
        return True
    # The resolver and OpenSSL don't say that they could open nothing.
    silent = any(isinstance(c, (socket.gaierror, ssl.SSLError)) or _from_resolver_or_file(c) for c in causes)
    return silent and _starved()


def _number(cause: BaseException) -> int | None:
    # What these two call errno is a code of their own.
    if not isinstance(cause, OSError) or isinstance(cause, (socket.gaierror, ssl.SSLError)):
        return None
    return cause.errno


def _no_thread(cause: BaseException) -> bool:
    return isinstance(cause, RuntimeError) and "can't start new thread" in str(cause)


def _from_resolver_or_file(cause: BaseException) -> bool:
    return type(cause).__name__ == "NameResolutionError" or getattr(cause, "sqlite_errorname", "") == "SQLITE_CANTOPEN"


def _starved() -> bool:
    """Return whether this process can open nothing more."""
    try:
        # Asking somebody takes two next to the connection's: the resolver's, or a file of authorities'.
        with socket.socket(), socket.socket():
            return False
    except OSError:
        return True
