"""A caller's own time-outs hold: a longer one lengthens the attempt within the deadline, and none is cut in silence."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

import resilient_auth as ra
from resilient_auth.downstream import ApiAttemptTimeout, ApiDeadlinePassed, BreakerOptions, TransportOptions
from resilient_auth.downstream.pipeline.timeouts import NOBODYS
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations import httpx2 as of_httpx2

#: An attempt is shorter than the API takes, and the deadline longer.
HASTY = {"attempt_timeout": 0.2, "connect_timeout": 0.2, "deadline": 5.0, "queue_wait": 0.2, "attempts": 1}
SLOW = 0.35


class Caller:
    """A client of either kind for the emulator's API."""

    def __init__(self, kind: str, idp: Emulator, trust: ssl.SSLContext, options: TransportOptions, **more: Any) -> None:
        self._runner = asyncio.Runner() if kind == "tasks" else None
        make = ra.aio.api_client if self._runner else ra.api_client
        self.client: Any = make(idp.api_url, None, verify=trust, options=options, **more)
        self.circuit = self.client._transport._pipeline.circuits.find(idp.api_url)

    def ask(self, method: str = "GET", **about: Any) -> httpx.Response:
        call = self.client.request(method, "/a", **about)
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
def caller(
    request: pytest.FixtureRequest, idp: Emulator, trust: ssl.SSLContext, never_opens: BreakerOptions
) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def build(options: TransportOptions | None = None, **more: Any) -> Caller:
        options = options or TransportOptions(**HASTY, breaker=never_opens)
        made.append(Caller(request.param, idp, trust, options, **more))
        # Connected, so that what is measured is the API's answer.
        made[-1].ask(timeout=httpx.Timeout(9.0, connect=9.0), extensions={"deadline": 9.0})
        return made[-1]

    yield build
    for one in made:
        one.end()


@pytest.mark.parametrize(
    ("where", "wanted"),
    [("call", 4.0), ("call", None), ("client", None), ("client", httpx.Timeout(4.0, connect=1.0))],
    ids=["a call", "a call's none", "a client's none", "a client's parts"],
)
def test_a_longer_one_lengthens_the_attempt(
    idp: Emulator, caller: Callable[..., Caller], where: str, wanted: object
) -> None:
    """By the call or by the client, and `None` as well."""
    one = caller(timeout=wanted) if where == "client" else caller()
    idp.fail(Fault.slow(SLOW), endpoint="api")
    assert one.ask(**({"timeout": wanted} if where == "call" else {})).status_code == 401
    if where == "call":  # nobody else's attempt is any longer
        with pytest.raises(ApiAttemptTimeout):
            one.ask()


@pytest.mark.parametrize("timeout", [60.0, None])
def test_the_deadline_goes_before_it_and_says_so(
    idp: Emulator, caller: Callable[..., Caller], timeout: float | None
) -> None:
    """The API isn't blamed for a deadline that came before what its caller would have given it."""
    one = caller(TransportOptions(**HASTY | {"deadline": 0.3}, breaker=BreakerOptions(consecutive_failures=1)))
    idp.fail(Fault.black_hole(), endpoint="api")
    began = time.monotonic()
    with pytest.raises(ApiDeadlinePassed, match=r"before the time-out was over.*TransportOptions"):
        one.ask(timeout=timeout)
    assert time.monotonic() - began < 2.0
    assert one.circuit.breaker.status().state == "closed"


def test_a_shorter_one_holds_as_ever(idp: Emulator, caller: Callable[..., Caller]) -> None:
    """It is a bound on silence, below the attempt's."""
    one = caller(TransportOptions(**HASTY | {"attempt_timeout": 3.0}))
    idp.fail(Fault.black_hole(), endpoint="api")
    began = time.monotonic()
    with pytest.raises(ApiAttemptTimeout):
        one.ask(timeout=0.1)
    assert time.monotonic() - began < 1.0


def test_what_a_slow_api_is_silent_for_is_bounded(idp: Emulator, caller: Callable[..., Caller]) -> None:
    """An answer that trickles arrives; one that doesn't come ends as an attempt that took too long."""
    one = caller(TransportOptions.for_slow_apis(silence=0.6, deadline=20.0, connect_timeout=0.3, attempts=1))
    trickled = idp.fail(Fault.trickle(300, headers=True), endpoint="api")
    began = time.monotonic()
    assert one.ask().status_code == 401
    assert time.monotonic() - began > 0.6
    trickled.stop()
    idp.fail(Fault.black_hole(), endpoint="api")
    with pytest.raises(ApiAttemptTimeout):
        one.ask()


def test_an_upload_that_takes_longer_than_an_attempt_arrives(
    caller: Callable[..., Caller], request: pytest.FixtureRequest
) -> None:
    """A caller with a longer time-out is given it for each silence, as httpx means it."""
    one = caller()
    assert one.ask("POST", timeout=0.3, content=_parts(one._runner is not None)).status_code == 401
    with pytest.raises(ApiAttemptTimeout):
        one.ask("POST", content=_parts(one._runner is not None))


def _parts(awaited: bool) -> Any:
    def blocking() -> Iterator[bytes]:
        for _ in range(5):
            time.sleep(0.1)
            yield b"part"

    async def tasks() -> Any:
        for _ in range(5):
            await asyncio.sleep(0.1)
            yield b"part"

    return tasks() if awaited else blocking()


