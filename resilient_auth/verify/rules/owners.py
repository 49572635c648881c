"""What an owner accepts, checked before anything is asked or sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from ..._policy.checks import require, require_number
from ..bound.binding import BindingOptions
from ..trust import IS_GUID, Trust
from .acceptance import Rules

__all__ = ["owners_rules"]


def owners_rules(
    trusts: tuple[Trust, ...],
    *,
    audience: str | Sequence[str],
    accepts: Literal["access", "id"],
    tenants: Collection[str],
    clients: Collection[str],
    leeway: float,
    is_application: Callable[[Mapping[str, Any]], bool] | None,
    roles_claim: str | Sequence[str],
    client_as_audience: bool,
    binding: BindingOptions | None,
) -> Rules:
    """Return an owner's rules; the arguments are `ClaimsVerifier`'s.

    Raises:
        ConfigurationError: One is wrong, or fits another one badly.
    """
    require_number("leeway", leeway, low=0.0, high=300.0)
    require(accepts in ("access", "id"), f'accepts must be "access" or "id", not {accepts!r}')
    require(
        is_application is None or (callable(is_application) and not inspect.iscoroutinefunction(is_application)),
        "is_application must be a plain function that takes a token's claims and returns True or False",
    )
    require(is_application is None or accepts == "access", "is_application is for access tokens: ID tokens are users'")
    require(
        isinstance(client_as_audience, bool), f"client_as_audience must be True or False, not {client_as_audience!r}"
    )
    require(
        accepts == "access" or not client_as_audience, "client_as_audience is for access tokens: ID tokens have an aud"
    )
    require(
        accepts == "access" or binding is None, "binding is for access tokens: an ID token is used once, at sign-in"
    )
    for tenant in tenants if any(trust.needs_tid for trust in trusts) else ():
        require(
            isinstance(tenant, str) and IS_GUID.fullmatch(tenant.lower()) is not None,
            f"tenants must be the GUIDs that tokens carry in tid, not {tenant!r}",
        )
    return Rules(
        audiences=_names("audience", (audience,) if isinstance(audience, str) else audience, empty=False),
        kind=accepts,
        tenants=frozenset(tenant.lower() for tenant in _names("tenants", tenants)),
        clients=_names("clients", clients),
        leeway=leeway,
        client_as_audience=client_as_audience,
        roles_claim=_way("roles_claim", roles_claim),
        confirmed=frozenset() if binding is None else binding.confirmed,
        confirmed_alone=binding is not None and binding.required,
        proof_algorithms=() if binding is None else binding.told,
        is_application=is_application,
    )


def _way(what: str, named: object) -> tuple[str, ...]:
    """Return the names that lead to a claim, which may be within others."""
    way = named
    if isinstance(named, str):
        # An address as a claim's name, as Auth0 wants them, is one name.
        way = (named,) if ":" in named or "/" in named else named.split(".")
    fits = isinstance(way, Sequence) and bool(way) and all(isinstance(one, str) and one.strip() for one in way)
    require(
        fits,
        f"{what} must be a claim's name, such as 'cognito:groups', the way to one within others, such as "
        f"'realm_access.roles', or that as a list of names, not {named!r}",
    )
    return tuple(way) if isinstance(way, Sequence) else ()


def _names(what: str, given: object, *, empty: bool = True) -> frozenset[str]:
    hint = f"{what} must be a collection of texts, not {given!r}"
    require(isinstance(given, Collection) and not isinstance(given, (str, bytes)), hint)
    found = frozenset(given) if isinstance(given, Collection) else frozenset()
    require(all(isinstance(one, str) and one for one in found), hint)
    # As out of a file with a line end: no token would ever have it.
    require(all(one == one.strip() for one in found), f"{what} must have no blanks around it, not {given!r}")
    require(empty or bool(found), f"{what} must not be empty: a token for any API would be accepted")
    return found
