"""What httpx does around a replaced token: its response hooks, its cookies, its redirects."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.downstream.signed import merged_cookies
from resilient_auth.emulator import Emulator

API = "https://api.example"


class Tokens:
    """A credential whose token is replaced when it is told that one was refused."""

    def __init__(self) -> None:
        self.number = 1

    def get_token(self, *scopes: str, claims: str | None = None) -> str:
        return f"T{self.number}"

    def suspect(self, token: str) -> None:
        self.number += token == f"T{self.number}"


def raise_for_status(response: httpx.Response) -> None:
    response.raise_for_status()


async def araise_for_status(response: httpx.Response) -> None:
    response.raise_for_status()


def test_a_hook_that_raises_for_status_keeps_no_client_from_a_new_token(
    idp: Emulator, trust: ssl.SSLContext, credential: Any
) -> None:
    """However it is given; it sees the answer that the caller gets."""
    hooks = {"response": [raise_for_status]}
    with ra.api_client(idp.api_url, credential, "api://x/.default", verify=trust, event_hooks=hooks) as client:
        assert client.get("/orders").status_code == 200
        idp.revoke("daemon")
        assert client.get("/orders").status_code == 200
        client.event_hooks = {"response": [raise_for_status]}
        idp.revoke("daemon")
        assert client.post("/orders", json={"a": 1}).json()["received"] == 7
        with pytest.raises(httpx.HTTPStatusError):
            client.get("/forbidden")


async def test_the_same_in_a_task(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """With a hook that is awaited."""
    hooks = {"response": [araise_for_status]}
    async with ra.aio.api_client(
        idp.api_url, credential, "api://x/.default", verify=trust, event_hooks=hooks
    ) as client:
        assert (await client.get("/orders")).status_code == 200
        idp.revoke("daemon")
        assert (await client.get("/orders")).status_code == 200


def test_a_transport_of_ours_below_an_auth_does_it_too(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """In a client that its owner puts together."""
    with httpx.Client(
        transport=ra.ResilientTransport(httpx.HTTPTransport(verify=trust)),
        auth=ra.BearerAuth(credential, "api://x/.default"),
        event_hooks={"response": [raise_for_status]},
    ) as client:
        client.get(f"{idp.api_url}/orders")
        idp.revoke("daemon")
        assert client.get(f"{idp.api_url}/orders").status_code == 200


class Body(httpx.SyncByteStream):
    """Isn't read unless somebody does."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"no"


class Api(httpx.BaseTransport):
    """Takes T2 alone; a refusal sets a cookie, and `/moved` leads to `/orders`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        b"".join(request.stream)
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append((request.url.path, token, request.headers.get("Cookie")))
        if token != "T2":
            headers = [("Set-Cookie", cookie) for cookie in ("affinity=b; Path=/", "of=else; Path=/x")]
            return httpx.Response(401, headers=headers, stream=Body())
        if request.url.path == "/moved":
            return httpx.Response(307, headers={"Location": "/orders"})
        return httpx.Response(200)


@pytest.mark.parametrize("kind", ["BearerAuth", "api_client"])
def test_what_a_401_has_set_is_sent(kind: str) -> None:
    """In place of what was sent under its name, in redirects too, and it is kept in the client."""
    api = Api()
    cookies = {"affinity": "a", "own": "1"}
    if kind == "BearerAuth":
        client = httpx.Client(auth=ra.BearerAuth(Tokens(), "s"), transport=api, cookies=cookies)
    else:
        client = ra.api_client(API, Tokens(), "s", transport=api, cookies=cookies)
    with client:
        assert client.get(f"{API}/moved", follow_redirects=True).status_code == 200
    assert [(path, token) for path, token, _ in api.seen] == [("/moved", "T1"), ("/moved", "T2"), ("/orders", "T2")]
    assert [sorted((sent or "").split("; ")) for _, _, sent in api.seen[:2]] == [
        ["affinity=a", "own=1"],
        ["affinity=b", "own=1"],
    ]
    assert "affinity=b" in (api.seen[2][2] or "")
    assert client.cookies.get("affinity", domain="api.example") == "b"


@pytest.mark.parametrize(
    ("sent", "new", "merged"),
    [
        (None, "a=1", "a=1"),
        ("", "a=1", "a=1"),
        ("a=0", "a=1", "a=1"),
        ("a=0; b=2", "a=1", "a=1; b=2"),
        ("a=0; b=x=y", "c=1", "a=0; b=x=y; c=1"),
    ],
)
def test_cookies_are_merged_by_name(sent: str | None, new: str, merged: str) -> None:
    """Those that were set go in place of those that were sent."""
    assert merged_cookies(sent, new) == merged


@pytest.mark.parametrize("kind", ["BearerAuth", "api_client"])
def test_a_stream_that_is_gone_has_the_token_replaced_for_the_next_one(kind: str) -> None:
    """Not sending again isn't not replacing; and the 401 can be read."""
    api = Api()
    auth: Any = {"auth": ra.BearerAuth(Tokens(), "s")}
    client = (
        httpx.Client(transport=api, **auth)
        if kind == "BearerAuth"
        else ra.api_client(API, Tokens(), "s", transport=api)
    )
    with client:
        with client.stream("POST", f"{API}/orders", content=iter([b"x"])) as answer:
            assert answer.status_code == 401
            assert b"".join(answer.iter_raw()) == b"no"
        assert client.post(f"{API}/orders", content=iter([b"x"])).status_code == 200
    assert [token for _, token, _ in api.seen] == ["T1", "T2"]


@pytest.mark.parametrize("below", [True, False], ids=["pipeline", "auth"])
@pytest.mark.parametrize("how", ["another origin", "another token"])
def test_a_401_to_what_we_did_not_send_there_replaces_no_token(below: bool, how: str) -> None:
    """A hook may send our token on to where a redirect leads, or another one in its place: that is its own affair."""
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers["Authorization"]))
        if how == "another origin" and request.url.host == "api.example":
            return httpx.Response(307, headers={"Location": "https://elsewhere.example/orders"})
        return httpx.Response(401)

    def hook(request: httpx.Request) -> None:
        request.headers["Authorization"] = "Bearer T1" if how == "another origin" else "Bearer mine"

    credential, plain = Tokens(), httpx.MockTransport(answer)
    with httpx.Client(
        transport=ra.ResilientTransport(plain) if below else plain,
        auth=ra.BearerAuth(credential, "api://x/.default", origins="https://api.example"),
        event_hooks={"request": [hook]},
        follow_redirects=True,
    ) as client:
        assert client.get("https://api.example/orders").status_code == 401
    assert credential.number == 1
    assert len(seen) == (2 if how == "another origin" else 1)


@pytest.mark.parametrize("below", [True, False], ids=["pipeline", "auth"])
def test_an_api_that_always_asks_for_something_else_is_asked_three_times(below: bool) -> None:
    """Each challenge with claims of its own is met, for two successors at most (G17)."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        assert len(seen) < 9
        claims = base64.b64encode(json.dumps({"access_token": {"nbf": {"value": str(len(seen))}}}).encode()).decode()
        challenge = f'Bearer error="insufficient_claims", claims="{claims}"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    given = itertools.count(1)

    def credential(claims: str | None = None) -> str:
        return f"T{next(given)}"

    plain = httpx.MockTransport(answer)
    with httpx.Client(
        transport=ra.ResilientTransport(plain) if below else plain, auth=ra.BearerAuth(credential)
    ) as client:
        assert client.get("https://api.example/orders").status_code == 401
    assert len(set(seen)) == len(seen) == 3
