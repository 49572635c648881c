"""A call's time is for all of a name's addresses together, and a name or setting that can't work is told at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpcore
import httpx
import httpx2
import pytest

import resilient_auth as ra
from resilient_auth._wire import connection
from resilient_auth._wire.network.bounded import Until
from resilient_auth._wire.network.connect import racing
from resilient_auth._wire.trail import Trail
from resilient_auth.downstream import ApiConnectionRefused, ApiNameNotResolved, TransportOptions
from resilient_auth.downstream.connections import bound
from resilient_auth.emulator import Emulator
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations import httpx2 as of_httpx2

EIGHT = tuple(f"127.0.0.{number}" for number in range(2, 10))
KINDS = ("httpx threads", "httpx tasks", "httpx2 threads", "httpx2 tasks")


@pytest.fixture(params=KINDS)
def get(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Get a URL through a resilient transport of each kind."""
    library: Any = httpx if request.param.startswith("httpx ") else httpx2
    ours: Any = ra if library is httpx else of_httpx2

    def ask(url: str, **options: Any) -> Any:
        chosen = TransportOptions(**{"attempts": 1, "queue_wait": 0.1} | options)
        if request.param.endswith("threads"):
            with library.Client(transport=ours.ResilientTransport(options=chosen)) as client:
                return client.get(url, timeout=10.0)

        async def asked() -> Any:
            async with library.AsyncClient(transport=ours.AsyncResilientTransport(options=chosen)) as client:
                return await client.get(url, timeout=10.0)

        return asyncio.run(asked())

    return ask


def test_a_call_to_a_name_that_swallows_ends_in_time(get, swallowing, resolver):
    """Eight addresses that say nothing take no longer than one."""
    port = swallowing(8)
    resolver("eight.example", *EIGHT)
    began = time.monotonic()
    with pytest.raises((httpx.TransportError, httpx2.TransportError)):
        get(f"http://eight.example:{port}/", deadline=1.0, attempt_timeout=1.0, connect_timeout=0.6)
    assert time.monotonic() - began < 1.4


def test_an_address_that_answers_is_found_among_those(get, swallowing, resolver):
    """One of them is enough."""
    port = swallowing(2)
    resolver("three.example", *EIGHT[:3])
    with socket.create_server((EIGHT[2], port)) as listening:

        def answer() -> None:
            connection = listening.accept()[0]
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert (
            get(f"http://three.example:{port}/", deadline=3.0, attempt_timeout=2.0, connect_timeout=2.0).status_code
            == 204
        )


def test_a_look_up_that_hangs_ends_in_time(swallowing, resolver):
    """The system's resolver has no time-out; a blocking call doesn't wait for it."""
    back = threading.Event()
    resolver("hangs.example", "127.0.0.1", hangs=back)
    options = TransportOptions(attempts=1, queue_wait=0.1, deadline=0.5, attempt_timeout=0.5, connect_timeout=0.4)
    began = time.monotonic()
    with (
        httpx.Client(transport=ra.ResilientTransport(options=options)) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("http://hangs.example/")
    assert time.monotonic() - began < 1.0
    back.set()


@pytest.mark.parametrize(
    ("code", "attempts"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)], ids=["no such name", "no answer"]
)
def test_a_name_that_does_not_exist_is_not_asked_for_again(monkeypatch, code, attempts):
    """Waiting makes no name; a resolver that didn't answer may answer next time."""
    asked: list[Any] = []

    def look_up(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        raise socket.gaierror(code, "told")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    options = TransportOptions(first_delay=0.01, longest_delay=0.02)
    with (
        httpx.Client(transport=ra.ResilientTransport(options=options)) as client,
        pytest.raises(ApiNameNotResolved),
    ):
        client.get("http://lost.example/")
    assert len(asked) == attempts


@pytest.mark.parametrize("make", [ra.api_client, ra.aio.api_client])
@pytest.mark.parametrize("bad", ["socks://u:s3cret@p:1", "ftp://p:1", "http://p:nine"])
def test_a_proxy_of_the_environments_that_cannot_be_used_names_its_setting(monkeypatch, make, bad):
    """At construction, and without its value."""
    monkeypatch.setenv("ALL_PROXY", bad)
    with pytest.raises(ConfigurationError, match="ALL_PROXY") as caught:
        make("https://api.example", lambda: "T")
    assert "s3cret" not in str(caught.value)


def test_a_proxy_without_a_scheme_is_used(monkeypatch):
    """As in requests."""
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:9")
    with (
        ra.api_client("https://api.example", lambda: "T", options=TransportOptions(attempts=1)) as client,
        pytest.raises(ApiConnectionRefused),
    ):
        client.get("/")


def test_a_network_that_the_environment_excepts_is_asked_directly(monkeypatch, idp: Emulator, trust):
    """`NO_PROXY` takes networks."""
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    url = idp.url.replace("localhost", "127.0.0.1")
    with ra.api_client(url, None, verify=trust) as client:
        assert client.get("/contoso/v2.0/.well-known/openid-configuration").status_code == 200


@pytest.mark.parametrize("kind", ["threads", "tasks", "the provider's wire"])
def test_what_httpcore_asks_of_a_socks_proxy_ends_in_time(kind):
    """It names no time-out there, neither for what it writes nor for what it reads: that of the connection holds."""
    transport: Any = httpx.AsyncHTTPTransport() if kind == "tasks" else httpx.HTTPTransport()
    assert bound(transport)
    backend, ends = transport._pool._network_backend, time.monotonic() + 0.3
    until: Any = Until.at(0.3, None, ends, time.monotonic)
    if kind == "the provider's wire":
        backend = connection._TracedBackend(racing(httpcore.SyncBackend()))
        attempt = connection._Attempt(ends, time.monotonic, Trail(https=False, trusted_wire=False))
        until = connection._Traced.of(attempt, None, httpcore.ReadTimeout)

    async def asked(port: int) -> None:
        stream = await backend.connect_tcp("localhost", port, timeout=until)
        try:
            await stream.write(b"\x05")
            await stream.read(max_bytes=4096)
        finally:
            await stream.aclose()

    def ask(port: int) -> None:
        stream = backend.connect_tcp("localhost", port, timeout=until)
        try:
            stream.write(b"\x05")
            stream.read(max_bytes=4096)
        finally:
            stream.close()

    with socket.create_server(("localhost", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(httpcore.ReadTimeout):
            asyncio.run(asyncio.wait_for(asked(port), 5)) if kind == "tasks" else ask(port)
    assert time.monotonic() < ends + 2
