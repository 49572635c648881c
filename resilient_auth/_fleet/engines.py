"""The engines of this process: those with equal settings are one, and one with a store shares what is in there."""

from __future__ import annotations

import threading
import weakref

import cachetools

from .._engine.engine import Engine
from .._engine.shared import ALONE
from .._policy.breaker import prepare
from .._process import forks
from ..settings import Settings
from .records import Records

__all__ = ["engine_for", "new_engine"]

_engines: cachetools.LRUCache[Settings, Engine] = cachetools.LRUCache(64)
_living: weakref.WeakSet[Engine] = weakref.WeakSet()
_registry = threading.Lock()


def engine_for(settings: Settings) -> Engine:
    """Find the engine of these settings; what they equal, they share."""
    forks.notice()
    prepare()
    with _registry:
        engine: Engine | None = _engines.get(settings)
        if engine is None:
            engine = _engines[settings] = new_engine(settings)
            _living.add(engine)
        return engine


def new_engine(settings: Settings) -> Engine:
    """Make an engine that nobody else has."""
    if settings.store is None:
        return Engine(settings, ALONE)
    records = Records(settings.store, settings.clock, settings.fallback.grace, settings.max_stored_tokens)
    return Engine(settings, records)


@forks.renewed
def _after_fork() -> None:
    global _registry, _engines
    _registry = threading.Lock()
    _engines = forks.rebuilt(_engines)
    for engine in list(_living):
        engine.after_fork()
