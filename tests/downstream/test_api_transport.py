"""One pipeline decides about every call, for threads and for tasks alike."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.downstream import (
    ApiAnsweredError,
    ApiBulkheadFull,
    ApiCircuitOpen,
    ApiDeadlinePassed,
    AsyncResilientTransport,
    BreakerOptions,
    ResilientTransport,
    TransportOptions,
)
from resilient_auth.downstream.deadlines import inherited
from resilient_auth.errors import ConfigurationError

API = "https://api.example"


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that answers as told, one thing after the other, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def _next(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[min(len(self.seen), len(self.answers) - 1)]
        self.seen.append(request)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        return httpx.Response(answer) if isinstance(answer, int) else answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._next(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return self._next(request)


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in parts, which may break, and which knows whether it was closed."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, BaseException):
                raise part
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            await asyncio.sleep(0)
            yield part

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Bench:
    """One transport of either kind, driven from a test that doesn't care which."""

    def __init__(self, kind: str, script: Script, clock: Any, options: TransportOptions, **more: Any) -> None:
        self.script = script
        self.slept: list[float] = []
        self._loop = asyncio.new_event_loop() if kind == "tasks" else None

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            clock.advance(seconds)

        async def sleep_async(seconds: float) -> None:
            sleep(seconds)

        self.transport: Any = (
            AsyncResilientTransport(script, options=options, sleep=sleep_async, **more)
            if self._loop
            else ResilientTransport(script, options=options, sleep=sleep, **more)
        )

    def ask(self, method: str = "GET", url: str = API, **about: Any) -> httpx.Response:
        request = httpx.Request(method, url, **about)
        if self._loop is None:
            return self.transport.handle_request(request)
        return self._loop.run_until_complete(self.transport.handle_async_request(request))

    def read(self, response: httpx.Response) -> bytes:
        return response.read() if self._loop is None else self._loop.run_until_complete(response.aread())

    def close(self, response: httpx.Response) -> None:
        response.close() if self._loop is None else self._loop.run_until_complete(response.aclose())

    @property
    def in_use(self) -> int:
        return self.transport._pipeline.circuits.find(API).bulkhead.in_use

    @property
    def state(self) -> str:
        return self.transport._pipeline.circuits.find(API).breaker.status().state

    def end(self) -> None:
        if self._loop is not None:
            self._loop.close()


@pytest.fixture(params=["threads", "tasks"])
def bench(request: pytest.FixtureRequest, clock: Any, options: Callable[..., TransportOptions]) -> Iterator[Any]:
    made: list[Bench] = []

    def build(*answers: Any, more: dict[str, Any] | None = None, **changed: Any) -> Bench:
        made.append(Bench(request.param, Script(*answers), clock, options(**changed), **(more or {})))
        return made[-1]

    yield build
    for one in made:
        one.end()


