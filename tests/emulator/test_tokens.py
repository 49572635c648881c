from __future__ import annotations

import time

import jwt
import pytest

AUDIENCE = "https://graph.microsoft.com"


def verify(client, jwks_uri, token):
    keys = {key["kid"]: key for key in client.get(jwks_uri).json()["keys"]}
    key = jwt.PyJWK(keys[jwt.get_unverified_header(token)["kid"]])
    return jwt.decode(token, key.key, algorithms=["RS256"], audience=AUDIENCE, options={"require": ["exp", "iss"]})


@pytest.fixture
def jwks_uri(idp):
    return f"{idp.authority('contoso')}/discovery/v2.0/keys"


def test_tokens_verify_with_the_published_keys(client, ask, jwks_uri):
    """Tokens are real: RS256, and signed with the key that their `kid` names."""
    token = ask().json()["access_token"]
    assert verify(client, jwks_uri, token)["azp"] == "daemon"
    with pytest.raises(jwt.InvalidSignatureError):
        verify(client, jwks_uri, token[:-8] + "AAAAAAAA")


def test_keys_roll_over(idp, client, ask, jwks_uri):
    """A new key signs at once, the old one stays until it is dropped."""
    old = ask().json()["access_token"]
    kid = idp.roll_keys()
    new = ask().json()["access_token"]
    assert jwt.get_unverified_header(new)["kid"] == kid != jwt.get_unverified_header(old)["kid"]
    assert verify(client, jwks_uri, old)
    assert verify(client, jwks_uri, new)
    idp.drop_old_keys()
    assert verify(client, jwks_uri, new)
    with pytest.raises(KeyError):
        verify(client, jwks_uri, old)


def test_a_token_lives_as_long_as_was_told(idp, ask):
    """`exp`, `expires_in` and the ledger agree to the second, never in the client's disfavour."""
    idp.token_lifetime = 90
    before = time.time()
    answer = ask().json()
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert answer["expires_in"] == 90
    assert before + 90 <= claims["exp"] < time.time() + 91
    assert idp.ledger.lookup(answer["access_token"]).expires_at == claims["exp"]


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        ("https://vault.azure.net/.default", "https://vault.azure.net"),
        ("api://orders/.default", "api://orders"),
        ("https://database.windows.net//.default", "https://database.windows.net/"),
        ("11111111-2222-3333-4444-555555555555/.default", "11111111-2222-3333-4444-555555555555"),
    ],
)
def test_the_audience_is_the_resource_of_the_scope(ask, scope, audience):
    """The part of a scope before its last slash is whom the token is for."""
    token = ask(scope=scope).json()["access_token"]
    assert jwt.decode(token, options={"verify_signature": False})["aud"] == audience
