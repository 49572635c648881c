"""A route for security events."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..._engine.steps import run_async
from ...signin.signals import SignalsReceiver
from ..signing_in.starlette import _arrival, _body, _response

__all__ = ["mount_signals"]


def mount_signals(app: Starlette, receiver: SignalsReceiver) -> None:
    """Add the route to which a transmitter pushes security events (RFC 8935).

    Args:
        app: The application, FastAPI's or Starlette's.
        receiver: What answers there, at its `path`.
    """

    async def endpoint(request: Request) -> Response:
        return _response(await run_async(receiver.handle(_arrival(request, await _body(request)))))

    # Before a route that takes every path.
    app.router.routes.insert(0, Route(receiver.path, endpoint, methods=["POST"]))