class TestRetries:
    @pytest.mark.parametrize(
        "failure", [503, 500, 408, httpx.ReadError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")]
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
    def test_what_changes_nothing_more_is_repeated(self, bench: Any, method: str, failure: Any) -> None:
        """A moment's fault isn't seen by the caller."""
        b = bench(failure, 200)
        assert b.ask(method).status_code == 200
        assert len(b.slept) == 1

    @pytest.mark.parametrize("failure", [503, 429, httpx.ReadError("x")])
    def test_a_post_is_not(self, bench: Any, failure: Any) -> None:
        """The API may have acted on it."""
        b = bench(failure, 200)
        try:
            assert b.ask("POST", content=b"x").status_code == failure
        except httpx.ReadError:
            assert isinstance(failure, httpx.ReadError)
        assert len(b.script.seen) == 1

    @pytest.mark.parametrize("about", [{"headers": {"Idempotency-Key": "k"}, "content": b"x"}, {}])
    def test_a_post_with_a_key_is(self, bench: Any, about: dict[str, Any]) -> None:
        """By an `Idempotency-Key` the API tells a repetition."""
        b = bench(503, 200)
        assert b.ask("POST", **about).status_code == (200 if about else 503)

    @pytest.mark.parametrize("status", [429, 503])
    def test_any_method_is_repeated_when_the_api_says_when(self, bench: Any, status: int) -> None:
        """429 and 503 with `Retry-After` weren't acted on; the wait is at least as long as asked (G8)."""
        b = bench(httpx.Response(status, headers={"Retry-After": "7"}), 200)
        assert b.ask("POST", content=b"x").status_code == 200
        assert 7.0 <= b.slept[0] <= 7.7

    def test_a_date_to_retry_after_is_read_by_the_apis_clock(self, bench: Any) -> None:
        """Ours may be wrong by years."""
        sent = "Tue, 14 Nov 2023 22:14:00 GMT"
        later = "Tue, 14 Nov 2023 22:14:07 GMT"
        b = bench(httpx.Response(503, headers={"Retry-After": later, "Date": sent}), 200)
        assert b.ask("POST", content=b"x").status_code == 200
        assert 7.0 <= b.slept[0] <= 7.7

    @pytest.mark.parametrize("name", ["retry-after-ms", "x-ms-retry-after-ms"])
    def test_milliseconds_are_honoured(self, bench: Any, name: str) -> None:
        """Before a `Retry-After` beside them, which is rounded."""
        b = bench(httpx.Response(429, headers={name: "1500", "Retry-After": "2"}), 200)
        assert b.ask("POST", content=b"x").status_code == 200
        assert 1.5 <= b.slept[0] <= 1.65

    @pytest.mark.parametrize(
        "headers",
        [
            {"Retry-After": "0"},
            {"Retry-After": "Tue, 14 Nov 2000 22:13:20 GMT"},
            {"Retry-After": "0.05"},
            {"retry-after-ms": "1"},
        ],
        ids=["zero", "past", "soon", "millisecond"],
    )
    def test_at_once_is_no_answer_to_when(self, bench: Any, headers: dict[str, str]) -> None:
        """The back-off holds, and nobody is told to be back before it is over."""
        told: list[Any] = []
        answer = httpx.Response(503, headers=headers)
        b = bench(answer, more={"fallback": lambda request, error: told.append(error)})
        assert b.ask().status_code == 503
        assert b.slept == [pytest.approx(0.3), pytest.approx(0.4)]
        assert told[0].retry_after != 0.0

    def test_retry_after_beyond_the_deadline_is_the_callers(self, bench: Any) -> None:
        """Nobody waits for what can't come in time."""
        b = bench(httpx.Response(503, headers={"Retry-After": "60"}), 200)
        assert b.ask().status_code == 503
        assert b.slept == []

    def test_a_connection_never_made_is_safe_for_all(self, bench: Any) -> None:
        """A generator's body is still there then, too."""
        b = bench(httpx.ConnectError("x"), 200)
        assert b.ask("POST", content=(part for part in [b"x"])).status_code == 200

    @pytest.mark.parametrize("body", [lambda: (part for part in [b"x"]), lambda: io.BytesIO(b"x")])
    def test_a_body_that_is_gone_is_not_sent_again(self, bench: Any, body: Callable[[], Any]) -> None:
        """The API's answer is the caller's."""
        b = bench(503, 200)
        assert b.ask("PUT", content=body()).status_code == 503

    def test_attempts_and_back_off_grow_to_their_limits(self, bench: Any, never_opens: BreakerOptions) -> None:
        """Each wait is longer, with jitter, and the last answer is the caller's."""
        b = bench(503, attempts=5, breaker=never_opens)
        assert b.ask().status_code == 503
        assert b.slept == pytest.approx([0.3, 0.4, 0.6, 1.0])

    def test_the_budget_bounds_everybodys_retries(self, bench: Any, never_opens: BreakerOptions) -> None:
        """Then each call is one attempt, until successes have earned more."""
        b = bench(503, retry_budget=3, breaker=never_opens)
        for _ in range(10):
            b.ask()
        assert len(b.script.seen) == 13

    def test_no_retry_once_the_breaker_opened(self, bench: Any) -> None:
        """The answer of the failure that opened it is the caller's."""
        b = bench(503, attempts=10, breaker=BreakerOptions(consecutive_failures=2))
        assert b.ask().status_code == 503
        assert len(b.script.seen) == 2

    @pytest.mark.parametrize(
        "error",
        [httpx.UnsupportedProtocol("x"), httpx.LocalProtocolError("x"), ValueError("x"), httpx.PoolTimeout("x")],
    )
    def test_our_own_mistakes_are_neither_repeated_nor_blamed_on_the_api(self, bench: Any, error: Exception) -> None:
        """However often they come."""
        b = bench(error)
        for _ in range(10):
            with pytest.raises(type(error)):
                b.ask()
        assert (b.state, b.in_use, len(b.script.seen)) == ("closed", 0, 10)


class TestBreaker:
    def test_a_dead_api_is_left_alone_and_probed_once(self, bench: Any, clock: Any) -> None:
        """The refusal says which API, when to try again, and something for the user."""
        b = bench(httpx.ConnectError("x"), attempts=1)
        for _ in range(5):
            with pytest.raises(httpx.ConnectError):
                b.ask()
        with pytest.raises(ApiCircuitOpen) as refused:
            b.ask()
        assert refused.value.origin == API
        assert refused.value.retry_after
        assert refused.value.retry_after >= 5.0
        assert "try again in" in refused.value.user_message
        assert isinstance(refused.value, httpx.TransportError)
        assert isinstance(refused.value, ra.ResilientAuthError)
        clock.advance(8)
        with pytest.raises(httpx.ConnectError):
            b.ask()
        with pytest.raises(ApiCircuitOpen):
            b.ask()
        assert len(b.script.seen) == 6

    def test_it_closes_when_a_probe_succeeds(self, bench: Any, clock: Any) -> None:
        """Even with a 404: the API works, and said no."""
        b = bench(*[503] * 5, 404, attempts=1)
        for _ in range(5):
            b.ask()
        clock.advance(60)
        assert b.ask().status_code == 404
        assert b.state == "closed"

    def test_origins_do_not_share_one_unless_the_key_says_so(self, bench: Any) -> None:
        """Or a host is split by API."""
        b = bench(503, attempts=1, more={"key": lambda request: request.url.path})
        for _ in range(5):
            b.ask(url=f"{API}/a")
        with pytest.raises(ApiCircuitOpen):
            b.ask(url="https://other.example/a")
        assert b.ask(url=f"{API}/b").status_code == 503

    def test_slow_answers_count(self, bench: Any, clock: Any) -> None:
        """The caller gets them, and the breaker takes note."""

        def slow(request: httpx.Request) -> int:
            clock.advance(3)
            return 200

        b = bench(slow, slow_call=2.0)
        for _ in range(5):
            assert b.ask().status_code == 200
        with pytest.raises(ApiCircuitOpen, match="slow"):
            b.ask()

    @pytest.mark.parametrize("named", ["https://API.example", "https://api.example:443/", "https://api.example/v1"])
    def test_an_operator_may_write_the_origin_in_any_way(self, bench: Any, named: str) -> None:
        """Isolating must not miss for a capital letter or a default port."""
        b = bench(200)
        b.transport.isolate(named)
        with pytest.raises(ApiCircuitOpen):
            b.ask()
        b.transport.reset(named)
        assert b.ask().status_code == 200

    def test_a_key_of_the_owners_is_taken_as_it_is(self, bench: Any) -> None:
        """With a slash at its end too."""
        b = bench(200, more={"key": lambda request: "/"})
        b.transport.isolate("/")
        with pytest.raises(ApiCircuitOpen):
            b.ask()

    def test_an_operator_can_take_an_api_out_of_use(self, bench: Any) -> None:
        """And put it back."""
        b = bench(200)
        b.transport.isolate(f"{API}/")
        with pytest.raises(ApiCircuitOpen, match="isolate"):
            b.ask()
        assert [status.state for status in b.transport.breakers()] == ["isolated"]
        b.transport.reset(API)
        assert b.ask().status_code == 200

    def test_throttling_does_not_open_it(self, bench: Any) -> None:
        """A 429 says that the API works."""
        b = bench(429, attempts=1)
        for _ in range(20):
            assert b.ask().status_code == 429
        assert b.state == "closed"


class TestBodies:
    def test_a_slot_is_held_until_the_body_is_read(self, bench: Any) -> None:
        """And given back once, however often it is closed."""
        body = Chunks(b"a", b"b")
        b = bench(lambda request: httpx.Response(200, stream=body))
        response = b.ask()
        assert b.in_use == 1
        assert b.read(response) == b"ab"
        b.close(response)
        b.close(response)
        assert b.in_use == 0

    def test_a_body_that_is_never_read_but_closed(self, bench: Any) -> None:
        """The API had answered: it isn't blamed."""
        b = bench(lambda request: httpx.Response(200, stream=Chunks(b"a")))
        for _ in range(20):
            b.close(b.ask())
        assert (b.in_use, b.state) == (0, "closed")

    def test_a_body_that_breaks_is_a_failure(self, bench: Any) -> None:
        """Five of them open the breaker; the caller sees what httpx says."""
        b = bench(lambda request: httpx.Response(200, stream=Chunks(b"a", httpx.ReadError("broke"))))
        for _ in range(5):
            with pytest.raises(httpx.ReadError):
                b.read(b.ask())
        with pytest.raises(ApiCircuitOpen):
            b.ask()
        assert b.in_use == 0

    def test_a_body_that_is_lost_gives_its_slot_back(self, bench: Any) -> None:
        """By the next call, when the collector has found it; in whatever cycle it was."""
        b = bench(lambda request: httpx.Response(200, stream=Chunks(b"a")), concurrency=1, queue=0)
        lost: list[Any] = [b.ask()]
        lost.append(lost)
        del lost
        gc.collect()
        b.close(b.ask())
        assert b.in_use == 0

    def test_a_body_that_is_lost_is_closed_too(self, bench: Any) -> None:
        """Or its connection would stay out of the pool for good."""
        body = Chunks(b"a")
        b = bench(
            lambda request: httpx.Response(200, stream=body if len(b.script.seen) == 1 else Chunks(b"b")),
            concurrency=1,
            queue=0,
        )
        b.ask()
        gc.collect()
        assert body.closed == 0
        b.close(b.ask())
        assert (body.closed, b.in_use) == (1, 0)

    def test_a_failed_answer_is_closed_before_the_next_attempt(self, bench: Any) -> None:
        """Its connection isn't kept waiting through the back-off."""
        body = Chunks(b"a")
        b = bench(lambda request: httpx.Response(503, stream=body), 200)
        assert b.ask().status_code == 200
        assert (body.closed, b.in_use) == (1, 0)


class TestDeadline:
    def test_it_ends_retries(self, bench: Any, clock: Any, never_opens: BreakerOptions) -> None:
        """No attempt begins that couldn't end in time."""
        b = bench(503, attempts=20, deadline=12.0, first_delay=3.0, breaker=never_opens)
        began = clock.monotonic()
        assert b.ask().status_code == 503
        assert clock.monotonic() - began <= 12.0

    def test_a_call_has_its_own(self, bench: Any) -> None:
        """By its extension; 0 is no time at all."""
        b = bench(200)
        with pytest.raises(ApiDeadlinePassed) as late:
            b.ask(extensions={"deadline": 0.0})
        assert isinstance(late.value, httpx.TimeoutException)
        assert b.ask(extensions={"deadline": None}).status_code == 200
        with pytest.raises(ConfigurationError, match="deadline"):
            b.ask(extensions={"deadline": "soon"})
        assert b.in_use == 0

    def test_a_call_within_a_call_inherits_it(self, bench: Any) -> None:
        """It has no more time than what it serves."""
        inner = bench(200)
        left: list[float] = []

        def ask_inside(request: httpx.Request) -> int:
            left.append(inherited.get().left())
            return 200

        outer = bench(ask_inside, deadline=11.0)
        with ra.downstream.deadline(5.0):
            outer.ask()
        assert 4.5 < left[0] <= 5.0
        assert inner.ask().status_code == 200

    def test_what_a_fallback_asks_has_no_more_time_than_its_call(self) -> None:
        """By the call's own deadline, and no longer than that is out."""
        left: list[float] = []

        def fallback(request: httpx.Request, error: httpx.TransportError) -> httpx.Response:
            around = inherited.get()
            assert around is not None
            left.append(around.left())
            return httpx.Response(200)

        options = TransportOptions(deadline=4.0, attempt_timeout=2.0, connect_timeout=1.0, attempts=1)
        transport = ResilientTransport(Script(500), options=options, fallback=fallback)
        assert transport.handle_request(httpx.Request("GET", API)).status_code == 200
        assert 3.0 < left[0] <= 4.0
        assert inherited.get() is None

    def test_a_time_out_in_a_hurry_is_not_blamed_on_the_api(self, bench: Any, clock: Any) -> None:
        """An API that got 100 ms to answer hasn't failed."""

        def late(request: httpx.Request) -> Exception:
            clock.advance(0.1)
            return httpx.ReadTimeout("x")

        b = bench(late)
        for _ in range(20):
            with pytest.raises(ApiDeadlinePassed):
                b.ask(extensions={"deadline": 0.1})
        assert b.state == "closed"

    def test_the_requests_own_time_outs_come_back(self, bench: Any) -> None:
        """An attempt narrows them to its call's deadline, for itself alone."""
        b = bench(200)
        own = {"timeout": {"read": 99.0}}
        request = httpx.Request("GET", API, extensions=own)
        seen: list[float] = []
        b.script.answers = [lambda r: seen.append(float(r.extensions["timeout"]["read"])) or 200]
        if b._loop is None:
            b.transport.handle_request(request)
        else:
            b._loop.run_until_complete(b.transport.handle_async_request(request))
        assert seen == [30.0]
        assert request.extensions == own


class TestFallback:
    def test_it_answers_in_place_of_an_error_and_is_marked(self, bench: Any) -> None:
        """An old answer says so."""
        told: list[Exception] = []

        def reduced(request: httpx.Request, error: Exception) -> httpx.Response:
            told.append(error)
            return httpx.Response(200, json=[], headers={"Age": "60"})

        b = bench(httpx.ConnectError("x"), attempts=1, more={"fallback": reduced})
        answer = b.ask()
        assert (answer.status_code, answer.headers["X-Fallback"]) == (200, "ConnectError; stale")
        assert answer.extensions["fallback"] == "ConnectError"
        for _ in range(5):
            answer = b.ask()
        assert answer.extensions["fallback"] == "api_circuit_open"
        assert isinstance(told[-1], ApiCircuitOpen)

    def test_it_answers_in_place_of_a_5xx_after_its_retries(self, bench: Any) -> None:
        """And None leaves it at the API's own answer, unmarked and unread."""
        choice: list[httpx.Response | None] = [httpx.Response(200), None]
        b = bench(
            503,
            more={"fallback": lambda request, error: choice.pop(0) if isinstance(error, ApiAnsweredError) else None},
        )
        assert b.ask().headers["X-Fallback"] == "api_answered_error"
        b.transport.reset(API)
        answer = b.ask()
        assert (answer.status_code, "X-Fallback" in answer.headers) == (503, False)

    def test_a_4xx_is_no_reason_for_it(self, bench: Any) -> None:
        """The API works, and said no."""
        b = bench(404, more={"fallback": lambda request, error: httpx.Response(200)})
        assert b.ask().status_code == 404

    def test_what_it_raises_is_the_callers_and_leaks_nothing(self, bench: Any) -> None:
        """The failed answer is closed."""
        body = Chunks(b"x")

        def broken(request: httpx.Request, error: Exception) -> None:
            raise LookupError("nothing kept")

        b = bench(lambda request: httpx.Response(503, stream=body), attempts=1, more={"fallback": broken})
        with pytest.raises(LookupError):
            b.ask()
        assert (body.closed, b.in_use) == (1, 0)


async def test_a_fallback_may_be_a_coroutine_function() -> None:
    """In a task it is awaited."""

    async def reduced(request: httpx.Request, error: Exception) -> httpx.Response:
        await asyncio.sleep(0)
        return httpx.Response(203)

    transport = AsyncResilientTransport(Script(503), options=TransportOptions(attempts=1), fallback=reduced)
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get(API)).status_code == 203


class TestBulkhead:
    def test_threads_wait_in_line_and_not_for_ever(self) -> None:
        """A full line refuses at once, a slow one after its time."""
        leave = threading.Event()
        entered = threading.Semaphore(0)

        def hold(request: httpx.Request) -> httpx.Response:
            entered.release()
            leave.wait(10)
            return httpx.Response(200)

        transport = ResilientTransport(
            httpx.MockTransport(hold), options=TransportOptions(concurrency=1, queue=1, queue_wait=0.3)
        )
        ends: list[object] = []

        def ask() -> None:
            try:
                ends.append(transport.handle_request(httpx.Request("GET", API)).status_code)
            except ApiBulkheadFull as error:
                ends.append(error)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        entered.acquire()
        threads[1].start()
        circuit = transport._pipeline.circuits.find(API)
        while not circuit.bulkhead.waiting:
            pass
        with pytest.raises(ApiBulkheadFull, match=r"the queue for .* is full") as full:
            transport.handle_request(httpx.Request("GET", API))
        assert isinstance(full.value, httpx.PoolTimeout)
        assert full.value.retry_after
        threads[1].join()
        leave.set()
        threads[0].join()
        assert [type(end) for end in ends] == [ApiBulkheadFull, int]
        assert (circuit.bulkhead.in_use, circuit.bulkhead.waiting) == (0, 0)
        assert circuit.breaker.status().state == "closed"

    async def test_who_waited_while_the_breaker_opened_is_not_sent(self) -> None:
        """A line in front of an API that died meanwhile is turned away."""
        seen = 0

        async def fail(request: httpx.Request) -> httpx.Response:
            nonlocal seen
            seen += 1
            await asyncio.sleep(0.01)
            return httpx.Response(503)

        options = TransportOptions(concurrency=5, attempts=1, queue=200)
        transport = AsyncResilientTransport(httpx.MockTransport(fail), options=options)
        ends = await asyncio.gather(
            *(transport.handle_async_request(httpx.Request("GET", API)) for _ in range(100)), return_exceptions=True
        )
        assert seen <= 10
        assert sum(isinstance(end, ApiCircuitOpen) for end in ends) >= 90
        assert transport._pipeline.circuits.find(API).bulkhead.in_use == 0


class TestHedging:
    def test_a_slow_safe_request_is_sent_twice_by_threads(self) -> None:
        """The second one wins, and the loser's answer is closed when it comes."""
        late, first = Chunks(b"late"), threading.Event()
        release = threading.Event()

        def answer(request: httpx.Request) -> httpx.Response:
            if not first.is_set():
                first.set()
                release.wait(5)
                return httpx.Response(200, stream=late)
            return httpx.Response(200, stream=Chunks(b"quick"))

        transport = ResilientTransport(httpx.MockTransport(answer), options=TransportOptions(hedge_after=0.02))
        with httpx.Client(transport=transport) as client:
            assert client.get(API).text == "quick"
            release.set()
            bulkhead = transport._pipeline.circuits.find(API).bulkhead
            for _ in range(500):
                if bulkhead.in_use == 0:
                    break
                threading.Event().wait(0.01)
            assert (late.closed > 0, bulkhead.in_use) == (True, 0)

    @pytest.mark.parametrize("to_be_had", [0, 1])
    def test_where_no_thread_is_to_be_had_the_caller_does_it(
        self, to_be_had: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process at its limit loses no call for the sake of a second one."""
        started: list[threading.Thread] = []
        start = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            if thread.name == "resilient-auth-hedge":
                if len(started) == to_be_had:
                    raise RuntimeError("can't start new thread")
                started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)

        def answer(request: httpx.Request) -> httpx.Response:
            threading.Event().wait(0.1)
            return httpx.Response(200)

        transport = ResilientTransport(httpx.MockTransport(answer), options=TransportOptions(hedge_after=0.02))
        assert transport.handle_request(httpx.Request("GET", API)).status_code == 200
        assert len(started) == to_be_had
        for thread in started:
            thread.join(5)
        assert transport._pipeline.circuits.find(API).bulkhead.in_use == 0

    async def test_and_by_tasks(self) -> None:
        """The loser is cancelled; a POST is never doubled."""
        seen: list[str] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.method)
            await asyncio.sleep(5 if len(seen) == 1 else 0)
            return httpx.Response(200)

        transport = AsyncResilientTransport(httpx.MockTransport(answer), options=TransportOptions(hedge_after=0.02))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(API)).status_code == 200
            assert seen == ["GET", "GET"]
            assert transport._pipeline.circuits.find(API).bulkhead.in_use == 0
            await client.post(API)
            assert seen.count("POST") == 1

    @pytest.mark.parametrize(
        ("method", "about"),
        [("PUT", {"content": b"x"}), ("DELETE", {}), ("GET", {"files": {"a": ("a.txt", io.BytesIO(b"x" * 99))}})],
        ids=["put", "delete", "files"],
    )
    async def test_what_must_not_be_out_twice_at_once_is_not(self, method: str, about: dict[str, Any]) -> None:
        """A write that loses the race could land after the caller's next one; a file has one position."""
        seen: list[bytes] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            seen.append(await request.aread())
            await asyncio.sleep(0.05)
            return httpx.Response(200)

        transport = AsyncResilientTransport(httpx.MockTransport(answer), options=TransportOptions(hedge_after=0.005))
        await transport.handle_async_request(httpx.Request(method, API, **about))
        assert len(seen) == 1

    async def test_a_cancelled_race_leaves_nothing(self) -> None:
        """Both attempts are cancelled with it."""

        async def hang(request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

        transport = AsyncResilientTransport(httpx.MockTransport(hang), options=TransportOptions(hedge_after=0.01))
        task = asyncio.create_task(transport.handle_async_request(httpx.Request("GET", API)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport._pipeline.circuits.find(API).bulkhead.in_use == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"attempt_timeout": 40.0}, "deadline"),
        ({"connect_timeout": 11.0}, "attempt_timeout"),
        ({"first_delay": 6.0}, "longest_delay"),
        ({"slow_call": 11.0}, "attempt_timeout"),
        ({"hedge_after": 11.0}, "attempt_timeout"),
        ({"hedge_after": 1.0, "retry_budget": 0}, "hedge_after has no effect"),
        ({"queue_wait": 31.0}, "deadline"),
        ({"attempts": 0}, "attempts"),
        ({"concurrency": 0}, "concurrency"),
        ({"deadline": "x"}, "deadline"),
        ({"breaker": None}, "breaker"),
        ({"breaker": BreakerOptions(probe_lease=5.0)}, "probe_lease"),
        ({"deadline": 0.1, "attempt_timeout": 0.1, "connect_timeout": 0.1, "queue_wait": 0.1}, "retry"),
    ],
)
def test_options_that_do_not_go_together_are_refused(wrong: dict[str, Any], says: str) -> None:
    """At once, with both names."""
    with pytest.raises(ConfigurationError, match=says):
        TransportOptions(**wrong)


def test_an_api_that_wants_no_token_gets_none() -> None:
    """Without a credential nothing is added; scopes without one are a mistake."""
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200)

    with ra.api_client("https://api.example", None, transport=httpx.MockTransport(answer)) as client:
        assert client.get("/").status_code == 200
    assert "authorization" not in seen[0]
    with pytest.raises(ConfigurationError, match="give the credential"):
        ra.api_client("https://api.example", None, "scope")


