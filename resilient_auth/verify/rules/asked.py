"""What one call asks of a token that was verified, now or earlier."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from hmac import compare_digest
from typing import Final, NamedTuple

from ..._policy.checks import require
from ..bound.presented import Presented
from ..claims import Claims
from ..errors import InvalidToken

__all__ = ["NOTHING", "Expected", "check_asked"]

#: What a call asks that says nothing; looking whether it is this very one costs a tenth of a comparison.
NOTHING: Final[Collection[str]] = ()
#: What holds the same whenever it is looked at; of an iterator nothing is left by the second call.
_COLLECTIONS: Final = frozenset({tuple, list, set, frozenset})


class Expected(NamedTuple):
    """What one call asks of a token, and what came with it."""

    scopes: Collection[str] = ()
    roles: Collection[str] = ()
    any_scopes: Collection[str] = ()
    any_roles: Collection[str] = ()
    app_only: bool | None = None
    nonce: str | None = None
    grace: bool = False
    presented: Presented | None = None


def check_asked(
    claims: Claims,
    scopes: Collection[str],
    roles: Collection[str],
    app_only: bool | None,
    nonce: str | None,
    any_scopes: Collection[str] = (),
    any_roles: Collection[str] = (),
) -> None:
    """Check what one call asks of a verified token.

    Raises:
        InvalidToken: It is missing.
        ConfigurationError: What is asked for can't be.
    """
    if app_only is not None and claims.app_only is not app_only:
        if app_only:
            raise InvalidToken("app_only", "this is for applications, and the token is a user's")
        raise InvalidToken("user_only", "this is for users, and the token is an application's")
    if scopes != () and not _has_all(claims.scopes, "scopes", scopes):
        missing = tuple(sorted(set(_names("scopes", scopes))))
        raise InvalidToken("insufficient_scope", "the token lacks a scope that this needs", scope=missing)
    if roles != () and not _has_all(claims.roles, "roles", roles):
        raise InvalidToken("insufficient_role", "the token lacks a role that this needs")
    if any_scopes != () or any_roles != ():
        _check_any(claims, _names("any_scopes", any_scopes), _names("any_roles", any_roles))
    if nonce is not None and (claims.nonce is None or not compare_digest(claims.nonce.encode(), nonce.encode())):
        raise InvalidToken("nonce", "the token isn't the answer to this sign-in: its nonce is another one")


def _check_any(claims: Claims, scopes: Collection[str], roles: Collection[str]) -> None:
    """Check that a token has one of the scopes, or one of the roles."""
    if not (scopes or roles) or not claims.scopes.isdisjoint(scopes) or not claims.roles.isdisjoint(roles):
        return
    if not scopes:
        raise InvalidToken("insufficient_role", "the token has none of the roles of which this needs one")
    what = "scopes and roles" if roles else "scopes"
    raise InvalidToken(
        "insufficient_scope", f"the token has none of the {what} of which this needs one", scope=tuple(sorted(scopes))
    )


def _has_all(held: frozenset[str], argument: str, asked: Collection[str]) -> bool:
    """Return whether all that is asked for is there; what can't be asked for is looked for where something isn't."""
    if type(asked) not in _COLLECTIONS:
        asked = _names(argument, asked)
    with suppress(TypeError):
        if held.issuperset(asked):
            return True
    return not _names(argument, asked)


def _names(argument: str, asked: Collection[str] | None) -> Collection[str]:
    """Return names that are asked for, and refuse what would ask for nothing where something was meant.

    A text is one name, or scopes as OAuth writes several of them; a role may have blanks in it.
    """
    if asked is None:
        return ()
    names: object = asked
    if isinstance(asked, str):
        names = (asked.split() if argument.endswith("scopes") else (asked.strip(),)) or ("",)
    fits = isinstance(names, Collection) and all(isinstance(one, str) and one for one in names)
    require(fits, f"{argument} must be a name or names, such as ('orders.read',), and none of them empty: {asked!r}")
    return names  # type: ignore[return-value]
