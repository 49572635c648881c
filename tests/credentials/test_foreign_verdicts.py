"""What somebody else's credential says, judged by the same table of codes as MSAL's path."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

import resilient_auth as ra


class Source:
    """A credential that does what it is told."""

    def __init__(self) -> None:
        self.calls = 0
        self.says: Callable[[], Any] = self.good

    def good(self) -> AccessToken:
        return AccessToken(f"token {self.calls}", int(time.time()) + 3600)

    def get_token(self, *scopes: str, **options: Any) -> Any:
        self.calls += 1
        return self.says()

    def raises(self, text: str) -> None:
        def says() -> Any:
            raise ClientAuthenticationError(f"Authentication failed: {text}")

        self.says = says


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def hasty(settings) -> ra.Settings:
    return settings(wait=0.5, exchange_deadline=0.5, attempt_timeout=0.4, connect_timeout=0.4, discovery_wait=0.4)


def state_of(credential: Any) -> str:
    name = credential._core._sources[0].name
    states = {status.state for status in ra.health().breakers if status.name.startswith(f"{name} ")}
    (state,) = states - {"closed"} or {"closed"}
    return state


@pytest.mark.parametrize("text", ["AADSTS90033: A transient error has occurred.", "server_error", "AADSTS90090: busy"])
def test_a_failure_told_like_a_denial_is_one(source, hasty, clock, scope, text):
    """A valid token is served, and with none the error is a failure's; the breaker opens."""
    credential = ra.ResilientCredential(source, settings=hasty)
    held = credential.get_token(scope).token
    source.raises(text)
    clock.skip(3600 - 100)
    assert credential.get_token(scope).token == held
    clock.skip(200)
    for _ in range(4):
        clock.skip(12)
        with pytest.raises(ra.ProviderUnavailable):
            credential.get_token(scope)
    assert state_of(credential) == "open"


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error"])
def test_so_is_one_that_a_function_returns(hasty, clock, scope, error):
    """MSAL's own error dict, as an application of MSAL's gives it."""
    credential = ra.ResilientCredential(lambda scopes: {"error": error, "error_description": "x"}, settings=hasty)
    with pytest.raises(ra.ServerFailed):
        credential.get_token(scope)


def test_a_federated_credential_on_its_way_opens_no_breaker(source, hasty, clock, scope):
    """It is a failure for ten minutes, and a denial from then on; once known, it counts anew."""
    credential = ra.ResilientCredential(source, settings=hasty)
    source.raises("AADSTS700213: No matching federated identity record found for presented assertion subject 'x'.")
    for _ in range(6):
        with pytest.raises(ra.ServerFailed, match="AADSTS700213"):
            credential.get_token(scope)
        clock.skip(20)
    assert state_of(credential) == "closed"
    clock.skip(600)
    with pytest.raises(ClientAuthenticationError) as caught:
        credential.get_token(scope)
    assert not isinstance(caught.value, ra.ProviderUnavailable)
    source.says = source.good
    clock.skip(61)
    assert credential.get_token(scope).token


@pytest.mark.parametrize("by", ["tenant_id", "subject"])
def test_each_tenant_and_user_has_a_federated_credential_of_their_own(settings, clock, scope, by):
    """One that is wrong for good is a denial, though others work; a new one is on its way, though others are wrong."""
    user = [""]

    def ask(scopes, tenant_id=None):
        if (tenant_id or user[0]) != "works":
            raise ClientAuthenticationError("AADSTS700213: No matching federated identity record found.")
        return "t", clock.wall() + 30

    who = {} if by == "tenant_id" else {"subject": lambda: user[0]}
    credential = ra.ResilientCredential(ask, settings=settings(), **who)

    def outcome(name):
        user[0] = name
        try:
            return credential.get_token(scope, **({"tenant_id": name} if by == "tenant_id" else {})).token
        except ra.ProviderUnavailable:
            return "failed"
        except ClientAuthenticationError:
            return "denied"

    assert (outcome("wrong"), outcome("works")) == ("failed", "t")
    clock.skip(610.0)
    assert (outcome("works"), outcome("wrong"), outcome("new")) == ("t", "denied", "failed")


def test_one_odd_token_opens_no_breaker(source, hasty, clock, scope):
    """It was asked, and it answered: this answer alone can't be used."""
    credential = ra.ResilientCredential(source, settings=hasty)
    source.says = lambda: AccessToken("odd", 0)
    for _ in range(5):
        with pytest.raises(ra.MalformedAnswer):
            credential.get_token(scope)
        clock.skip(20)
    assert state_of(credential) == "closed"
