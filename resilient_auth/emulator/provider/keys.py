"""The signing keys and their roll-over."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from ..wire.messages import base64url

_KEY_BITS = 2048


@dataclass(frozen=True)
class SigningKey:
    """One RSA key and the `kid` under which it is published."""

    kid: str
    private: RSAPrivateKey

    def as_jwk(self) -> dict[str, Any]:
        """Return its public half as the JWKS shows it."""
        numbers = self.private.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": _of_number(numbers.n),
            "e": _of_number(numbers.e),
        }


class KeyRing:
    """The keys of one provider: the newest signs, all of them are published."""

    def __init__(self) -> None:
        self._used = 0
        self._keys: tuple[SigningKey, ...] = ()
        self.roll()

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return self._keys[-1]

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """The keys that the JWKS shows, oldest first."""
        return self._keys

    def roll(self) -> SigningKey:
        """Publish a new key and sign with it from now on."""
        key = _process_key(self._used)
        self._used += 1
        # Bounded, because nobody forces a caller to drop old keys.
        self._keys = (*self._keys, key)[-20:]
        return key

    def drop_old(self) -> None:
        """Publish only the key that signs."""
        self._keys = self._keys[-1:]

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """Return the claims as a signed JWT, with further members in its header."""
        key = self.current
        members = {"kid": key.kid, "x5t": key.kid} | (header or {})
        return jwt.encode(claims, key.private, algorithm="RS256", headers=members)


_generated: list[SigningKey] = []
_generating = threading.Lock()


def _process_key(index: int) -> SigningKey:
    """Return the process's key of an index, because generating one takes longer than starting an emulator."""
    with _generating:
        while len(_generated) <= index:
            private = generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
            modulus = private.public_key().public_numbers().n
            digest = hashlib.sha256(_of_number(modulus).encode()).digest()
            _generated.append(SigningKey(base64url(digest[:20]), private))
        return _generated[index]


def _of_number(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
