"""What the spans tell, and of what they are a part, across threads and tasks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
from exported import SCOPE, Seen
from opentelemetry import context, trace
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault


class OwnersApi:
    """An API of the owner's on loopback, which fails so many times and notes what it was told."""

    def __init__(self, failing: int) -> None:
        told: list[str | None] = []
        self.told = told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.append(self.headers.get("traceparent"))
                self.send_response(503 if len(told) <= failing else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Callable[[int], OwnersApi]]:
    made: list[OwnersApi] = []

    def make(failing: int = 0) -> OwnersApi:
        made.append(OwnersApi(failing))
        return made[-1]

    yield make
    for one in made:
        one.close()


def parent_of(span: Any) -> int | None:
    return span.parent and span.parent.span_id


def unasked(seen: Seen) -> Any:
    exchanges = seen.spans("resilient_auth.exchange", 2)
    return next(span for span in exchanges if span.attributes["resilient_auth.unasked"] == "true")


def test_an_exchange_is_part_of_what_asked_for_it(seen: Seen, daemon: Callable[..., Any]) -> None:
    """Though a worker makes it; and its attempts are parts of it."""
    app = daemon()
    with seen.tracers.get_tracer("owner").start_as_current_span("request") as request:
        app.acquire_token_for_client(SCOPE)
        app.acquire_token_for_client(SCOPE)
    (exchange,) = seen.spans("resilient_auth.exchange")
    (attempt,) = seen.spans("POST")
    assert parent_of(exchange) == request.get_span_context().span_id
    assert parent_of(attempt) == exchange.context.span_id
    assert attempt.kind is trace.SpanKind.CLIENT
    assert attempt.attributes["server.address"] == "localhost"
    assert attempt.attributes["http.response.status_code"] == 200
    assert exchange.attributes["resilient_auth.outcome"] == "success"


async def test_tasks_are_told_apart(seen: Seen, daemon: Callable[..., Any]) -> None:
    """Each task's exchange is part of what that task does."""
    import asyncio

    app, tracer = ra.aio.wrap(daemon()), seen.tracers.get_tracer("owner")

    async def ask(number: int) -> int:
        with tracer.start_as_current_span(f"task-{number}") as span:
            await app.acquire_token_for_client([f"api://api-{number}/.default"])
            assert trace.get_current_span() is span
            return span.get_span_context().span_id

    asked = await asyncio.gather(*(ask(number) for number in range(3)))
    assert {parent_of(span) for span in seen.spans("resilient_auth.exchange", 3)} == set(asked)


def test_attempts_are_numbered(seen: Seen, idp: Emulator, daemon: Callable[..., Any], clock: Any) -> None:
    """By how often the request was sent again; a failed one has its status and is an error."""
    app = daemon()
    idp.fail(Fault.status(503), "token", count=1)
    asking = threading.Thread(target=app.acquire_token_for_client, args=(SCOPE,))
    asking.start()
    seen.spans("POST")
    while asking.is_alive():
        clock.skip(5)
        asking.join(0.05)
    first, second = seen.spans("POST", 2)
    assert first.attributes["error.type"] == "503"
    assert first.status.status_code is trace.StatusCode.ERROR
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1


def test_a_background_refresh_is_linked_to_its_cause(seen: Seen, daemon: Callable[..., Any], clock: Any) -> None:
    """It isn't part of a request that was answered before."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    clock.skip(2000)
    with seen.tracers.get_tracer("owner").start_as_current_span("request") as request:
        app.acquire_token_for_client(SCOPE)
    refresh = unasked(seen)
    assert refresh.parent is None
    assert [link.context.span_id for link in refresh.links] == [request.get_span_context().span_id]


def test_one_that_a_timer_began_is_linked_to_the_last(
    seen: Seen, daemon: Callable[..., Any], settings: Any, clock: Any
) -> None:
    """The exchange whose token is refreshed ahead is its cause."""
    app = daemon(resilience=settings(keep_fresh=(tuple(SCOPE),)))
    (first,) = seen.spans("resilient_auth.exchange")
    app.acquire_token_for_client(SCOPE)
    clock.skip(2400)
    refresh = next(span for span in seen.spans("resilient_auth.exchange", 2) if span.links)
    assert [link.context.span_id for link in refresh.links] == [first.context.span_id]


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaiting"])
async def test_an_api_learns_what_its_work_is_part_of(
    seen: Seen, api: Callable[[int], OwnersApi], awaited: bool
) -> None:
    """Each attempt tells its own span, which is part of the call, which is part of what the caller does."""
    orders = api(1)

    async def call() -> None:
        if awaited:
            async with httpx.AsyncClient(transport=ra.AsyncResilientTransport(sleep=_no_sleep_in_task)) as client:
                assert (await client.get(orders.url)).status_code == 200
        else:
            with httpx.Client(transport=ra.ResilientTransport(sleep=lambda _: None)) as client:
                assert client.get(orders.url).status_code == 200

    with seen.tracers.get_tracer("owner").start_as_current_span("request") as request:
        await call()
        assert trace.get_current_span() is request
    (called,) = seen.spans("resilient_auth.call")
    attempts = seen.spans("GET", 2)
    assert parent_of(called) == request.get_span_context().span_id
    assert [parent_of(attempt) for attempt in attempts] == [called.context.span_id] * 2
    assert [told.split("-")[2] for told in orders.told if told] == [f"{a.context.span_id:016x}" for a in attempts]
    assert [attempt.attributes.get("http.request.resend_count") for attempt in attempts] == [None, 1]


async def _no_sleep_in_task(_: float) -> None:
    return


def test_the_provider_learns_nothing(seen: Seen, idp: Emulator) -> None:
    """An instrumented HTTP library of the owner's is told to be quiet, and only there."""
    told: list[tuple[Any, bool]] = []

    class Instrumented(requests.Session):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            quiet = context.get_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)
            answer = super().request(*args, **kwargs)
            told.append((quiet, "traceparent" in answer.request.headers))
            return answer

    session = Instrumented()
    session.verify = idp.ca_file
    app = msal.ConfidentialClientApplication(
        "daemon", "s", authority=idp.authority("contoso"), instance_discovery=False, http_client=session
    )
    with seen.tracers.get_tracer("owner").start_as_current_span("request"):
        app.acquire_token_for_client(SCOPE)
    assert told
    assert set(told) == {(True, False)}
    assert context.get_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY) is None
    app.close()


def test_a_verification_is_a_span(seen: Seen) -> None:
    """With its verdict, and no part of the token."""
    with (
        ra.ClaimsVerifier(issuer="https://login.example/t", audience="api://orders") as one,
        pytest.raises(ra.InvalidToken),
    ):
        one.verify("eyJhbGciOiJub25lIn0.e30.")
    (span,) = seen.spans("resilient_auth.verify")
    assert dict(span.attributes) == {
        "server.address": "login.example",
        "resilient_auth.verdict": "refused",
        "error.type": "malformed",
    }
