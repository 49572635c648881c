"""One public key of a key set: checked once, prepared once, bound to the algorithms that it is for.

Refused are keys that a careful provider doesn't publish: RSA under 2,048 bits, with an unusual exponent or of the ROCA
family (CVE-2017-15361), keys for encryption, private and symmetric ones (RFC 8725, sections 3.1, 3.2 and 3.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ..errors import InvalidToken
from .compact import decode_segment

__all__ = ["ALGORITHMS", "UnusableKey", "VerificationKey", "verification_key"]

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
#: By algorithm: the curve's name, itself, and the bytes of a coordinate (RFC 7518, section 3.4).
_CURVES: Final[dict[str, tuple[str, ec.EllipticCurve, int]]] = {
    "ES256": ("P-256", ec.SECP256R1(), 32),
    "ES384": ("P-384", ec.SECP384R1(), 48),
    "ES512": ("P-521", ec.SECP521R1(), 66),
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
#: What can be asked for. No symmetric one: whoever can verify with it can sign with it.
ALGORITHMS: Final = _RSA | _CURVES.keys()

_FEWEST_BITS: Final = 2048
_MOST_BITS: Final = 8192
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

Check = Callable[[bytes, bytes], None]
"""Take a signature and what it is over; raise `InvalidSignature`."""


class UnusableKey(ValueError):
    """Say why a key isn't used; holds nothing of the key."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class VerificationKey:
    """A public key that was found good."""

    #: A hash of the public numbers, to tell one key from another.
    material: str
    #: By algorithm, how a signature is checked.
    checks: Mapping[str, Check]
    #: The issuer that it signs for, where the key set says so (Entra).
    issuer: str | None

    def verify(self, algorithm: str, signature: bytes, signed: bytes) -> None:
        """Verify a signature.

        Raises:
            InvalidToken: The key isn't for this algorithm, or the signature isn't its.
        """
        check = self.checks.get(algorithm)
        if check is None:
            raise InvalidToken("algorithm", "the token's algorithm isn't one that its key is for")
        try:
            check(signature, signed)
        except (InvalidSignature, ValueError):
            raise InvalidToken("signature", "the token's signature isn't its key's") from None

    def __repr__(self) -> str:
        return f"VerificationKey({self.material[:12]}, {sorted(self.checks)})"


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
    if meant is not None:
        algorithms = algorithms & {meant} if isinstance(meant, str) else frozenset()
    issuer = jwk.get("issuer")
    if issuer is not None and not isinstance(issuer, str):
        raise UnusableKey("its issuer isn't a text")
    match jwk.get("kty"):
        case "RSA":
            material, checks = _rsa(jwk, algorithms & _RSA)
        case "EC":
            material, checks = _ec(jwk, algorithms & _CURVES.keys())
        case _:
            raise UnusableKey("its type is neither RSA nor EC")
    return VerificationKey(hashlib.sha256(material.encode()).hexdigest(), checks, issuer)


def _rsa(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> tuple[str, dict[str, Check]]:
    if not algorithms:
        raise UnusableKey("it isn't for an algorithm that is accepted")
    modulus, exponent = (int.from_bytes(_bytes(jwk, name)) for name in ("n", "e"))
    if not _FEWEST_BITS <= modulus.bit_length() <= _MOST_BITS:
        raise UnusableKey(f"it has {modulus.bit_length()} bits, not {_FEWEST_BITS} to {_MOST_BITS}")
    if exponent % 2 == 0 or not 65_537 <= exponent < 2**64:
        raise UnusableKey("its exponent is even, too small or too large")
    if any(modulus % prime == 0 for prime, _ in ((2, None), *_ROCA)):
        raise UnusableKey("its modulus has a small factor")
    if all(modulus % prime in remainders for prime, remainders in _ROCA):
        raise UnusableKey("it is a weak key of the ROCA family")
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise UnusableKey("its numbers aren't a key") from None
    return f"RSA {modulus:x} {exponent:x}", {name: _rsa_check(key, name) for name in algorithms}


def _rsa_check(key: rsa.RSAPublicKey, algorithm: str) -> Check:
    digest = _HASHES[algorithm[2:]]
    # The salt is as long as the digest (RFC 7518, section 3.5).
    scheme = (
        padding.PKCS1v15()
        if algorithm.startswith("RS")
        else padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    )
    verify = key.verify

    def check(signature: bytes, signed: bytes) -> None:
        verify(signature, signed, scheme, digest)

    return check


def _ec(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> tuple[str, dict[str, Check]]:
    # Each curve has one algorithm.
    algorithm = next((name for name in algorithms if _CURVES[name][0] == jwk.get("crv")), None)
    if algorithm is None:
        raise UnusableKey("its curve isn't of an algorithm that is accepted")
    _, curve, size = _CURVES[algorithm]
    x, y = _bytes(jwk, "x"), _bytes(jwk, "y")
    if len(x) != size or len(y) != size:
        raise UnusableKey("its point isn't as long as its curve wants")
    try:
        key = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except ValueError:
        raise UnusableKey("its point isn't on its curve") from None
    scheme = ec.ECDSA(_HASHES[algorithm[2:]])

    def check(signature: bytes, signed: bytes) -> None:
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        # Two zeros verify anything where a library forgets to look (CVE-2022-21449).
        if len(signature) != 2 * size or not r or not s:
            raise InvalidSignature
        key.verify(encode_dss_signature(r, s), signed, scheme)

    return f"EC {jwk['crv']} {x.hex()} {y.hex()}", {algorithm: check}


def _bytes(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not value or len(value) > 2048:
        raise UnusableKey(f"its {name} isn't a number")
    try:
        raw = value.encode("ascii")
        if raw.translate(None, _BASE64URL):
            raise UnusableKey(f"its {name} isn't base64url")
        return decode_segment(raw)
    except (InvalidToken, UnicodeError):
        raise UnusableKey(f"its {name} isn't base64url") from None


_BASE64URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _powers(prime: int) -> frozenset[int]:
    """List the powers of 65537 modulo a prime."""
    found, power = set(), 1
    while power not in found:
        found.add(power)
        power = power * 65_537 % prime
    return frozenset(found)


_PRIMES: Final = tuple(n for n in range(3, 168) if all(n % d for d in range(2, n)))
#: A modulus of the family is a power of 65537 modulo each of these (Nemec et al., "The Return of Coppersmith's
#: Attack", 2017, section 4.1).
_ROCA: Final = tuple((prime, _powers(prime)) for prime in _PRIMES)
