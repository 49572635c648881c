"""Which tokens are accepted: given what one says and the time, yes or no, and why (G16)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..bound.confirmation import Confirmation, confirmation_in
from ..errors import InvalidToken
from ..trust import PERSONAL, Trust

__all__ = [
    "CLIENTS",
    "Accepted",
    "Rules",
    "audience_in",
    "check",
    "check_tenant",
    "check_times",
    "expired",
    "text_in",
    "time_in",
    "trust_of",
    "types_for",
]

#: Microsoft Graph, as an audience.
_GRAPH: Final = frozenset(
    {
        "00000003-0000-0000-c000-000000000000",
        "https://graph.microsoft.com",
        "https://graph.microsoft.com/",
        "00000002-0000-0000-c000-000000000000",
        "https://graph.windows.net",
        "https://graph.windows.net/",
    }
)
_LATEST: Final = 253_402_300_799  # the end of the year 9999
#: What access tokens have and ID tokens don't, and the other way round; a nonce is in B2C's access tokens too.
_OF_ACCESS: Final = frozenset({"scp", "scope", "azpacr", "appidacr", "idtyp", "client_id", "gty"})
_OF_IDS: Final = frozenset({"at_hash", "c_hash"})
#: Where access tokens name the client that got them, `cid` being Okta's; and where ID tokens do.
CLIENTS: Final = ("azp", "appid", "client_id", "cid")
_CLIENTS_OF_IDS: Final = ("azp", "appid", "client_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Hold what an owner accepts.

    Args:
        audiences: What `aud` may be.
        kind: Which tokens.
        tenants: Tenants whose tokens are accepted; empty for those that the trust accepts.
        clients: Clients whose tokens are accepted; empty for all.
        client_as_audience: Whether the client stands in for an audience that an access token doesn't name at all.
        roles_claim: The way to the claim that holds roles, name by name.
        confirmed: Members of `cnf` that are verified; a token with another one is refused.
        confirmed_alone: Whether a token without any is refused.
        proof_algorithms: Those of proofs that are accepted, for challenges.
        leeway: Seconds by which clocks may differ.
        is_application: The owner's answer where no claim says whether a token is an application's; None for no.
    """

    audiences: frozenset[str]
    kind: Literal["access", "id"]
    tenants: frozenset[str]
    clients: frozenset[str]
    leeway: float
    client_as_audience: bool = False
    roles_claim: tuple[str, ...] = ("roles",)
    confirmed: frozenset[str] = frozenset()
    confirmed_alone: bool = False
    proof_algorithms: tuple[str, ...] = ()
    is_application: Callable[[Mapping[str, Any]], bool] | None = None


@dataclass(slots=True)
class Accepted:
    """What the rules found out on the way; the signature is still to be verified."""

    trust: Trust
    #: The tenant in the issuer; "" where none stands there.
    tenant: str
    client: str | None
    audience: tuple[str, ...]
    policy: str | None
    begins: float
    ends: float
    #: What its bearer must prove; None for a plain bearer token.
    confirmation: Confirmation | None


def types_for(kind: str) -> frozenset[str]:
    """Return the values of `typ` for a kind of token (RFC 9068, section 4)."""
    return frozenset({"jwt", "at+jwt"}) if kind == "access" else frozenset({"jwt"})


def check(header: Mapping[str, Any], claims: Mapping[str, Any], trusts: Iterable[Trust], rules: Rules) -> Accepted:
    """Check all rules but those about the time.

    Raises:
        InvalidToken: One of them is broken.
    """
    client = _first(claims, CLIENTS if rules.kind == "access" else _CLIENTS_OF_IDS)
    audience = _audience(claims, client, rules)
    # The nonce in their header is hashed before it is signed: nobody else's verification of them can work.
    if "nonce" in header or (not _GRAPH.isdisjoint(audience) and rules.audiences.isdisjoint(audience)):
        raise InvalidToken(
            "graph_token",
            "this is a token for Microsoft Graph, which Graph alone can validate: the client must ask for a token "
            "with a scope of this API",
        )
    confirmation = _confirmation(claims, rules)
    trust, tenant, policy = trust_of(claims, trusts)
    check_tenant(claims, trust, tenant, rules, tid_needed=trust.needs_tid)
    if rules.audiences.isdisjoint(audience):
        raise InvalidToken("audience", "the token is for another audience")
    if rules.clients and client not in rules.clients:
        raise InvalidToken("client", "the token was given to a client that isn't accepted here")
    _check_kind(header, claims, audience, client, rules)
    begins, ends = _times(claims, rules.leeway)
    return Accepted(trust, tenant, client, audience, policy, begins, ends, confirmation)


def check_times(accepted: Accepted, wall: float) -> None:
    """Check that a token is valid at a time.

    Raises:
        InvalidToken: It has expired, or isn't valid yet.
    """
    if wall >= accepted.ends:
        raise expired()
    if wall < accepted.begins:
        raise InvalidToken("not_yet_valid", "the token isn't valid yet, or comes from a clock that is ahead")


def expired() -> InvalidToken:
    """Return the error for a token that has expired."""
    return InvalidToken("expired", "the token has expired")


def _audience(claims: Mapping[str, Any], client: str | None, rules: Rules) -> tuple[str, ...]:
    if rules.client_as_audience and "aud" not in claims:
        # Two that differ would leave it to the reader whose token it is.
        if client is None or any(claims.get(name, client) != client for name in CLIENTS):
            raise InvalidToken("audience", "the token has no aud, and names no client in its place, or two")
        return (client,)
    return audience_in(claims)


