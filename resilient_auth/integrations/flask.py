"""Verified tokens in Flask: a decorator that leaves the claims in `flask.g.claims`.

    verifier = resilient_auth.ClaimsVerifier.for_entra(...)

    @app.get("/orders")
    @authenticated(verifier, scopes="orders.read")
    def read():
        return {"for": g.claims.subject}

Needs the extra: `pip install 'resilient-auth[flask]'`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .._policy.checks import require
from .._process.extras import raise_missing
from ..verify.claims import Claims
from ..verify.errors import InvalidToken, VerificationUnavailable
from ..verify.http import Guard, Refusal, challenged, refused

try:
    from flask import Flask, current_app, g, jsonify, request
    from werkzeug.exceptions import Forbidden, HTTPException, ServiceUnavailable, Unauthorized
except ImportError as error:
    raise_missing(__name__, "flask", error)

__all__ = ["Refused", "authenticated", "challenge", "handle_errors"]


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


# Flask finds an `errorhandler` for a status by an exception's class.
class _Unauthorized(Refused, Unauthorized):
    pass


class _Forbidden(Refused, Forbidden):
    pass


class _Unavailable(Refused, ServiceUnavailable):
    pass


_KINDS = {401: _Unauthorized, 403: _Forbidden, 503: _Unavailable}


def authenticated(
    verifier: Any,
    *,
    scopes: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    app_only: bool | None = None,
    grace: bool = False,
    realm: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let only requests with a verified token into a view (G16). Put it below the route's decorator.

    Args:
        verifier: A `resilient_auth.ClaimsVerifier`.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.

    Returns:
        A decorator. Refused requests get 401, 403 or 503, with a stable code and a message in JSON.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    guard = Guard(verifier, scopes=scopes, roles=roles, app_only=app_only, grace=grace, realm=realm)
    require(not guard.asynchronous, "an asyncio verifier in Flask: use resilient_auth.ClaimsVerifier")

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                g.claims = guard.admit(request.headers.getlist("Authorization"))
            except (InvalidToken, VerificationUnavailable) as error:
                refusal = guard.refuse(error)
            else:
                return current_app.ensure_sync(view)(*args, **kwargs)
            raise _refusing(refusal)

        return guarded

    return decorate


def handle_errors(app: Flask, *, realm: str | None = None) -> None:
    """Have an application answer a verification's errors that its own code raises, as the decorator does."""

    def handle(error: Any) -> Any:
        return _refusing(refused(error, realm=realm)).get_response()

    app.register_error_handler(InvalidToken, handle)
    app.register_error_handler(VerificationUnavailable, handle)


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
    return _KINDS[refusal.status](refusal)
