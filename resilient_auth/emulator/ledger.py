"""What really happened: every call that arrived and every token that was issued.

Tests and drills judge clients by it, so it keeps no secret: of a token it knows the identifier and a hash of the text.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

TokenKind = Literal["access", "refresh", "id"]

# Enough for hours of a drill; beyond it the oldest entries go.
_CALL_LIMIT: Final = 200_000
_TOKEN_LIMIT: Final = 200_000


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached the emulator, or one connection that failed by a fault before its request."""

    at: float
    monotonic: float
    endpoint: str
    method: str
    host: str
    path: str
    grant_type: str | None = None
    client_id: str | None = None
    scope: str | None = None
    client: str | None = None
    fault: str | None = None
    status: int | None = None
    token_id: str | None = None
    retry_after: str | None = None
    connection: int = 0


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """One token that was issued: who got it, for what and until when, without its text."""

    jti: str
    sha256: str
    subject: str
    client_id: str
    tenant: str
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float
    kind: TokenKind
    cae: bool = False
    number: int = 0


def fingerprint(text: str) -> str:
    """Return the SHA-256 under which a token's text is known."""
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """Calls and tokens, readable from any thread while the emulator writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._next_call = 0
        self._tokens: dict[str, IssuedToken] = {}
        self._next_token = 0
        self._first_listed = 0
        self._revoked: dict[str, int] = {}

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call since the last `clear`, in order of arrival; `status` is None while unanswered."""
        with self._lock:
            return tuple(self._calls.values())

    @property
    def tokens(self) -> tuple[IssuedToken, ...]:
        """Every token issued since the last `clear`, in order of issue."""
        with self._lock:
            return tuple(token for token in self._tokens.values() if token.number >= self._first_listed)

    def token_calls(self) -> tuple[Call, ...]:
        """Return the calls at the token endpoint."""
        return tuple(call for call in self.calls if call.endpoint == "token")

    def clear(self) -> None:
        """Forget calls and list no earlier token; `is_valid` and `lookup` still know what was issued."""
        with self._lock:
            self._calls.clear()
            self._first_listed = self._next_token

    def lookup(self, token: str) -> IssuedToken | None:
        """Return what is known of a token's text, or None if it wasn't issued here."""
        with self._lock:
            return self._tokens.get(fingerprint(token))

    def is_valid(self, token: str, at: float | None = None) -> bool:
        """Return whether a token was issued here, hasn't expired at wall-clock time `at`, and isn't revoked."""
        issued = self.lookup(token)
        if issued is None or self.is_revoked(issued):
            return False
        return (time.time() if at is None else at) < issued.expires_at

    def is_revoked(self, token: IssuedToken) -> bool:
        """Return whether a token's subject or client was revoked after it was issued."""
        with self._lock:
            return any(token.number < self._revoked.get(key, 0) for key in (token.subject, token.client_id))

    def revoke(self, key: str) -> None:
        """Revoke every token issued so far to a subject or a client id."""
        with self._lock:
            self._revoked[key] = self._next_token

    def record(self, call: Call) -> int:
        """Add a call and return the number under which `amend` finds it."""
        with self._lock:
            number = self._next_call
            self._next_call += 1
            self._calls[number] = call
            if len(self._calls) > _CALL_LIMIT:
                del self._calls[next(iter(self._calls))]
            return number

    def amend(self, number: int, **changes: Any) -> None:
        """Complete a recorded call with what became of it."""
        with self._lock:
            call = self._calls.get(number)
            if call is not None:
                self._calls[number] = replace(call, **changes)

    def issue(self, token: IssuedToken) -> IssuedToken:
        """Add a token and return it with its number."""
        with self._lock:
            numbered = replace(token, number=self._next_token)
            self._next_token += 1
            self._tokens[token.sha256] = numbered
            if len(self._tokens) > _TOKEN_LIMIT:
                del self._tokens[next(iter(self._tokens))]
            return numbered
