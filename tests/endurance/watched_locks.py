"""Locks that tell what happens while they are held: imported before the package, whose locks they become."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

_real = threading.Lock
_collecting: set[int] = set()
#: Where a lock was taken while the collector ran on that thread, or while `forbidden` named it.
violations: list[str] = []
#: Threads that may take no lock now.
forbidden: set[int] = set()
#: Called by whoever has just taken a lock, which it holds.
amid: Callable[[], None] | None = None


class WatchedLock:
    """A lock of the package's."""

    def __init__(self) -> None:
        self._lock = _real()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.get_ident()
        if me in _collecting or me in forbidden:
            violations.append("".join(traceback.format_stack(limit=8)))
            return True
        taken = self._lock.acquire(blocking, timeout)
        if taken and amid is not None:
            amid()
        return taken

    def release(self) -> None:
        if self._lock.locked():
            self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        if me not in _collecting and me not in forbidden:
            self.release()


def _watch(phase: str, _: dict[str, Any]) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())


def _lock() -> Any:
    ours = str(sys._getframe(1).f_globals.get("__name__")).startswith("resilient_auth")
    return WatchedLock() if ours else _real()


threading.Lock = _lock  # type: ignore[assignment,misc]
gc.callbacks.append(_watch)
