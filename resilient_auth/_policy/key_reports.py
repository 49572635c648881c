"""How issuers' signing keys stand, told by whoever holds them to whoever reports on the process's health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from .._process.living import LiveObjects

__all__ = ["KeysHealth", "Reporter", "reporters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysHealth:
    """How an issuer's signing keys stand, with which tokens are verified."""

    #: The identity provider's origin, and the tenant's issuer there.
    authority: str
    issuer: str
    state: Literal["fresh", "stale", "pinned", "none"]
    #: Seconds since they were last fetched; None where they never were.
    age: float | None
    #: How many can be verified with.
    keys: int
    #: Seconds until there is none left, where no fetch succeeds; None for pinned ones, which stay.
    time_to_dark: float | None
    #: Failed fetches since the last success, and the code of the last one's error.
    failures: int
    last_code: str | None


class Reporter(Protocol):
    """Anything that can tell how its keys stand."""

    def report(self) -> KeysHealth:
        """Return it without asking anybody."""

    def foreseen(self) -> KeysHealth | None:
        """Return how they stand for who verifies next, without asking anybody; None where nobody has needed them."""
        ...

    def take_stock(self) -> bool:
        """Look into the store, where no key is held; it may block for as long as that allows.

        Returns:
            Whether there is one.

        Raises:
            StoreUnavailable: It can't tell.
        """
        ...


#: Whoever holds keys adds themselves.
reporters: LiveObjects[Reporter] = LiveObjects()
