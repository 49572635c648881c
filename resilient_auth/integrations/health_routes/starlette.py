"""Routes for readiness and liveness probes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route

from ..status_page.starlette import answering, guarded
from .routes import health_routes

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
    # Before a route that takes every path.
    routes = [Route(at, guarded(None, answering(answer))) for at, answer in health_routes(path, details=details)]
    app.router.routes[:0] = routes
