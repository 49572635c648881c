"""Routes for readiness and liveness probes."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Route

from .routes import HEADERS, HealthAnswer, health_routes

__all__ = ["mount_health"]


def mount_health(app: Starlette, path: str = "/health", *, details: bool = False) -> None:
    """Add routes for readiness and liveness probes, and for `resilient-auth health`; they are in no OpenAPI document.

    Args:
        app: The application, FastAPI's or Starlette's.
        path: Where: `/health`, `/health/ready` and `/health/live`.
        details: Tell the reasons too, which name authorities and issuers, and answer `/health/forecast`: behind an
            authentication of yours alone.

    Raises:
        ConfigurationError: The path can't be one.
    """

    def endpoint(answer: Callable[[], HealthAnswer]) -> Callable[[HTTPConnection], Response]:
        # Starlette runs it on a thread: with very many tokens a look takes longer than a loop should be held.
        def answered(_: HTTPConnection) -> Response:
            told = answer()
            return Response(told.body, told.status, HEADERS, "application/json")

        return answered

    # Before a route that takes every path.
    app.router.routes[:0] = [Route(at, endpoint(answer)) for at, answer in health_routes(path, details=details)]
