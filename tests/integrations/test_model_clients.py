"""openai's and anthropic's released clients are given the credential's token at each request, and tell of a 401."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from azure.core.credentials import AccessToken

import resilient_auth as ra
from resilient_auth.integrations import anthropic as for_anthropic
from resilient_auth.integrations import openai as for_openai

if TYPE_CHECKING:
    import anthropic
    import openai

#: One worker runs these, and it alone spends the seconds that the two take to be loaded.
pytestmark = pytest.mark.xdist_group("model clients")

COMPLETION = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 0, "output_tokens": 0},
}


class Api:
    """An API that refuses some tokens."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.refused: set[str] = set()
        self.seen: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append(token)
        if token in self.refused:
            return httpx2.Response(401, json={"error": {"message": "no", "type": "authentication_error"}})
        return httpx2.Response(200, json=self.body)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    globals().update((name, importlib.import_module(name)) for name in ("anthropic", "openai"))


@pytest.fixture
def issued() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def source(issued: list[tuple[str, ...]]) -> Callable[[tuple[str, ...]], AccessToken]:
    def give(scopes: tuple[str, ...]) -> AccessToken:
        issued.append(scopes)
        return AccessToken(f"T{len(issued)}", int(time.time()) + 3600)

    return give


def ask(client: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def say(client: Any) -> Any:
    return client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("kind", ["azure", "v1"])
def test_openai_takes_each_token_from_the_credential(source: Any, issued: Any, kind: str) -> None:
    """And after a 401 the next call has another one; copies of the client too."""
    credential, api = ra.ResilientCredential(source), Api(COMPLETION)
    hook = for_openai.on_refusal(credential)
    http = httpx2.Client(transport=httpx2.MockTransport(api), event_hooks={"response": [hook]})
    provider = for_openai.token_provider(credential)
    client: Any
    if kind == "azure":
        client = openai.AzureOpenAI(
            azure_endpoint="https://shop.openai.azure.com",
            api_version="2025-04-01",
            azure_ad_token_provider=provider,
            http_client=http,
        )
    else:
        client = openai.OpenAI(base_url="https://shop.openai.azure.com/openai/v1/", api_key=provider, http_client=http)
    ask(client)
    ask(client.copy())
    assert api.seen == ["T1", "T1"]
    api.refused.add("T1")
    with pytest.raises(openai.AuthenticationError):
        ask(client)
    ask(client)
    assert api.seen == ["T1", "T1", "T1", "T2"]
    assert issued == [("https://cognitiveservices.azure.com/.default",)] * 2


@pytest.mark.parametrize("face", ["coroutine", "blocking"])
def test_openais_awaited_clients_take_both_kinds_in_any_loop(source: Any, face: str) -> None:
    """One client a loop, one credential for both."""
    credential = (ra.aio.ResilientCredential if face == "coroutine" else ra.ResilientCredential)(source)
    api = Api(COMPLETION)

    async def run() -> None:
        http = httpx2.AsyncClient(
            transport=httpx2.MockTransport(api),
            event_hooks={"response": [for_openai.async_on_refusal(credential)]},
        )
        provider = for_openai.async_token_provider(credential, "https://ai.azure.com/.default")
        async with openai.AsyncOpenAI(base_url="https://x.example/v1", api_key=provider, http_client=http) as client:
            await ask(client)
            api.refused.add(api.seen[-1])
            with pytest.raises(openai.AuthenticationError):
                await ask(client)
            await ask(client)

    asyncio.run(run())
    asyncio.run(run())
    assert api.seen == ["T1", "T1", "T2", "T2", "T2", "T3"]


def test_openai_shows_the_credentials_own_error(source: Any) -> None:
    """It is no error of the API's: openai doesn't try again."""

    def down(scopes: tuple[str, ...]) -> Any:
        raise ConnectionError("nobody there")

    credential = ra.ResilientCredential(down, settings=ra.Settings(wait=0.5))
    client = openai.OpenAI(
        base_url="https://x.example/v1",
        api_key=for_openai.token_provider(credential),
        http_client=httpx2.Client(transport=httpx2.MockTransport(Api(COMPLETION))),
    )
    with pytest.raises(ra.ProviderUnavailable):
        ask(client)


def test_foundry_takes_each_token_from_the_credential(source: Any, issued: Any) -> None:
    """With the scope of Microsoft Foundry."""
    credential, api = ra.ResilientCredential(source), Api(MESSAGE)
    hook = for_openai.on_refusal(credential)  # for any client of httpx's or httpx2's
    client = anthropic.AnthropicFoundry(
        resource="shop",
        azure_ad_token_provider=for_anthropic.token_provider(credential),
        http_client=httpx2.Client(transport=httpx2.MockTransport(api), event_hooks={"response": [hook]}),
    )
    say(client)
    api.refused.add("T1")
    with pytest.raises(anthropic.AuthenticationError):
        say(client)
    say(client)
    assert api.seen == ["T1", "T1", "T2"]
    assert issued == [("https://ai.azure.com/.default",)] * 2


async def test_foundrys_awaited_client_does_so_too(source: Any) -> None:
    """With a credential that blocks."""
    credential, api = ra.ResilientCredential(source), Api(MESSAGE)
    client = anthropic.AsyncAnthropicFoundry(
        resource="shop",
        azure_ad_token_provider=for_anthropic.async_token_provider(credential),
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(api)),
    )
    await say(client)
    assert api.seen == ["T1"]


