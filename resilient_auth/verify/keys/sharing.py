"""One `KeySource` for all verifiers of a process that want the same keys over the same wire."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ..._engine.engine import Engine
from ..._process import forks
from ..._wire.connection import HttpxWire
from ..jose.jwk import VerificationKey
from ..options import KeyOptions
from ..trust import Trust
from .source import KeySource

__all__ = ["release", "shared_source"]

_shared: weakref.WeakValueDictionary[Any, KeySource] = weakref.WeakValueDictionary()
_users: weakref.WeakKeyDictionary[KeySource, int] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def shared_source(
    engine: Engine,
    wire: HttpxWire,
    trust: Trust,
    *,
    algorithms: frozenset[str],
    options: KeyOptions,
    pinned: Mapping[str, VerificationKey] | None,
    timeout: object,
) -> KeySource:
    """Return the keys of an issuer that another verifier with the same wishes holds, or begin to hold them.

    Args:
        engine: As for `KeySource`.
        wire: As for `KeySource`; one that is alike may be used in its place.
        trust: As for `KeySource`.
        algorithms: As for `KeySource`.
        options: As for `KeySource`.
        pinned: As for `KeySource`.
        timeout: The owner's time-out, by which wires that are otherwise alike differ.
    """
    pins = (
        None if pinned is None else tuple(sorted((kid, key.material, key.issuer or "") for kid, key in pinned.items()))
    )
    wishes = (engine, trust, algorithms, options, pins, wire.identity, timeout)
    with _lock:
        source = _shared.get(wishes)
        if source is None or source.closed:
            source = KeySource(engine, wire, trust, algorithms=algorithms, options=options, pinned=pinned)
            _shared[wishes] = source
        _users[source] = _users.get(source, 0) + 1
        return source


def release(source: KeySource) -> None:
    """Close what no verifier needs any more."""
    with _lock:
        left = _users[source] = _users.get(source, 1) - 1
        # Whoever makes a verifier before it is closed gets another one.
        source.closed = left <= 0
    if source.closed:
        source.close()


@forks.renewed
def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
