"""The two errors of a verification, which are never confused.

    ResilientAuthError
    ├── InvalidToken                                    the token is bad, or isn't enough: 401 or 403
    └── ProviderUnavailable (also requests.RequestException)
        └── VerificationUnavailable                     it can't be verified now: 503 with Retry-After

A 401 makes every client sign its users in again at once: the last thing that a struggling provider needs. So what can't
be verified now is never an `InvalidToken`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import ConfigurationError, ProviderUnavailable, ResilientAuthError, printable

__all__ = ["CODES", "InvalidToken", "VerificationUnavailable", "bearer_challenge", "quoted"]

#: By code: what a challenge for a proof of possession calls it (RFC 9449, sections 7.1 and 9).
_OF_PROOFS = {"dpop_proof": "invalid_dpop_proof", "dpop_replay": "invalid_dpop_proof", "dpop_nonce": "use_dpop_nonce"}

#: Codes of tokens that are good, and not for this: 403.
_FORBIDDEN = frozenset(
    {"insufficient_scope", "insufficient_role", "app_only", "user_only", "cross_site", "unknown_user"}
)
#: Every code of an `InvalidToken`; they don't change.
CODES = _FORBIDDEN | {
    # the request around it, and its text
    *("malformed_header", "duplicated_header"),
    *("missing", "malformed", "too_large", "encrypted", "nested", "critical_header", "type"),
    # its signature
    *("algorithm", "key", "unknown_key", "key_issuer", "signature"),
    # what it says
    *("issuer", "policy", "tenant", "audience", "graph_token", "client", "token_type", "nonce"),
    # what its bearer must prove
    *("sender_constrained", "certificate", "dpop_proof", "dpop_replay", "dpop_nonce"),
    # its time, and the owner's deny-list
    *("expired", "not_yet_valid", "denied"),
}


class InvalidToken(ResilientAuthError):
    """Say that a token is refused, and why; asking again with the same one won't help.

    Args:
        code: A stable name of the reason, one of `CODES`, such as `expired`, `signature` or `graph_token`.
        message: What is wrong, for a log: no part of the token is in it.
        scope: The scopes that are required and missing, for the client.
        dpop: The algorithms of proofs that are accepted, where one is wanted; then the challenge is one of DPoP.
        nonce: What the client's next proof must have in it.
    """

    code = "invalid_token"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        scope: tuple[str, ...] = (),
        dpop: tuple[str, ...] = (),
        nonce: str | None = None,
    ) -> None:
        message = printable(message)
        super().__init__(message)
        self.code = code  # type: ignore[misc]
        self.message = message
        self.scope = scope
        self.dpop = dpop
        self.nonce = nonce

    @property
    def status(self) -> int:
        """Return the HTTP status: 403 for a good token that isn't enough, else 401 (RFC 6750, section 3.1)."""
        return 403 if self.code in _FORBIDDEN else 401

    def www_authenticate(self, realm: str | None = None) -> str:
        """Write the `WWW-Authenticate` header (RFC 6750, section 3).

        Args:
            realm: The protection space's name; left out when not given.
        """
        parameters = {}
        # Who sent no token at all learns of no error (RFC 6750, section 3.1).
        if self.code != "missing":
            error = _OF_PROOFS.get(self.code, "insufficient_scope" if self.status == 403 else "invalid_token")
            parameters = {"error": error, "error_description": self.message}
            if self.scope and self.code == "insufficient_scope":
                parameters["scope"] = " ".join(self.scope)
        if self.dpop:
            return _challenge("DPoP", realm, parameters | {"algs": " ".join(self.dpop)})
        return bearer_challenge(realm, parameters)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers to answer with beside the challenge (RFC 9449, section 9)."""
        return {} if self.nonce is None else {"DPoP-Nonce": self.nonce}

    def __repr__(self) -> str:
        return f"InvalidToken({self.code!r}, {self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return InvalidToken, (self.code, self.message), {"scope": self.scope, "dpop": self.dpop, "nonce": self.nonce}


class VerificationUnavailable(ProviderUnavailable):
    """Say that a token can't be verified now, good or bad as it may be, and when to try again: 503."""

    code = "verification_unavailable"
    status = 503
    #: Seconds until another attempt makes sense.
    retry_after: float

    def __init__(self, message: str, *, authority: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, authority=authority, retry_after=max(1.0, retry_after or 5.0))

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers to answer with."""
        return {"Retry-After": str(math.ceil(self.retry_after))}


def bearer_challenge(realm: str | None, parameters: Mapping[str, str]) -> str:
    """Write a `WWW-Authenticate` header of the bearer scheme (RFC 6750, section 3)."""
    return _challenge("Bearer", realm, parameters)


def _challenge(scheme: str, realm: str | None, parameters: Mapping[str, str]) -> str:
    if realm is not None and not isinstance(realm, str):
        raise ConfigurationError(f"realm must be a text, not {type(realm).__name__}")
    named = parameters if realm is None else {"realm": realm, **parameters}
    return f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in named.items())}".rstrip()


def quoted(text: str) -> str:
    """Write a quoted string of a header, of printable ASCII alone (RFC 6750, section 3)."""
    shown = "".join(c if " " <= c <= "~" and c not in '"\\' else "'" if c == '"' else "?" for c in text)
    return f'"{shown}"'
