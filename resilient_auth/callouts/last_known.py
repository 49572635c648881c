"""The claims that a handler gave last, by user, tenant and application, for when it can't be asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import cachetools

from .._fleet.bodies import finite
from ..clock import Clock
from ..store import Store
from .answers import Continue, LastKnown
from .contract import CalloutRequest

__all__ = ["LastClaims"]

_KIND: Final = "callout-claims"


#: Seconds by which the clocks of two processes may differ: who was told no within these of a yes was told it later.
_SKEW: Final = 1.0
#: Times that a record is looked at anew since another process has just written it.
_TRIES: Final = 3


class _Kept(NamedTuple):
    #: As JSON, since a handler may change what it gave; None where it said something else than to go on.
    claims: str | None
    #: In seconds since the epoch.
    at: float


class LastClaims:
    """Keep claims in the store, and in memory for when that fails too.

    Args:
        name: The callout's.
        options: How many, for how long.
        store: None where this process's memory will do.
        clock: Gives the time.
    """

    def __init__(self, name: str, options: LastKnown, store: Store | None, clock: Clock) -> None:
        self._name = name
        self._max_age = options.max_age
        self._store = store
        self._clock = clock
        self._kept: cachetools.LRUCache[str, _Kept] = cachetools.LRUCache(options.most)
        self.after_fork()

    def after_fork(self) -> None:
        """Take a lock of one's own."""
        self._lock = threading.Lock()
        # A thread that isn't here may have been in the middle of changing it.
        self._kept = cachetools.LRUCache(self._kept.maxsize)

    def keep(self, request: CalloutRequest, answer: object) -> tuple[str, _Kept] | None:
        """Keep in memory what a handler has just answered, a no too; return what `tell` is to tell the store."""
        about = self._about(request)
        if about is None:
            return None
        claims = json.dumps(dict(answer.claims)) if isinstance(answer, Continue) else None
        kept = _Kept(claims, self._clock.wall())
        with self._lock:
            self._kept[about] = kept
        return about, kept

    def tell(self, about: str, kept: _Kept) -> None:
        """Tell the store, however late, unless it has been told otherwise since.

        Raises:
            StoreUnavailable: The store fails; memory has it.
        """
        if self._store is None:
            return
        said = json.dumps({"at": kept.at, "claims": None if kept.claims is None else json.loads(kept.claims)}).encode()
        for _ in range(_TRIES):
            record = self._store.read(_KIND, about)
            before = None if record is None else _read(record.value)
            # What comes from a clock that was ahead says nothing.
            if before is not None and not self._is_ahead(before) and _newest(before, kept) is not kept:
                return
            expected = None if record is None else record.version
            if self._store.write(_KIND, about, said, ttl=self._max_age, expected=expected) is not None:
                return

    def find(self, request: CalloutRequest) -> _Kept | None:
        """Return what the store has, where another process may have told of later claims.

        Raises:
            StoreUnavailable: The store fails.
        """
        about = self._about(request)
        if about is None or self._store is None:
            return None
        record = self._store.read(_KIND, about)
        return None if record is None else _read(record.value)

    def claims(self, request: CalloutRequest, stored: _Kept | None) -> Mapping[str, Any] | None:
        """Return the claims that were given last; None where they are too old, or the last word was a no.

        Args:
            request: What is asked.
            stored: What `find` found.
        """
        about = self._about(request)
        if about is None:
            return None
        with self._lock:
            kept: _Kept | None = self._kept.get(about)
        found = [one for one in (stored, kept) if one is not None and not self._is_ahead(one)]
        if not found:
            return None
        last = _newest(*found)
        if last.claims is None or self._clock.wall() - last.at > self._max_age:
            return None
        claims: Mapping[str, Any] = json.loads(last.claims)
        return claims

    def _is_ahead(self, kept: _Kept) -> bool:
        return kept.at > self._clock.wall() + _SKEW

    def _about(self, request: CalloutRequest) -> str | None:
        if not request.user_id:
            return None
        resource = getattr(request, "resource_id", "")
        whose = [self._name, request.event, request.tenant_id, request.client_id, resource, request.user_id]
        return json.dumps(whose, ensure_ascii=False)


def _newest(*found: _Kept) -> _Kept:
    """Return what was said last; of a yes and a no at about the same time, the no."""
    return max(found, key=lambda one: one.at + _SKEW * (one.claims is None))


def _read(value: bytes) -> _Kept | None:
    """Read what the store has; None where another release has written something else."""
    try:
        said = json.loads(value)
        claims, at = said["claims"], finite(said["at"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return _Kept(json.dumps(claims) if isinstance(claims, dict) and all(claims) else None, at)
