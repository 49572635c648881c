"""Verified tokens in Django: a decorator for views and a middleware, both for threads and for asyncio.

    verifier = resilient_auth.ClaimsVerifier.for_entra(...)

    @authenticated(verifier, scopes="orders.read")
    def read(request):
        return JsonResponse({"for": request.claims.subject})

Needs the extra: `pip install 'resilient-auth[django]'`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .._engine.threads import on_a_thread
from .._policy.checks import require
from .._process.extras import raise_missing
from ..errors import ConfigurationError
from ..verify.claims import Claims
from ..verify.errors import InvalidToken, VerificationUnavailable
from ..verify.http import Guard, Refusal, challenged, public_paths

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.http import HttpRequest, HttpResponse, JsonResponse
except ImportError as error:
    raise_missing(__name__, "django", error)

__all__ = ["authenticated", "challenge", "claims_middleware"]


def authenticated(
    verifier: Any,
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    app_only: bool | None = None,
    grace: bool = False,
    realm: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let only requests with a verified token into a view; their claims are in `request.claims` (G16).

    A class-based view is decorated as a whole: `authenticated(verifier)(View.as_view())`.

    Args:
        verifier: A `resilient_auth.ClaimsVerifier`, for both kinds of views; an async view asks it on a thread. For
            async views alone, `resilient_auth.aio.ClaimsVerifier` does without that thread.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.

    Returns:
        A decorator. Refused requests get 401, 403 or 503, with a stable code and a message in JSON.

    Raises:
        ConfigurationError: An argument is wrong; or, when it decorates a sync view, the verifier is async.
    """
    guard = Guard(verifier, scopes=scopes, roles=roles, app_only=app_only, grace=grace, realm=realm)

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(view)(_guarded(guard, view))

    return decorate


def claims_middleware(
    verifier: Any,
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    app_only: bool | None = None,
    grace: bool = False,
    realm: str | None = None,
    public: Collection[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a middleware that lets only requests with a verified token through; see `authenticated`.

    Name what it returns in the settings: `MIDDLEWARE = ["shop.auth.require_token"]`.

    Args:
        verifier: As for `authenticated`; asyncio's under ASGI alone.
        scopes: As for `authenticated`.
        roles: As for `authenticated`.
        app_only: As for `authenticated`.
        grace: As for `authenticated`.
        realm: As for `authenticated`.
        public: Paths that need no token, compared as a whole: `("/health",)`.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    open_to_all = public_paths(public)
    guard = Guard(verifier, scopes=scopes, roles=roles, app_only=app_only, grace=grace, realm=realm)

    def middleware(get_response: Callable[..., Any]) -> Callable[..., Any]:
        return _guarded(guard, get_response, open_to_all)

    middleware.sync_capable = True  # type: ignore[attr-defined]
    middleware.async_capable = True  # type: ignore[attr-defined]
    return middleware


def challenge(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> HttpResponse:
    """Make the response that asks a caller for more than its token has; see `claims_challenge` (G17).

    Returns:
        What to return.
    """
    return _response(challenged(claims, required, realm=realm, authorization_uri=authorization_uri))


def _guarded(guard: Guard, view: Callable[..., Any], public: frozenset[str] = frozenset()) -> Callable[..., Any]:
    if iscoroutinefunction(view):

        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.path not in public:
                try:
                    request.claims = await _admit(guard, request)
                except (InvalidToken, VerificationUnavailable) as error:
                    return _response(guard.refuse(error))
            return await view(request, *args, **kwargs)

        return markcoroutinefunction(guarded_async)

    require(not guard.asynchronous, "an asyncio verifier in a sync view: use resilient_auth.ClaimsVerifier")

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.path not in public:
            _refuse_to_block()
            try:
                request.claims = guard.admit(_authorization(request))
            except (InvalidToken, VerificationUnavailable) as error:
                return _response(guard.refuse(error))
        return view(request, *args, **kwargs)

    return guarded


async def _admit(guard: Guard, request: HttpRequest) -> Claims:
    if guard.asynchronous:
        return await guard.admit_async(_authorization(request))
    claims: Claims = await on_a_thread(functools.partial(guard.admit, _authorization(request)))
    return claims


def _authorization(request: HttpRequest) -> tuple[str, ...]:
    # Django joins several headers of one name by a comma, which no token has.
    value = request.META.get("HTTP_AUTHORIZATION")
    return () if value is None else (value,)


def _refuse_to_block() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "this would block the event loop: decorate the async view as a whole, "
        "authenticated(verifier)(View.as_view()), and not one of its methods"
    )


def _response(refusal: Refusal) -> HttpResponse:
    return JsonResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))
