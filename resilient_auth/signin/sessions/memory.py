"""A store for trying things out."""

from __future__ import annotations

import logging
import os

from ..._store.memory import MemoryBackend
from ..._store.sealing.sealed import SealedStore
from ...clock import Clock

__all__ = ["DevelopmentStore"]

_log = logging.getLogger("resilient_auth")


class DevelopmentStore(SealedStore):
    """Keep sessions in this process's memory, for development alone.

    A restart signs everybody out, other processes know of nobody, and a sign-out in one of several is none. In
    production use `FileStore` or `RedisStore`. It says so in the log.

    Args:
        clock: Where the time comes from; for tests.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(MemoryBackend(clock=clock), key=os.urandom(32), clock=clock)
        _log.warning("Sessions are kept in memory: for development alone. Use FileStore or RedisStore in production")
