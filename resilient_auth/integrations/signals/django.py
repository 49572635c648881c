"""A route for security events."""

from __future__ import annotations

from typing import Any

from ..._policy.checks import require
from ...signin.signals import SignalsReceiver
from ..signing_in.django import made

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
    # Before a pattern that takes every path.
    urlpatterns.insert(0, made(receiver.route))
