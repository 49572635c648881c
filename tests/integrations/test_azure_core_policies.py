"""azure-core's pipelines with policies that tell the credential of a plain 401, and hold no token themselves."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import RedirectPolicy, RetryPolicy
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.core.rest import HttpRequest
from refused_tokens import CHALLENGE, Blocking, Source

import resilient_auth as ra
from resilient_auth.integrations.azure_core import AsyncBearerTokenPolicy, BearerTokenPolicy

SCOPE = "https://vault.azure.net/.default"


class Api:
    """An API over http on loopback that refuses some tokens."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.seen: list[tuple[str, bytes]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                api.seen.append((token, self.rfile.read(int(self.headers.get("Content-Length", 0)))))
                self.send_response(401 if token in api.refused else 200)
                if api.refused.get(token):
                    self.send_header("WWW-Authenticate", api.refused[token])
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://localhost:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


def send(policy: Any, url: str, *, stream: bool = False, **content: Any) -> int:
    with PipelineClient(
        url, policies=[RedirectPolicy(), RetryPolicy(retry_total=0), policy], transport=RequestsTransport()
    ) as client:
        response = client.send_request(HttpRequest("POST", url, **content), stream=stream)
        response.read()
        return response.status_code


async def send_async(policy: Any, url: str, **content: Any) -> int:
    async with AsyncPipelineClient(url, policies=[policy], transport=AioHttpTransport()) as client:
        response = await client.send_request(HttpRequest("POST", url, **content))
        await response.read()
        return response.status_code


@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_401_is_told_to_the_credential(api: Api, stream: bool) -> None:
    """azure-core's own policy would send the same token for as long as it is valid."""
    source = Blocking()
    policy = BearerTokenPolicy(source, SCOPE, allow_http_loopback=True)
    api.refused = {"T1": ""}
    assert send(policy, api.url, json={"a": 1}, stream=stream) == 200
    assert send(policy, api.url) == 200
    assert [token for token, _ in api.seen] == ["T1", "T2", "T2"]
    assert api.seen[0][1] == api.seen[1][1] == b'{"a": 1}'
    assert source.forgotten == ["T1"]


def test_and_in_tasks_of_two_loops(api: Api) -> None:
    """With a credential of asyncio's."""
    policy = AsyncBearerTokenPolicy(Source(), SCOPE, allow_http_loopback=True)
    api.refused = {"T1": ""}
    assert asyncio.run(send_async(policy, api.url, content=b"body")) == 200
    api.refused["T2"] = CHALLENGE
    assert asyncio.run(send_async(policy, api.url, content=b"body")) == 200
    assert [token for token, _ in api.seen] == ["T1", "T2", "T2", "T3"]


def test_a_body_that_is_gone_is_not_sent_again_and_a_file_is(api: Api) -> None:
    api.refused = {"T1": ""}
    for body, status in ((iter([b"once"]), 401), (io.BytesIO(b"a file"), 200)):
        policy = BearerTokenPolicy(Blocking(), SCOPE, allow_http_loopback=True)
        assert send(policy, api.url, content=body, headers={"Content-Length": "6"} if status == 200 else None) == status
    assert [body for _, body in api.seen][-2:] == [b"a file", b"a file"]


def test_an_api_that_refuses_everything_is_not_asked_without_end(api: Api, clock: Any) -> None:
    """And costs no exchange a request."""
    source = Blocking()
    api.refused = {f"T{number}": "" for number in range(9)}
    policy = BearerTokenPolicy(source, SCOPE, allow_http_loopback=True, clock=clock)
    assert [send(policy, api.url), send(policy, api.url)] == [401, 401]
    assert (len(api.seen), source.forgotten) == (3, ["T1"])


def test_the_token_goes_to_the_named_origins_alone(api: Api) -> None:
    policy = BearerTokenPolicy(Blocking(), SCOPE, origins=["https://shop.vault.azure.net"], allow_http_loopback=True)
    assert send(policy, api.url) == 200
    assert api.seen == [("", b"")]


def test_no_token_is_an_error_of_azure_cores_too(api: Api) -> None:
    """From a function, as from a credential; nothing is sent."""

    def down(scopes: tuple[str, ...]) -> Any:
        raise ConnectionError("nobody there")

    credential = ra.ResilientCredential(down, settings=ra.Settings(wait=0.3))
    for policy in (
        BearerTokenPolicy(lambda: {"error": "invalid_client"}, allow_http_loopback=True),
        BearerTokenPolicy(credential, SCOPE, allow_http_loopback=True),
    ):
        with pytest.raises(ClientAuthenticationError) as caught:
            send(policy, api.url)
        assert isinstance(caught.value, ra.ResilientAuthError)
    assert not api.seen


def test_bad_input_is_named(api: Api) -> None:
    for wrong, said in (("token", "the credential must have"), (Blocking(), "at least one scope")):
        with pytest.raises(ra.ConfigurationError, match=said):
            BearerTokenPolicy(wrong)
    with pytest.raises(ra.ConfigurationError, match="https"):
        send(BearerTokenPolicy(Blocking(), SCOPE), api.url)
    with pytest.raises(ra.ConfigurationError, match="async credential"):
        send(BearerTokenPolicy(Source(), SCOPE, allow_http_loopback=True), api.url)
