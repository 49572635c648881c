"""aiohttp's sessions send the credential's token, and replace one that was refused, by a client middleware."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from azure.core.credentials import AccessToken
from refused_tokens import CHALLENGE, CLAIMS, Blocking, Source

import resilient_auth as ra
from resilient_auth.downstream import TokenUnavailable
from resilient_auth.integrations.aiohttp import BearerMiddleware


class Api:
    """An API that refuses some tokens, and says where else to go."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.seen: list[tuple[str, bytes]] = []
        self.elsewhere = ""

    async def answer(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen.append((token, await request.read()))
        if request.path == "/moved":
            return web.Response(status=307, headers={"Location": self.elsewhere})
        if token in self.refused:
            header = self.refused[token]
            return web.Response(status=401, headers={"WWW-Authenticate": header} if header else {})
        return web.Response(text=token)


@pytest.fixture
async def api() -> AsyncIterator[Any]:
    api = Api()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.answer)
    async with TestServer(app) as server:
        api.url = str(server.make_url("/")).replace("127.0.0.1", "localhost")  # type: ignore[attr-defined]
        api.other = str(server.make_url("/"))  # type: ignore[attr-defined]
        yield api


def session(credential: Any, *scopes: str, **options: Any) -> aiohttp.ClientSession:
    middleware = BearerMiddleware(credential, *scopes or ("api://a/.default",), allow_http_loopback=True, **options)
    return aiohttp.ClientSession(middlewares=[middleware])


@pytest.mark.parametrize("kind", [Source, Blocking])
async def test_a_refused_token_is_replaced(api: Any, kind: Any) -> None:
    """Once, with the body sent again; the next request has the new one at once."""
    source = kind()
    api.refused = {"T1": ""}
    async with session(source) as client:
        async with client.post(api.url, json={"a": 1}) as response:
            assert await response.text() == "T2"
        async with client.get(api.url) as response:
            assert response.status == 200
    assert [token for token, _ in api.seen] == ["T1", "T2", "T2"]
    assert api.seen[0][1] == api.seen[1][1] == b'{"a": 1}'
    assert source.forgotten == ["T1"]


async def test_a_claims_challenge_is_met_with_its_claims(api: Any) -> None:
    source = Source()
    api.refused = {"T1": CHALLENGE}
    async with session(source) as client, client.get(api.url) as response:
        assert await response.text() == "T2"
    assert json.loads(source.asked[-1] or "") == json.loads(CLAIMS)


async def test_an_api_that_refuses_everything_is_asked_twice_and_then_once(api: Any, clock: Any) -> None:
    """Its answer is the caller's; a while later it gets another try."""
    api.refused = {f"T{number}": "" for number in range(9)}
    async with session(Source(), clock=clock) as client:
        for _ in range(2):
            async with client.get(api.url) as response:
                assert response.status == 401
        assert len(api.seen) == 3
        clock.skip(31)
        async with client.get(api.url) as response:
            assert response.status == 401
        assert len(api.seen) == 5


async def test_a_body_that_is_gone_is_not_sent_again(api: Any) -> None:
    """One that is a file is, from its beginning."""
    api.refused = {"T1": ""}

    async def parts() -> AsyncIterator[bytes]:
        yield b"once"

    async with session(Source()) as client, client.post(api.url, data=parts()) as response:
        assert response.status == 401
    async with session(Source()) as client, client.post(api.url, data=io.BytesIO(b"a file")) as response:
        assert response.status == 200
    assert [body for _, body in api.seen] == [b"once", b"a file", b"a file"]


async def test_another_origin_gets_no_token(api: Any) -> None:
    """Neither when it is asked, nor when a redirect leads there."""
    api.elsewhere = api.other
    async with session(Source()) as client:
        async with client.get(f"{api.url}moved") as response:
            assert response.status == 200
        async with client.get(api.other) as response:
            assert response.status == 200
    assert [token for token, _ in api.seen] == ["T1", "", ""]


def test_one_middleware_works_in_two_loops() -> None:
    """Sessions belong to a loop, credentials and middlewares don't."""
    middleware = BearerMiddleware(Source(), "api://a/.default", allow_http_loopback=True)
    api = Api()
    api.refused = {"T1": ""}

    async def run() -> str:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", api.answer)
        async with (
            TestServer(app, port=port) as server,
            aiohttp.ClientSession(middlewares=[middleware]) as client,
            client.get(server.make_url("/")) as response,
        ):
            return await response.text()

    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert [asyncio.run(run()), asyncio.run(run())] == ["T2", "T2"]


async def test_no_token_is_an_error_of_aiohttps_too(api: Any) -> None:
    """Whoever catches aiohttp's errors around a call catches this one."""

    def down(scopes: tuple[str, ...]) -> Any:
        raise ConnectionError("nobody there")

    credential = ra.aio.ResilientCredential(down, settings=ra.Settings(wait=0.3))
    async with session(credential) as client:
        with pytest.raises(aiohttp.ClientError) as caught:
            await client.get(api.url)
    assert isinstance(caught.value, TokenUnavailable)
    assert isinstance(caught.value, ra.ProviderUnavailable)
    assert not api.seen


async def test_a_plain_401_in_an_outage_of_the_provider_takes_nothing_away(api: Any) -> None:
    """It proves nothing: the answer is the API's, and the token is sent on."""
    given: list[int] = []

    def source(scopes: tuple[str, ...]) -> Any:
        if given:
            raise ConnectionError("nobody there")
        given.append(1)
        return AccessToken("T1", int(time.time()) + 3600)

    credential = ra.aio.ResilientCredential(source, settings=ra.Settings(wait=0.5))
    api.refused = {"T1": ""}
    async with session(credential) as client:
        async with client.get(api.url) as response:
            assert response.status == 401
        api.refused = {}
        async with client.get(api.url) as response:
            assert await response.text() == "T1"


async def test_the_sessions_time_out_ends_a_wait_for_a_token(api: Any) -> None:
    class Hangs(Source):
        async def get_token(self, *scopes: str, **options: Any) -> Any:
            await asyncio.sleep(20)

    async with session(Hangs()) as client:
        with pytest.raises(TimeoutError):
            await client.get(api.url, timeout=aiohttp.ClientTimeout(total=0.1))


async def test_bad_input_is_named() -> None:
    for wrong, said in (("token", "the credential must have"), (Source(), "at least one scope")):
        with pytest.raises(ra.ConfigurationError, match=said):
            BearerMiddleware(wrong)
    with pytest.raises(ra.ConfigurationError, match="origins"):
        BearerMiddleware(Source(), "api://a/.default", origins=["api.example/path"])
    async with aiohttp.ClientSession(middlewares=[BearerMiddleware(Source(), "api://a/.default")]) as client:
        with pytest.raises(ra.ConfigurationError, match="https"):
            await client.get("http://api.example/")
