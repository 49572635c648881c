"""When users' sessions end in an outage, told by whoever keeps them to whoever forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .living import LiveObjects

__all__ = ["Reporter", "SessionEnds", "reporters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnds:
    """When sessions end: those of one application, begun at one provider."""

    #: Whether all of them are meant that the store was found to have, and not only those that this process has read.
    in_fleet: bool

    #: The provider's origin, and the application's own address.
    authority: str
    application: str
    count: int
    #: Seconds until the first and the last of them is over, were the provider down and did their users go on.
    first: float
    last: float
    #: Seconds of that by which the owner lets them go on while the provider is down.
    extension: float


class Reporter(Protocol):
    """Anything that can tell when sessions end."""

    def session_ends(self) -> tuple[SessionEnds, ...]:
        """Return it without asking anybody, and without waiting for a lock."""
        ...

    def take_stock(self) -> bool:
        """Look into the store; it may block for as long as that allows.

        Returns:
            Whether there is one.

        Raises:
            StoreUnavailable: It can't tell; what was seen last holds.
        """
        ...


#: Whoever keeps sessions adds themselves.
reporters: LiveObjects[Reporter] = LiveObjects()
