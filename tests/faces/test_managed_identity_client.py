"""Managed identity, as virtual machines and App Service offer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest
import requests

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import ExchangeDenied, TokenAcquired
from resilient_auth.testing import capture_events

RESOURCE = "https://vault.azure.net"
WHO = msal.SystemAssignedManagedIdentity()
pytestmark = pytest.mark.parametrize("platform", ["imds", "app service"])


@pytest.fixture(autouse=True)
def _platform(idp: Emulator, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform == "imds":
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)
    else:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{idp.metadata_url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "the-secret-header")


@pytest.fixture
def client(settings) -> Iterator[Callable[..., Any]]:
    built: list[Any] = []

    def build(identity: Any = WHO, **options: Any) -> Any:
        built.append(msal.ManagedIdentityClient(identity, **{"resilience": settings()} | options))
        return built[-1]

    yield build
    for made in built:
        made.close()


@pytest.fixture
def plain() -> Iterator[Callable[..., Any]]:
    with requests.Session() as session:
        yield lambda identity=WHO: plain_msal.ManagedIdentityClient(identity, http_client=session)


def shape(result: dict[str, Any]) -> dict[str, Any]:
    return {k: type(v) for k, v in result.items()}


@pytest.mark.parametrize(
    "identity",
    [WHO, msal.UserAssignedManagedIdentity(client_id="c"), msal.UserAssignedManagedIdentity(resource_id="/r")],
    ids=["system", "client id", "resource id"],
)
def test_results_are_those_of_msal(idp: Emulator, client, plain, identity):
    """The same keys and types, from the endpoint and from memory."""
    ours, theirs = client(identity), plain(identity)
    for _ in range(2):
        mine, other = (
            ours.acquire_token_for_client(resource=RESOURCE),
            theirs.acquire_token_for_client(resource=RESOURCE),
        )
        assert shape(mine) == shape(other)
        assert mine["token_source"] == other["token_source"]
        assert abs(mine["expires_in"] - other["expires_in"]) <= 2
    assert len(idp.ledger.calls) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault.refuse(),
        Fault.black_hole(),
        Fault.http_503(),
        Fault.status(410),
        Fault.status(403, "<html>The proxy says no</html>"),
        Fault.html_200(),
        Fault.json_array(),
        Fault.http_429(),
    ],
    ids=lambda fault: fault.name,
)
def test_a_held_token_is_served_through_an_outage(idp: Emulator, client, clock, eventually, fault):
    """While the endpoint fails the token in hand is served, and a fresh one comes after."""
    app = client()
    held = app.acquire_token_for_client(resource=RESOURCE)["access_token"]
    idp.fail(fault, "managed_identity")
    clock.skip(2400)
    answer = app.acquire_token_for_client(resource=RESOURCE)
    assert answer["access_token"] == held
    idp.heal()
    clock.skip(200)

    def fresh() -> bool:
        clock.skip(10)
        return app.acquire_token_for_client(resource=RESOURCE)["access_token"] != held

    eventually(fresh)


def test_an_endpoint_that_fails_is_a_typed_error(idp: Emulator, client, hasty):
    """With nothing in hand the caller learns in time, as it would from requests."""
    app = client(resilience=hasty)
    idp.fail(Fault.http_503(), "managed_identity")
    with pytest.raises(requests.RequestException) as caught:
        app.acquire_token_for_client(resource=RESOURCE)
    assert caught.value.authority == idp.metadata_url


def test_a_claims_challenge_drops_the_token(idp: Emulator, client):
    """The token that an API refused is replaced."""
    app = client()
    held = app.acquire_token_for_client(resource=RESOURCE)["access_token"]
    fresh = app.acquire_token_for_client(resource=RESOURCE, claims_challenge='{"access_token": {}}')
    assert fresh["access_token"] != held
    assert app.acquire_token_for_client(resource=RESOURCE)["access_token"] == fresh["access_token"]


def test_a_refused_token_is_not_a_fallback(idp: Emulator, client, hasty):
    """After a claims challenge an outage gives an error, not what was refused."""
    app = client(resilience=hasty)
    app.acquire_token_for_client(resource=RESOURCE)
    idp.fail(Fault.http_503(), "managed_identity")
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(resource=RESOURCE, claims_challenge='{"access_token": {}}')
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(resource=RESOURCE)


def test_many_cold_callers_cause_one_call(idp: Emulator, client, together):
    """One exchange serves all who wait."""
    idp.fail(Fault.slow(0.3), "managed_identity")
    app = client()
    answers = together(50, lambda: app.acquire_token_for_client(resource=RESOURCE))
    assert len({answer["access_token"] for answer in answers}) == 1
    assert len(idp.ledger.calls) == 1


async def test_the_asynchronous_face(idp: Emulator, client, plain):
    """The same, awaited; a held token without a turn of the loop; a client of MSAL's may be wrapped."""
    for app in (ra.aio.wrap(client()), ra.aio.wrap(plain())):
        first = await app.acquire_token_for_client(resource=RESOURCE)
        await app.acquire_token_for_client(resource=RESOURCE)
        with pytest.raises(StopIteration) as ended:
            app.acquire_token_for_client(resource=RESOURCE).send(None)
        assert ended.value.value["access_token"] == first["access_token"]
        await app.close()
        with pytest.raises(ra.Closed):
            await app.acquire_token_for_client(resource=RESOURCE)


