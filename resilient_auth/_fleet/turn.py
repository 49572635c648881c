"""A process's turn to make an exchange: the leases under which it asks, on the token and on going first."""

from __future__ import annotations

from contextlib import suppress

from .._engine.engine import Engine
from ..errors import StoreUnavailable
from ..settings import LEASE_SPARE
from ..store import Lease, Store

__all__ = ["Turn"]

#: Seconds after a back-off for which its lease lasts: enough to begin the next attempt.
_AFTER_BACK_OFF = 2.0


class Turn:
    """The leases under which one exchange is made: on its token and, after a failure, on going first."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._store = store
        self._now = engine.clock.monotonic
        self._attempt = engine.settings.attempt_timeout
        #: None where the store failed: then each process decides alone.
        self._lease: Lease | None = None
        #: Monotonic time at which it ends, unless it was lost before.
        self._until = 0.0
        self._first: Lease | None = None

    @property
    def fence(self) -> int:
        """That of the lease; 0 for none."""
        return 0 if self._lease is None else self._lease.fence

    def go_first(self, name: str) -> bool:
        """Take the lease on asking first, after a failure that is known to all; False where another process has it."""
        try:
            self._first = self._store.lease(f"probe {name}", self._attempt + LEASE_SPARE)
        except StoreUnavailable:
            return True
        return self._first is not None

    def take(self, name: str) -> bool:
        """Take the lease on an exchange; False while another process has it.

        Raises:
            StoreUnavailable: That can't be told.
        """
        seconds = self._attempt + LEASE_SPARE
        until = self._now() + seconds
        self._lease = self._store.lease(f"exchange {name}", seconds)
        self._until = until
        return self._lease is not None

    def may_attempt(self) -> bool:
        """Return whether an attempt may begin; if so, no other process makes one before it has ended."""
        if self._lease is None or self._until - self._now() >= self._attempt + LEASE_SPARE / 2:
            return True
        return self._renew(self._attempt + LEASE_SPARE)

    def hold_on(self, seconds: float) -> None:
        """Keep the leases through a back-off, which is everybody's: no other process asks sooner (G9, G10)."""
        self._renew(max(self._attempt + LEASE_SPARE, seconds + _AFTER_BACK_OFF))

    def _renew(self, seconds: float) -> bool:
        until = self._now() + seconds
        try:
            kept = self._lease is not None and self._store.renew(self._lease, seconds) is not None
            if self._first is not None:
                self._store.renew(self._first, seconds)
        except StoreUnavailable:
            # Not known to be lost, and not renewed: it is good for what is left of it.
            return self._until - self._now() >= self._attempt
        self._until = until if kept else 0.0
        return kept

    def end(self) -> None:
        """End the leases; one that can't be ended now ends by itself."""
        for lease in (self._lease, self._first):
            if lease is not None:
                with suppress(StoreUnavailable):
                    self._store.release(lease)
