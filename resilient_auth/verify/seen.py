"""Remember tokens that were verified, so that the next time costs a hash and a look."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

import cachetools

from .._policy.checks import require_whole
from .bound.confirmation import Confirmation
from .claims import Claims
from .jose.jwk import VerificationKey
from .keys.source import KeySource

__all__ = ["Remembered", "SeenOptions", "VerifiedTokens"]

#: Bytes that a remembered token's claims take per character of it, and on top; measured, rounded up.
_PER_CHARACTER, _ON_TOP = 3, 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenOptions:
    """Choose how many verified tokens are remembered. What goes first is what wasn't used for longest.

    Args:
        tokens: How many, at most; 0 remembers none.
        size: Bytes that they may take, about.
    """

    tokens: int = 10_000
    size: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        require_whole("tokens", self.tokens, low=0)
        require_whole("size", self.size, low=0)


@dataclass(slots=True, repr=False)
class Remembered:
    """A token that was verified: its claims, and what that rests on."""

    claims: Claims
    kid: str
    key: VerificationKey
    source: KeySource
    #: Seconds since the epoch between which it is valid, leeway included.
    begins: float
    ends: float
    #: The monotonic time at which it was seen valid first.
    seen_at: float
    #: The deny-list's version that it was last compared with.
    deny_version: int
    #: What its bearer must prove each time; None for a plain bearer token.
    confirmation: Confirmation | None


class VerifiedTokens:
    """Hold verified tokens by a hash of their text, bounded in number and in bytes."""

    def __init__(self, options: SeenOptions) -> None:
        self._options = options
        # One bound in place of two: each token weighs its bytes, and at least its share of them.
        self._least = 0 if not options.tokens else options.size / options.tokens
        self.renew()

    def renew(self) -> None:
        """Begin empty: at first, and in a forked child, whose copy may be half changed."""
        self._lock = threading.Lock()
        self._tokens: cachetools.LRUCache[bytes, tuple[Remembered, float]] = cachetools.LRUCache(
            self._options.size if self._options.tokens else 0, getsizeof=lambda entry: entry[1]
        )

    def find(self, digest: bytes) -> Remembered | None:
        """Find a token by its hash."""
        with self._lock:
            entry = self._tokens.get(digest)
        return None if entry is None else entry[0]

    def put(self, digest: bytes, remembered: Remembered, length: int) -> None:
        """Remember a token of so many characters."""
        weight = max(self._least, float(length * _PER_CHARACTER + _ON_TOP))
        if self._options.tokens and weight <= self._options.size:
            with self._lock:
                self._tokens[digest] = (remembered, weight)

    def drop(self, digest: bytes) -> None:
        """Forget one."""
        with self._lock:
            self._tokens.pop(digest, None)

    def __len__(self) -> int:
        return len(self._tokens)


def digest_of(token: str) -> bytes:
    """Hash a token's text."""
    return hashlib.sha256(token.encode()).digest()
