"""When applications' credentials end, told by whoever knows to whoever reports on the process's health (G24)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from .living import LiveObjects

__all__ = ["CredentialEnd", "Reporter", "reporters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialEnd:
    """When a credential of an application ends."""

    credential: Literal["certificate", "secret"]
    client_id: str
    #: The origin of the application's provider; "" where that isn't known.
    authority: str
    #: Who says so: a file, the owner's function, or an option.
    target: str
    #: When it ends, in seconds since the epoch; and in how many seconds, less than 0 where it has ended.
    at: float
    remaining: float


class Reporter(Protocol):
    """Anything that can tell when credentials end."""

    def credential_ends(self) -> tuple[CredentialEnd, ...]:
        """Return it without asking anybody."""


#: Whoever watches credentials adds themselves.
reporters: LiveObjects[Reporter] = LiveObjects()
