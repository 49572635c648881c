"""A 401 without a claims challenge proves nothing: a valid token stays until its successor is there (G17)."""

from __future__ import annotations

import ssl
import time

import httpx
import pytest
import requests

import resilient_auth as ra
from resilient_auth.emulator import Fault
from resilient_auth.integrations.requests import BearerAuth as RequestsAuth

SCOPE = "api://orders/.default"
OUTAGES = ["refuse", "black_hole", "http_503", "html_200", "http_429"]
CLIENTS = ["httpx", "tasks", "httpx2", "requests", "api_client", "aio.api_client"]


@pytest.fixture
def credential(idp, app_at):
    with ra.ResilientCredential(app_at(idp)) as made:
        yield made


@pytest.fixture
def get(idp, credential):
    """Send a GET to the emulator's API with a client of each kind; returns the status."""
    trust = ssl.create_default_context(cafile=idp.ca_file)

    async def send(kind, *paths):
        urls = [f"{idp.api_url}{path}" for path in paths]
        if kind == "requests":
            with requests.Session() as session:
                session.verify, session.auth = idp.ca_file, RequestsAuth(credential, SCOPE)
                return [session.get(url).status_code for url in urls]
        if kind == "httpx2":
            httpx2 = pytest.importorskip("httpx2")
            from resilient_auth.integrations.httpx2 import BearerAuth

            with httpx2.Client(verify=trust, auth=BearerAuth(credential, SCOPE)) as client:
                return [client.get(url).status_code for url in urls]
        if kind in ("httpx", "api_client"):
            made = (
                httpx.Client(verify=trust, auth=ra.BearerAuth(credential, SCOPE))
                if kind == "httpx"
                else ra.api_client(idp.api_url, credential, SCOPE, verify=trust)
            )
            with made as client:
                return [client.get(url).status_code for url in urls]
        made = (
            httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE))
            if kind == "tasks"
            else ra.aio.api_client(idp.api_url, credential, SCOPE, verify=trust)
        )
        async with made as client:
            return [(await client.get(url)).status_code for url in urls]

    return send


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_endpoint_that_refuses_everything_takes_no_token_away(idp, get, credential, kind):
    """In an outage its 401 is the answer, soon, and other endpoints are served with the token that was held."""
    assert await get(kind, "/orders") == [200]
    held = credential.get_token(SCOPE, enable_cae=True).token
    idp.fail(Fault.http_503(), "token")
    begun = time.monotonic()
    assert await get(kind, *["/forbidden", "/orders"] * 5) == [401, 200] * 5
    assert time.monotonic() - begun < 3.0
    assert credential.get_token(SCOPE, enable_cae=True).token == held


@pytest.mark.parametrize("fault", OUTAGES)
async def test_whatever_the_outage(idp, get, fault):
    """Also one in which the provider never answers."""
    assert await get("httpx", "/orders") == [200]
    idp.fail(Fault.all()[fault], "token" if fault != "refuse" else "*")
    begun = time.monotonic()
    assert await get("httpx", *["/forbidden", "/orders"] * 5) == [401, 200] * 5
    assert time.monotonic() - begun < 4.0


async def test_a_successor_that_comes_later_is_used(idp, get, credential, clock, eventually):
    """The token stays suspect: once the provider gives another one, that is sent."""
    assert await get("httpx", "/orders") == [200]
    held = credential.get_token(SCOPE, enable_cae=True).token
    idp.fail(Fault.http_503(), "token")
    assert await get("httpx", "/forbidden") == [401]
    assert credential.get_token(SCOPE, enable_cae=True).token == held
    idp.heal()
    clock.skip(120)
    eventually(lambda: credential.get_token(SCOPE, enable_cae=True).token != held)
    idp.revoke("daemon")
    assert await get("httpx", "/orders") == [200]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("path", ["/orders", "/unquoted/orders", "/blanks/orders"])
async def test_a_revoked_token_is_replaced_however_the_challenge_is_written(idp, get, kind, path):
    """As Dataverse and Azure DevOps, and as Storage, write theirs."""
    assert await get(kind, path) == [200]
    idp.revoke("daemon")
    assert await get(kind, path, path) == [200, 200]
    assert len(idp.ledger.token_calls()) == 2


