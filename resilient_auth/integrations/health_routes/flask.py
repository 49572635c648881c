"""Routes for readiness and liveness probes."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response

from ..route_names import route_name
from .routes import HEADERS, HealthAnswer, health_routes

__all__ = ["mount_health"]


def mount_health(app: Flask, path: str = "/health", *, details: bool = False) -> None:
    """Add routes for readiness and liveness probes, and for `resilient-auth health`.

    Args:
        app: The application.
        path: Where: `/health`, `/health/ready` and `/health/live`.
        details: Tell the reasons too, which name authorities and issuers, and answer `/health/forecast`: behind an
            authentication of yours alone.

    Raises:
        ConfigurationError: The path can't be one.
    """

    def view(answer: Callable[[], HealthAnswer]) -> Callable[[], Response]:
        def answered() -> Response:
            told = answer()
            return Response(told.body, told.status, HEADERS, mimetype="application/json")

        return answered

    for at, answer in health_routes(path, details=details):
        app.add_url_rule(at, route_name(at), view(answer))
