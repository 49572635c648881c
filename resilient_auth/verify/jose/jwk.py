"""One public key of a key set: checked once, prepared once, bound to the algorithms that it is for.

Refused are keys that a careful provider doesn't publish: RSA under 2,048 bits, with an unusual exponent or of the ROCA
family (CVE-2017-15361), keys for encryption, private and symmetric ones (RFC 8725, sections 3.1, 3.2 and 3.5). PyJWT
loads what is left and does the cryptography: it would take all of those too, and numbers in any spelling.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from ..errors import InvalidToken

__all__ = ["ALGORITHMS", "UnusableKey", "VerificationKey", "verification_key"]

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
#: By curve: its one algorithm (RFC 7518, section 3.4).
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_EDWARDS: Final = "EdDSA"
#: What can be asked for. No symmetric one: whoever can verify with it can sign with it.
ALGORITHMS: Final = _RSA | frozenset(_CURVES.values()) | {_EDWARDS}

_FEWEST_BITS: Final = 2048
_MOST_BITS: Final = 8192
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class UnusableKey(ValueError):
    """Say why a key isn't used; holds nothing of the key."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class VerificationKey:
    """A public key that was found good."""

    #: A hash of the public numbers, to tell one key from another; several where a `kid` has a key for each algorithm.
    material: str
    #: By algorithm.
    keys: Mapping[str, jwt.PyJWK]
    #: The issuer that it signs for, where the key set says so (Entra).
    issuer: str | None

    def verify(self, algorithm: str, signature: bytes, signed: bytes) -> None:
        """Verify a signature.

        Raises:
            InvalidToken: The key isn't for this algorithm, or didn't make the signature.
        """
        key = self.keys.get(algorithm)
        if key is None:
            raise InvalidToken("algorithm", "the token's algorithm isn't one that its key is for")
        if algorithm == _EDWARDS:
            plausible = len(signature) == _ED25519_SIGNATURE
        elif algorithm in _RSA:
            plausible = len(signature) == (key.key.key_size + 7) // 8
        else:
            size = (key.key.key_size + 7) // 8
            # Neither DER nor a zero, which verifies anything where a library forgets to look (CVE-2022-21449).
            plausible = len(signature) == 2 * size and any(signature[:size]) and any(signature[size:])
        if not plausible or not key.Algorithm.verify(signed, key.key, signature):
            raise InvalidToken("signature", "the token's signature isn't its key's")

    @property
    def parts(self) -> frozenset[str]:
        """Return what its material is made of."""
        return frozenset(self.material.split("+"))

    def joined(self, other: VerificationKey) -> VerificationKey | None:
        """Return what two entries of one `kid` are together; None where it couldn't be told which one is meant.

        Some providers list a key once for each algorithm, or for each algorithm a key.
        """
        if self.material == other.material and self.issuer != other.issuer:
            return other
        if self.material != other.material and (self.issuer != other.issuer or self.keys.keys() & other.keys.keys()):
            return None
        material = "+".join(sorted(self.parts | other.parts))
        return VerificationKey(material, {**self.keys, **other.keys}, self.issuer)

    def __repr__(self) -> str:
        return f"VerificationKey({self.material[:12]}, {sorted(self.keys)})"


