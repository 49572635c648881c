"""The claims that a handler gave last, by user, tenant and application, for when it can't be asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import cachetools

from ..clock import Clock
from ..errors import StoreUnavailable
from ..store import Store
from .answers import Continue, LastKnown
from .contract import CalloutRequest

__all__ = ["LastClaims"]

_KIND: Final = "callout-claims"


class _Kept(NamedTuple):
    #: None where the handler said something else than to go on.
    claims: Mapping[str, Any] | None
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

    def keep(self, request: CalloutRequest, answer: object) -> None:
        """Keep what a handler answered; an answer that doesn't let the user go on ends what was kept.

        Raises:
            StoreUnavailable: The store fails; memory has it.
        """
        about = self._about(request)
        if about is None:
            return
        claims = dict(answer.claims) if isinstance(answer, Continue) else None
        kept = _Kept(claims, self._clock.wall())
        with self._lock:
            self._kept[about] = kept
        if self._store is not None:
            if claims is None:
                self._store.erase(_KIND, about)
            else:
                said = json.dumps({"at": kept.at, "claims": claims}).encode()
                self._store.write(_KIND, about, said, ttl=self._max_age)

    def find(self, request: CalloutRequest) -> Mapping[str, Any] | None:
        """Find claims, the store's before memory's, since another process may know better."""
        about = self._about(request)
        if about is None:
            return None
        kept = self.in_memory(request)
        if self._store is None:
            return kept
        try:
            record = self._store.read(_KIND, about)
        except StoreUnavailable:
            return kept
        if record is None:
            return None
        said = json.loads(record.value)
        return said["claims"] if self._lasts(said["at"]) else None

    def in_memory(self, request: CalloutRequest) -> Mapping[str, Any] | None:
        """Find claims without the store."""
        about = self._about(request)
        if about is None:
            return None
        with self._lock:
            kept: _Kept | None = self._kept.get(about)
        return kept.claims if kept is not None and self._lasts(kept.at) else None

    def _lasts(self, at: float) -> bool:
        return 0 <= self._clock.wall() - at + 1.0 <= self._max_age + 1.0

    def _about(self, request: CalloutRequest) -> str | None:
        if not request.user_id:
            return None
        resource = getattr(request, "resource_id", "")
        return json.dumps([self._name, request.tenant_id, request.client_id, resource, request.user_id])
