"""What writes in the background are made in, and a store's medium that fails."""

from __future__ import annotations

import os
from typing import Any

from resilient_auth._store.memory import MemoryBackend
from resilient_auth.callouts import Write
from resilient_auth.store import BackendFailed

#: What their stores seal with.
KEY = os.urandom(32)


class Database:
    """What is written to, which fails on command."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any], int]] = []
        self.down: Exception | None = None
        self.poison: set[str] = set()

    def __call__(self, write: Write) -> None:
        if self.down is not None:
            raise self.down
        if write.key in self.poison:
            raise ValueError("ada@contoso.com: no such column")
        self.made.append((write.key, dict(write.payload), write.attempt))

    @property
    def keys(self) -> list[str]:
        return [key for key, _, _ in self.made]


class FailingBackend(MemoryBackend):
    """A medium that can't delete for a while."""

    fails = False

    def delete(self, key: str, **options: Any) -> bool:
        if self.fails:
            raise BackendFailed("timeout")
        return super().delete(key, **options)
