"""The status page in Django."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path as route

from ..._policy.checks import require
from ...telemetry.page.serving import Answer, Answers, StatusPage
from .guarded import check_guard

__all__ = ["add_answers", "mount_status_page"]

Guarding = Callable[[Callable[..., Any]], Callable[..., Any]]


def mount_status_page(
    urlpatterns: list[Any],
    path: str = "/status",
    *,
    guard: Guarding | None = None,
    title: str = "Sign-in and tokens",
    unprotected: bool = False,
) -> None:
    """Add a page that tells how the application stands, for people who look after it.

    It renews itself by server-sent events, of which each connection has one: a reader holds no thread.

    Args:
        urlpatterns: The project's list of URL patterns.
        path: Where, such as `/status`; it answers at `/status/now` and `/status/events` too.
        guard: A decorator of yours for views that lets those through who may see it, such as Django's
            `staff_member_required` or `authenticated(verifier, roles="Ops")`.
        title: What it is headed with.
        unprotected: Whether everybody may see it who reaches it.

    Raises:
        ConfigurationError: There is no guard, or an option is wrong.
    """
    let_in = check_guard(guard, unprotected=unprotected, such_as="staff_member_required")
    add_answers(urlpatterns, StatusPage(path, title).answers, let_in)


def add_answers(urlpatterns: list[Any], answers: Answers, let_in: Guarding | None = None) -> None:
    """Add a route for each path and what answers there, before a pattern that takes every path.

    Raises:
        ConfigurationError: `urlpatterns` isn't a list, or the guard isn't a decorator.
    """
    require(isinstance(urlpatterns, list), f"give the list urlpatterns of urls.py, not {type(urlpatterns).__name__}")

    def view(answer: Callable[[], Answer]) -> Callable[..., Any]:
        def answered(_: HttpRequest, *__: object, **___: object) -> HttpResponse:
            told = answer()
            return HttpResponse(told.body, told.media_type, told.status, headers=told.headers)

        guarded = answered if let_in is None else let_in(answered)
        require(callable(guarded), f"guard must be a decorator for views, and return one, not {guarded!r}")
        return guarded

    urlpatterns[:0] = [route(at[1:], view(answer)) for at, answer in answers]
