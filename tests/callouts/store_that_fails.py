"""A store whose medium is dead, hangs, or flaps."""

from __future__ import annotations

import os
import threading
from typing import Any

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.store import BackendFailed


class _Medium(MemoryBackend):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.calls = 0
        self.may_go_on = threading.Event()

    def _fail(self) -> None:
        self.calls += 1
        if self.kind == "dead" or (self.kind == "flaps" and self.calls // 20 % 2):
            raise BackendFailed("connection_failed")
        if self.kind == "hangs":
            self.may_go_on.wait(10.0)
            raise BackendFailed("timeout")

    def get(self, key: str) -> Any:
        self._fail()
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        self._fail()
        return super().get_many(keys)

    def put(self, *args: Any, **options: Any) -> Any:
        self._fail()
        return super().put(*args, **options)


class FailingStore(ra.SealedStore):
    """A sealed store over such a medium."""

    def __init__(self, kind: str) -> None:
        self._medium = _Medium(kind)
        super().__init__(self._medium, key=os.urandom(32))

    def go_on(self) -> None:
        self._medium.may_go_on.set()
