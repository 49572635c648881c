"""A route for security events."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path as route_at

from ..._engine.steps import run
from ..._policy.checks import require
from ...signin.signals import SignalsReceiver
from ..signing_in.django import _arrival, _response

__all__ = ["mount_signals"]


def mount_signals(urlpatterns: list[Any], receiver: SignalsReceiver) -> None:
    """Add the route to which a transmitter pushes security events (RFC 8935).

    Args:
        urlpatterns: The project's list of URL patterns.
        receiver: What answers there, at its `path`.

    Raises:
        ConfigurationError: `urlpatterns` isn't a list.
    """
    require(isinstance(urlpatterns, list), f"give the list urlpatterns of urls.py, not {type(urlpatterns).__name__}")

    def view(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponse(status=405, headers={"Allow": "POST"})
        return _response(run(receiver.handle(_arrival(request, body=True))))

    # What is sent by a program is signed, and has no form of Django's.
    view.csrf_exempt = True  # type: ignore[attr-defined]
    # Before a pattern that takes every path.
    urlpatterns.insert(0, route_at(receiver.path[1:], view, name="resilient_auth_signals"))
