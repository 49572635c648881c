"""The token of each request to a route, verified with what the route asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from ..._policy.checks import require
from ...errors import ResilientAuthError
from ..bound.presented import read_request
from ..claims import Claims
from .answers import Refusal, refused
from .places import Arrived, TokenHeader, TokenPlace, checked_places, token_of

__all__ = ["Decorator", "Guard", "names", "public_paths"]

_V = TypeVar("_V", bound=Callable[..., Any])


class Decorator(Protocol):
    """A view's guard: the guarded view has the view's own type."""

    def __call__(self, view: _V, /) -> _V:
        """Guard a view."""


class Guard:
    """Verify the token of each request to a route. Every framework hands on what it was given, by place.

    Args:
        verifier: A `ClaimsVerifier`, or asyncio's.
        scopes: Scopes that the token must have.
        roles: Roles that it must have.
        any_scopes: Scopes of which it must have one, or one of `any_roles`.
        any_roles: Roles of which it must have one, or one of `any_scopes`.
        app_only: True for tokens of applications alone, False for tokens of users alone, None for both.
        grace: Accept a token past its expiry here, where the verifier's owner allows it.
        realm: The protection space's name in challenges.
        token_in: Where the token is, or several places in order; the `Authorization` header when not given.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        verifier: Any,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        any_scopes: str | Collection[str] = (),
        any_roles: str | Collection[str] = (),
        app_only: bool | None = None,
        grace: bool = False,
        realm: str | None = None,
        token_in: TokenPlace | Sequence[TokenPlace] | None = None,
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
        self.places = checked_places(token_in)
        self._scopes = names("scopes", scopes)
        self._verify = verifier.verify
        self._options: dict[str, Any] = {
            "scopes": self._scopes,
            "roles": names("roles", roles),
            "any_scopes": names("any_scopes", any_scopes),
            "any_roles": names("any_roles", any_roles),
            "app_only": app_only,
            "grace": grace,
        }

    def admit(self, arrived: Arrived) -> Claims:
        """Verify a request's token, blocking where its key must be fetched.

        Raises:
            InvalidToken: It is bad, or isn't enough.
            VerificationUnavailable: It can't be verified now.
        """
        token, presented = self._found(arrived)
        claims: Claims = self._verify(token, **self._options, **presented)
        return claims

    async def admit_async(self, arrived: Arrived, further_scopes: Sequence[str] = ()) -> Claims:
        """Verify a request's token with asyncio's verifier."""
        options = self._options
        if further_scopes:
            options = options | {"scopes": (*self._scopes, *further_scopes)}
        token, presented = self._found(arrived)
        claims: Claims = await self._verify(token, **options, **presented)
        return claims

    def _found(self, arrived: Arrived) -> tuple[str, dict[str, Any]]:
        """Find the token, and what proves it where it came as DPoP (RFC 9449, section 7.1)."""
        sent = arrived.header("Authorization")
        if TokenHeader() in self.places and len(sent) == 1 and sent[0].lower().startswith("dpop "):
            headers = [("Authorization", sent[0]), *(("DPoP", proof) for proof in arrived.header("DPoP"))]
            token, presented = read_request(arrived.method or "GET", arrived.url(), headers)
            return token, {"presented": presented}
        return token_of(arrived, self.places), {}

    def refuse(self, error: ResilientAuthError) -> Refusal:
        """Make the answer to an error of `admit`."""
        return refused(error, realm=self.realm)


def public_paths(given: Collection[str]) -> frozenset[str]:
    """Check the paths that a middleware lets through without a token, as the application's own routes name them.

    Raises:
        ConfigurationError: They aren't paths.
    """
    fits = not isinstance(given, str) and all(isinstance(path, str) and path.startswith("/") for path in given)
    require(fits, f"public must be paths such as ('/health',), not {given!r}")
    return frozenset(given)


def names(argument: str, given: str | Collection[str]) -> tuple[str, ...]:
    """Return scopes or roles as a tuple; a text is one of them.

    Raises:
        ConfigurationError: They aren't names.
    """
    listed = (given,) if isinstance(given, str) else given
    fits = isinstance(listed, Collection) and all(
        isinstance(name, str) and name and not any(c.isspace() for c in name) for name in listed
    )
    require(fits, f"{argument} must be names without spaces, such as ('orders.read',)")
    return tuple(listed)
