"""The rules about claims, pure: given what a token says and the time, accepted or refused, and why (G16)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final, Literal

from .claims import Claims, Provenance, frozen
from .errors import InvalidToken, VerificationUnavailable
from .trust import PERSONAL, Trust

__all__ = ["Accepted", "Rules", "check", "check_asked", "check_times", "claims_of", "expired", "types_for"]

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
_OF_ACCESS: Final = ("scp", "scope", "azpacr", "appidacr", "idtyp", "client_id", "gty")
_OF_IDS: Final = ("at_hash", "c_hash")
#: Where access tokens name the client that got them, `cid` being Okta's; and where ID tokens do.
_CLIENTS: Final = ("azp", "appid", "client_id", "cid")
_CLIENTS_OF_IDS: Final = ("azp", "appid", "client_id")
#: What Auth0 appends to the client in an application's subject.
_AUTH0: Final = "@clients"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Hold what an owner accepts.

    Args:
        audiences: What `aud` may be.
        kind: Which tokens.
        tenants: Tenants whose tokens are accepted; empty for those that the trust accepts.
        clients: Clients whose tokens are accepted; empty for all.
        leeway: Seconds by which clocks may differ.
        is_application: The owner's answer where no claim says whether a token is an application's; None for no.
    """

    audiences: frozenset[str]
    kind: Literal["access", "id"]
    tenants: frozenset[str]
    clients: frozenset[str]
    leeway: float
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


def types_for(kind: str) -> frozenset[str]:
    """Return the values of `typ` for a kind of token (RFC 9068, section 4)."""
    return frozenset({"jwt", "at+jwt"}) if kind == "access" else frozenset({"jwt"})


def check(header: Mapping[str, Any], claims: Mapping[str, Any], trusts: Iterable[Trust], rules: Rules) -> Accepted:
    """Check all rules but those about the time.

    Raises:
        InvalidToken: One of them is broken.
    """
    audience = _audience(claims)
    # The nonce in their header is hashed before it is signed: nobody else's verification of them can work.
    if "nonce" in header or (not _GRAPH.isdisjoint(audience) and rules.audiences.isdisjoint(audience)):
        raise InvalidToken(
            "graph_token",
            "this is a token for Microsoft Graph, which Graph alone can validate: the client must ask for a token "
            "with a scope of this API",
        )
    if "cnf" in claims:
        # Its bearer must prove possession of a key (RFC 7800, RFC 8705, RFC 9449), which isn't checked here.
        raise InvalidToken("sender_constrained", "the token is bound to a key, and is no bearer token")
    policy = _policy(claims)
    trust, tenant = _trust(claims, policy, trusts)
    _check_tenant(claims, trust, tenant, rules)
    if rules.audiences.isdisjoint(audience):
        raise InvalidToken("audience", "the token is for another audience")
    client = _first(claims, _CLIENTS if rules.kind == "access" else _CLIENTS_OF_IDS)
    if rules.clients and client not in rules.clients:
        raise InvalidToken("client", "the token was given to a client that isn't accepted here")
    _check_kind(header, claims, audience, client, rules)
    begins, ends = _times(claims, rules.leeway)
    return Accepted(trust, tenant, client, audience, policy if trust.policy else None, begins, ends)


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


def _audience(claims: Mapping[str, Any]) -> tuple[str, ...]:
    audience = claims.get("aud")
    if isinstance(audience, str):
        return (audience,)
    if isinstance(audience, list) and audience and all(isinstance(one, str) for one in audience):
        return tuple(audience)
    raise InvalidToken("malformed", "the token's aud isn't a text or a list of texts")


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidToken("malformed", f"the token's {name} isn't a text")


