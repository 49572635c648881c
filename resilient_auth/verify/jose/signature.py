"""The signature path alone, for those who test with published vectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..._policy.checks import require
from ..errors import InvalidToken
from .compact import check_header, take_apart
from .jwk import ALGORITHMS, UnusableKey, verification_key

__all__ = ["check_algorithms", "verify_signature"]

#: The payload needn't be claims here.
_TYPES = frozenset({"jwt", "at+jwt", "jose", "jws"})


def verify_signature(token: str, jwk: Mapping[str, Any], *, algorithms: Collection[str]) -> bytes:
    """Verify a signed token in compact form with one key, and nothing else about it (RFC 7515, section 5.2).

    No claim is looked at: this is no way to accept a token.

    Args:
        token: The text.
        jwk: The key (RFC 7517); of a private one the public half is used.
        algorithms: Those that are accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512,
            EdDSA (Ed25519).

    Returns:
        The payload.

    Raises:
        InvalidToken: The text, the key or the signature isn't good.
        ConfigurationError: `algorithms` names one that isn't supported: `none` and symmetric ones never are.
    """
    accepted = check_algorithms(algorithms)
    compact = take_apart(token)
    algorithm, kid = check_header(compact.header, _TYPES)
    if algorithm not in accepted:
        raise InvalidToken("algorithm", "the token's algorithm isn't one that is accepted")
    if not isinstance(jwk, Mapping):
        raise InvalidToken("key", "the key isn't a JSON object")
    if kid is not None and jwk.get("kid", kid) != kid:
        raise InvalidToken("unknown_key", "the token names another key")
    try:
        key = verification_key(jwk, accepted, private_too=True)
    except UnusableKey as error:
        raise InvalidToken("key", f"the key can't be used: {error}") from None
    key.verify(algorithm, compact.signature, compact.signed)
    return compact.payload


def check_algorithms(algorithms: object) -> frozenset[str]:
    """Check what an owner accepts.

    Raises:
        ConfigurationError: It is empty, or names one that isn't supported.
    """
    hint = f"algorithms must be names of {', '.join(sorted(ALGORITHMS))}, not {algorithms!r}"
    require(isinstance(algorithms, Collection) and not isinstance(algorithms, (str, bytes)), hint)
    named = frozenset(algorithms) if isinstance(algorithms, Collection) else frozenset()
    require(bool(named) and named <= ALGORITHMS, hint)
    return named
