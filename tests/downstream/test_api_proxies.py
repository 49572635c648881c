"""API clients behind proxies: as httpx and requests read the environment, and a proxy's fault is never the API's."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import httpx2
import pytest

import resilient_auth as ra
from resilient_auth.downstream import ApiConnectionRefused, ApiNameNotResolved, BreakerOptions, TransportOptions
from resilient_auth.emulator import Emulator
from resilient_auth.integrations import httpx2 as of_httpx2

ONE = TransportOptions(attempts=1, breaker=BreakerOptions(consecutive_failures=1))
KINDS = {
    "httpx": (httpx, ra.api_client),
    "httpx tasks": (httpx, ra.aio.api_client),
    "httpx2": (httpx2, of_httpx2.api_client),
    "httpx2 tasks": (httpx2, of_httpx2.async_api_client),
}


@pytest.fixture(autouse=True)
def _no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return KINDS[request.param]


def ask(
    make: Any, url: str, calls: int = 1, *, path: str = "/a", credential: Any = None, **options: Any
) -> tuple[list[Any], str]:
    """Call an API through a client of its own; returns what came of each call, and the breaker's state."""

    def state(client: Any) -> str:
        said: str = client._transport._pipeline.circuits.find(url).breaker.status().state
        return said

    client = make(url, credential, **options)
    ended: list[Any] = []
    if not hasattr(client, "aclose"):
        with client:
            for _ in range(calls):
                try:
                    ended.append(client.get(path))
                except (httpx.TransportError, httpx2.TransportError) as error:
                    ended.append(error)
            return ended, state(client)

    async def asked() -> str:
        async with client:
            for _ in range(calls):
                try:
                    ended.append(await client.get(path))
                except (httpx.TransportError, httpx2.TransportError) as error:
                    ended.append(error)
            return state(client)

    return ended, asyncio.run(asked())


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_may_be_host_and_port(idp: Emulator, trust: ssl.SSLContext, kind: Any, variable: str, monkeypatch: Any):
    """Without a scheme, as requests and httpx take it."""
    monkeypatch.setenv(variable, idp.proxy_url.removeprefix("http://").rstrip("/"))
    ended, _ = ask(kind[1], "https://login.microsoftonline.com", verify=trust)
    assert ended[0].status_code == 404


@pytest.mark.parametrize("entry", ["{0}:{1}", "https://{0}", "https://{0}:{1}", "127.0.0.0/8", "nobody, *"])
def test_what_is_excepted_is_asked_directly(idp: Emulator, trust: ssl.SSLContext, kind: Any, entry: str, monkeypatch):
    """By host and port, by scheme and host, and by network."""
    url = idp.api_url.replace("localhost", "127.0.0.1") if "127" in entry else idp.api_url
    host, _, port = url.removeprefix("https://").partition(":")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", entry.format(host, port))
    ended, _ = ask(kind[1], url, verify=trust)
    assert ended[0].status_code == 401


def test_each_origin_has_the_way_that_the_environment_says(
    idp: Emulator, trust: ssl.SSLContext, kind: Any, monkeypatch: pytest.MonkeyPatch
):
    """One that is excepted is asked directly, though the base URL isn't; and the other way round."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", idp.api_url.removeprefix("https://"))
    for base, other, direct in (("https://a.example", idp.api_url, True), (idp.api_url, "https://a.example", False)):
        ended, _ = ask(
            kind[1], base, path=f"{other}/a", origins=[other], credential=lambda: "T", verify=trust, options=ONE
        )
        assert getattr(ended[0], "status_code", None) == (401 if direct else None)
        assert isinstance(ended[0], ApiConnectionRefused) is not direct


@pytest.fixture
def proxy() -> Iterator[Callable[[str], str]]:
    """Start proxies that answer each connection alike."""
    servers: list[socket.socket] = []

    def start(status: str) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    with connection, suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(
    ("status", "told"),
    [("407 Proxy Authentication Required", "wants a user"), ("403 Forbidden", "doesn't let this through")],
)
def test_what_a_proxy_refuses_for_good_opens_no_breaker(kind: Any, proxy: Any, monkeypatch, status: str, told: str):
    """It is said as the library says it, with whose doing it is."""
    at = proxy(status)
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:s3cret@{at}")
    ended, state = ask(kind[1], "https://api.example", calls=3, options=ONE)
    assert state == "closed"
    for error in ended:
        assert isinstance(error, kind[0].ProxyError)
        assert told in str(error)
        assert at in str(error)
        assert "s3cret" not in str(error)


def test_a_proxy_whose_name_does_not_exist_opens_none_either(kind: Any, monkeypatch: pytest.MonkeyPatch):
    """And the API's name isn't said to be unknown."""

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "told")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    ended, state = ask(kind[1], "https://api.example", calls=2, options=ONE)
    assert state == "closed"
    for error in ended:
        assert isinstance(error, ApiNameNotResolved)
        assert isinstance(error, kind[0].ConnectError)
        assert "through a proxy whose name doesn't exist: http://proxy.invalid:3128" in str(error)


def test_a_proxy_that_speaks_no_tls_says_the_fix(kind: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch):
    """It is the `https://` in front of it that is wrong."""
    monkeypatch.setenv("HTTPS_PROXY", f"https://{proxy('400 Bad Request')}")
    ended, state = ask(kind[1], "https://api.example", calls=2, options=ONE)
    assert state == "closed"
    for error in ended:
        assert isinstance(error, kind[0].ConnectError)
        assert "write http://" in str(error)


def test_a_proxy_that_is_gone_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch):
    """It may be back soon: such calls are repeated, and left alone after a while."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    ended, state = ask(kind[1], "https://api.example", options=ONE)
    assert isinstance(ended[0], ApiConnectionRefused)
    assert "through a proxy that refused the connection: http://127.0.0.1:9" in str(ended[0])
    assert state == "open"
