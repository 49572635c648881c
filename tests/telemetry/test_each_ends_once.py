"""Whatever is begun ends, once, however whoever asked for it leaves; and nobody is counted as waiting who has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
from exported import SCOPE, Seen
from forked import in_a_child
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.downstream.pipeline.attempt import _observed
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import BulkheadRefused, emit
from resilient_auth.telemetry.labels import Addresses
from resilient_auth.telemetry.observer import Facts, Telemetry
from resilient_auth.telemetry.reading import current, readings
from resilient_auth.telemetry.tally import Tally
from resilient_auth.token import TokenRequest

REQUEST = TokenRequest(authority="https://login.example/t", client_id="c", flow="client_credentials", scopes=("a",))
ABOUT: dict[str, dict[str, Any]] = {
    "acquisition": {"request": REQUEST},
    "verification": {"issuer": "https://login.example/t"},
    "call": {"request": httpx.Request("GET", "https://api.example/orders")},
}
#: How a generator is left at one of its steps.
LEAVING: dict[str, Callable[[Generator[Any, Any, Any]], object]] = {
    "closed": lambda steps: steps.close(),
    "cancelled": lambda steps: steps.throw(asyncio.CancelledError()),
    "interrupted": lambda steps: steps.throw(KeyboardInterrupt()),
    "exiting": lambda steps: steps.throw(SystemExit(1)),
    "failing": lambda steps: steps.throw(ValueError("x")),
}


class Traced:
    """A tracer that counts."""

    def __init__(self) -> None:
        self.begun: list[Traced] = []
        self.ended: list[Facts] = []

    def begin(self, kind: str, facts: Facts, *, about: object, unasked: bool) -> Traced:
        self.begun.append(self)
        return self

    def enter(self) -> Callable[[], None]:
        return lambda: None

    def carry(self, headers: Any) -> None: ...

    def end(self, facts: Facts, at: int) -> None:
        self.ended.append(dict(facts))


@pytest.fixture
def telemetry() -> Telemetry:
    telemetry = Telemetry(Tally(), Addresses())
    telemetry.tracer = Traced()
    return telemetry


def three_steps(*, stubborn: bool = False) -> Iterator[Any]:
    try:
        yield from range(3)
    finally:
        if stubborn:
            raise RuntimeError("what it holds can't be given back")


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("kind", ABOUT)
def test_an_operation_ends_at_each_step(kind: str, leaving: str, at: int, stubborn: bool, telemetry: Telemetry) -> None:
    """Closed, cancelled, interrupted or failed, and where what is inside fails at that too."""
    steps = telemetry.through(kind, three_steps(stubborn=stubborn), **ABOUT[kind])  # type: ignore[arg-type]
    for _ in range(at + 1):
        next(steps)
    with contextlib.suppress(BaseException):
        LEAVING[leaving](steps)
    telemetry.settle()
    telemetry.settle()
    tracer = telemetry.tracer
    assert isinstance(tracer, Traced)
    assert len(tracer.ended) == len(tracer.begun) == (kind != "acquisition")
    assert all(number == 0 for _, number in telemetry.tally.counts("resilient_auth.waiters"))
    ((labels, number),) = counted(telemetry, kind)
    assert number == 1
    gave_up = leaving == "closed" or (leaving != "failing" and not stubborn)
    assert ("cancelled" in labels) is gave_up


def counted(telemetry: Telemetry, kind: str) -> list[tuple[tuple[str, ...], int]]:
    """What was counted of a kind of operation."""
    if kind == "call":
        return [(labels, sum(buckets)) for labels, buckets, _ in telemetry.tally.summed("resilient_auth.call.duration")]
    return list(telemetry.tally.counts(f"resilient_auth.{kind}s"))


@pytest.mark.parametrize("kind", [*ABOUT, "api_attempt"])
def test_what_the_collector_ends_waits_for_no_lock(kind: str, telemetry: Telemetry) -> None:
    """It ends a generator on any thread, in the middle of anything: of a count, too."""
    telemetry.tally._lock = threading.Lock()  # type: ignore[assignment]
    if kind == "api_attempt":
        send: Any = SimpleNamespace(request=httpx.Request("GET", "https://api.example/orders"))
        steps: Any = _observed(telemetry, send)
    else:
        steps = telemetry.through(kind, three_steps(), **ABOUT[kind])  # type: ignore[arg-type]
    next(steps)
    over = threading.Event()

    def collected() -> None:
        with telemetry.tally._lock:
            steps.close()
        over.set()

    threading.Thread(target=collected, daemon=True).start()
    assert over.wait(5.0)
    telemetry.settle()
    tracer = telemetry.tracer
    assert isinstance(tracer, Traced)
    assert len(tracer.ended) == len(tracer.begun)


def test_a_signal_amid_a_count_may_have_something_counted(telemetry: Telemetry) -> None:
    """Its handler runs on the thread that it has interrupted."""
    over = threading.Event()

    def interrupted() -> None:
        with telemetry.tally._lock, telemetry.addresses._lock:
            telemetry.tally.add("resilient_auth.events", ("token_served",))
            telemetry.record(
                "resilient_auth.exchange.queue.duration", (telemetry.addresses.of("https://x.example"),), 1
            )
        over.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert over.wait(5.0)
    assert list(telemetry.tally.counts("resilient_auth.events")) == [(("token_served",), 1)]


class Counted(SpanProcessor):
    """Spans that are under way."""

    def __init__(self) -> None:
        self.under_way: list[Any] = []
        self.twice = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.under_way.append(span.context.span_id)

    def on_end(self, span: Any) -> None:
        self.twice = self.twice or span.context.span_id not in self.under_way
        self.under_way.remove(span.context.span_id)


async def test_a_task_may_be_cancelled_at_each_await(
    seen: Seen, idp: Emulator, daemon: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    """Of an acquisition, a verification and a call: each is counted, none as a failure, and all spans end."""
    spans = Counted()
    seen.tracers.add_span_processor(spans)
    app = ra.aio.wrap(daemon())
    discovery = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    token = (await app.acquire_token_for_client(SCOPE))["access_token"]
    issuer = f"{idp.url}/contoso/v2.0"

    async def api(_: httpx.Request) -> httpx.Response:
        for _ in range(5):
            await asyncio.sleep(0)
        return httpx.Response(200, text="{}")

    for turns in range(12):
        verifier = ra.aio.ClaimsVerifier(
            issuer=issuer, audience="api://orders", discovery=discovery, verify=idp.ca_file
        )
        async with httpx.AsyncClient(transport=ra.AsyncResilientTransport(httpx.MockTransport(api))) as client:
            asked: list[asyncio.Task[Any]] = [
                asyncio.ensure_future(app.acquire_token_for_client([f"api://api-{turns}/.default"])),
                asyncio.ensure_future(verifier.verify(token)),
                asyncio.ensure_future(client.get("https://orders.example/1")),
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        await verifier.aclose() if hasattr(verifier, "aclose") else verifier.close()
    current.settle()
    eventually(lambda: not spans.under_way)
    assert not spans.twice
    assert all(number == 0 for _, number in readings("resilient_auth.waiters"))
    assert seen.scraped("resilient_auth_acquisitions_total", resilient_auth_outcome="failed") == 0
    assert seen.scraped("resilient_auth_acquisitions_total", resilient_auth_outcome="cancelled") > 0
    # The first one, and those that had begun when they were cancelled.
    assert seen.scraped("resilient_auth_acquisitions_total") == 1 + 11
    assert seen.scraped("resilient_auth_call_duration_seconds_count", resilient_auth_outcome="failed") == 0
    assert seen.scraped("resilient_auth_verifications_total", resilient_auth_verdict="unavailable") == 0


async def test_who_gives_up_is_no_failure_of_a_service_level(
    idp: Emulator, daemon: Callable[..., Any], clock: Any
) -> None:
    """A browser that goes away, or a caller's own time-out, wakes nobody."""
    idp.fail(Fault.slow(1.0))
    app = ra.aio.wrap(daemon())
    with ra.telemetry.watch(clock=clock) as watch:
        task = asyncio.ensure_future(app.acquire_token_for_client(SCOPE))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        level = watch.levels().of("acquisitions").day.now
    assert (level.total, level.failed) == (1, 0)


