"""A look that is told for a while to all who ask: a flood of questions is one look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Look"]

_T = TypeVar("_T")


class Look(Generic[_T]):
    """Keep the last look at something.

    Args:
        look: Takes one.
        kept: Seconds for which it is told to all who ask.
        old: Seconds for which it is told to others while somebody looks again.
    """

    def __init__(self, look: Callable[[], _T], kept: float, old: float) -> None:
        self._look, self._kept, self._old = look, kept, old
        self._seen: tuple[float, _T] | None = None
        self._looking_since = -old

    def __call__(self) -> _T:
        """Return the last look, or another one where that is too old."""
        now, last = time.monotonic(), self._seen
        if last is not None:
            at, seen = last
            if now - at < self._kept or (now - at < self._old and now - self._looking_since < self._kept):
                return seen
        # No lock: that two look at once does no harm.
        self._looking_since = now
        seen = self._look()
        self._seen = now, seen
        return seen
