"""Keep track of what is alive, for health reports and forks, without keeping it alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LiveObjects", "unlocked", "weakly"]

_T = TypeVar("_T")


class LiveObjects(Generic[_T]):
    """A set of objects that others own. It takes no lock, which a forked child would inherit."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[_T] = weakref.WeakSet()  # type: ignore[type-var, unused-ignore]

    def add(self, member: _T) -> None:
        """Note one."""
        self._members.add(member)

    def discard(self, member: _T) -> None:
        """Forget one, which others may hold on to for a while."""
        self._members.discard(member)

    def all(self) -> list[_T]:
        """List those that are alive."""
        return unlocked(lambda: list(self._members))


def unlocked(look: Callable[[], _T]) -> _T:
    """Return what is seen without a lock: looked at again where another thread has just changed it."""
    while True:
        try:
            return look()
        except RuntimeError:
            continue


def weakly(one: _T, call: Callable[[_T], object]) -> Callable[[], None]:
    """Return a call with an object, as long as it is there: a timer keeps alive nothing that its owner let go."""
    reference = weakref.ref(one)

    def run() -> None:
        living = reference()
        if living is not None:
            call(living)

    return run