@pytest.mark.parametrize("resource", ["", "  ", None, ["https://vault.azure.net"]])
def test_a_resource_must_be_one_string(idp: Emulator, client, resource):
    """A wrong resource is told by name, and nobody is asked."""
    with pytest.raises(ra.ConfigurationError, match="resource"):
        client().acquire_token_for_client(resource=resource)
    assert not idp.ledger.calls


def test_a_pinned_token_comes_without_traffic(idp: Emulator, client, eventually):
    """`keep_fresh` gets the token ahead of the first call (G5)."""
    app = client()
    app.keep_fresh(resource=RESOURCE)
    eventually(lambda: len(idp.ledger.calls) == 1)


def test_the_owners_client_is_the_wire_and_subclasses_hold(idp: Emulator, client):
    """The http_client that MSAL demands is used, and `isinstance` holds."""
    with requests.Session() as session:
        seen: list[str] = []
        session.hooks["response"].append(lambda response, *_, **__: seen.append(response.url))
        app = client(http_client=session)
        assert isinstance(app, plain_msal.ManagedIdentityClient)
        assert app.acquire_token_for_client(resource=RESOURCE)["access_token"]
        assert seen


@pytest.mark.parametrize(
    "left_over",
    [
        {"MSI_ENDPOINT": "http://localhost:50342/oauth2/token"},
        {"MSI_SECRET": "s", "IMDS_ENDPOINT": "http://localhost:1"},
    ],
    ids=["cloud shell's", "halves"],
)
def test_the_endpoint_that_is_asked_is_the_one_that_is_named(idp: Emulator, client, monkeypatch, left_over):
    """MSAL takes an endpoint with what belongs to it alone; who reads of an outage is to look at the right one."""
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    with capture_events() as events:
        client().acquire_token_for_client(resource=RESOURCE)
        told = events.wait_for(TokenAcquired)[0]
    assert told.request.authority == idp.metadata_url


@pytest.mark.parametrize("besides", ["MSI_SECRET", "IMDS_ENDPOINT"])
def test_other_platforms_endpoints_are_named_too(idp: Emulator, client, monkeypatch, platform, besides):
    """Those of Azure Machine Learning and of Azure Arc, which answers what is no challenge here: a denial."""
    for name in ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name, raising=False)
    ours = "MSI_ENDPOINT" if besides == "MSI_SECRET" else "IDENTITY_ENDPOINT"
    monkeypatch.setenv(ours, f"{idp.metadata_url}/metadata/identity/oauth2/token")
    monkeypatch.setenv(besides, "http://localhost:1")
    with capture_events() as events:
        assert "error" in client().acquire_token_for_client(resource=RESOURCE)
        told = events.wait_for(ExchangeDenied)[0]
    assert told.request.authority == idp.metadata_url
