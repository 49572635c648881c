"""The status page in FastAPI and Starlette."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from ...telemetry.page.serving import EVENT_STREAM, STREAM_SECONDS, Answer, StatusPage
from .guarded import check_guard

__all__ = ["answering", "guarded", "mount_status_page"]

#: Seconds between two looks for a stream, and for which a reader may leave one message unread.
_EVERY: Final = 2.0
_SLOWEST: Final = 10.0


def mount_status_page(
    app: Starlette,
    path: str = "/status",
    *,
    guard: Any = None,
    title: str = "Sign-in and tokens",
    unprotected: bool = False,
) -> None:
    """Add a page that tells how the application stands, for people who look after it; it is in no OpenAPI document.

    It renews itself by a stream of server-sent events: 16 at a time, for two minutes each, after which a browser
    connects anew. Who comes later asks again every few seconds, and who reads too slowly is let go.

    Args:
        app: The application, FastAPI's or Starlette's.
        path: Where, such as `/status`; it answers at `/status/now` and `/status/events` too.
        guard: Lets those through who may see it. For FastAPI a dependency, such as `Authenticated(verifier)`, or a
            function of yours that raises `HTTPException`; as `Depends(...)` or `Security(...)` too. For Starlette a
            function of the request, perhaps a coroutine function, that raises, or returns an answer in place of the
            page and None otherwise. One that says False, as a test would, refuses.
        title: What it is headed with.
        unprotected: Whether everybody may see it who reaches it.

    Raises:
        ConfigurationError: There is no guard, or an option is wrong.
    """
    let_in = check_guard(guard, unprotected=unprotected, such_as="a dependency that refuses whoever isn't an operator")
    page = StatusPage(path, title)

    def events() -> Response:
        if page.full():
            return Response(status_code=204, headers={"Cache-Control": "no-store"})  # a browser doesn't ask again
        return _Stream(page)

    answers = tuple((at, events if answer == page.event else answering(answer)) for at, answer in page.answers)
    # Before a route that takes every path.
    app.router.routes[:0] = _of_fastapi(app, let_in, answers) or [
        Route(at, guarded(let_in, answer)) for at, answer in answers
    ]


def answering(answer: Callable[[], Answer]) -> Callable[[], Response]:
    """Return what makes a response of an answer."""

    def answered() -> Response:
        told = answer()
        return Response(told.body, told.status, told.headers, told.media_type)

    return answered


def _of_fastapi(app: Starlette, guard: Any, answers: tuple[tuple[str, Callable[[], Response]], ...]) -> list[BaseRoute]:
    try:
        from fastapi import APIRouter, Depends, FastAPI
    except ImportError:
        return []
    if not isinstance(app, FastAPI):
        return []
    needed = [] if guard is None else [guard if hasattr(guard, "dependency") else Depends(guard)]
    router = APIRouter(dependency_overrides_provider=app)

    def guarded(answer: Callable[[], Response]) -> Callable[..., Any]:
        async def endpoint(said: Any = needed[0]) -> Response:
            # A function that hands on to a coroutine function has checked nothing until that is awaited.
            refused = _refusal(await said if inspect.isawaitable(said) else said)
            return await run_in_threadpool(answer) if refused is None else refused

        return endpoint

    for at, answer in answers:
        router.add_api_route(at, guarded(answer) if needed else answer, include_in_schema=False, response_model=None)
    return list(router.routes)


def guarded(guard: Any, answer: Callable[[], Response]) -> Callable[[Request], Any]:
    """Return an endpoint of Starlette's that a guard lets in, or everybody."""

    async def endpoint(request: Request) -> Response:
        if guard is not None:
            # A guard that blocks holds no loop up; and one that hands on to a coroutine function has checked nothing
            # until that is awaited.
            said = await run_in_threadpool(guard, request) if not _awaits(guard) else guard(request)
            refused = _refusal(await said if inspect.isawaitable(said) else said)
            if refused is not None:
                return refused
        # With very many tokens a look takes longer than a loop should be held.
        return await run_in_threadpool(answer)

    return endpoint


def _refusal(said: object) -> Response | None:
    """Return what is answered in place of the page; None where the guard lets it be seen."""
    if isinstance(said, Response):
        return said
    return Response("Forbidden", 403, media_type="text/plain") if said is False else None


def _awaits(guard: Any) -> bool:
    return inspect.iscoroutinefunction(guard) or inspect.iscoroutinefunction(getattr(guard, "__call__", None))  # noqa: B004


class _Stream(StreamingResponse):
    """A stream for a while, whose reader is let go where they read nothing for long."""

    def __init__(self, page: StatusPage) -> None:
        told = Answer("", EVENT_STREAM)
        super().__init__(_messages(page), headers=told.headers, media_type=told.media_type)
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            await asyncio.wait_for(send(message), _SLOWEST)

        key = self._page.opened()
        try:
            with suppress(TimeoutError):  # the server ends what isn't complete
                await super().__call__(scope, receive, bounded)
        finally:
            self._page.closed(key)


async def _messages(page: StatusPage) -> AsyncIterator[str]:
    messages, now = page.changes(), asyncio.get_running_loop().time
    ends = now() + STREAM_SECONDS
    while now() < ends:
        yield await run_in_threadpool(next, messages)
        await asyncio.sleep(_EVERY)
