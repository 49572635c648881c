"""A token, what was asked for it, and the key under which both are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["Token", "TokenRequest", "fingerprint"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def fingerprint(secret: str | bytes) -> str:
    """Name a secret without telling it: 16 hex digits of its SHA-256."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()[:16]


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """Say which token is wanted; equal requests share one token and one exchange.

    Nothing in here is a secret: assertions and extra parameters come as hashes.
    """

    #: The authority's whole URL, with port, path and policy: `https://login.microsoftonline.com/contoso.com`.
    authority: str
    client_id: str
    #: The grant: `client_credentials`, `silent`, `on_behalf_of`, `managed_identity`, ...
    flow: str
    #: Sorted scopes, or the one resource of a managed identity.
    scopes: tuple[str, ...]
    #: Whose token: a home account id, or the hash of an assertion; None for the application's own.
    subject: str | None = None
    #: Whatever else tells tokens apart (extra body parameters, forwarded claims), as a hash.
    variant: str = ""

    def shown(self) -> TokenRequest:
        """Return it as it is shown to others: whose token it is, is a hash in the field itself."""
        if self.subject is None:
            return self
        return _Shown(self.authority, self.client_id, self.flow, self.scopes, self._hashed(), self.variant)

    def _hashed(self) -> str | None:
        return None if self.subject is None else fingerprint(self.subject)

    def __str__(self) -> str:
        who = f" for {self._hashed()}" if self.subject else ""
        return f"{self.flow} {' '.join(self.scopes)}{who} at {self.authority}"

    def __repr__(self) -> str:
        return f"TokenRequest({self})"


class _Shown(TokenRequest):
    __slots__ = ()

    def shown(self) -> TokenRequest:
        return self

    def _hashed(self) -> str | None:
        return self.subject


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """Hold an access token and its times.

    Lifetimes are relative to when the token came (`expires_in`, G2). Its age is the time that has passed on the
    monotonic clock, which counts a machine's sleep too: a wall clock that is set ahead in an outage must not take away
    what can't be had again, nor one that is set back make it last.
    """

    secret: str
    token_type: str
    #: When it came: seconds since the epoch, and on the monotonic clock.
    obtained_on: float
    obtained_at: float
    #: Seconds of validity from then.
    life: float
    #: Seconds from then after which a refresh is due (G5).
    due_after: float
    #: Seconds since the epoch from which the provider wants a refresh, where it said so.
    refresh_on: int | None = None
    #: What came beside the token, for grants whose result is more than that.
    extras: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    #: An API has refused it and hasn't said why: another one is asked for, and this one served until then.
    suspect: bool = False

    @property
    def expires_on(self) -> float:
        """Return the end of its validity in seconds since the epoch."""
        return self.obtained_on + self.life

    def age(self, wall: float, now: float) -> float:
        """Return for how many seconds it has been held, given both clocks' times."""
        held = now - self.obtained_at
        # The monotonic clock starts anew where a machine or a container is restored from its image.
        return held if held >= 0.0 else max(wall - self.obtained_on, 0.0)

    def remaining(self, wall: float, now: float) -> float:
        """Return how many seconds it stays valid, given both clocks' times; negative when it is over."""
        return self.life - self.age(wall, now)

    def __repr__(self) -> str:
        return f"Token({fingerprint(self.secret)}, expires_on={self.expires_on:.0f})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Token can't be pickled: a sealed store is the one place where tokens are written down")
