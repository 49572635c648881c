"""Tokens of who is signed in, for the APIs that the application calls for them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from .. import aio
from .._engine.steps import Steps
from .._policy.challenge import claims_together
from .._policy.checks import check_scopes
from ..errors import ConfigurationError, TokenDenied
from .sessions.record import Session
from .site import Site
from .user import SignInNeeded

__all__ = ["Tokens"]

#: OAuth's and OpenID's words for: the user must be there.
_NEEDS_THE_USER = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})


class Tokens:
    """Get tokens of signed-in users: held, refreshed ahead, and outliving an outage as every token of the package."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._faces: dict[str, Any] = {}

    def check(self, scopes: Sequence[str]) -> tuple[str, ...]:
        """Return the scopes that are asked for, if they are of the one set of a provider's (G6).

        Raises:
            ConfigurationError: They aren't, and the owner hasn't allowed that.
        """
        asked = check_scopes(scopes, empty=True)
        for party in self._site.parties.values():
            if self._site.options.incremental_consent or set(asked) <= set(party.provider.scopes):
                return asked
        raise ConfigurationError(
            f"scopes {list(asked)!r} aren't among those of the provider, for which users consent once: name them in "
            "IdentityProvider's scopes=, or allow incremental_consent"
        )

    def getting(self, session: Session, scopes: Sequence[str], claims: str | None = None) -> Steps[str]:
        """Return an access token of a session's user.

        Raises:
            SignInNeeded: The provider works, and wants to see the user.
            TokenDenied: It refuses the application the token.
            ProviderUnavailable: There is none, and none can be had now.
        """
        party = self._site.parties.get(session.who.provider)
        account = session.who.account
        if party is None or account is None:
            raise SignInNeeded(claims)
        app = party.apps["sign_in"]
        face = self._faces.get(party.provider.name)
        if face is None:
            face = self._faces[party.provider.name] = aio.wrap(app)
        result = yield _Silent(app, face, list(scopes), dict(account), claims)
        if result is None:
            raise SignInNeeded(claims)
        if "access_token" not in result:
            error = str(result.get("error", "denied"))
            if error in _NEEDS_THE_USER:
                # What the provider adds, a policy's for example, takes nothing away of what the API has asked for.
                wants = str(result["claims"]) if result.get("claims") else None
                raise SignInNeeded(claims_together(claims, wants) if claims and wants else wants or claims)
            raise TokenDenied(error, str(result.get("error_description", "")), claims=result.get("claims"))
        return str(result["access_token"])


class _Silent(NamedTuple):
    """The step that gets a token without the user: from memory, or by an exchange that both faces share."""

    app: Any
    face: Any
    scopes: list[str]
    account: dict[str, Any]
    claims: str | None

    def run(self) -> Any:
        return self.app.acquire_token_silent_with_error(self.scopes, self.account, claims_challenge=self.claims)

    def run_async(self) -> Awaitable[Any]:
        answer: Awaitable[Any] = self.face.acquire_token_silent_with_error(
            self.scopes, self.account, claims_challenge=self.claims
        )
        return answer
