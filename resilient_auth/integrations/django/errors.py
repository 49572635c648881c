"""The answers to what may not go on, and a middleware that answers every error of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse

from ...verify.http import Refusal, gravest, refused

__all__ = ["handle_errors", "install", "response"]


def handle_errors(get_response: Callable[..., Any], *, realm: str | None = None) -> Callable[..., Any]:
    """Answer every error of this package that a view raises: a middleware.

    Tokens that are refused get 401 or 403, what can't be had now from the provider, an API, a claims service or a store
    gets 503 with `Retry-After`. Mistakes of the application's own (`ConfigurationError`) stay what they are.

    Name it in the settings: `MIDDLEWARE = [..., "resilient_auth.integrations.django.handle_errors"]`.

    Args:
        get_response: Given by Django.
        realm: The protection space's name in challenges; by `functools.partial` in a module of the application's.
    """

    def process_exception(_: HttpRequest, error: Exception) -> HttpResponse | None:
        met = gravest(error)
        return None if met is None else response(refused(met, realm=realm))

    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    middleware.process_exception = process_exception  # type: ignore[attr-defined]
    return markcoroutinefunction(middleware) if iscoroutinefunction(get_response) else middleware


handle_errors.sync_capable = handle_errors.async_capable = True  # type: ignore[attr-defined]

#: Its name in every framework.
install = handle_errors


def response(refusal: Refusal) -> HttpResponse:
    """Make the response to a request that may not go on."""
    return JsonResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))
