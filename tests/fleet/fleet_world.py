"""What the fleet's tests share: scopes, and a medium that fails on command."""

from __future__ import annotations

from typing import Any

from resilient_auth._store.memory import MemoryBackend
from resilient_auth.store import BackendFailed

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]


class BreakableBackend(MemoryBackend):
    """A medium that fails on command."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock=clock)
        self.failing = False

    def _check(self) -> None:
        if self.failing:
            raise BackendFailed("connection_failed")

    def get(self, key: str) -> Any:
        self._check()
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        self._check()
        return super().get_many(keys)

    def keys(self, prefix: str) -> Any:
        self._check()
        return super().keys(prefix)

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        self._check()
        return super().put(key, value, **options)

    def delete(self, key: str, **options: Any) -> Any:
        self._check()
        return super().delete(key, **options)

    def lock(self, name: str, holder: str, seconds: float) -> Any:
        self._check()
        return super().lock(name, holder, seconds)
