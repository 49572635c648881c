"""A route for security events."""

from __future__ import annotations

from flask import Flask

from ...signin.signals import SignalsReceiver
from ..signing_in.flask import add_route

__all__ = ["mount_signals"]


def mount_signals(app: Flask, receiver: SignalsReceiver) -> None:
    """Add the route to which a transmitter pushes security events (RFC 8935).

    Args:
        app: The application.
        receiver: What answers there, at its `path`.
    """
    add_route(app, receiver.route)
