"""Decorators for views and a middleware, both for threads and for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from ..._engine.threads import on_a_thread
from ..._policy.checks import require
from ...errors import ConfigurationError, ResilientAuthError
from ...verify.claims import Claims
from ...verify.errors import InvalidToken
from ...verify.http import Arrived, Decorator, Guard, TokenPlace, challenged, public_paths, refused
from ...verify.http.guard import names
from ...verify.rules.asked import check_asked
from .errors import response
from .users import become, known

__all__ = ["arrived", "authenticated", "challenge", "claims_middleware", "requires"]

#: Makes a request's user of claims.
UserOf = Callable[[Claims], Any]


def authenticated(
    verifier: Any,
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    any_scopes: str | Collection[str] = (),
    any_roles: str | Collection[str] = (),
    app_only: bool | None = None,
    grace: bool = False,
    realm: str | None = None,
    token_in: TokenPlace | Sequence[TokenPlace] | None = None,
    user: UserOf | None = None,
) -> Decorator:
    """Let only requests with a verified token into a view; their claims are in `request.claims` (G16).

    A class-based view is decorated as a whole: `authenticated(verifier)(View.as_view())`.

    Args:
        verifier: A `resilient_auth.ClaimsVerifier`, for both kinds of views; an async view asks it on a thread. For
            async views alone, `resilient_auth.aio.ClaimsVerifier` does without that thread.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.
        token_in: Where the token is, such as `TokenCookie("access_token")`, or several places in order; the
            `Authorization` header when not given.
        user: Makes `request.user` of the claims: `ClaimsUser`, `from_backends`, or a function, which for async views
            may be a coroutine function. One that gives None has the request refused. `request.user` is left alone when
            not given.

    Returns:
        A decorator. Refused requests get 401, 403 or 503, with a stable code and a message in JSON.

    Raises:
        ConfigurationError: An argument is wrong; or, when it decorates a sync view, the verifier is async.
    """
    guard = Guard(verifier, scopes, roles, any_scopes, any_roles, app_only, grace, realm, token_in)

    def decorate(view: Any) -> Any:
        return functools.wraps(view)(_guarded(guard, view, user))

    return decorate


def claims_middleware(
    verifier: Any,
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    any_scopes: str | Collection[str] = (),
    any_roles: str | Collection[str] = (),
    app_only: bool | None = None,
    grace: bool = False,
    realm: str | None = None,
    token_in: TokenPlace | Sequence[TokenPlace] | None = None,
    user: UserOf | None = None,
    public: Collection[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a middleware that lets only requests with a verified token through; see `authenticated`.

    Name what it returns in the settings: `MIDDLEWARE = ["shop.auth.require_token"]`.

    Args:
        verifier: As for `authenticated`; asyncio's under ASGI alone.
        scopes: As for `authenticated`.
        roles: As for `authenticated`.
        any_scopes: As for `authenticated`.
        any_roles: As for `authenticated`.
        app_only: As for `authenticated`.
        grace: As for `authenticated`.
        realm: As for `authenticated`.
        token_in: As for `authenticated`.
        user: As for `authenticated`. Put this middleware after Django's `AuthenticationMiddleware` then.
        public: Paths that need no token, compared as a whole, as the URL configuration names them whatever the
            application is mounted under: `("/health",)`.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    open_to_all = public_paths(public)
    guard = Guard(verifier, scopes, roles, any_scopes, any_roles, app_only, grace, realm, token_in)

    def middleware(get_response: Callable[..., Any]) -> Callable[..., Any]:
        return _guarded(guard, get_response, user, open_to_all)

    middleware.sync_capable = True  # type: ignore[attr-defined]
    middleware.async_capable = True  # type: ignore[attr-defined]
    return middleware


def requires(
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    any_scopes: str | Collection[str] = (),
    any_roles: str | Collection[str] = (),
    app_only: bool | None = None,
    realm: str | None = None,
) -> Decorator:
    """Ask more of a token behind `claims_middleware` or `authenticated`: in one view, or in one method of a view's.

    It takes no time, so that `method_decorator` takes it for methods of async views too.

    Args:
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        realm: The protection space's name in challenges.

    Returns:
        A decorator. Requests are refused with 403; with 401 where none of the two let them in.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    asked = names("scopes", scopes), names("roles", roles)
    one_of = names("any_scopes", any_scopes), names("any_roles", any_roles)
    require(
        any(asked) or any(one_of) or app_only is not None,
        "requires() asks for nothing: give scopes, roles, any_scopes, any_roles or app_only",
    )
    require(app_only is None or isinstance(app_only, bool), "app_only must be True, False or None")

    def refusal(request: HttpRequest) -> HttpResponse | None:
        claims = getattr(request, "claims", None)
        try:
            if not isinstance(claims, Claims):
                raise InvalidToken("missing", "the request has no bearer token")  # noqa: TRY301
            check_asked(claims, *asked, app_only, None, *one_of)
        except InvalidToken as error:
            return response(refused(error, realm=realm))
        return None

    def decorate(view: Any) -> Any:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def checked_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return refusal(request) or await view(request, *args, **kwargs)

            return markcoroutinefunction(checked_async)

        @functools.wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return refusal(request) or view(request, *args, **kwargs)

        return checked

    return decorate


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
    return response(challenged(claims, required, realm=realm, authorization_uri=authorization_uri))


def arrived(request: Any) -> Arrived:
    """Return what of a request a token may be found in."""
    meta: Mapping[str, str] = request.META

    def header(name: str) -> tuple[str, ...]:
        # Django joins several headers of one name by a comma, which no token has.
        value = meta.get(f"HTTP_{name.upper().replace('-', '_')}")
        return () if value is None else (value,)

    return Arrived(request.method or "", meta.get("QUERY_STRING", ""), header, request.build_absolute_uri)


def _guarded(
    guard: Guard, view: Callable[..., Any], user: UserOf | None, public: frozenset[str] = frozenset()
) -> Callable[..., Any]:
    require(user is None or callable(user), f"user must be a function of claims, such as ClaimsUser, not {user!r}")
    if iscoroutinefunction(view):

        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.path_info not in public:
                try:
                    request.claims = claims = await _admit(guard, request)
                    if user is not None:
                        become(request, known(await _user_async(user, claims)))
                except ResilientAuthError as error:
                    return response(guard.refuse(error))
            return await view(request, *args, **kwargs)

        return markcoroutinefunction(guarded_async)

    require(not guard.asynchronous, "an asyncio verifier in a sync view: use resilient_auth.ClaimsVerifier")
    require(not iscoroutinefunction(user), "an async user= in a sync view: give a function that isn't")

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.path_info not in public:
            _refuse_to_block()
            try:
                request.claims = claims = guard.admit(arrived(request))
                if user is not None:
                    become(request, known(user(claims)))
            except ResilientAuthError as error:
                return response(guard.refuse(error))
        return view(request, *args, **kwargs)

    return guarded


async def _admit(guard: Guard, request: HttpRequest) -> Claims:
    if guard.asynchronous:
        return await guard.admit_async(arrived(request))
    claims: Claims = await on_a_thread(functools.partial(guard.admit, arrived(request)))
    return claims


async def _user_async(user: UserOf, claims: Claims) -> Any:
    if iscoroutinefunction(user):
        return await user(claims)
    # A class makes objects of what it is given; a function may ask the database, which Django has on one thread.
    return user(claims) if isinstance(user, type) else await sync_to_async(user)(claims)


def _refuse_to_block() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "this would block the event loop: decorate the async view as a whole, "
        "authenticated(verifier)(View.as_view()), and not one of its methods"
    )
