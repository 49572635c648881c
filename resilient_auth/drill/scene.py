"""One fault: a provider and a process for each client, led through health, dark and recovery."""

from __future__ import annotations

import time
from enum import Enum
from typing import Final

from ..emulator import Emulator
from .client import PEER, SDK
from .client.process import ClientProcess
from .judge import Evidence
from .plan import Plan, Scenario

__all__ = ["Phase", "Scene", "Side"]

_CLOSING: Final = 3.0
_STARTING: Final = 60.0


class Phase(Enum):
    """Where a scene stands."""

    STARTING = "starting"
    HEALTHY = "healthy"
    DARK = "dark"
    RECOVERY = "recovery"
    ENDING = "ending"
    OVER = "over"


class Side:
    """One client and the provider that it has to itself, so that the other client can't change what it meets."""

    def __init__(self, client: str, scenario: Scenario, plan: Plan) -> None:
        self.client = client
        self.dark_from = self.dark_until = 0.0
        self.provider = Emulator(token_lifetime=plan.token_lifetime, refresh_in=plan.refresh_in).start()
        self.process = ClientProcess(
            {
                "client": client,
                "app": None if client == PEER else plan.app,
                "authority": self.provider.authority("contoso"),
                "api_url": self.provider.api_url,
                "ca_file": self.provider.ca_file,
                "threads": plan.threads,
                "interval": plan.interval,
                "timeout": plan.msal_timeout or None,
                "fault": scenario.name,
                "telemetry": plan.telemetry,
            }
        )

    @property
    def recovered(self) -> bool:
        """Whether it has got a token that was issued after the outage."""
        fresh = {token.sha256 for token in self.provider.ledger.tokens if token.issued_at >= self.dark_until}
        return bool(fresh) and any(request.token in fresh for request in self.process.requests[-200:])

    def close(self) -> None:
        """End the process and the provider."""
        self.process.close()
        self.provider.stop()


class Scene:
    """One fault with both clients. `advance` is called again and again, and never waits long.

    Args:
        scenario: What goes wrong.
        plan: For how long.
    """

    def __init__(self, scenario: Scenario, plan: Plan) -> None:
        self.scenario = scenario
        self.phase = Phase.STARTING
        self._plan = plan
        self._since = time.time()
        self._began = self._ended = 0.0
        #: The phase for which a scrape was asked last.
        self._asked: Phase | None = None
        self.sides = tuple(Side(client, scenario, plan) for client in (PEER, plan.app or SDK))

    @property
    def ready(self) -> bool:
        """Whether both clients are built, or can't be."""
        late = time.time() - self._since > _STARTING
        return late or all(side.process.ready.is_set() or not side.process.alive for side in self.sides)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return self.phase is Phase.OVER

    def start(self, at: float) -> None:
        """Have both clients ask from `at` on, in seconds since the epoch."""
        for side in self.sides:
            side.process.start(at)
        self._began = at
        self._enter(Phase.HEALTHY, at)

    def advance(self) -> None:
        """Go on to the next phase if it is time."""
        now = time.time()
        for_ = now - self._since
        match self.phase:
            case Phase.HEALTHY if for_ >= self._plan.healthy and self._scraped():
                for side in self.sides:
                    side.provider.fail(self.scenario.fault)
                    side.dark_from = time.time()
                self._enter(Phase.DARK, now)
            case Phase.DARK if for_ >= self._plan.outage and self._scraped():
                for side in self.sides:
                    side.dark_until = time.time()
                    side.provider.heal()
                self._enter(Phase.RECOVERY, now)
            case Phase.RECOVERY if (
                for_ >= self._plan.recovery or all(side.recovered for side in self.sides)
            ) and self._scraped():
                self._ended = now
                for side in self.sides:
                    side.process.stop()
                self._enter(Phase.ENDING, now)
            case Phase.ENDING if for_ >= _CLOSING or not any(side.process.alive for side in self.sides):
                self.close()
                self._enter(Phase.OVER, now)

    def close(self) -> None:
        """End every process and provider."""
        for side in self.sides:
            side.close()

    def evidence(self) -> tuple[Evidence, ...]:
        """Hand over what is known of each client, once it is over."""
        return tuple(
            Evidence(
                client=side.client,
                requests=side.process.requests,
                interval=self._plan.interval,
                tokens=side.provider.ledger.tokens,
                calls=side.provider.ledger.calls,
                began=self._began,
                dark_from=side.dark_from,
                dark_until=side.dark_until,
                ended=self._ended,
                counted=self.scenario.counted,
                trouble=side.process.trouble,
            )
            for side in self.sides
        )

    def _scraped(self) -> bool:
        """Whether the phase that ends has left its scrape, where there is to be one; called until it has."""
        sdk = self.sides[-1].process
        if self._plan.telemetry is None or self.phase.value in sdk.scraped or not sdk.alive:
            return True
        if self.phase is not self._asked:
            self._asked = self.phase
            sdk.scrape(self.phase.value)
        return False

    def _enter(self, phase: Phase, at: float) -> None:
        self.phase = phase
        self._since = at
