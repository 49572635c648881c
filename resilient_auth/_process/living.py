"""Keep track of what is alive, for health reports and forks, without keeping it alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["LiveObjects", "snapshot"]

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
        return snapshot(self._members)


def snapshot(members: Iterable[_T]) -> list[_T]:
    """List what is in a set, or a view of a dictionary, to which other threads add meanwhile; no lock is needed."""
    while True:
        try:
            return list(members)
        except RuntimeError:  # another thread has just added one
            continue
