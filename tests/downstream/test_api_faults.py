"""Faults on the wire, over TLS, at the emulator's API: each is told apart, and none hangs a caller."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.downstream import (
    ApiAttemptTimeout,
    ApiCircuitOpen,
    ApiConnectionRefused,
    ApiDeadlinePassed,
    ApiNameNotResolved,
    ApiUnavailable,
    TransportOptions,
)
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError

HASTY = {"deadline": 0.8, "attempt_timeout": 0.3, "connect_timeout": 0.3, "queue_wait": 0.3, "first_delay": 0.05}


class Caller:
    """A client of either kind for the emulator's API."""

    def __init__(self, kind: str, idp: Emulator, trust: ssl.SSLContext, credential: Any, **options: Any) -> None:
        self._runner = asyncio.Runner() if kind == "tasks" else None
        make = ra.aio.api_client if self._runner else ra.api_client
        self.client: Any = make(
            idp.api_url, credential, "api://x/.default", verify=trust, options=TransportOptions(**HASTY | options)
        )
        self.circuit = self.client._transport._pipeline.circuits.find(idp.api_url)

    def ask(self, method: str = "GET", path: str = "/a", **about: Any) -> httpx.Response:
        call = self.client.request(method, path, **about)
        return self._runner.run(_awaited(call)) if self._runner else call

    def end(self) -> None:
        if self._runner:
            self._runner.run(self.client.aclose())
            self._runner.close()
        else:
            self.client.close()


async def _awaited(call: Any) -> Any:
    return await call


@pytest.fixture(params=["threads", "tasks"])
def call(
    request: pytest.FixtureRequest, idp: Emulator, trust: ssl.SSLContext, credential: Any
) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def build(**options: Any) -> Caller:
        made.append(Caller(request.param, idp, trust, credential, **options))
        made[-1].ask(extensions={"deadline": 10.0})
        return made[-1]

    yield build
    for one in made:
        one.end()


