"""Count events."""

from __future__ import annotations

from typing import TypeAlias

from .._policy.circuit.status import State
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

__all__ = ["BreakerEvent", "Listening", "transition"]

BreakerEvent: TypeAlias = BreakerOpened | BreakerHalfOpen | BreakerClosed | BreakerIsolated


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
        changed = transition(event)
        if changed is not None:
            breaker, state, code = changed
            host = addresses.of(breaker.authority or breaker.target)
            labels = (host, breaker.purpose, state, known(code) if code else "")
            tally.add("resilient_auth.breaker.transitions", labels)


def transition(event: Event) -> tuple[BreakerEvent, State, str] | None:
    """Return into which state a breaker has come, and after what; None for events about something else."""
    match event:
        case BreakerOpened():
            return event, "open", event.code
        case BreakerHalfOpen():
            return event, "half-open", ""
        case BreakerClosed():
            return event, "closed", ""
        case BreakerIsolated():
            return event, "isolated" if event.isolated else "closed", ""
    return None