def audience_in(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return for whom a token is.

    Raises:
        InvalidToken: It doesn't say so.
    """
    audience = claims.get("aud")
    if isinstance(audience, str):
        return (audience,)
    if isinstance(audience, list) and audience and all(isinstance(one, str) for one in audience):
        return tuple(audience)
    raise InvalidToken("malformed", "the token's aud isn't a text or a list of texts")


def text_in(claims: Mapping[str, Any], name: str) -> str | None:
    """Return a claim by which something is decided.

    Raises:
        InvalidToken: It is there, and is no text.
    """
    value = claims.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidToken("malformed", f"the token's {name} isn't a text")


def _first(claims: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        if claims.get(name) is not None:
            return text_in(claims, name)
    return None


def _policy(claims: Mapping[str, Any]) -> str:
    """Return the policy of a token of B2C. Elsewhere `acr` is a level of assurance, and may be a number."""
    policy = text_in(claims, "tfp")
    if policy is None:
        policy = text_in(claims, "acr")
    return "" if policy is None else policy.lower()


def _confirmation(claims: Mapping[str, Any], rules: Rules) -> Confirmation | None:
    """Return what the token's bearer must prove (RFC 7800), where that can be verified here."""
    if "cnf" not in claims:
        if rules.confirmed_alone:
            raise InvalidToken(
                "sender_constrained", "the token isn't bound to a key, as it must be here", dpop=rules.proof_algorithms
            )
        return None
    if not rules.confirmed:
        raise InvalidToken("sender_constrained", "the token is bound to a key, and is no bearer token")
    return confirmation_in(claims["cnf"], rules.confirmed)


def trust_of(claims: Mapping[str, Any], trusts: Iterable[Trust]) -> tuple[Trust, str, str | None]:
    """Return whose token it is, the tenant in its issuer, and its policy where that decides.

    Raises:
        InvalidToken: It is nobody's whom the owner trusts.
    """
    issuer = text_in(claims, "iss")
    if issuer is None:
        raise InvalidToken("issuer", "the token names no issuer")
    known = False
    for trust in trusts:
        tenant = trust.match(issuer)
        if tenant is not None:
            known = True
            if trust.policy is None or trust.policy == _policy(claims):
                return trust, tenant, trust.policy
    if known:
        raise InvalidToken("policy", "the token comes from a policy that isn't accepted here")
    raise InvalidToken("issuer", "the token comes from an issuer that isn't accepted here")


def check_tenant(claims: Mapping[str, Any], trust: Trust, tenant: str, rules: Rules, *, tid_needed: bool) -> None:
    """Check the tenant in a token's issuer, and in its `tid`.

    Raises:
        InvalidToken: It is another one than may stand there.
    """
    tid = text_in(claims, "tid")
    if (tid is None and tid_needed) or (tid is not None and tenant and tid != tenant):
        raise InvalidToken("tenant", "the token's tid isn't the tenant of its issuer")
    if trust.tenant is not None and tenant and tenant != trust.tenant:
        raise InvalidToken("tenant", "the token comes from another tenant")
    if tenant == PERSONAL and not trust.personal:
        raise InvalidToken("tenant", "the token is a personal account's")
    if rules.tenants and (tenant or tid) not in rules.tenants:
        raise InvalidToken("tenant", "the token comes from a tenant that isn't accepted here")


def _check_kind(
    header: Mapping[str, Any], claims: Mapping[str, Any], audience: tuple[str, ...], client: str | None, rules: Rules
) -> None:
    of_access = not _OF_ACCESS.isdisjoint(claims) or ("typ" in header and _is_access_type(header["typ"]))
    # Cognito's own word, which is in each of its tokens.
    used_as = claims.get("token_use")
    if rules.kind == "access":
        if not of_access or not _OF_IDS.isdisjoint(claims) or used_as == "id":
            raise InvalidToken("token_type", "this is an ID token, and an API accepts access tokens alone")
    else:
        if of_access or used_as == "access":
            raise InvalidToken("token_type", "this is an access token, and an ID token is wanted")
        # A logout token has the same issuer, audience and user, and often the same `typ` (RFC 8417, section 2.2).
        if isinstance(claims.get("events"), Mapping):
            raise InvalidToken("token_type", "this is a logout or security event token, and an ID token is wanted")
        # OpenID Connect Core, section 3.1.3.7, rules 3 to 5. Google's name the client that asked for this one.
        if (len(audience) > 1 or client is not None) and client not in rules.audiences | rules.clients:
            raise InvalidToken("audience", "the ID token is for another audience as well")


def _is_access_type(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower().removeprefix("application/") == "at+jwt"


def _times(claims: Mapping[str, Any], leeway: float) -> tuple[float, float]:
    expires = time_in(claims, "exp")
    if expires is None:
        raise InvalidToken("malformed", "the token has no exp")
    begins = max(time_in(claims, "nbf") or 0, time_in(claims, "iat") or 0)
    return begins - leeway, expires + leeway


def time_in(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time; it may have a fraction (RFC 7519, section 2).

    Raises:
        InvalidToken: It is no number, or none within reason.
    """
    if name not in claims:
        return None
    value: Any = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= _LATEST:
        raise InvalidToken("malformed", f"the token's {name} isn't a number of seconds within reason")
    found: float = value
    return found
