"""A route that an identity provider calls."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import path as route
from django.views.decorators.csrf import csrf_exempt

from ..._engine.threads import on_a_thread
from ..._policy.checks import require
from ...callouts import Callout
from ...callouts.caller import Arriving
from ...callouts.contract import Reply
from .routes import CONTENT_TYPE, check

__all__ = ["mount_callout"]


def mount_callout(urlpatterns: list[Any], path: str, callout: Callout[Any], *, asynchronous: bool = False) -> None:
    """Add a route that an identity provider calls in the middle of a sign-in.

    Args:
        urlpatterns: The project's list of URL patterns.
        path: Where, such as `/callouts/token`.
        callout: What answers.
        asynchronous: Whether the project is served by ASGI, so that the handler runs in its event loop.

    Raises:
        ConfigurationError: The path can't be one, or `urlpatterns` isn't a list.
    """
    require(isinstance(urlpatterns, list), f"give the list urlpatterns of urls.py, not {type(urlpatterns).__name__}")

    def blocking(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])

        def read(most: int, seconds: float) -> bytes:
            body: bytes = request.read(most)
            return body

        return _response(callout.answer(_arriving(request), read))

    async def awaiting(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])

        async def read(most: int, seconds: float) -> bytes:
            # ASGI's body is in a file already. It is read on a thread of this package's: on the event loop's own ones
            # the application may have whatever it likes wait.
            async with asyncio.timeout(seconds):
                body: bytes = await on_a_thread(partial(request.read, most))
            return body

        return _response(await callout.answer_async(_arriving(request), read))

    name = check(path, callout)
    # The caller is known by what it proves, and no cookie is looked at. Before a pattern that takes every path.
    urlpatterns[:0] = [route(path[1:], csrf_exempt(awaiting if asynchronous else blocking), name=name)]


def _arriving(request: HttpRequest) -> Arriving:
    def header(name: str) -> list[str]:
        value = request.headers.get(name)
        return [] if value is None else [value]

    return Arriving(header, request.META.get("REMOTE_ADDR"))


def _response(reply: Reply) -> HttpResponse:
    return HttpResponse(reply.body, CONTENT_TYPE, reply.status, headers=dict(reply.headers))
