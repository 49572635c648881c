"""How writes in the background stand, told by whoever holds them to whoever reports on the process's health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .living import LiveObjects

__all__ = ["WriteReporter", "WritesHealth", "write_reporters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WritesHealth:
    """How one kind of writes in the background stands, as this process knows it."""

    name: str
    #: Those that wait, and how many may.
    pending: int
    most: int
    #: Seconds since the oldest of them was taken; 0 where none waits.
    oldest: float
    #: Those that were given up, until somebody looks at them.
    dead: int
    #: The code of the last failure since the last success.
    last_code: str | None


class WriteReporter(Protocol):
    """Anything that can tell how its writes stand."""

    def report(self) -> WritesHealth:
        """Return it without asking anybody."""


#: Whoever holds writes adds themselves.
write_reporters: LiveObjects[WriteReporter] = LiveObjects()
