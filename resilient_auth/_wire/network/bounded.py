"""Time-outs that end at a moment, so that an answer that trickles can't take for ever: for httpcore's connections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

__all__ = ["UNSAID", "BoundedBackend", "BoundedStream", "Until", "left_of"]


class Until(float):
    """A time-out in seconds that also knows when everything must be over.

    httpcore hands a request's time-outs down to its network stream as they are, and so this one arrives there,
    whichever thread reads. Whoever takes it for a plain number sees what was left when the attempt began.
    """

    __slots__ = ("ends", "now")
    ends: float
    now: Callable[[], float]

    @classmethod
    def at(cls, left: float, most: float | None, ends: float, now: Callable[[], float]) -> Self | None:
        """Make one that ends at `ends` by `now`, of which `left` seconds are left, and after `most` of silence.

        None where neither bounds anything.
        """
        seconds = left if most is None or most > left else most
        if seconds == math.inf:
            return None
        until = cls(seconds)
        until.ends = ends
        until.now = now
        return until

    def is_over(self) -> Exception:
        """Return what is raised once it has passed."""
        return TimeoutError("deadline exceeded")


#: The time-out of a read or a write that names none: httpcore's, while it talks to a SOCKS proxy.
UNSAID: Final = -1.0


def left_of(timeout: float | None) -> float | None:
    """Return the seconds that a time-out leaves now.

    Raises:
        TimeoutError: None, or as `Until.is_over` has it.
    """
    if not isinstance(timeout, Until):
        return timeout
    left = timeout.ends - timeout.now()
    if left <= 0:
        raise timeout.is_over()
    return left if left < timeout else timeout


class BoundedStream:
    """A network stream whose every read and write ends in time, so that an answer that trickles does too.

    Args:
        stream: httpcore's or httpcore2's.
        within: The time-out that it was connected within, which holds for what names none.
    """

    def __init__(self, stream: Any, within: float | None) -> None:
        self._stream = stream
        self._within = within
        self._read = stream.read
        self._write = stream.write
        self.close = stream.close
        self.get_extra_info = stream.get_extra_info

    def read(self, max_bytes: int, timeout: float | None = UNSAID) -> Any:
        return self._read(max_bytes, left_of(self._within if timeout is UNSAID else timeout))

    def write(self, buffer: bytes, timeout: float | None = UNSAID) -> None:
        if buffer:  # httpcore writes nothing twice a request
            self._write(buffer, left_of(self._within if timeout is UNSAID else timeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Self:
        try:
            left = left_of(timeout)
        except Exception:
            self.close()  # httpcore leaves that to the call that isn't made
            raise
        return type(self)(self._stream.start_tls(ssl_context, server_hostname, left), None)


class BoundedBackend:
    """A blocking network backend whose connections and streams end in time."""

    stream: type[BoundedStream] = BoundedStream

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> BoundedStream:
        stream = self._backend.connect_tcp(host, port, left_of(timeout), local_address, socket_options)
        return self.stream(stream, timeout)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> BoundedStream:
        return self.stream(self._backend.connect_unix_socket(path, left_of(timeout), socket_options), timeout)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)
