"""What web frameworks share: the token in a request, and the answer to a request that may not go on.

Authorization ──▶ one bearer token? ──▶ verified, with what the route asks for ──▶ Claims
                        └─────────────────────┴─▶ 401 or 403 with a challenge, 503 with Retry-After (RFC 6750)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._policy.checks import require
from .challenge import claims_challenge
from .claims import Claims
from .errors import InvalidToken, VerificationUnavailable

__all__ = ["Guard", "Refusal", "bearer_token", "challenged", "public_paths", "refused"]

#: RFC 6750, section 2.1: the scheme in any case, one space or more, and a b64token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"(?!bearer\b)[A-Za-z0-9!#$%&'*+.^_`|~-]+( |$)", re.IGNORECASE)

_MESSAGES = {
    "missing": "Please sign in.",
    "expired": "Your sign-in has expired. Please sign in again.",
    "insufficient_scope": "This application isn't allowed to do this for you.",
    "insufficient_role": "You aren't allowed to do this.",
    "insufficient_claims": "This needs a further sign-in step. Please sign in again.",
}
_OF_STATUS = {
    401: "Your sign-in isn't valid here. Please sign in again.",
    403: "This application isn't allowed to do this.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Answer a request that may not go on."""

    status: int
    #: `WWW-Authenticate` or `Retry-After`, and `Cache-Control`.
    headers: Mapping[str, str]
    #: Stable, for programs.
    code: str
    #: For the user.
    message: str

    @property
    def body(self) -> dict[str, Any]:
        """Return the JSON object to answer with."""
        return {"detail": {"code": self.code, "message": self.message}}


def bearer_token(values: Sequence[str]) -> str:
    """Find the token in a request's `Authorization` headers (RFC 6750, section 2.1).

    A token in a form or in a query isn't looked for: it would end up in logs.

    Args:
        values: Every value of that header.

    Raises:
        InvalidToken: There is none, more than one, or something else.
    """
    if not values:
        raise InvalidToken("missing", "the request has no bearer token")
    if len(values) > 1:
        # Two readers of the same request might each take a different one.
        raise InvalidToken("duplicated_header", "the request has more than one Authorization header")
    found = _BEARER.fullmatch(values[0].strip(" \t"))
    if found is not None:
        return found[1]
    if _OTHER_SCHEME.match(values[0]):
        raise InvalidToken("missing", "the request has another kind of credentials than a bearer token")
    # A gateway that joins two headers by a comma ends up here.
    raise InvalidToken("malformed_header", "the Authorization header isn't 'Bearer' and one token")


def refused(error: InvalidToken | VerificationUnavailable, *, realm: str | None = None) -> Refusal:
    """Make the answer to an error of a verification."""
    if isinstance(error, VerificationUnavailable):
        seconds = error.headers["Retry-After"]
        wait = f"{seconds} second{'' if seconds == '1' else 's'}"
        message = f"Your sign-in can't be checked right now. Please try again in {wait}."
        return _refusal(503, error.code, message, error.headers)
    message = _MESSAGES.get(error.code) or _OF_STATUS[error.status]
    headers = {"WWW-Authenticate": error.www_authenticate(realm), **error.headers}
    return _refusal(error.status, error.code, message, headers)


def challenged(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> Refusal:
    """Make the answer that asks for more than a token has; see `claims_challenge` (G17)."""
    status, header = claims_challenge(claims, required, realm=realm, authorization_uri=authorization_uri)
    return _refusal(status, "insufficient_claims", _MESSAGES["insufficient_claims"], {"WWW-Authenticate": header})


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str]) -> Refusal:
    return Refusal(status=status, headers={**headers, "Cache-Control": "no-store"}, code=code, message=message)


class Guard:
    """Verify the token of each request to a route.

    Args:
        verifier: A `ClaimsVerifier`, or asyncio's.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        verifier: Any,
        *,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        any_scopes: str | Collection[str] = (),
        any_roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
    ) -> None:
        require(
            callable(getattr(verifier, "verify", None)),
            f"verifier must be a ClaimsVerifier, not {type(verifier).__name__}",
        )
        require(app_only is None or isinstance(app_only, bool), "app_only must be True, False or None")
        require(grace in (True, False), "grace must be True or False")
        require(realm is None or isinstance(realm, str), "realm must be a string")
        #: Whether it is asyncio's.
        self.asynchronous = inspect.iscoroutinefunction(verifier.verify)
        self.realm = realm
        self._scopes = _names("scopes", scopes)
        self._verify = verifier.verify
        self._options: dict[str, Any] = {
            "scopes": self._scopes,
            "roles": _names("roles", roles),
            "any_scopes": _names("any_scopes", any_scopes),
            "any_roles": _names("any_roles", any_roles),
            "app_only": app_only,
            "grace": grace,
        }

    def admit(self, authorization: Sequence[str]) -> Claims:
        """Verify a request's token, blocking where its key must be fetched.

        Raises:
            InvalidToken: It is bad, or isn't enough.
            VerificationUnavailable: It can't be verified now.
        """
        claims: Claims = self._verify(bearer_token(authorization), **self._options)
        return claims

    async def admit_async(self, authorization: Sequence[str], further_scopes: Sequence[str] = ()) -> Claims:
        """Verify a request's token with asyncio's verifier."""
        options = self._options
        if further_scopes:
            options = options | {"scopes": (*self._scopes, *further_scopes)}
        claims: Claims = await self._verify(bearer_token(authorization), **options)
        return claims

    def refuse(self, error: InvalidToken | VerificationUnavailable) -> Refusal:
        """Make the answer to an error of `admit`."""
        return refused(error, realm=self.realm)


def public_paths(given: Collection[str]) -> frozenset[str]:
    """Check the paths that a middleware lets through without a token.

    Raises:
        ConfigurationError: They aren't paths.
    """
    fits = not isinstance(given, str) and all(isinstance(path, str) and path.startswith("/") for path in given)
    require(fits, f"public must be paths such as ('/health',), not {given!r}")
    return frozenset(given)


def _names(argument: str, given: str | Collection[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    fits = isinstance(names, Collection) and all(
        isinstance(name, str) and name and not any(c.isspace() for c in name) for name in names
    )
    require(fits, f"{argument} must be names without spaces, such as ('orders.read',)")
    return tuple(names)