def _first(claims: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        value = claims.get(name)
        if value is not None:
            return _text(claims, name)
    return None


def _words(claims: Mapping[str, Any], names: Iterable[str], *, listed: bool = False) -> frozenset[str]:
    for name in names:
        value = claims.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            return frozenset({value} if listed else value.split())
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return frozenset(value)
        raise InvalidToken("malformed", f"the token's {name} isn't a text or a list of texts")
    return frozenset()


def _policy(claims: Mapping[str, Any]) -> str | None:
    policy = _text(claims, "tfp")
    if policy is None:
        policy = _text(claims, "acr")
    return None if policy is None else policy.lower()


def _trust(claims: Mapping[str, Any], policy: str | None, trusts: Iterable[Trust]) -> tuple[Trust, str]:
    issuer = _text(claims, "iss")
    if issuer is None:
        raise InvalidToken("issuer", "the token names no issuer")
    known = False
    for trust in trusts:
        tenant = trust.match(issuer)
        if tenant is not None:
            known = True
            if trust.policy is None or trust.policy == policy:
                return trust, tenant
    if known:
        raise InvalidToken("policy", "the token comes from a policy that isn't accepted here")
    raise InvalidToken("issuer", "the token comes from an issuer that isn't accepted here")


def _check_tenant(claims: Mapping[str, Any], trust: Trust, tenant: str, rules: Rules) -> None:
    tid = _text(claims, "tid")
    if (tid is None and trust.needs_tid) or (tid is not None and tenant and tid != tenant):
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
    of_access = any(name in claims for name in _OF_ACCESS) or ("typ" in header and _is_access_type(header["typ"]))
    if rules.kind == "access":
        if not of_access or any(name in claims for name in _OF_IDS) or claims.get("token_use") == "id":
            raise InvalidToken("token_type", "this is an ID token, and an API accepts access tokens alone")
    else:
        if of_access:
            raise InvalidToken("token_type", "this is an access token, and an ID token is wanted")
        # OpenID Connect Core, section 3.1.3.7, rules 3 to 5.
        if (len(audience) > 1 or client is not None) and client not in rules.audiences:
            raise InvalidToken("audience", "the ID token is for another audience as well")


def _is_access_type(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower().removeprefix("application/") == "at+jwt"


def _times(claims: Mapping[str, Any], leeway: float) -> tuple[float, float]:
    expires = _time(claims, "exp")
    if expires is None:
        raise InvalidToken("malformed", "the token has no exp")
    begins = max(_time(claims, "nbf") or 0, _time(claims, "iat") or 0)
    return begins - leeway, expires + leeway


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if type(value) is not int or not 0 <= value <= _LATEST:
        raise InvalidToken("malformed", f"the token's {name} isn't a whole number of seconds within reason")
    return value


def claims_of(claims: dict[str, Any], accepted: Accepted, rules: Rules, provenance: Provenance) -> Claims:
    """Make a verified token's claims.

    Raises:
        InvalidToken: One of them is of the wrong type.
        VerificationUnavailable: The owner's `is_application` failed.
    """
    scopes = _words(claims, ("scp", "scope"))
    object_id = _text(claims, "oid")
    subject = _text(claims, "sub") or object_id or accepted.client
    if not subject:
        raise InvalidToken("malformed", "the token names no subject")
    raw = frozen(claims)
    app_only = rules.kind == "access" and _is_application(claims, scopes, subject, object_id)
    if app_only is None:
        app_only = rules.is_application is not None and _owners_answer(rules.is_application, raw)
    return Claims(
        subject=subject,
        object_id=object_id,
        tenant_id=_text(claims, "tid") or accepted.tenant or None,
        client_id=accepted.client,
        issuer=claims["iss"],
        audience=accepted.audience,
        scopes=scopes,
        roles=_words(claims, ("roles",), listed=True),
        app_only=app_only,
        issued_at=_time(claims, "iat"),
        not_before=_time(claims, "nbf"),
        expires_at=claims["exp"],
        token_id=_first(claims, ("uti", "jti")),
        session_id=_text(claims, "sid"),
        policy=accepted.policy,
        nonce=_text(claims, "nonce"),
        username=_first(claims, ("preferred_username", "upn", "unique_name", "email")),
        name=_text(claims, "name"),
        raw=raw,
        provenance=provenance,
    )


def _is_application(
    claims: Mapping[str, Any], scopes: frozenset[str], subject: str, object_id: str | None
) -> bool | None:
    """Return whether an access token is an application's own; None where no claim says so.

    Args:
        claims: As they came.
        scopes: Its scopes. They don't make it a user's: many providers give applications some.
        subject: Its `sub`; without one its `oid`, and the client where there is neither.
        object_id: Its `oid`.
    """
    # RFC 9068, section 2.2: where no user is involved, `sub` is the client, whichever claim names that.
    bare = subject.removesuffix(_AUTH0)
    if any(claims.get(name) in (subject, bare) for name in _CLIENTS):
        return True
    kind = claims.get("idtyp")
    if kind is not None:
        # A device's token isn't a user's either.
        return bool(kind != "user")
    if claims.get("gty") == "client-credentials":
        return True
    # In Entra a user's subject is theirs in one client alone, while a service principal's is its object id.
    return True if not scopes and subject == object_id else None


def _owners_answer(is_application: Callable[[Mapping[str, Any]], bool], claims: Mapping[str, Any]) -> bool:
    """Ask the owner. Without an answer nobody is let in, neither as a user nor as an application."""
    try:
        answer: object = is_application(claims)
    except Exception as error:  # noqa: BLE001 - it is the owner's code
        failed = f"failed with {type(error).__name__}"
    else:
        if isinstance(answer, bool):
            return answer
        failed = f"returned {type(answer).__name__}, not True or False"
    raise VerificationUnavailable(f"is_application {failed}: fix that function", retry_after=5.0)


def check_asked(
    claims: Claims, scopes: Collection[str], roles: Collection[str], app_only: bool | None, nonce: str | None
) -> None:
    """Check what one call asks of a verified token.

    Raises:
        InvalidToken: It is missing.
    """
    if app_only is not None and claims.app_only is not app_only:
        if app_only:
            raise InvalidToken("app_only", "this is for applications, and the token is a user's")
        raise InvalidToken("user_only", "this is for users, and the token is an application's")
    if scopes:
        wanted = scopes.split() if isinstance(scopes, str) else scopes
        if not claims.scopes.issuperset(wanted):
            missing = tuple(sorted(set(wanted)))
            raise InvalidToken("insufficient_scope", "the token lacks a scope that this needs", scope=missing)
    if roles and not claims.roles.issuperset((roles,) if isinstance(roles, str) else roles):
        raise InvalidToken("insufficient_role", "the token lacks a role that this needs")
    if nonce is not None and (claims.nonce is None or not compare_digest(claims.nonce.encode(), nonce.encode())):
        raise InvalidToken("nonce", "the token isn't the answer to this sign-in: its nonce is another one")
