"""A route for security events."""

from __future__ import annotations

from flask import Flask, Response

from ..._engine.steps import run
from ...signin.signals import SignalsReceiver
from ..signing_in.flask import _arrival, _response

__all__ = ["mount_signals"]


def mount_signals(app: Flask, receiver: SignalsReceiver) -> None:
    """Add the route to which a transmitter pushes security events (RFC 8935).

    Args:
        app: The application.
        receiver: What answers there, at its `path`.
    """

    def view() -> Response:
        return _response(run(receiver.handle(_arrival(body=True))))

    app.add_url_rule(receiver.path, f"resilient_auth{receiver.path.replace('/', '_')}", view, methods=["POST"])
