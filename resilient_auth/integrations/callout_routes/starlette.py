"""A route that an identity provider calls."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...callouts import Callout
from ...callouts.caller import Arriving
from .routes import CONTENT_TYPE, check

__all__ = ["mount_callout"]


def mount_callout(app: Starlette, path: str, callout: Callout[Any]) -> None:
    """Add a route that an identity provider calls in the middle of a sign-in; it is in no OpenAPI document.

    Args:
        app: The application, FastAPI's or Starlette's.
        path: Where, such as `/callouts/token`.
        callout: What answers.

    Raises:
        ConfigurationError: The path can't be one.
    """

    async def endpoint(request: Request) -> Response:
        async def read(most: int, seconds: float) -> bytes:
            body = b""
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    body += part
                    if len(body) >= most:
                        break
            return body

        peer = None if request.client is None else request.client.host
        reply = await callout.answer_async(Arriving(request.headers.getlist, peer), read)
        return Response(reply.body, reply.status, dict(reply.headers), CONTENT_TYPE)

    # Before a route that takes every path.
    app.router.routes[:0] = [Route(path, endpoint, methods=["POST"], name=check(path, callout))]
