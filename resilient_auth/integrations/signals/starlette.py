"""A route for security events."""

from __future__ import annotations

from starlette.applications import Starlette

from ...signin.signals import SignalsReceiver
from ..signing_in.starlette import made

__all__ = ["mount_signals"]


def mount_signals(app: Starlette, receiver: SignalsReceiver) -> None:
    """Add the route to which a transmitter pushes security events (RFC 8935).

    Args:
        app: The application, FastAPI's or Starlette's.
        receiver: What answers there, at its `path`.
    """
    # Before a route that takes every path.
    app.router.routes.insert(0, made(receiver.route))
