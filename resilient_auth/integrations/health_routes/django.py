"""Routes for readiness and liveness probes."""

from __future__ import annotations

from typing import Any

from ..status_page.django import add_answers
from .routes import health_routes

__all__ = ["mount_health"]


def mount_health(urlpatterns: list[Any], path: str = "/health", *, details: bool = False) -> None:
    """Add routes for readiness and liveness probes, and for `resilient-auth health`.

    Args:
        urlpatterns: The project's list of URL patterns.
        path: Where: `/health`, `/health/ready` and `/health/live`.
        details: Tell the reasons too, which name authorities and issuers, and answer `/health/forecast`: behind an
            authentication of yours alone.

    Raises:
        ConfigurationError: The path can't be one, or `urlpatterns` isn't a list.
    """
    add_answers(urlpatterns, health_routes(path, details=details))