def test_anthropics_own_credentials_argument_tells_of_a_401(source: Any) -> None:
    """Its client asks again at once, and the call goes through."""
    credential, api = ra.ResilientCredential(source), Api(MESSAGE)
    client = anthropic.Anthropic(
        base_url="https://gateway.example",
        credentials=for_anthropic.Credentials(credential, "api://gateway/.default"),
        http_client=httpx2.Client(transport=httpx2.MockTransport(api)),
    )
    say(client)
    api.refused.add("T1")
    say(client)
    say(client)
    assert api.seen == ["T1", "T1", "T2", "T2"]


@pytest.mark.parametrize("face", ["coroutine", "blocking"])
async def test_and_that_of_its_awaited_client(source: Any, face: str) -> None:
    """For both kinds of credential."""
    credential = (ra.aio.ResilientCredential if face == "coroutine" else ra.ResilientCredential)(source)
    api = Api(MESSAGE)
    client = anthropic.AsyncAnthropic(
        base_url="https://gateway.example",
        credentials=for_anthropic.AsyncCredentials(credential, "api://gateway/.default"),
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(api)),
    )
    await say(client)
    api.refused.add("T1")
    await say(client)
    assert api.seen == ["T1", "T1", "T2"]


@pytest.mark.parametrize("knows", [True, False])
async def test_a_credential_that_can_serve_a_refused_token_on_is_told_so(knows: bool) -> None:
    """A 401 proves nothing: such a credential asks for a successor first."""
    told: list[tuple[str, str]] = []

    class Told:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            return AccessToken("T1", 9999999999)

        def invalidate(self, token: str) -> None:
            told.append(("invalidate", token))

    credential = Told()
    if knows:
        credential.suspect = lambda token: told.append(("suspect", token))  # type: ignore[attr-defined]
    refused = httpx2.Response(401, request=httpx2.Request("GET", "https://x", headers={"Authorization": "Bearer T1"}))
    for_openai.on_refusal(credential)(refused)
    await for_openai.async_on_refusal(credential)(refused)
    given = for_anthropic.Credentials(credential, "api://gateway/.default")
    given()
    given(force_refresh=True)
    assert told == [("suspect" if knows else "invalidate", "T1")] * 3


def test_bad_input_is_named(source: Any) -> None:
    """Before anything is asked of anybody."""
    awaited = ra.aio.ResilientCredential(source)
    for make in (for_openai.token_provider, for_anthropic.token_provider):
        with pytest.raises(ra.ConfigurationError, match="asyncio"):
            make(awaited)
    for wrong in (None, source, ra.ResilientCredential):
        with pytest.raises(ra.ConfigurationError, match="credential must have invalidate"):
            for_openai.on_refusal(wrong)
    with pytest.raises(ra.ConfigurationError, match="async_on_refusal"):
        for_openai.on_refusal(awaited)
    with pytest.raises(ra.ConfigurationError, match="scopes must"):
        for_anthropic.Credentials(ra.ResilientCredential(source))
