"""What health routes answer, whichever framework serves them.

    {path}        200 and the verdict, with `details` its reasons: for people and for `resilient-auth health`
    {path}/ready  503 where somebody who asks now would get nothing, else 200: for a readiness probe
    {path}/live   200, as long as the process answers: for a liveness probe, which no outage may fail
    {path}/forecast  what goes dark when, if the providers died now; with `details` alone

Without `details` they tell nothing about whom the application asks, and may be open to everybody.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from ..._policy.checks import require
from ...health import Forecast, Health, forecast, health

__all__ = ["HEADERS", "HealthAnswer", "health_routes"]

HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
#: Seconds for which one look is told to all who ask: a flood of requests costs the process nothing. And seconds for
#: which it is told to others while somebody looks again.
_KEPT, _OLD = 1.0, 5.0
#: The same of a forecast, for which the stores are looked into.
_FORECAST_KEPT, _FORECAST_OLD = 15.0, 60.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """An answer: JSON, to be sent with `HEADERS`."""

    status: int
    body: str


class _Look(Generic[_T]):
    """The last look at something, told for a while to all who ask."""

    def __init__(self, look: Callable[[], _T], kept: float, old: float) -> None:
        self._look, self._kept, self._old = look, kept, old
        self._seen: tuple[float, _T] | None = None
        self._looking_since = -old

    def __call__(self) -> _T:
        now, last = time.monotonic(), self._seen
        if last is not None:
            at, seen = last
            if now - at < self._kept or (now - at < self._old and now - self._looking_since < self._kept):
                return seen
        # No lock: that two look at once does no harm.
        self._looking_since = now
        seen = self._look()
        self._seen = now, seen
        return seen


def health_routes(path: str, *, details: bool) -> tuple[tuple[str, Callable[[], HealthAnswer]], ...]:
    """Return each route's path and what answers it.

    Args:
        path: Where they begin, such as `/health`.
        details: Whether to tell the reasons, which name authorities and issuers: for routes behind the owner's own
            authentication.

    Raises:
        ConfigurationError: The path can't be one.
    """
    require(
        isinstance(path, str) and path.startswith("/") and not path.endswith("/") and path.isprintable(),
        f'path must begin with a slash and end without one, such as "/health", not {path!r}',
    )
    look: _Look[Health] = _Look(lambda: health(), _KEPT, _OLD)
    ahead: _Look[Forecast] = _Look(lambda: forecast(), _FORECAST_KEPT, _FORECAST_OLD)

    def told() -> HealthAnswer:
        seen = look()
        body: dict[str, Any] = {"verdict": seen.verdict, "ready": seen.ready}
        if details:
            left = seen.time_to_dark
            body |= {"reasons": list(seen.reasons), "time_to_dark": None if left is None else round(left)}
        return HealthAnswer(200, json.dumps(body))

    def ready() -> HealthAnswer:
        seen = look()
        return HealthAnswer(200 if seen.ready else 503, json.dumps({"ready": seen.ready}))

    def live() -> HealthAnswer:
        return HealthAnswer(200, '{"live": true}')

    def foretold() -> HealthAnswer:
        seen = ahead()
        return HealthAnswer(200, json.dumps({"report": str(seen)} | seen.to_dict()))

    known = (path, told), (f"{path}/ready", ready), (f"{path}/live", live)
    return (*known, (f"{path}/forecast", foretold)) if details else known
