"""The same auth and transports in httpx2's clients, with errors that are both ours and its own."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

httpx2 = pytest.importorskip("httpx2")

import httpx  # noqa: E402

import resilient_auth as ra  # noqa: E402
from resilient_auth.downstream import ApiCircuitOpen, TokenUnavailable  # noqa: E402
from resilient_auth.downstream.connections import bound  # noqa: E402
from resilient_auth.integrations import httpx2 as ours  # noqa: E402

API = "https://api.example/"


def test_a_refused_token_is_replaced() -> None:
    """Once, as in httpx."""
    tokens = iter(["T1", "T2"])

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200 if request.headers["Authorization"] == "Bearer T2" else 401)

    auth = ours.BearerAuth(lambda: next(tokens))
    with httpx2.Client(transport=httpx2.MockTransport(answer), auth=auth) as client:
        assert client.post(API, json={}).status_code == 200


async def test_and_in_a_task() -> None:
    """With a credential of asyncio's."""

    async def token() -> str:
        return "T"

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text=request.headers["Authorization"]))
    async with httpx2.AsyncClient(
        transport=ours.AsyncResilientTransport(transport), auth=ours.BearerAuth(token)
    ) as client:
        assert (await client.get(API)).text == "Bearer T"


def test_faults_are_retried_and_errors_are_both_kinds() -> None:
    """`except httpx2.TransportError` and `except ApiCircuitOpen` both catch it."""
    answers: list[object] = [503, 200]

    def answer(request: httpx2.Request) -> httpx2.Response:
        told = answers.pop(0) if answers else httpx2.ConnectError("x")
        if isinstance(told, Exception):
            raise told
        return httpx2.Response(told)

    transport = ours.ResilientTransport(
        httpx2.MockTransport(answer), options=ra.TransportOptions(first_delay=0.01, attempts=2)
    )
    with httpx2.Client(transport=transport) as client:
        assert client.get(API).status_code == 200
        for _ in range(5):
            with pytest.raises(httpx2.TransportError):
                client.get(API)
        with pytest.raises(ApiCircuitOpen) as refused:
            client.get(API)
    assert isinstance(refused.value, httpx2.TransportError)
    assert isinstance(refused.value, httpx.TransportError)
    assert refused.value.retry_after


def test_a_missing_token_is_an_error_of_both() -> None:
    """Whoever catches httpx2's errors around a call catches this one."""
    auth = ours.BearerAuth(lambda: {"error": "invalid_client"})
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200))
    with httpx2.Client(transport=transport, auth=auth) as client, pytest.raises(httpx2.TransportError) as raised:
        client.get(API)
    assert isinstance(raised.value, TokenUnavailable)
    assert "invalid_client" in str(raised.value)


async def test_a_body_is_read_in_its_own_clients() -> None:
    """With a slot that is given back at its end."""

    class Parts(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __iter__(self) -> Any:
            yield b"ab"

        async def __aiter__(self) -> Any:
            yield b"ab"

    answers = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Parts()))
    transport = ours.ResilientTransport(answers)
    with httpx2.Client(transport=transport) as client:
        assert client.get(API).text == "ab"
    awaited = ours.AsyncResilientTransport(answers)
    async with httpx2.AsyncClient(transport=awaited) as client:
        assert (await client.get(API)).text == "ab"
    for one in (transport, awaited):
        assert one._pipeline.circuits.find("https://api.example").bulkhead.in_use == 0


def test_its_own_transports_are_bounded() -> None:
    """Time-outs end at a moment there too."""
    assert bound(httpx2.HTTPTransport())
    assert bound(httpx2.AsyncHTTPTransport())


@pytest.mark.parametrize("make", [ours.api_client, ours.async_api_client])
def test_a_client_is_httpx2s_own_with_all_of_that_in_it(make: Any) -> None:
    """As `ra.api_client` and `ra.aio.api_client` make httpx's."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(503 if len(asked) == 1 else 200, text=request.headers["Authorization"])

    client = make(
        httpx2.URL("https://api.example/v1/"),
        lambda: "T",
        transport=httpx2.MockTransport(answer),
        options=ra.TransportOptions(first_delay=0.01),
    )
    assert isinstance(client, (httpx2.Client, httpx2.AsyncClient))

    async def asks() -> httpx2.Response:
        async with client:
            return await client.get("orders")

    got = asyncio.run(asks()) if isinstance(client, httpx2.AsyncClient) else client.get("orders")
    assert (got.status_code, got.text) == (200, "Bearer T")
    assert [str(one.url) for one in asked] == ["https://api.example/v1/orders"] * 2
    assert client.timeout == httpx2.Timeout(10.0, connect=3.0)


@pytest.mark.parametrize("make", [ours.api_client, ours.async_api_client])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"timeout": 60}, "timeout of 60 s"),
        ({"timeout": "60"}, "timeout"),
        ({"http2": True}, "http2=True"),
        ({"base_url": "http://api.example"}, "base_url"),
        ({"base_url": httpx.URL("http://api.example")}, "base_url"),
        ({"scopes": "a"}, "scopes"),
        ({"origins": None}, "origins"),
        ({"origins": ["http://other.example"]}, "origins"),
        ({"options": {}}, "options"),
        ({"proxy": "http://p"}, "proxy"),
        ({"transport": httpx2.MockTransport(lambda _: httpx2.Response(200)), "verify": False}, "verify"),
    ],
)
def test_a_wrong_argument_is_said_at_once(make: Any, wrong: dict[str, Any], says: str) -> None:
    """By the names that httpx's twins have for them."""
    with pytest.raises(ra.ConfigurationError, match=says):
        make(**{"base_url": "https://api.example", "credential": lambda: "T"} | wrong)


@pytest.mark.parametrize("below", [False, True], ids=["plain transport", "transport of ours"])
def test_a_token_that_was_replaced_meanwhile_is_sent_before_another_one_is_asked_for(below: bool) -> None:
    """It hasn't been refused; where it is, one is asked for with the claims, and a third sending is the last one."""
    claims = '{"access_token":{"nbf":{"value":"1"}}}'
    challenge = f'Bearer error="insufficient_claims", claims="{base64.b64encode(claims.encode()).decode()}"'
    held, asked, sent = ["T1"], [], []

    def token(claims: str | None = None) -> str:
        if claims is not None:
            asked.append(claims)
            held[0] = "T3"
        return held[0]

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers["Authorization"].removeprefix("Bearer "))
        if sent == ["T1"]:
            held[0] = "T2"  # by somebody else
        good = sent[-1] == "T3"
        return httpx2.Response(200 if good else 401, headers={} if good else {"WWW-Authenticate": challenge})

    wire = httpx2.MockTransport(answer)
    hooks = {"response": [lambda told: told.raise_for_status()]} if below else {}
    with httpx2.Client(
        transport=ours.ResilientTransport(wire) if below else wire, auth=ours.BearerAuth(token), event_hooks=hooks
    ) as client:
        assert client.get(API).status_code == 200
    assert sent == ["T1", "T2", "T3"]
    assert asked == [claims]
