"""A session as it is in the store, and the rules of its ends and of its ids: pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from ..._fleet.bodies import finite
from .options import SessionOptions

__all__ = [
    "GUEST",
    "KIND",
    "Session",
    "Standing",
    "Who",
    "digest_of",
    "mail_of",
    "names_of",
    "new_cookie",
    "parsed_cookie",
    "wanted_names",
]

Standing = Literal["live", "extendable", "over"]
#: The family of sessions in the store.
KIND: Final = "session"
#: What stands in the place of a provider for who came in without signing in.
GUEST: Final = "guest"
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_ID_LENGTH, _SECRET_LENGTH = 22, 43
_VERSION: Final = 1
_LONGEST_MAIL: Final = 254
#: Seconds by which no two clocks of a fleet differ: what is later than that was written by a wrong one.
_AHEAD: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who is signed in, and by which provider.

    Args:
        provider: The name that the owner gave the provider.
        issuer: Its `iss`.
        subject: The user's `sub` there.
        sid: The provider's own session, where it named one.
        oid: The user's object id (Entra).
        tenant: The user's tenant (Entra).
        name: What the user is called.
        username: What the user signs in with.
        claims: The ID token's claims, as far as they are kept.
        account: MSAL's account, by which tokens are found; None where there are none.
    """

    provider: str
    issuer: str
    subject: str = field(repr=False)
    sid: str | None = field(default=None, repr=False)
    oid: str | None = field(default=None, repr=False)
    tenant: str | None = None
    name: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    account: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session; times are in seconds since the epoch. Swapped whole.

    Args:
        id: Names it in the store; the browser's id has a secret beside it, of which only a hash is kept.
        who: Who is signed in.
        started: When it was begun.
        seen: When a request was last written down.
        current: The hash of the id that the browser was given last.
        given: When that was.
        used: Whether it came back since.
        previous: The hash of the id before; until `current` has come back it is good, and for the overlap after.
        until: When that overlap ends; None until then.
        extended: Until when it goes on past its end while the provider is down; None where that wasn't needed.
    """

    id: str = field(repr=False)
    who: Who
    started: float
    seen: float
    current: str = field(repr=False)
    given: float
    used: bool = False
    previous: str | None = field(default=None, repr=False)
    until: float | None = None
    extended: float | None = None

    def ends(self, options: SessionOptions) -> float:
        """Return when it is over, were there no further request and no outage."""
        return min(self.seen + options.idle, self.started + options.lifetime)

    def standing(self, options: SessionOptions, now: float) -> Standing:
        """Return whether it is live, over, or goes on only while the provider is down."""
        ends = self.ends(options)
        if now < ends:
            return "live"
        last = ends + options.extension if self.extended is None else self.extended
        return "extendable" if now < last else "over"

    def dark(self, options: SessionOptions, now: float) -> float:
        """Return when it is over if its provider is down from now on: while requests come, not before its lifetime."""
        ends = self.ends(options)
        if now < ends:
            ends = self.started + options.lifetime
        return ends + options.extension if self.extended is None else self.extended

    def knows(self, digest: str, now: float) -> bool:
        """Return whether an id with this hash is this session's now."""
        if hmac.compare_digest(self.current, digest):
            return True
        former = self.previous is not None and hmac.compare_digest(self.previous, digest)
        return former and (self.until is None or now < self.until)

    def begun_by(self, at: float, now: float) -> bool:
        """Return whether it had begun by a time; what is yet to begin has, by a clock that was wrong."""
        return self.started <= at or self.started > now + _AHEAD

    def dated(self, now: float) -> Session:
        """Take back times that are yet to come: a clock was wrong, and by these it would last longer than it may."""
        if max(self.started, self.seen, self.given) <= now + _AHEAD:
            return self
        started, seen, given = (min(each, now) for each in (self.started, self.seen, self.given))
        return replace(self, started=started, seen=seen, given=given)

    def rotation_due(self, digest: str, options: SessionOptions, now: float) -> bool:
        """Return whether the browser is to get another id: it is time, or the last one never reached it."""
        age = now - self.given
        return age >= options.rotate_every if digest == self.current else self.until is None and age >= options.overlap

    def rotated(self, digest: str, new: str, now: float) -> Session:
        """Take a new id beside the one that has come."""
        dated = self.dated(now)
        return replace(dated, current=new, given=now, used=False, previous=digest, until=None, seen=now)

    def touched(self, digest: str, options: SessionOptions, now: float) -> Session | None:
        """Take in that a request has come with an id; None where nothing need be written."""
        first, dated = digest == self.current and not self.used, self.dated(now)
        if not first and dated is self and now - self.seen < options.touch_every:
            return None
        changed = replace(dated, seen=max(now, dated.seen))
        if first:
            changed = replace(changed, used=True, until=None if self.previous is None else now + options.overlap)
        return changed

    def left(self, options: SessionOptions, now: float) -> float:
        """Return for how many seconds it must be in the store."""
        last = self.ends(options) + options.extension
        return max(1.0, (last if self.extended is None else max(last, self.extended)) - now)

    def dumps(self) -> bytes:
        """Write it for the store."""
        return json.dumps({"v": _VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def loads(cls, value: bytes) -> Session | None:
        """Read it; None where a newer release wrote it, or it is none."""
        try:
            body = json.loads(value)
            if body.pop("v") != _VERSION:
                return None
            session = cls(**{**body, "who": Who(**body["who"])})
            return session if session.is_whole() else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def is_whole(self) -> bool:
        """Return whether all of it is of the form that it says.

        Raises:
            ValueError: A time is none.
        """
        who = self.who
        for at in (self.started, self.seen, self.given, self.until or 0.0, self.extended or 0.0):
            finite(at)
        texts = (self.id, self.current, self.previous or "", who.provider, who.issuer, who.subject, who.name)
        more = (who.username, who.sid or "", who.oid or "", who.tenant or "")
        known = isinstance(who.claims, Mapping) and isinstance(who.account or {}, Mapping)
        return known and all(isinstance(text, str) for text in (*texts, *more))


def new_cookie(session_id: str | None = None) -> tuple[str, str]:
    """Make up an id for a browser; return it, and the hash of its secret."""
    secret = secrets.token_urlsafe(32)
    return f"{session_id or secrets.token_urlsafe(16)}.{secret}", digest_of(secret)


def parsed_cookie(cookie: str) -> tuple[str, str] | None:
    """Return the session's id and the hash of the secret that a browser's id has; None where it isn't one."""
    session_id, dot, secret = cookie.partition(".")
    if len(session_id) != _ID_LENGTH or len(secret) != _SECRET_LENGTH or not dot:
        return None
    return (session_id, digest_of(secret)) if _ALPHABET.issuperset(session_id + secret) else None


def digest_of(secret: str) -> str:
    """Hash a secret; it is random and long, so that one round of a fast hash does."""
    return hashlib.sha256(secret.encode()).hexdigest()


def names_of(who: Who) -> tuple[str, ...]:
    """Return the names under which a user's sessions are listed, the user's own first."""
    names = [f"sub {who.issuer} {who.subject}"]
    if who.sid:
        names.append(f"sid {who.issuer} {who.sid}")
    if who.oid and who.tenant:
        names.append(f"oid {who.tenant} {who.oid}")
    if mail := mail_of(who):
        names.append(f"mail {who.issuer} {mail}")
    return tuple(names)


def wanted_names(
    issuer: str,
    sid: str | None = None,
    subject: str | None = None,
    oid: str | None = None,
    tenant: str | None = None,
    mail: str | None = None,
) -> tuple[str, ...]:
    """Return the names of the lists on all of which a session is of which all of this holds."""
    names = [f"sid {issuer} {sid}"] if sid else []
    if subject:
        names.append(f"sub {issuer} {subject}")
    if oid and tenant:
        names.append(f"oid {tenant} {oid}")
    if mail:
        names.append(f"mail {issuer} {mail}")
    return tuple(names)


def mail_of(who: Who) -> str | None:
    """Return the address by which a provider's events may name a user; None where there is none."""
    given = who.claims.get("email") or who.username
    return given.strip().lower() if isinstance(given, str) and "@" in given and len(given) <= _LONGEST_MAIL else None
