"""Verified tokens in Flask: a decorator that leaves the claims in `flask.g.claims`.

    verifier = resilient_auth.ClaimsVerifier.for_entra(...)

    @app.get("/orders")
    @authenticated(verifier, scopes="orders.read")
    def read():
        return {"for": g.claims.subject}

    install(app)

Needs the extra: `pip install 'resilient-auth[flask]'`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .._policy.checks import require
from .._process.extras import raise_missing
from ..claims_service.decision import Decision
from ..errors import ResilientAuthError
from ..verify.claims import Claims
from ..verify.http import Arrived, Decorator, Guard, Refusal, TokenPlace, challenged, gravest, refused

try:
    from flask import Blueprint, Flask, current_app, g, jsonify, request
    from werkzeug.exceptions import BadGateway, Forbidden, HTTPException, ServiceUnavailable, Unauthorized

    from .callout_routes.flask import mount_callout
    from .health_routes.flask import mount_health
    from .signals.flask import mount_signals
    from .signing_in.flask import SignIn
    from .status_page.flask import mount_status_page
except ImportError as error:
    raise_missing(__name__, "flask", error)

__all__ = [
    "Refused",
    "SignIn",
    "authenticated",
    "challenge",
    "handle_errors",
    "install",
    "mount_callout",
    "mount_health",
    "mount_signals",
    "mount_status_page",
]


class Refused(HTTPException):
    """Refuse a request, with the answer in it. An `errorhandler` for it, or for its status, may answer otherwise.

    Such a handler keeps the `refusal`'s headers.
    """

    def __init__(self, refusal: Refusal) -> None:
        response = jsonify(refusal.body)
        response.status_code = refusal.status
        response.headers.update(refusal.headers)
        super().__init__(refusal.message, response)
        #: Status, headers, stable code and a message for the user.
        self.refusal = refusal


#: By status. Flask finds an `errorhandler` for one by an exception's class.
_KINDS: dict[int, Any] = {
    kind.code: type(kind.__name__, (Refused, kind), {})
    for kind in (Unauthorized, Forbidden, BadGateway, ServiceUnavailable)
}


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
) -> Decorator:
    """Let only requests with a verified token into a view (G16). Put it below the route's decorator.

    Args:
        verifier: A `resilient_auth.ClaimsVerifier`.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.
        token_in: Where the token is, such as `TokenCookie("access_token")`, or several places in order; the
            `Authorization` header when not given.

    Returns:
        A decorator. Refused requests get 401, 403 or 503, with a stable code and a message in JSON.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    guard = Guard(verifier, scopes, roles, any_scopes, any_roles, app_only, grace, realm, token_in)
    require(not guard.asynchronous, "an asyncio verifier in Flask: use resilient_auth.ClaimsVerifier")

    def decorate(view: Any) -> Any:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                g.claims = guard.admit(_arrived())
            except ResilientAuthError as error:
                refusal = guard.refuse(error)
            else:
                return current_app.ensure_sync(view)(*args, **kwargs)
            raise _refusing(refusal)

        return guarded

    return decorate


def handle_errors(app: Flask | Blueprint, *, realm: str | None = None) -> None:
    """Answer every error of this package that a view raises, as the decorator answers its own.

    Tokens that are refused get 401 or 403, what can't be had now from the provider, an API, a claims service or a store
    gets 503 with `Retry-After`. Mistakes of the application's own (`ConfigurationError`) stay what they are. Handlers
    of the application's for a status, or for an error's own class, come first. An application's `jsonify` learns to
    write claims and decisions too.

    Args:
        app: The application, or a blueprint.
        realm: The protection space's name in challenges.
    """

    def handle(error: ResilientAuthError) -> Any:
        return current_app.handle_user_exception(_refusing(refused(error, realm=realm)))

    def handle_group(group: BaseExceptionGroup[Any]) -> Any:
        met = gravest(group)
        if met is None:
            raise group
        return current_app.handle_user_exception(met)

    app.register_error_handler(ResilientAuthError, handle)
    app.register_error_handler(ExceptionGroup, handle_group)
    provider = getattr(app, "json", None)
    default = getattr(provider, "default", None)
    if default is not None:
        provider.default = lambda value: (  # type: ignore[union-attr]
            value.to_dict() if isinstance(value, (Claims, Decision)) else default(value)
        )


#: Its name in every framework.
install = handle_errors


def challenge(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> Refused:
    """Make the exception that asks a caller for more than its token has; see `claims_challenge` (G17).

    Returns:
        What to raise.
    """
    return _refusing(challenged(claims, required, realm=realm, authorization_uri=authorization_uri))


def _refusing(refusal: Refusal) -> Refused:
    made: Refused = _KINDS[refusal.status](refusal)
    return made


def _arrived() -> Arrived:
    return Arrived(request.method, request.query_string.decode("latin-1"), request.headers.getlist, lambda: request.url)
