"""Kiota's adapter, on which Microsoft Graph's SDK is built, is given tokens for allowed hosts alone."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from kiota_abstractions.method import Method
from kiota_abstractions.request_information import RequestInformation
from kiota_http.httpx_request_adapter import HttpxRequestAdapter
from msgraph_core import BaseGraphRequestAdapter
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.integrations.kiota import GRAPH_HOSTS, AccessTokenProvider, AuthenticationProvider
from resilient_auth.integrations.openai import async_on_refusal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SCOPE = "https://graph.microsoft.com/.default"


class Asked:
    """A credential that notes how it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def get_token(self, *scopes: str, **options: Any) -> Any:
        self.calls.append((scopes, options))
        return type("Token", (), {"token": f"T{len(self.calls)}"})()


def get(url: str) -> RequestInformation:
    wanted = RequestInformation(Method.GET)
    wanted.url = url
    return wanted


async def send(adapter: Any, url: str) -> Any:
    return await adapter.get_http_response_message(get(url), adapter.start_tracing_span(get(url), "test"))


@pytest.mark.parametrize("kind", [ra.ResilientCredential, ra.aio.ResilientCredential])
def test_its_requests_are_signed_and_a_claims_challenge_is_met(issuer: Issuer, kind: Any) -> None:
    """With the emulator's tokens, in two loops one after the other."""
    app = msal.ConfidentialClientApplication(
        "daemon",
        authority=issuer.idp.authority("contoso"),
        client_credential="s3cret",
        instance_discovery=False,
        verify=issuer.idp.ca_file,
    )
    credential = kind(app)
    provider = AuthenticationProvider(credential, "api://orders/.default", allowed_hosts=["localhost"])

    refused: set[str] = set()
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"].removeprefix("Bearer "))
        assert issuer.idp.ledger.is_valid(seen[-1])
        if seen[-1] not in refused:
            return httpx.Response(200)
        wanted = {"access_token": {"nbf": {"essential": True, "value": str(len(seen))}}}
        claims = base64.b64encode(json.dumps(wanted).encode()).decode()
        challenge = f'Bearer realm="", error="insufficient_claims", claims="{claims}"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    async def run() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            adapter = HttpxRequestAdapter(provider, http_client=client)
            first = await send(adapter, "https://localhost/me")
            refused.add(seen[-1])
            return [first.status_code, (await send(adapter, "https://localhost/me")).status_code]

    assert asyncio.run(run()) == [200, 200]
    assert asyncio.run(run()) == [200, 200]
    assert len(set(seen)) == 3
    app.close()


async def test_other_hosts_are_asked_without_it() -> None:
    """Graph's SDK follows links that answers name."""
    credential, seen = Asked(), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        adapter = BaseGraphRequestAdapter(AuthenticationProvider(credential), http_client=client)
        for host in ("graph.microsoft.com", "graph.microsoft.com.example", "files.example", "GRAPH.microsoft.com"):
            await send(adapter, f"https://{host}/v1.0/me")
    assert [bool(token) for _, token in seen] == [True, False, False, True]
    assert {scopes for scopes, _ in credential.calls} == {(SCOPE,)}


async def test_a_plain_401_is_told_by_a_hook_in_its_client() -> None:
    """The adapter tells nobody."""
    told: list[str] = []
    credential = Asked()
    credential.invalidate = told.append  # type: ignore[attr-defined]
    hooks = {"response": [async_on_refusal(credential)]}
    transport = httpx.MockTransport(lambda request: httpx.Response(401))
    async with httpx.AsyncClient(transport=transport, event_hooks=hooks) as client:
        adapter = HttpxRequestAdapter(AuthenticationProvider(credential), http_client=client)
        assert (await send(adapter, "https://graph.microsoft.com/v1.0/me")).status_code == 401
    assert told == ["T1"]


async def test_claims_are_passed_on_as_json_and_nonsense_asks_for_nothing_more() -> None:
    """As the adapter hands them over: in base64, with padding or without, or whatever an API sent."""
    credential = Asked()
    provider = AccessTokenProvider(credential, tenant_id="fabrikam")
    claims = json.dumps({"access_token": {"nbf": {"essential": True, "value": "17"}}})
    encoded = base64.b64encode(claims.encode()).decode()
    for challenge in (encoded, encoded.rstrip("="), "!!", 'x", claims="y', "", None, "[]"):
        await provider.get_authorization_token("https://graph.microsoft.com/v1.0/me", {"claims": challenge})
    asked = [options.get("claims") for _, options in credential.calls]
    assert [json.loads(each) if each else None for each in asked[:2]] == [json.loads(claims)] * 2
    assert asked[2:] == [None] * 5
    assert all(options["tenant_id"] == "fabrikam" and options["enable_cae"] for _, options in credential.calls)


async def test_it_does_not_go_over_http() -> None:
    """Nobody on the way is to read it."""
    provider = AccessTokenProvider(Asked(), SCOPE, allowed_hosts=["graph.microsoft.com", "localhost"])
    with pytest.raises(ra.ConfigurationError, match="use https"):
        await provider.get_authorization_token("http://graph.microsoft.com/v1.0/me")
    with pytest.raises(ra.ConfigurationError, match="use https"):
        await provider.get_authorization_token("http://localhost/me")
    local = AccessTokenProvider(Asked(), SCOPE, allowed_hosts=["localhost"], allow_http_loopback=True)
    assert await local.get_authorization_token("http://localhost/me")


def test_bad_input_is_named() -> None:
    """No list of hosts means every host to Kiota; here it must be said which."""
    for options in ({}, {"allowed_hosts": []}, {"allowed_hosts": "api.example"}, {"allowed_hosts": ["https://x"]}):
        with pytest.raises(ra.ConfigurationError, match="allowed_hosts must"):
            AccessTokenProvider(Asked(), SCOPE, **options)  # type: ignore[arg-type]
    with pytest.raises(ra.ConfigurationError, match="at least one scope"):
        AccessTokenProvider(Asked(), allowed_hosts=["api.example"])
    with pytest.raises(ra.ConfigurationError, match="the credential must have"):
        AuthenticationProvider("token")
    assert set(AccessTokenProvider(Asked()).get_allowed_hosts_validator().get_allowed_hosts()) == set(GRAPH_HOSTS)