@pytest.mark.parametrize("again", ["instrumented again", "forked"])
def test_who_waits_meanwhile_is_counted_down_from_nothing(again: str, seen: Seen) -> None:
    """A gauge that fell below zero would never be right again."""
    steps = current.through("acquisition", three_steps(), request=REQUEST)  # type: ignore[arg-type]
    next(steps)
    assert readings("resilient_auth.waiters") == [(("login.example",), 1.0)]

    def leave() -> None:
        steps.close()
        later = current.through("acquisition", three_steps(), request=REQUEST)  # type: ignore[arg-type]
        next(later)
        assert readings("resilient_auth.waiters") == [(("login.example",), 1.0)]
        later.close()
        assert readings("resilient_auth.waiters") == [(("login.example",), 0.0)]

    if again == "forked":
        in_a_child(leave)
    else:
        ra.telemetry.uninstrument()
        ra.telemetry.instrument(seen.meters, seen.tracers)
    leave()


@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
def test_a_counter_never_goes_back(temporality: AggregationTemporality, daemon: Callable[..., Any]) -> None:
    """Turned off and on again, and in forked workers that have inherited their provider: no negative requests."""
    reader = InMemoryMetricReader(preferred_temporality={ObservableCounter: temporality, Histogram: temporality})
    meters = MeterProvider([reader], shutdown_on_exit=False)
    app = daemon(resilience=None)

    def told() -> float:
        data = reader.get_metrics_data()
        return sum(
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "resilient_auth.acquisitions"
            for point in metric.data.data_points
            if point.attributes["resilient_auth.source"] == "memory"
        )

    def ask(times: int) -> float:
        for _ in range(times):
            app.acquire_token_for_client(SCOPE)
        return told()

    app.acquire_token_for_client(SCOPE)
    delta = temporality is AggregationTemporality.DELTA
    ra.telemetry.instrument(meters)
    try:
        assert ask(10) == 10
        for _ in range(4):
            in_a_child(lambda: _is(ask(3), 3 if delta else 13))
        assert ask(2) == (2 if delta else 12)
        ra.telemetry.uninstrument()
        ra.telemetry.instrument(meters)
        assert ask(1) == (1 if delta else 13)
    finally:
        ra.telemetry.uninstrument()
        meters.shutdown()