def test_the_provider_is_asked_first_and_the_token_served_meanwhile(idp, app_at, settings):
    """By `suspect`, which the auths use; `invalidate` forgets."""
    credential = ra.ResilientCredential(app_at(idp, resilience=settings(wait=0.3)))
    first = credential.get_token(SCOPE).token
    credential.suspect(first)
    second = credential.get_token(SCOPE).token
    assert second != first
    credential.suspect(first)  # a late one
    assert credential.get_token(SCOPE).token == second
    idp.fail(Fault.http_503(), "token")
    credential.suspect(second)
    assert [credential.get_token(SCOPE).token for _ in range(5)] == [second] * 5
    credential.invalidate(second)
    with pytest.raises(ra.ProviderUnavailable):
        credential.get_token(SCOPE)


def test_the_application_asks_too(idp, app_at):
    """What its own callers are served from memory is the same token, and has a successor with them too."""
    app = app_at(idp)
    credential = ra.ResilientCredential(app)
    first = credential.get_token(SCOPE).token
    assert app.acquire_token_for_client([SCOPE])["access_token"] == first
    credential.suspect(first)
    second = app.acquire_token_for_client([SCOPE])["access_token"]
    assert second == credential.get_token(SCOPE).token != first


def test_another_source_is_better_than_a_suspect(idp, second_idp, app_at, settings, clock, eventually):
    """Which is served only where none of them gives another token."""
    credential = ra.ResilientCredential(*[app_at(each, resilience=settings(wait=0.4)) for each in (idp, second_idp)])
    first = credential.get_token(SCOPE).token
    idp.fail(Fault.http_503(), "token")
    second_idp.fail(Fault.http_503(), "token")
    credential.suspect(first)
    assert [credential.get_token(SCOPE).token for _ in range(3)] == [first] * 3
    second_idp.heal()
    clock.skip(60)
    eventually(lambda: credential.get_token(SCOPE).token != first)


def test_a_suspect_is_better_than_another_sources_denial(idp, second_idp, app_at, settings):
    """It may be fine, as may everything else that is done with it."""
    credential = ra.ResilientCredential(*[app_at(each, resilience=settings(wait=0.4)) for each in (idp, second_idp)])
    first = credential.get_token(SCOPE).token
    idp.fail(Fault.http_503(), "token")
    second_idp.deny("client_credentials", "invalid_client")
    credential.suspect(first)
    assert [credential.get_token(SCOPE).token for _ in range(3)] == [first] * 3


def test_a_suspect_is_not_served_past_its_end(idp, app_at, settings, clock):
    """Grace is for tokens that nobody has refused."""
    app = app_at(idp, resilience=settings(wait=0.3, fallback=ra.FallbackOptions(grace=3600.0)))
    credential = ra.ResilientCredential(app)
    first = credential.get_token(SCOPE).token
    idp.fail(Fault.http_503(), "token")
    credential.suspect(first)
    credential.get_token(SCOPE)
    clock.skip(3700)
    for _ in range(3):
        with pytest.raises(ra.ProviderUnavailable):
            credential.get_token(SCOPE)


@pytest.mark.parametrize("token", [None, 7, b"x"])
def test_a_suspect_is_a_string(credential, token):
    """As for `invalidate`."""
    with pytest.raises(ra.ConfigurationError, match="token must be the string that was refused"):
        credential.suspect(token)


async def test_another_users_token_is_no_suspect(settings):
    """One refusal, one token."""
    numbers = iter(range(100))
    user = ["ada"]
    credential = ra.aio.ResilientCredential(
        lambda scopes: (f"{user[0]}-{next(numbers)}", time.time() + 3600), settings=settings(), subject=lambda: user[0]
    )
    ada = (await credential.get_token("s")).token
    user[0] = "bob"
    bob = (await credential.get_token("s")).token
    await credential.suspect(ada)
    assert (await credential.get_token("s")).token == bob
    user[0] = "ada"
    assert (await credential.get_token("s")).token != ada
