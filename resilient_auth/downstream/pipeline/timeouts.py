"""How long an attempt may take: by the owner's options, and by the caller's own time-outs where they ask for more."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..options import TransportOptions

__all__ = ["NOBODYS", "Bounds", "Timeouts"]

_NEVER = math.inf
#: What a client of httpx's has whose owner said nothing, and so nobody's wish; a test pins it.
NOBODYS = dict.fromkeys(("connect", "read", "write", "pool"), 5.0)


class Bounds(NamedTuple):
    """What bounds one attempt, beside the call's deadline; in seconds."""

    #: Whether silences are bounded, and the attempt as a whole only by the deadline.
    patient: bool
    connect: float
    #: Silences while reading and writing, and the wait for a connection; None for no bound.
    read: float | None
    write: float | None
    pool: float | None


class Timeouts:
    """Find what bounds an attempt.

    Args:
        options: The owner's.
    """

    def __init__(self, options: TransportOptions) -> None:
        self._longest = longest = options.attempt_timeout
        self._connect = options.connect_timeout
        self._silent = options.bound_silence
        self._usual = Bounds(self._silent, self._connect, longest, longest, None)

    def of(self, extensions: dict[str, Any]) -> Bounds:
        """Return the bounds of a request's attempts.

        Raises:
            ConfigurationError: Its time-outs are no numbers.
        """
        given = extensions.get("timeout")
        if given is None:
            return self._usual
        longest = self._longest
        try:
            read, write, connect = (
                given.get("read", longest),
                given.get("write", longest),
                given.get("connect", longest),
            )
            # No comparison holds of what isn't a number.
            holds = all(seconds is None or seconds >= 0 for seconds in (read, write, connect, given.get("pool")))
        except (AttributeError, TypeError):
            holds = False
        if not holds:
            raise ConfigurationError(f"timeout must be a number of seconds, None, or a Timeout of such, not {given!r}")
        longer = read is None or write is None or read > longest or write > longest
        # One number for everything is meant for answers: a host that isn't there is found out as soon as before.
        if connect == read:
            connect = self._connect if connect is None or connect > self._connect else connect
        elif connect is None:
            connect = _NEVER
        return Bounds(self._silent or (longer and given != NOBODYS), connect, read, write, given.get("pool"))
