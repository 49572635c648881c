"""Tokens that are bound to a key, with their proofs, pass the guards of every framework whose verifier knows them."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from test_framework_errors import guarded_sites
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import testing
from resilient_auth.verify import BindingOptions


class Client:
    """A client with a key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        self._jwk = {name: self._jwk[name] for name in ("crv", "kty", "x", "y")}
        text = json.dumps(self._jwk, separators=(",", ":"), sort_keys=True)
        self.thumbprint = _digest(text)

    def headers(self, token: str, url: str) -> dict[str, str]:
        """Prove possession for one request (RFC 9449, section 4.2)."""
        said = {"jti": uuid.uuid4().hex, "htm": "GET", "htu": url, "iat": int(time.time()), "ath": _digest(token)}
        proof = jwt.encode(said, self._key, "ES256", {"typ": "dpop+jwt", "jwk": self._jwk})
        return {"Authorization": f"DPoP {token}", "DPoP": proof, "Connection": "close"}


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def client() -> Client:
    return Client()


def verifiers(issuer: Issuer, **options: Any) -> tuple[Any, Any]:
    return issuer.verifier(**options), issuer.verifier(ra.aio.ClaimsVerifier, **options)


def test_a_proof_lets_its_bearer_in_once(issuer: Issuer, client: Client) -> None:
    """The same one again, none, or one for another address doesn't."""
    token = testing.token(issuer.idp, cnf={"jkt": client.thumbprint})
    binding = BindingOptions(dpop=True)
    for name, served in guarded_sites(*verifiers(issuer, binding=binding)):
        good = 404 if name == "starlette" else 200
        with served as url, httpx.Client(trust_env=False) as browser:
            proven = client.headers(token, f"{url}/me")
            found = [browser.get(f"{url}/me", headers=proven).status_code for _ in range(2)]
            assert (name, found) == (name, [good, 401])
            bare = browser.get(f"{url}/me", headers={"Authorization": f"Bearer {token}"})
            assert bare.status_code == 401
            assert bare.headers["WWW-Authenticate"].startswith("DPoP ")
            elsewhere = client.headers(token, f"{url}/other")
            assert browser.get(f"{url}/me", headers=elsewhere).json()["detail"]["code"] == "dpop_proof"


def test_a_nonce_is_handed_out(issuer: Issuer, client: Client) -> None:
    """With the 401, in every framework."""
    token = testing.token(issuer.idp, cnf={"jkt": client.thumbprint})
    binding = BindingOptions(dpop=True, nonce_secret=bytes(32))
    for name, served in guarded_sites(*verifiers(issuer, binding=binding)):
        with served as url:
            answer = httpx.get(f"{url}/me", headers=client.headers(token, f"{url}/me"), trust_env=False)
        assert (name, answer.status_code, "DPoP-Nonce" in answer.headers) == (name, 401, True)


def test_who_verifies_no_proofs_takes_none(issuer: Issuer, client: Client) -> None:
    token = testing.token(issuer.idp)
    for name, served in guarded_sites(*verifiers(issuer)):
        with served as url:
            answer = httpx.get(f"{url}/me", headers=client.headers(token, f"{url}/me"), trust_env=False)
        assert (name, answer.status_code, answer.json()["detail"]["code"]) == (name, 401, "sender_constrained")