@pytest.mark.parametrize("timeout", [60, httpx.Timeout(10, read=31.0), httpx.Timeout(5, connect=40.0)])
def test_one_that_cannot_hold_is_refused_at_construction(timeout: Any) -> None:
    """With both numbers, and where to raise the one."""
    for make in (ra.api_client, ra.aio.api_client):
        with pytest.raises(ConfigurationError, match=r"timeout of \d+ s .* deadline of 30 s.*for_slow_apis"):
            make("https://api.example", None, timeout=timeout)
    ra.api_client("https://api.example", None, timeout=timeout, options=TransportOptions(deadline=60)).close()


@pytest.mark.parametrize("timeout", ["60", -1, float("nan"), True, {"read": 5}, httpx.Timeout(5, read="x")])  # type: ignore[arg-type]
def test_one_that_is_no_number_is_refused(timeout: Any) -> None:
    """At construction for a client; before anything is held or sent for a call."""
    with pytest.raises(ConfigurationError, match="timeout"):
        ra.api_client("https://api.example", None, timeout=timeout)


def test_a_calls_that_is_no_number_holds_nothing() -> None:
    """The error names it, and a slot isn't lost."""
    with ra.api_client("https://api.example", None, transport=httpx.MockTransport(lambda _: httpx.Response(200))) as c:
        for _ in range(3):
            for wrong in ("60", -1, float("nan"), httpx.Timeout(5, connect="x"), httpx.Timeout(5, pool=-1)):  # type: ignore[arg-type]
                with pytest.raises(ConfigurationError, match="timeout"):
                    c.get("/", timeout=wrong)  # type: ignore[arg-type]
        assert c._transport._pipeline.circuits.find("https://api.example").bulkhead.in_use == 0  # type: ignore[attr-defined]


def _seen(options: TransportOptions, extensions: dict[str, Any]) -> dict[str, float | None]:
    seen: list[dict[str, float | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append({name: None if at is None else float(at) for name, at in request.extensions["timeout"].items()})
        return httpx.Response(200)

    transport = ra.ResilientTransport(httpx.MockTransport(answer), options=options)
    transport.handle_request(httpx.Request("GET", "https://api.example", extensions=extensions))
    return seen[0]


def _timeouts(*args: Any, **parts: Any) -> dict[str, Any]:
    return {"timeout": httpx.Timeout(*args, **parts).as_dict()}


def test_connecting_takes_longer_only_where_that_is_said(options: Callable[..., TransportOptions]) -> None:
    """One number for everything means answers: a host that isn't there is found out as soon as ever."""
    for about, seconds in (
        ({}, 3.0),
        (_timeouts(20.0), 3.0),
        (_timeouts(None), 3.0),
        (_timeouts(2.0), 2.0),
        (_timeouts(20.0, connect=8.0), 8.0),
        (_timeouts(20.0, connect=1.0), 1.0),
        (_timeouts(20.0, connect=None), 30.0),
    ):
        assert _seen(options(), about)["connect"] == seconds, about


def test_what_httpx_has_by_itself_is_nobodys_wish(options: Callable[..., TransportOptions]) -> None:
    """It lengthens no attempt. Where silences are bounded it is one of them, as is a call's that says the same."""
    assert httpx.Client().timeout.as_dict() == NOBODYS
    about = {"timeout": NOBODYS}
    assert _seen(options(attempt_timeout=2.0, connect_timeout=1.0), about)["read"] == 2.0
    assert _seen(options(), about)["read"] == 5.0
    assert _seen(TransportOptions.for_slow_apis(), about)["read"] == 5.0
    assert _seen(TransportOptions.for_slow_apis(), {})["read"] == 120.0


def test_nothing_is_bounded_where_nobody_wants_that(options: Callable[..., TransportOptions]) -> None:
    """No time-out and no deadline: the system's sockets take no endless number."""
    about = _timeouts(None) | {"deadline": None}
    assert _seen(options(), about) == {"connect": 3.0, "read": None, "write": None, "pool": None}


def test_the_profile_for_slow_apis_says_what_does_not_go_together() -> None:
    """Its breaker's probes are given the time that a silence may last."""
    assert TransportOptions.for_slow_apis(silence=600).breaker.probe_lease > 600
    for wrong, named in (
        ({"silence": 0}, "silence"),
        ({"silence": 100, "deadline": 50}, "deadline"),
        ({"attempt_timeout": 5}, "attempt_timeout"),
        ({"bound_silence": False}, "bound_silence"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            TransportOptions.for_slow_apis(**wrong)
    with pytest.raises(ConfigurationError, match="bound_silence"):
        TransportOptions(bound_silence="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [ra.api_client, ra.aio.api_client])
def test_http2_is_refused_with_the_reason(make: Any) -> None:
    """One call's deadline would break its neighbours on the connection; leaving it out is the fix."""
    with pytest.raises(ConfigurationError, match=r"http2=True .*deadline of one breaks the others.* leave it out"):
        make("https://api.example", None, http2=True)
    assert make("https://api.example", None, http2=False).is_closed is False


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (ra.ResilientTransport, httpx.HTTPTransport),
        (ra.AsyncResilientTransport, httpx.AsyncHTTPTransport),
        (of_httpx2.ResilientTransport, httpx2.HTTPTransport),
        (of_httpx2.AsyncResilientTransport, httpx2.AsyncHTTPTransport),
    ],
)
def test_a_wrapped_transport_that_speaks_it_is_refused_too(kind: Any, plain: Any) -> None:
    """However it came to be given."""
    wrapped = plain()
    kind(wrapped)
    assert wrapped._pool._http2 is False
    wrapped._pool._http2 = True  # as http2=True has it, which wants a package of its own
    with pytest.raises(ConfigurationError, match="http2=True"):
        kind(wrapped)
