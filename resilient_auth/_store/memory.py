"""A backend in this process's memory: for tests, and as the shortest example of one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence

from .._process import forks
from ..clock import Clock, SystemClock
from ..store import ANY, Expected

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """Keep values in a dict. Nothing outlives the process; a forked child starts with a copy.

    Args:
        clock: Gives the time.
    """

    label = "memory"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._now = (clock or SystemClock()).monotonic
        self.after_fork()
        forks.renew_in_children(self)
        self._numbers = itertools.count(1)
        #: value, version, end of life
        self._values: dict[str, tuple[bytes, str, float]] = {}
        #: holder, end
        self._locks: dict[str, tuple[str, float]] = {}

    def after_fork(self) -> None:
        """Take a lock of its own, also in a forked child."""
        self._lock = threading.Lock()

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Read a value and its version."""
        with self._lock:
            return self._find(key)

    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Read values and their versions."""
        with self._lock:
            return [self._find(key) for key in keys]

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        """Write a value."""
        with self._lock:
            if not self._holds(key, expected):
                return None
            version = str(next(self._numbers))
            self._values[key] = (bytes(value), version, self._now() + ttl)
            return version

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value."""
        with self._lock:
            if self._find(key) is None or not self._holds(key, expected):
                return False
            del self._values[key]
            return True

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys."""
        with self._lock:
            return iter([key for key in self._values if key.startswith(prefix) and self._find(key) is not None])

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        """Give a lock."""
        with self._lock:
            holds, ends = self._locks.get(name, (holder, 0.0))
            if holds != holder and ends > self._now():
                return None
            self._locks[name] = (holder, self._now() + seconds)
            return next(self._numbers)

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        """Have a lock last longer."""
        with self._lock:
            holds, ends = self._locks.get(name, ("", 0.0))
            if holds != holder or ends <= self._now():
                return False
            self._locks[name] = (holder, self._now() + seconds)
            return True

    def unlock(self, name: str, holder: str) -> None:
        """End a lock."""
        with self._lock:
            if self._locks.get(name, ("", 0.0))[0] == holder:
                del self._locks[name]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._locks.clear()

    def _find(self, key: str) -> tuple[bytes, str] | None:
        value, version, ends = self._values.get(key, (b"", "", 0.0))
        return (value, version) if version and ends > self._now() else None

    def _holds(self, key: str, expected: Expected) -> bool:
        found = self._find(key)
        return expected is ANY or expected == (None if found is None else found[1])
