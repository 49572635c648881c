"""Prove a token with its issuer's key: the one that it names, which may sign for that issuer and tenant."""

from __future__ import annotations

from collections.abc import Generator

from ..._engine.single_flight import Outcome, WaitFor
from ..errors import InvalidToken
from ..jose.compact import Compact
from ..jose.jwk import VerificationKey
from .source import KeySource

__all__ = ["proving"]


def proving(
    source: KeySource, *, issuer: str, tenant: str, algorithm: str, kid: str, compact: Compact
) -> Generator[WaitFor, Outcome | None, VerificationKey]:
    """Verify a token's signature, step by step; return the key that it was verified with.

    Args:
        source: The keys of whose token it is, by its text.
        issuer: Its `iss`.
        tenant: The tenant in that; "" where none stands there.
        algorithm: Its `alg`, which the owner accepts.
        kid: Its `kid`.
        compact: The token.

    Raises:
        InvalidToken: The issuer has no such key, or it isn't for this, or the signature is another one.
        VerificationUnavailable: The keys are unavailable.
    """
    key = source.current().keys.get(kid)
    if key is None:
        key = yield from source.obtaining(kid)
    if tenant and not source.trust.any_tenant and tenant != source.tenant:
        raise InvalidToken("tenant", "the token comes from another tenant")
    if not source.trust.lets_sign(key.issuer, tenant, issuer):
        raise InvalidToken("key_issuer", "the token's key isn't for its issuer")
    key.verify(algorithm, compact.signature, compact.signed)
    return key
