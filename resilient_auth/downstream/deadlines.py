"""The time by which a call must be over, handed down to the calls that it makes itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from .._engine.acquire import restore, wait_within
from .._policy.checks import require_number
from ..clock import SystemClock

__all__ = ["EXTENSION", "Deadline", "deadline", "inherited", "shared", "wanted"]

#: The request extension that names a call's own deadline in seconds; None for none.
EXTENSION = "deadline"
#: The request extension by which the sends of one call, with its new tokens and redirects, share a deadline.
_SHARED = "resilient_auth.deadline"


class Deadline(NamedTuple):
    """A moment on somebody's clock."""

    now: Callable[[], float]
    ends: float

    def left(self) -> float:
        """Return how many seconds are left; negative when it is over."""
        return self.ends - self.now()


#: The deadline of the call around this one.
inherited: ContextVar[Deadline | None] = ContextVar("resilient_auth_deadline", default=None)

_SYSTEM = SystemClock()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Have every API call in this block, with its wait for a token, be over in time (G19).

    Works for threads and for asyncio tasks. The nearer one of nested deadlines holds, and a shorter `Settings.wait`.

    Args:
        seconds: From now, more than 0.

    Raises:
        ConfigurationError: `seconds` isn't a positive number.
    """
    require_number("seconds", seconds, low=0.001, high=3600.0)
    outer = inherited.get()
    mine = min(seconds, outer.left()) if outer is not None else seconds
    limit = Deadline(_SYSTEM.monotonic, _SYSTEM.monotonic() + mine)
    token = inherited.set(limit)
    try:
        with wait_within(limit.left):
            yield
    finally:
        restore(inherited, token)


def wanted(extensions: dict[str, Any], default: float) -> float:
    """Return how many seconds a call may take by its own extension, by the call around it, or by the default."""
    seconds = default
    if EXTENSION in extensions:
        own = extensions[EXTENSION]
        if own is not None:
            require_number("the extension 'deadline'", own, low=0.0)
        seconds = math.inf if own is None else float(own)
    for around in (inherited.get(), extensions.get(_SHARED)):
        if around is not None:
            seconds = min(seconds, around.left())
    return seconds


def shared(extensions: dict[str, Any], default: float, now: Callable[[], float]) -> Deadline:
    """Begin a call that may send several times, by one deadline."""
    extensions.pop(_SHARED, None)
    mine = Deadline(now, now() + wanted(extensions, default))
    extensions[_SHARED] = mine
    return mine
