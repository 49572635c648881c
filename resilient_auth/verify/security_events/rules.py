"""Which tokens that tell of something are believed: given what one says and the time, yes or no, and why.

logout token   OpenID Connect Back-Channel Logout 1.0, section 2.6
event token    RFC 8417, section 2, as Shared Signals has it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..claims import frozen
from ..errors import InvalidToken
from ..rules.acceptance import Rules, audience_in, check_tenant, expired, text_in, time_in, trust_of
from ..trust import Trust

__all__ = ["LOGOUT", "EventKind", "EventToken", "check_event", "check_type", "security_event"]

_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
#: Characters of an id, and events in one token, at most.
_LONGEST_ID: Final = 256
_MOST_EVENTS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKind:
    """Say what is asked of one kind of these tokens.

    Args:
        types: What its `typ` may be, in lower case.
        typed: Whether there must be a `typ`, and one of its own: `JWT` won't do then.
        expires: Whether there must be an `exp`.
        oldest: Seconds after which it isn't believed any more, `exp` or not; its `jti` is remembered for so long.
        event: The one event that must be among those that it tells of; None for any.
    """

    types: frozenset[str]
    typed: bool
    expires: bool
    oldest: float
    event: str | None = None


#: A logout token. Its `typ` is recommended, and older providers don't have it.
LOGOUT: Final = EventKind(
    types=frozenset({"logout+jwt"}), typed=False, expires=True, oldest=3600.0, event=_LOGOUT_EVENT
)


def security_event(*, typed: bool, oldest: float) -> EventKind:
    """Return what is asked of a security event token, which by its nature doesn't expire."""
    return EventKind(types=frozenset({"secevent+jwt"}), typed=typed, expires=False, oldest=oldest)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventToken:
    """Hold what a verified token tells.

    Attributes:
        issuer: `iss`.
        tenant: The tenant in it; "" where none stands there.
        token_id: `jti`.
        issued_at: `iat`.
        until: Seconds since the epoch at which it isn't believed any more, leeway included.
        subject: `sub`.
        session_id: `sid`.
        events: What it tells of, by the event's URI.
        raw: All claims as they came.
    """

    issuer: str
    tenant: str
    token_id: str = field(repr=False)
    issued_at: float
    until: float
    subject: str | None = field(repr=False)
    session_id: str | None = field(repr=False)
    events: Mapping[str, Mapping[str, Any]] = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def check_type(header: Mapping[str, Any], kind: EventKind) -> None:
    """Check that a token says of which kind it is, where it must.

    Raises:
        InvalidToken: It doesn't.
    """
    named = header.get("typ")
    if kind.typed and (not isinstance(named, str) or named.lower().removeprefix("application/") not in kind.types):
        raise InvalidToken("type", "the token's header doesn't say that it is one of this kind")


def check_event(
    claims: Mapping[str, Any], trusts: Iterable[Trust], rules: Rules, kind: EventKind, wall: float
) -> tuple[Trust, EventToken]:
    """Check all rules of a token of this kind.

    Args:
        claims: As they came.
        trusts: Whose tokens are accepted.
        rules: What the owner accepts of an audience and of tenants, and by how much clocks may differ.
        kind: What is asked of it.
        wall: The time.

    Returns:
        Whose it is, and what it tells; the signature is still to be verified.

    Raises:
        InvalidToken: A rule is broken.
    """
    trust, tenant, _ = trust_of(claims, trusts)
    # What tells of something needn't name the tenant a second time.
    check_tenant(claims, trust, tenant, rules, tid_needed=False)
    if rules.audiences.isdisjoint(audience_in(claims)):
        raise InvalidToken("audience", "the token is for another audience")
    if "nonce" in claims:
        # So that it can't stand in for an ID token, nor the other way round.
        raise InvalidToken("nonce", "the token has a nonce, as ID tokens have")
    issued = time_in(claims, "iat")
    if issued is None:
        raise InvalidToken("malformed", "the token has no iat")
    if wall < max(issued, time_in(claims, "nbf") or 0) - rules.leeway:
        raise InvalidToken("not_yet_valid", "the token isn't valid yet, or comes from a clock that is ahead")
    ends = time_in(claims, "exp")
    if ends is None and kind.expires:
        raise InvalidToken("malformed", "the token has no exp")
    until = min(issued + kind.oldest, kind.oldest + issued if ends is None else ends) + rules.leeway
    if wall >= until:
        raise expired()
    events = _events(claims, kind)
    subject, session = _identifier(claims, "sub"), _identifier(claims, "sid")
    if kind.event is not None and subject is None and session is None:
        raise InvalidToken("malformed", "the token names neither a session nor a user")
    token_id = _identifier(claims, "jti")
    if token_id is None:
        raise InvalidToken("malformed", "the token has no jti")
    return trust, EventToken(
        issuer=claims["iss"],
        tenant=tenant,
        token_id=token_id,
        issued_at=issued,
        until=until,
        subject=subject,
        session_id=session,
        events=events,
        raw=frozen(claims),
    )


def _events(claims: Mapping[str, Any], kind: EventKind) -> Mapping[str, Mapping[str, Any]]:
    events = claims.get("events")
    if not isinstance(events, dict) or not 0 < len(events) <= _MOST_EVENTS:
        raise InvalidToken("malformed", "the token has no events, or too many, or they aren't an object")
    if not all(isinstance(payload, dict) for payload in events.values()):
        raise InvalidToken("malformed", "an event of the token isn't an object")
    if kind.event is not None and kind.event not in events:
        raise InvalidToken("malformed", "the token tells of something else than a sign-out")
    told: Mapping[str, Mapping[str, Any]] = frozen(events)
    return told


def _identifier(claims: Mapping[str, Any], name: str) -> str | None:
    found = text_in(claims, name)
    if found is not None and not 0 < len(found) <= _LONGEST_ID:
        raise InvalidToken("malformed", f"the token's {name} isn't a text of a reasonable length")
    return found
