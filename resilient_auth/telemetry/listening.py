"""Count events."""

from __future__ import annotations

from ..events import (
    BreakerClosed,
    BreakerHalfOpen,
    BreakerIsolated,
    BreakerOpened,
    CooldownStarted,
    Event,
    RetryScheduled,
)
from .labels import known
from .observer import Telemetry

__all__ = ["Listening"]


class Listening:
    """Count what is decided."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, event: Event) -> None:
        """Count one event."""
        telemetry, addresses = self._telemetry, self._telemetry.addresses
        tally = telemetry.tally
        tally.add("resilient_auth.events", (event.name,))
        match event:
            case RetryScheduled():
                host = addresses.of(event.authority or event.target)
                tally.add("resilient_auth.retries", (host, event.purpose, known(event.code)))
            case CooldownStarted():
                host = addresses.of(event.authority or event.target)
                telemetry.record("resilient_auth.cooldown.duration", (host, event.purpose), event.seconds)
            case BreakerOpened():
                self._changed(event, "open", known(event.code))
            case BreakerHalfOpen():
                self._changed(event, "half-open")
            case BreakerClosed():
                self._changed(event, "closed")
            case BreakerIsolated():
                self._changed(event, "isolated" if event.isolated else "closed")

    def _changed(
        self, event: BreakerOpened | BreakerHalfOpen | BreakerClosed | BreakerIsolated, state: str, code: str = ""
    ) -> None:
        host = self._telemetry.addresses.of(event.authority or event.target)
        self._telemetry.tally.add("resilient_auth.breaker.transitions", (host, event.purpose, state, code))
