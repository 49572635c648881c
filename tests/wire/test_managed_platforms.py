"""Managed identity where the emulator has no endpoint: Service Fabric, whose certificate is pinned, and another."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msal as plain_msal
import pytest
import requests

import resilient_auth as ra
from resilient_auth import msal

RESOURCE = "https://vault.azure.net"
PATH = "/metadata/identity/oauth2/token"


def granting(server: Any, token: str) -> None:
    body = {"access_token": token, "expires_on": int(time.time()) + 3600, "token_type": "Bearer", "resource": RESOURCE}
    server.answers[PATH] = (200, {"Content-Type": "application/json"}, json.dumps(body).encode())


@pytest.fixture(params=["Service Fabric", "Machine Learning"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    fabric = request.param == "Service Fabric"
    made = serve(tls=fabric)
    made.platform = request.param
    if fabric:
        host = urlsplit(made.url)
        shown = ssl.get_server_certificate((host.hostname, host.port))
        thumbprint = hashlib.sha1(ssl.PEM_cert_to_DER_cert(shown), usedforsecurity=False).hexdigest()
        monkeypatch.setenv("IDENTITY_ENDPOINT", made.url + PATH)
        monkeypatch.setenv("IDENTITY_HEADER", "the-secret-header")
        monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", thumbprint)
    else:
        monkeypatch.setenv("MSI_ENDPOINT", made.url + PATH)
        monkeypatch.setenv("MSI_SECRET", "the-secret-header")
    granting(made, "T1")
    return made


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as own:
        yield own


@pytest.fixture
def client(clock: Any, session: requests.Session) -> Iterator[Any]:
    who = msal.SystemAssignedManagedIdentity()
    with msal.ManagedIdentityClient(
        who, http_client=session, client_capabilities=["CP1"], resilience=ra.Settings(clock=clock, wait=2.0)
    ) as made:
        yield made


def test_results_are_those_of_msal(server: Any, client: Any, session: requests.Session) -> None:
    """From the endpoint and from the cache, with what each platform is to be sent."""
    plain = plain_msal.ManagedIdentityClient(
        msal.SystemAssignedManagedIdentity(), http_client=session, client_capabilities=["CP1"]
    )
    for _ in range(2):
        ours, theirs = (one.acquire_token_for_client(resource=RESOURCE) for one in (client, plain))
        assert ours | {"expires_in": 0} == theirs | {"expires_in": 0}
    (_, ours_asked, _, _), (_, theirs_asked, _, _) = server.seen
    assert ours_asked == theirs_asked


def test_a_refused_token_is_replaced(server: Any, client: Any) -> None:
    """Service Fabric is told which one, by its hash."""
    client.acquire_token_for_client(resource=RESOURCE)
    granting(server, "T2")
    challenged = client.acquire_token_for_client(resource=RESOURCE, claims_challenge='{"access_token": {}}')
    assert challenged["access_token"] == "T2"
    assert client.acquire_token_for_client(resource=RESOURCE)["access_token"] == "T2"
    asked = parse_qs(urlsplit(server.seen[-1][1]).query)
    told = [hashlib.sha256(b"T1").hexdigest()] if server.platform == "Service Fabric" else None
    assert asked.get("token_sha256_to_refresh") == told


def test_a_held_token_is_served_through_an_outage(server: Any, client: Any, clock: Any) -> None:
    """To its end, on every platform; then there is an error, and no hang."""
    client.acquire_token_for_client(resource=RESOURCE)
    server.answers[PATH] = (503, {}, b"<html>")
    clock.skip(3000)
    for _ in range(3):
        assert client.acquire_token_for_client(resource=RESOURCE)["access_token"] == "T1"
    clock.skip(600)
    with pytest.raises((ra.ProviderUnavailable, ValueError)):
        client.acquire_token_for_client(resource=RESOURCE)
