"""What a verified token says: claims that decide are strict, and those that are only shown refuse nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..claims import Claims, Provenance, frozen
from ..errors import InvalidToken, VerificationUnavailable
from .acceptance import CLIENTS, Accepted, Rules, text_in, time_in

__all__ = ["claims_of", "roles_in"]

#: What Auth0 appends to the client in an application's subject.
_AUTH0: Final = "@clients"


def claims_of(claims: dict[str, Any], accepted: Accepted, rules: Rules, provenance: Provenance) -> Claims:
    """Make a verified token's claims.

    Raises:
        InvalidToken: One by which something is decided is of the wrong type.
        VerificationUnavailable: The owner's `is_application` failed.
    """
    scopes = _scopes(claims)
    object_id = text_in(claims, "oid")
    subject = text_in(claims, "sub") or object_id or accepted.client
    if not subject:
        raise InvalidToken("malformed", "the token names no subject")
    raw = frozen(claims)
    app_only = rules.kind == "access" and _is_application(claims, scopes, subject, object_id)
    if app_only is None:
        app_only = rules.is_application is not None and _owners_answer(rules.is_application, raw)
    return Claims(
        subject=subject,
        object_id=object_id,
        tenant_id=text_in(claims, "tid") or accepted.tenant or None,
        client_id=accepted.client,
        agent_blueprint=text_in(claims, "xms_par_app_azp"),
        issuer=claims["iss"],
        audience=accepted.audience,
        scopes=scopes,
        roles=roles_in(claims, rules.roles_claim) or frozenset(),
        app_only=app_only,
        issued_at=time_in(claims, "iat"),
        not_before=time_in(claims, "nbf"),
        expires_at=claims["exp"],
        token_id=_shown(claims, "uti", "jti"),
        session_id=_shown(claims, "sid"),
        policy=accepted.policy,
        nonce=_shown(claims, "nonce"),
        username=_shown(claims, "preferred_username", "upn", "unique_name", "email"),
        name=_shown(claims, "name"),
        raw=raw,
        provenance=provenance,
    )


def _shown(claims: Mapping[str, Any], *names: str) -> str | None:
    """Return the first of some claims that is a text; providers let their owners put anything there."""
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            return value
    return None


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    for name in ("scp", "scope"):
        value = claims.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            return frozenset(value.split())
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return frozenset(value)
        raise InvalidToken("malformed", f"the token's {name} isn't a text or a list of texts")
    return frozenset()


def roles_in(claims: Mapping[str, Any], way: tuple[str, ...]) -> frozenset[str] | None:
    """Return the roles in a token, as it came or frozen; None where something is in their place that is none.

    Args:
        claims: All claims.
        way: The names that lead to the roles.
    """
    value: Any = claims
    for name in way:
        if value is None:
            break
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return frozenset(value)
    return None


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
    clients = [claims.get(name) for name in CLIENTS]
    if subject in clients or bare in clients:
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
