"""Routes for readiness and liveness probes."""

from __future__ import annotations

from flask import Flask

from ..status_page.flask import add_answers
from .routes import health_routes

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
    add_answers(app, health_routes(path, details=details))
