"""The status page in Flask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response

from ..._policy.checks import require
from ...telemetry.page.serving import Answer, Answers, StatusPage
from ..route_names import route_name
from .guarded import check_guard

__all__ = ["add_answers", "mount_status_page"]

Guarding = Callable[[Callable[..., Any]], Callable[..., Any]]


def mount_status_page(
    app: Flask,
    path: str = "/status",
    *,
    guard: Guarding | None = None,
    title: str = "Sign-in and tokens",
    unprotected: bool = False,
) -> None:
    """Add a page that tells how the application stands, for people who look after it.

    It renews itself by server-sent events, of which each connection has one: a reader holds no thread.

    Args:
        app: The application.
        path: Where, such as `/status`; it answers at `/status/now` and `/status/events` too.
        guard: A decorator of yours for views that lets those through who may see it, such as `login_required` or
            `authenticated(verifier, roles="Ops")`.
        title: What it is headed with.
        unprotected: Whether everybody may see it who reaches it.

    Raises:
        ConfigurationError: There is no guard, or an option is wrong.
    """
    let_in = check_guard(guard, unprotected=unprotected, such_as="login_required")
    add_answers(app, StatusPage(path, title).answers, let_in)


def add_answers(app: Flask, answers: Answers, let_in: Guarding | None = None) -> None:
    """Add a route for each path and what answers there.

    Raises:
        ConfigurationError: The guard isn't a decorator.
    """

    def view(answer: Callable[[], Answer]) -> Callable[..., Any]:
        def answered(*_: object, **__: object) -> Response:
            told = answer()
            return Response(told.body, told.status, told.headers, content_type=told.media_type)

        guarded = answered if let_in is None else let_in(answered)
        require(callable(guarded), f"guard must be a decorator for views, and return one, not {guarded!r}")
        return guarded

    for at, answer in answers:
        app.add_url_rule(at, route_name(at), view(answer))
