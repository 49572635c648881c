"""A route that an identity provider calls."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, request

from ...callouts import Callout
from ...callouts.caller import Arriving
from .routes import CONTENT_TYPE, check

__all__ = ["mount_callout"]


def mount_callout(app: Flask | Blueprint, path: str, callout: Callout[Any]) -> None:
    """Add a route that an identity provider calls in the middle of a sign-in.

    Args:
        app: The application, or a blueprint.
        path: Where, such as `/callouts/token`.
        callout: What answers.

    Raises:
        ConfigurationError: The path can't be one.
    """

    def read(most: int, seconds: float) -> bytes:
        body: bytes = request.stream.read(most)
        return body

    def view() -> Response:
        arriving = Arriving(request.headers.getlist, request.remote_addr)
        reply = callout.answer(arriving, read)
        return Response(reply.body, reply.status, dict(reply.headers), content_type=CONTENT_TYPE)

    app.add_url_rule(path, check(path, callout), view, methods=["POST"])