@pytest.mark.parametrize("make", [ra.api_client, ra.aio.api_client])
@pytest.mark.parametrize(
    "given",
    [
        {"credential": None, "scopes": "scope"},
        {"credential": None, "origins": ["https://other.example"]},
        {"credential": None, "tenant_id": "t"},
        {"credential": None, "subject": lambda: "ann"},
        {"credential": lambda: "T", "scopes": "scope"},
        {"credential": lambda: "T", "tenant_id": "t"},
        {"verify": False, "transport": True},
        {"http1": False, "transport": True},
        {"http2": True, "transport": True},
        {"limits": httpx.Limits(max_connections=1), "transport": True},
    ],
    ids=lambda given: "-".join(given),
)
def test_an_option_without_effect_is_refused(make: Any, given: dict[str, Any]) -> None:
    """In place of being dropped: who turns verification off beside a transport of their own must learn of it."""
    name = next(name for name in given if name not in ("credential", "transport"))
    arguments = {"credential": lambda: "T", **given}
    if "transport" in arguments:
        arguments["transport"] = httpx.MockTransport(lambda _: httpx.Response(200))
    with pytest.raises(ConfigurationError, match=f"{name} (?:has no effect|means nothing)"):
        make("https://api.example", **arguments)


def test_an_async_fallback_has_no_place_in_a_sync_transport() -> None:
    """It is told when it is made, and not in the first outage."""

    async def fallback(request: httpx.Request, error: Exception) -> None:
        return None

    with pytest.raises(ConfigurationError, match="an async fallback in a sync transport"):
        ra.ResilientTransport(fallback=fallback)
    ra.AsyncResilientTransport(fallback=fallback)
