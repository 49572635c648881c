"""The status page in Django."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path as route

from ..._policy.checks import require
from ...telemetry.page.serving import Answer, StatusPage
from .guarded import check_guard

__all__ = ["mount_status_page"]


def mount_status_page(
    urlpatterns: list[Any],
    path: str = "/status",
    *,
    guard: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
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
    require(isinstance(urlpatterns, list), f"give the list urlpatterns of urls.py, not {type(urlpatterns).__name__}")
    let_in = check_guard(guard, unprotected=unprotected, such_as="staff_member_required")
    page = StatusPage(path, title)

    def view(answer: Callable[[], Answer]) -> Callable[..., Any]:
        def answered(_: HttpRequest, *__: object, **___: object) -> HttpResponse:
            told = answer()
            return HttpResponse(told.body, told.media_type, told.status, headers=told.headers)

        guarded = answered if let_in is None else let_in(answered)
        require(callable(guarded), f"guard must be a decorator for views, and return one, not {guarded!r}")
        return guarded

    answers = ((path, page.document), (f"{path}/now", page.now), (f"{path}/events", page.event))
    # Before a pattern that takes every path.
    urlpatterns[:0] = [route(at[1:], view(answer)) for at, answer in answers]