FAULTS: dict[str, tuple[Fault, Any]] = {
    "refuse": (Fault.refuse(), ApiConnectionRefused),
    "reset": (Fault.reset(), (httpx.NetworkError, httpx.RemoteProtocolError)),
    "black_hole": (Fault.black_hole(), ApiAttemptTimeout),
    "trickled head": (Fault.trickle(5, headers=True), ApiAttemptTimeout),
    "trickled body": (Fault.trickle(5), ApiDeadlinePassed),
    "cut body": (Fault.wrong_content_length(), httpx.RemoteProtocolError),
    "tls": (Fault.tls_failed(), httpx.TransportError),
    "503": (Fault.http_503(), 503),
    "429": (Fault.http_429(30), 429),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_ends_in_time_and_is_told_apart(idp: Emulator, call: Callable[..., Caller], name: str) -> None:
    """Within the deadline, with an error that httpx's callers catch, and nothing is left held."""
    caller = call()
    fault, expected = FAULTS[name]
    idp.fail(fault, endpoint="api")
    began = time.monotonic()
    if isinstance(expected, int):
        assert caller.ask().status_code == expected
    else:
        with pytest.raises(expected) as raised:
            caller.ask()
        assert isinstance(raised.value, httpx.TransportError)
        if isinstance(raised.value, ApiUnavailable):
            assert raised.value.origin == idp.api_url
            assert idp.api_url in str(raised.value)
            assert raised.value.retry_after is not None
            assert "try again" in raised.value.user_message
            assert "eyJ" not in repr(raised.value)
    assert time.monotonic() - began < 2.0
    assert caller.circuit.bulkhead.in_use == 0


@pytest.mark.parametrize("fault", [Fault.http_503(), Fault.reset(), Fault.http_429(0)])
def test_a_moments_fault_is_not_seen(idp: Emulator, call: Callable[..., Caller], fault: Fault) -> None:
    """One retry later the call has succeeded."""
    caller = call()
    idp.fail(fault, endpoint="api", count=1)
    assert caller.ask().status_code == 200


def test_a_dead_api_is_left_alone_until_it_is_back(idp: Emulator, call: Callable[..., Caller]) -> None:
    """Refusals bring no connection; an operator's reset, or the end of the break, does."""
    caller = call(attempts=1)
    fault = idp.fail(Fault.black_hole(), endpoint="api")
    for _ in range(5):
        with pytest.raises(ApiAttemptTimeout):
            caller.ask()
    before = len(idp.ledger.calls)
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(ApiCircuitOpen):
            caller.ask()
    assert time.monotonic() - began < 1.0
    assert len(idp.ledger.calls) == before
    fault.stop()
    caller.client._transport.reset(idp.api_url)
    assert caller.ask().status_code == 200


def test_a_stream_is_read_to_its_end_or_let_go(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """Either way nothing is held afterwards."""
    with ra.api_client(idp.api_url, credential, "api://x/.default", verify=trust) as client:
        circuit = client._transport._pipeline.circuits.find(idp.api_url)  # type: ignore[attr-defined]
        with client.stream("GET", "/a") as response:
            assert circuit.bulkhead.in_use == 1
            assert b"".join(response.iter_bytes())
        with client.stream("GET", "/a") as response:
            assert response.status_code == 200
        with client.stream("POST", "/a", content=(part for part in [b"ab", b"c"])) as response:
            response.read()
            assert response.json()["received"] == 3
        assert circuit.bulkhead.in_use == 0


def test_a_name_that_does_not_exist() -> None:
    """Has an error of its own."""
    options = TransportOptions(attempts=1)
    with (
        ra.api_client("https://no-such-host.invalid", lambda: "T", options=options) as client,
        pytest.raises(ApiNameNotResolved, match=r"no-such-host\.invalid") as raised,
    ):
        client.get("/")
    assert isinstance(raised.value, httpx.ConnectError)


async def test_500_tasks_at_once_are_not_serialised() -> None:
    """Each takes 100 ms; all together take little more."""
    inside = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.1)
        inside -= 1
        return httpx.Response(200)

    transport = ra.AsyncResilientTransport(httpx.MockTransport(answer))
    async with httpx.AsyncClient(transport=transport) as client:
        await asyncio.gather(*(client.get("https://api.example") for _ in range(500)))
    assert most == 500


async def test_cancelling_anywhere_on_the_wire_leaves_nothing(idp: Emulator, trust: ssl.SSLContext) -> None:
    """In the handshake, before the head, in the body."""
    async with ra.aio.api_client(idp.api_url, lambda: "T", verify=trust) as client:
        circuit = client._transport._pipeline.circuits.find(idp.api_url)
        idp.fail(Fault.trickle(200), endpoint="api")
        for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
            task = asyncio.create_task(client.get("/a"))
            await asyncio.sleep(delay)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert circuit.bulkhead.in_use == 0
        assert circuit.breaker.status().state == "closed"


async def test_a_handshake_that_is_cancelled_closes_its_connection() -> None:
    """httpcore would leave it to the collector."""
    closed: list[bool] = []

    class Wire:
        def get_extra_info(self, name: str) -> None:
            return None

        async def read(self, most: int, timeout: float | None = None) -> bytes:
            return b""

        async def write(self, data: bytes, timeout: float | None = None) -> None:
            return None

        async def start_tls(self, *about: Any) -> Any:
            await asyncio.sleep(60)

        async def aclose(self) -> None:
            closed.append(True)

    class Backend:
        async def connect_tcp(self, *about: Any) -> Wire:
            return Wire()

    transport = httpx.AsyncHTTPTransport()
    transport._pool._network_backend = Backend()  # type: ignore[assignment]
    async with httpx.AsyncClient(transport=ra.AsyncResilientTransport(transport)) as client:
        task = asyncio.create_task(client.get("https://api.example/"))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert closed


def test_the_backends_of_httpx_are_where_we_look_for_them() -> None:
    """httpx has no public way to them; when this fails, `bounded` must find another one."""
    from resilient_auth.downstream.connections import bound

    assert bound(httpx.HTTPTransport())
    assert bound(httpx.AsyncHTTPTransport())
    assert not bound(httpx.MockTransport(lambda request: httpx.Response(200)))


@pytest.mark.parametrize("make", [ra.api_client, ra.aio.api_client])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"base_url": "http://api.example"}, "https"),
        ({"base_url": "api.example"}, "base_url"),
        ({"base_url": "http://localhost:1"}, "loopback"),
        ({"scopes": [5]}, "scope"),
        ({"credential": object()}, "get_token"),
        ({"auth": None}, "auth"),
        ({"options": 5}, "options"),
        ({"fallback": 5}, "fallback"),
        ({"key": 5}, "key"),
    ],
)
def test_a_wrong_argument_is_said_at_once(make: Any, wrong: dict[str, Any], says: str) -> None:
    """Before any network call."""
    given = {"base_url": "https://api.example", "credential": lambda: "T", "scopes": ()} | wrong
    with pytest.raises(ConfigurationError, match=says):
        make(**given)


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is given a transport would go past it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with (
        ra.api_client("https://api.example", lambda: "T", options=TransportOptions(attempts=1)) as client,
        pytest.raises(ApiConnectionRefused),
    ):
        client.get("/")
