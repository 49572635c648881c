from __future__ import annotations

import base64
import json
import re

import pytest

from resilient_auth.emulator import Fault

CP1 = '{"access_token": {"xms_cc": {"values": ["cp1"]}}}'


@pytest.fixture
def call(idp, client):
    def get(token: str | None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return client.get(f"{idp.api_url}/api/orders", headers=headers)

    return get


def challenge_in(response):
    return dict(re.findall(r'(\w+)="([^"]*)"', response.headers["www-authenticate"]))


def test_a_valid_token_is_served(call, ask):
    """The API answers with the claims of the token."""
    answer = call(ask().json()["access_token"])
    assert answer.status_code == 200
    assert answer.json()["claims"]["azp"] == "daemon"
    assert answer.json()["path"] == "/api/orders"


def test_bad_tokens_are_401(idp, call, ask):
    """No token, a foreign one, one of another kind and an expired one are refused with the reason."""
    assert "error" not in challenge_in(call(None))
    assert challenge_in(call("no.such.token"))["error"] == "invalid_token"
    idp.fail(Fault.expired_tokens())
    token = ask().json()["access_token"]
    assert "expired" in challenge_in(call(token))["error_description"]


def test_revocation_ends_in_a_claims_challenge(idp, call, ask):
    """A revoked token of a `cp1` client is challenged; a token got with the challenge's claims is good."""
    token = ask(claims=CP1).json()["access_token"]
    assert call(token).status_code == 200
    idp.revoke("daemon")
    refused = call(token)
    challenge = challenge_in(refused)
    assert (refused.status_code, challenge["error"]) == (401, "insufficient_claims")
    claims = json.loads(base64.b64decode(challenge["claims"]))
    assert claims["access_token"]["nbf"]["essential"] is True
    claims["access_token"]["xms_cc"] = {"values": ["cp1"]}
    fresh = ask(claims=json.dumps(claims)).json()["access_token"]
    assert call(fresh).status_code == 200
    assert not idp.ledger.is_valid(token)
    assert idp.ledger.is_valid(fresh)


def test_clients_without_cp1_get_no_challenge(idp, call, ask):
    """Claims challenges are for those who can handle them; others learn only that the token is bad."""
    token = ask().json()["access_token"]
    idp.revoke("daemon")
    assert challenge_in(call(token))["error"] == "invalid_token"


def test_a_user_is_revoked_by_name(idp, client, call, token_url):
    """Revoking a user leaves other users of the same client alone."""
    form = {"grant_type": "password", "client_id": "d", "password": "pw", "scope": "api://a/b"}
    ann, bob = (
        client.post(token_url, data=form | {"username": f"{name}@contoso.com"}).json()["access_token"]
        for name in ("ann", "bob")
    )
    idp.revoke("ann@contoso.com")
    assert [call(token).status_code for token in (ann, bob)] == [401, 200]
