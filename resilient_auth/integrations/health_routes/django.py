"""Routes for readiness and liveness probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path as route

from ..._policy.checks import require
from .routes import HEADERS, HealthAnswer, health_routes

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
    require(isinstance(urlpatterns, list), f"give the list urlpatterns of urls.py, not {type(urlpatterns).__name__}")

    def view(answer: Callable[[], HealthAnswer]) -> Callable[[HttpRequest], HttpResponse]:
        def answered(_: HttpRequest) -> HttpResponse:
            told = answer()
            return HttpResponse(told.body, "application/json", told.status, headers=HEADERS)

        return answered

    # Before a pattern that takes every path.
    urlpatterns[:0] = [route(at[1:], view(answer)) for at, answer in health_routes(path, details=details)]