def verification_key(
    jwk: Mapping[str, Any], algorithms: frozenset[str], *, private_too: bool = False
) -> VerificationKey:
    """Make a key of a JWK (RFC 7517), for those of `algorithms` that are its.

    Args:
        jwk: The key.
        algorithms: Names from `ALGORITHMS`.
        private_too: Accept a private key, and use its public half.

    Raises:
        UnusableKey: It isn't for these algorithms, isn't for signatures, or isn't safe.
    """
    if not private_too and not _PRIVATE.isdisjoint(jwk):
        raise UnusableKey("it is a private or a symmetric key")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("its use isn't sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, (list, tuple)) or "verify" not in operations:
        raise UnusableKey("its key_ops don't have verify")
    meant = jwk.get("alg")
    if meant == "Ed25519":
        meant = _EDWARDS  # its name since RFC 9864, in keys; tokens have the older one
    if meant is not None:
        algorithms = algorithms & {meant} if isinstance(meant, str) else frozenset()
    issuer = jwk.get("issuer")
    if issuer is not None and not isinstance(issuer, str):
        raise UnusableKey("its issuer isn't a text")
    names: tuple[str, ...]
    match jwk.get("kty"):
        case "RSA":
            public, names, algorithms = {"kty": "RSA"}, ("n", "e"), algorithms & _RSA
        case "EC":
            curve = str(jwk.get("crv"))
            public, names, algorithms = {"kty": "EC", "crv": curve}, ("x", "y"), algorithms & {_CURVES.get(curve)}
        case "OKP":
            curve = str(jwk.get("crv"))
            public, names = {"kty": "OKP", "crv": curve}, ("x",)
            algorithms = algorithms & {_EDWARDS if curve == "Ed25519" else None}
        case _:
            raise UnusableKey("its type is neither RSA nor EC, nor OKP")
    if not algorithms:
        raise UnusableKey("it isn't for an algorithm that is accepted")
    numbers = [_number(jwk, name) for name in names]
    if "n" in names:
        _check_rsa(*numbers)
    elif names == ("x",):
        _check_edwards(*numbers)
    material = " ".join((*public.values(), *(f"{number:x}" for number in numbers)))
    # Without its other members, a private key is its public half.
    public |= {name: jwk[name] for name in names}
    try:
        keys = {name: jwt.PyJWK(public, name) for name in algorithms}
    except jwt.PyJWTError:
        raise UnusableKey("its numbers aren't a key's, or its point isn't on its curve") from None
    return VerificationKey(hashlib.sha256(material.encode()).hexdigest(), keys, issuer)


def _number(jwk: Mapping[str, Any], name: str) -> int:
    """Read a number of a key, which has one spelling alone."""
    text = jwk.get(name)
    if isinstance(text, str) and 0 < len(text) <= 2048 and text.isascii():
        with contextlib.suppress(ValueError):
            raw = base64.urlsafe_b64decode(text + "==")
            if base64.urlsafe_b64encode(raw).rstrip(b"=") == text.encode():
                return int.from_bytes(raw)
    raise UnusableKey(f"its {name} isn't a number in base64url")


def _check_rsa(modulus: int, exponent: int) -> None:
    if not _FEWEST_BITS <= modulus.bit_length() <= _MOST_BITS:
        raise UnusableKey(f"it has {modulus.bit_length()} bits, not {_FEWEST_BITS} to {_MOST_BITS}")
    if exponent % 2 == 0 or not 65_537 <= exponent < 2**64:
        raise UnusableKey("its exponent is even, too small or too large")
    if math.gcd(modulus, 2 * math.prod(_ROCA)) > 1:
        raise UnusableKey("its modulus has a small factor")
    if all(modulus % prime in powers for prime, powers in _ROCA.items()):
        raise UnusableKey("it is a weak key of the ROCA family")


def _check_edwards(number: int) -> None:
    """Refuse a point of small order, for which a signature of anything can be made, and one in a second spelling."""
    raw = number.to_bytes(_ED25519_KEY) if number.bit_length() <= 8 * _ED25519_KEY else b""
    y = int.from_bytes(raw, "little") & ~(1 << 255)
    if not raw or y >= _P or y in _SMALL_ORDER:
        raise UnusableKey("it is a point of small order, or none")


def _powers(prime: int) -> frozenset[int]:
    """List the powers of 65537 modulo a prime."""
    return frozenset(pow(65_537, exponent, prime) for exponent in range(prime))


_ED25519_KEY: Final = 32
_ED25519_SIGNATURE: Final = 64
#: The prime of Curve25519, and the heights of its points of order 1, 2, 4 and 8 (RFC 7748, section 4.1 and 8032, 5.1).
_P: Final = 2**255 - 19
_EIGHTH: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _EIGHTH, _P - _EIGHTH})
#: A modulus of the family is a power of 65537 modulo each of these primes (Nemec et al., "The Return of Coppersmith's
#: Attack", 2017, section 4.1).
_ROCA: Final = {prime: _powers(prime) for prime in range(3, 168) if all(prime % n for n in range(2, prime))}
