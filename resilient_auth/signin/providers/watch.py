"""Whether a provider can be reached: by what its requests have met, and by a look before anybody is sent there."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from ..._engine.acquire import patience_of
from ..._engine.engine import Engine
from ..._engine.single_flight import Flight, Outcome, WaitFor
from ..._policy.endpoint import Endpoint, origin_of
from ..._policy.failure import Purpose
from ..._wire.http_client import Transport
from ...errors import LocalResourcesExhausted, ProviderUnavailable

__all__ = ["ProviderWatch", "Sight"]

#: Seconds for which a look that found the provider counts, and one that didn't; and that a look may take.
_FOUND_COUNTS: Final = 1.0
_MISSED_COUNTS: Final = 5.0
_LOOK_TAKES: Final = 3.0


@dataclass(frozen=True, slots=True)
class Sight:
    """How a provider was seen.

    Args:
        down: Whether it doesn't answer.
        retry_after: Seconds after which a sign-in may work; 0 where it may now. A provider that throttles isn't down.
    """

    down: bool = False
    retry_after: float = 0.0


class ProviderWatch:
    """Look at a provider before somebody is sent there, once for all who come at the same time.

    Args:
        app: The application that signs in there; its breakers and its wire are gone by.
        discovery: The address of the provider's document.
    """

    def __init__(self, app: Any, discovery: str) -> None:
        self._transport: Transport = app._ra_transport
        self._app = app
        self._discovery = discovery
        self.engine: Engine = self._transport.engine
        self.authority = origin_of(discovery)
        self._endpoint = Endpoint(self.authority, wire=self._transport.wire.identity)
        #: Until when the last look counts, on the monotonic clock, and whether the provider was missing then.
        self._looked: tuple[float, bool] = (-inf, False)

    def looking(self) -> Generator[WaitFor, Outcome | None, Sight]:
        """Return how it is seen; the drivers do the waiting."""
        engine = self.engine
        status = engine.breaker(self._endpoint, Purpose.TOKEN).status()
        if status.state == "isolated":
            return Sight(True, _MISSED_COUNTS)
        if status.state != "closed" and status.retry_after:
            return Sight(True, status.retry_after)
        asked = self._transport.request_for(Purpose.TOKEN, self._discovery, grant="authorization_code")
        throttled = engine.cooldown_left(asked)
        if throttled > 0:
            return Sight(False, throttled)
        now = engine.clock.monotonic()
        counts_until, missing = self._looked
        if now >= counts_until:
            patience = patience_of(_LOOK_TAKES + 1.0)
            flight, mine = engine.flights.join(("sign-in look", self._endpoint, self._discovery), now + patience)
            if mine:
                try:
                    engine.run(f"{self._endpoint.lane} look", lambda: self._look(flight), flight)
                except ProviderUnavailable as error:
                    engine.flights.end(flight)
                    flight.land(Outcome(error=error))
            outcome = yield WaitFor(flight, patience)
            missing = outcome is None or outcome.error is not None
            if outcome is not None and isinstance(outcome.error, LocalResourcesExhausted):
                # This machine's own: it says nothing of the provider, and nobody is let stay for it.
                return Sight(False, _MISSED_COUNTS)
        return Sight(missing, _MISSED_COUNTS if missing else 0.0)

    def _look(self, flight: Flight) -> None:
        """Look once, on a worker."""
        error: BaseException | None = None
        try:
            error = self._probed()
        except BaseException as raised:
            error = raised
            raise
        finally:
            if not isinstance(error, LocalResourcesExhausted):
                lasts = _FOUND_COUNTS if error is None else _MISSED_COUNTS
                self._looked = (self.engine.clock.monotonic() + lasts, error is not None)
            self.engine.flights.end(flight)
            flight.land(Outcome(error=error))

    def _probed(self) -> ProviderUnavailable | None:
        clock = self.engine.clock
        most = min(_LOOK_TAKES, self.engine.settings.attempt_timeout)
        failure = self._transport.probe(Purpose.DISCOVERY, self._discovery, ends=clock.monotonic() + most / 2)
        if failure is None or not self._app._ra_bound or isinstance(failure, LocalResourcesExhausted):
            return failure
        # A document that can't be had is no outage, if tokens can.
        endpoint = self._app.authority.token_endpoint
        return self._transport.probe(Purpose.TOKEN, endpoint, ends=clock.monotonic() + most / 2)
