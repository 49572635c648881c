"""What health routes answer, whichever framework serves them.

    {path}        200 and the verdict, with `details` its reasons: for people and for `resilient-auth health`
    {path}/ready  503 where somebody who asks now would get nothing, else 200: for a readiness probe
    {path}/live   200, as long as the process answers: for a liveness probe, which no outage may fail
    {path}/forecast  what goes dark when, if the providers died now; with `details` alone

Without `details` they tell nothing about whom the application asks, and may be open to everybody.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ..._policy.checks import require_path
from ...health import Forecast, Health, forecast, health
from ...health.looking import Look
from ...telemetry.page.serving import JSON, Answer, Answers

__all__ = ["health_routes"]

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
#: Seconds for which one look is told to all who ask: a flood of requests costs the process nothing. And seconds for
#: which it is told to others while somebody looks again.
_KEPT, _OLD = 1.0, 5.0
#: The same of a forecast, for which the stores are looked into.
_FORECAST_KEPT, _FORECAST_OLD = 15.0, 60.0


class HealthAnswer(Answer):
    """An answer of JSON."""

    @property
    def headers(self) -> dict[str, str]:
        """Return those that it is sent with."""
        return _HEADERS


def health_routes(path: str, *, details: bool) -> Answers:
    """Return each route's path and what answers it.

    Args:
        path: Where they begin, such as `/health`.
        details: Whether to tell the reasons, which name authorities and issuers: for routes behind the owner's own
            authentication.

    Raises:
        ConfigurationError: The path can't be one.
    """
    require_path("path", path, "/health")
    look: Look[Health] = Look(lambda: health(), _KEPT, _OLD)
    ahead: Look[Forecast] = Look(lambda: forecast(), _FORECAST_KEPT, _FORECAST_OLD)

    def told() -> HealthAnswer:
        seen = look()
        body: dict[str, Any] = {"verdict": seen.verdict, "ready": seen.ready}
        if details:
            left = seen.time_to_dark
            body |= {"reasons": list(seen.reasons), "time_to_dark": None if left is None else round(left)}
        return HealthAnswer(json.dumps(body), JSON)

    def ready() -> HealthAnswer:
        seen = look()
        return HealthAnswer(json.dumps({"ready": seen.ready}), JSON, 200 if seen.ready else 503)

    def live() -> HealthAnswer:
        return HealthAnswer('{"live": true}', JSON)

    def foretold() -> HealthAnswer:
        seen = ahead()
        return HealthAnswer(json.dumps({"report": str(seen)} | seen.to_dict()), JSON)

    known = (path, told), (f"{path}/ready", ready), (f"{path}/live", live)
    return (*known, (f"{path}/forecast", foretold)) if details else known