def _is(found: float, expected: float) -> None:
    assert found == expected


def test_a_flood_of_events_is_counted_to_the_last(seen: Seen) -> None:
    """By many threads at once, of which each may be told faster than a listener hears."""

    def flood(_: int) -> None:
        for _ in range(1000):
            emit(BulkheadRefused(at=1.0, target="https://api.example", code="queue_full"))

    logger = logging.getLogger("resilient_auth")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        threads = [threading.Thread(target=flood, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        logger.setLevel(before)
    assert seen.scraped("resilient_auth_events_total", event="bulkhead_refused") == 32_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exchange_that_exits_ends_its_attempt(
    seen: Seen, idp: Emulator, clock: Any, eventually: Callable[..., None]
) -> None:
    """An owner's client that wants to leave, in the middle of one."""
    spans = Counted()
    seen.tracers.add_span_processor(spans)

    class Leaving(requests.Session):
        def post(self, *_: Any, **__: Any) -> Any:
            raise SystemExit(3)

    with Leaving() as client:
        client.verify = idp.ca_file
        app = msal.ConfidentialClientApplication(
            "daemon", authority=idp.authority("contoso"), client_credential="x", http_client=client,
            instance_discovery=False, resilience=ra.Settings(clock=clock, wait=5.0),
        )  # fmt: skip
        with pytest.raises(SystemExit):
            app.acquire_token_for_client(SCOPE)
        app.close()
    eventually(lambda: not spans.under_way)
