"""Who is signed in at the provider, in which browser, and at which clients."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

import cachetools

from ..wire.messages import Request
from .directory import User

_COOKIE: Final = "emulator_session"
_SESSION_LIMIT: Final = 100_000


@dataclass(frozen=True)
class Party:
    """A client at which somebody is signed in: what its ID tokens say."""

    client_id: str
    issuer: str
    subject: str


@dataclass
class BrowserSession:
    """One browser's session at the provider, which clients know as `sid`."""

    sid: str
    user: User
    parties: dict[str, Party] = field(default_factory=dict)


class BrowserSessions:
    """Keep the sessions of browsers; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._sessions: cachetools.FIFOCache[str, BrowserSession] = cachetools.FIFOCache(_SESSION_LIMIT)

    def begin(self, user: User, request: Request | None = None) -> BrowserSession:
        """Return a user's session in the browser that asks, or a new one."""
        known = None if request is None else self.of(request)
        if known is not None and known.user.oid == user.oid:
            return known
        session = BrowserSession(secrets.token_urlsafe(16), user)
        self._sessions[session.sid] = session
        return session

    def of(self, request: Request) -> BrowserSession | None:
        """Return the session of the browser that asks."""
        for one in request.headers.get("cookie", "").split(";"):
            name, _, value = one.strip().partition("=")
            if name == _COOKIE:
                return self._sessions.get(value)
        return None

    def find(self, sid: object) -> BrowserSession | None:
        """Return a session by its `sid`."""
        return self._sessions.get(sid) if isinstance(sid, str) else None

    def of_user(self, oid: str) -> list[BrowserSession]:
        """Return a user's sessions."""
        return [session for session in self._sessions.values() if session.user.oid == oid]

    def join(self, sid: str, party: Party) -> None:
        """Note that a client was told of a session."""
        session = self._sessions.get(sid)
        if session is not None:
            session.parties[f"{party.client_id} {party.issuer}"] = party

    def end(self, sid: str) -> None:
        """Forget a session."""
        self._sessions.pop(sid, None)


def cookie_of(session: BrowserSession) -> tuple[str, str]:
    """Return the header by which a browser learns its session."""
    return "Set-Cookie", f"{_COOKIE}={session.sid}; Path=/; Secure; HttpOnly; SameSite=Lax"
