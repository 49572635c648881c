"""What PyJWT, which loads keys and checks signatures here, takes and refuses by itself: the reasons for our checks."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from arriving import Signer, b64
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from resilient_auth.verify.jose.jwk import UnusableKey, verification_key


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"alg": "RSA-OAEP"},
        {"e": "AQ AB"},
        {"e": "AQAB="},
        {"e": b64(b"\x03")},
    ],
    ids=str,
)
def test_keys_that_it_takes(signer: Signer, changes: dict[str, Any]) -> None:
    """They are refused before it is asked."""
    assert jwt.PyJWK(signer.jwk | changes, "RS256").key
    with pytest.raises(UnusableKey):
        verification_key(signer.jwk | changes, frozenset({"RS256"}))


def test_a_short_key_that_it_takes() -> None:
    """It warns at most."""
    short = Signer(bits=1024)
    assert jwt.PyJWK(short.jwk, "RS256").key
    with pytest.raises(UnusableKey, match="1024 bits"):
        verification_key(short.jwk, frozenset({"RS256"}))


def test_a_salt_that_it_refuses(signer: Signer) -> None:
    """One that isn't as long as the digest (RFC 7518, section 3.5): nothing of ours looks at it."""
    algorithm = jwt.PyJWK(signer.jwk, "PS256").Algorithm
    for salt, good in ((32, True), (0, False), (20, False), (222, False)):
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        signature = signer.private.sign(b"x", scheme, hashes.SHA256())
        assert algorithm.verify(b"x", signer.private.public_key(), signature) is good


def test_signatures_of_curves_that_it_refuses() -> None:
    """DER, other lengths and zeros: what is checked here once more."""
    private = ec.generate_private_key(ec.SECP256R1())
    algorithm = jwt.PyJWK(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "ES256").Algorithm
    good = algorithm.sign(b"x", private)
    assert algorithm.verify(b"x", private.public_key(), good)
    der = private.sign(b"x", ec.ECDSA(hashes.SHA256()))
    for signature in (der, good[:-1], good + b"\0", bytes(64), good[:32] + bytes(32)):
        assert not algorithm.verify(b"x", private.public_key(), signature)
