"""How issuers' signing keys stand, told by whoever holds them to whoever reports on the process's health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from .._process.living import LiveObjects

__all__ = ["KeysHealth", "Reporter", "reporters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysHealth:
    """Return how an issuer's signing keys stand, with which tokens are verified."""

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
    last_error: str | None


class Reporter(Protocol):
    """Anything that can tell how its keys stand."""

    def report(self) -> KeysHealth:
        """Return it, asking nobody."""
        ...


#: Whoever holds keys adds himself.
reporters: LiveObjects[Reporter] = LiveObjects()
