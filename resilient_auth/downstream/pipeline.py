"""One call, from its deadline to its answer: a generator that decides, for drivers that wait.

    deadline ─▶ retry ─▶ breaker ─▶ bulkhead ─▶ attempt ─┬─ good ───────────────────────────────▶ the answer
                  ▲        │           │                 ├─ may be repeated, in time ─ back off ──┐
                  │        └─ refused ─┴─▶ fallback, or   └─ else ─▶ fallback, or the answer ◀──   │
                  │                        the error                 or error itself              │
                  └───────────────────────────────────────────────────────────────────────────────┘

The order matters: a breaker outside of the retries would see one failure in place of three, and a queue outside of the
breaker would let calls line up for an API that is down.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import cachetools

from .._policy.breaker import Breaker, BreakerStatus, Permit
from .._policy.failure import parse_retry_after
from .._policy.retry import Budget
from ..errors import CircuitOpen, ConfigurationError
from ..events import BulkheadRefused, FallbackServed, HedgeSent, RetryScheduled, emit
from .bounded import Until
from .bulkhead import Bulkhead, Place
from .deadlines import Deadline, inherited, wanted
from .errors import ApiUnavailable
from .failure import Dialect, Failure, explain
from .lease import Lease
from .options import TransportOptions
from .replay import replayable
from .retry import FAILING, SAFE, delay_before, may_repeat

__all__ = ["Circuit", "Close", "Consult", "Effect", "LineUp", "Pipeline", "Race", "Result", "Send", "Wait"]

_NEVER = math.inf
#: Keys whose breakers are kept.
_MOST_KEYS = 1024
#: Of the attempt's time, the share without which an attempt isn't begun, nor a timed-out one blamed on the API.
_FAIR_SHARE = 0.5
_FAIR_AT_MOST = 2.0


class Circuit:
    """What the calls with one key share."""

    __slots__ = ("breaker", "budget", "bulkhead", "name")

    def __init__(self, name: str, options: TransportOptions) -> None:
        self.name = name
        self.breaker = Breaker(name, options.breaker, clock=options.clock, jitter=options.jitter, authority=name)
        self.bulkhead = Bulkhead(options.concurrency, options.queue)
        self.budget = Budget(options.retry_budget)

    def renew_locks(self) -> None:
        """Make it usable in a forked child."""
        self.breaker.renew_lock()
        self.bulkhead.renew_lock()
        self.budget.renew_lock()


class Send(NamedTuple):
    """Send the request with the wrapped transport; the answer's head must be there within `seconds`."""

    request: Any
    seconds: float


class Wait(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


class LineUp(NamedTuple):
    """Wait until it is this place's turn, for `seconds` at most."""

    bulkhead: Bulkhead
    place: Place
    seconds: float


class Close(NamedTuple):
    """Close an answer that nobody will read."""

    response: Any


class Consult(NamedTuple):
    """Ask the owner's fallback function for an answer."""

    request: Any
    error: Exception


class Race(NamedTuple):
    """Run the first attempt; after `seconds` without a result, or where it failed by then, the second one beside it.

    Brings the first good result, or else the last one; what comes later is closed.
    """

    first: Generator[Effect, Any, Result]
    second: Callable[[], Generator[Effect, Any, Result] | None]
    seconds: float


Effect = Send | Wait | LineUp | Close | Consult | Race
Steps = Generator[Effect, Any, Any]


class Result(NamedTuple):
    """How an attempt ended: with an answer, or with a failure."""

    response: Any
    failure: Failure | None
    retry_after: float | None

    @property
    def good(self) -> bool:
        """Tell whether the API did its work, if only to say no."""
        return self.failure is None and self.response.status_code != 429 and self.response.status_code not in FAILING


class _Call(NamedTuple):
    request: Any
    circuit: Circuit
    #: On the options' monotonic clock.
    ends: float
    timeouts: dict[str, Any]
    replayable: bool


class Pipeline:
    """Decide about every call of one transport.

    Args:
        options: The owner's.
        key: Tells which calls share a breaker and a bulkhead; their origin when not given.
        has_fallback: Whether the driver can answer `Consult`.
        body: Makes the body of an answer one that gives back what the call holds.
        dialect: The HTTP library.
    """

    def __init__(
        self,
        options: TransportOptions,
        *,
        key: Callable[[Any], str] | None,
        has_fallback: bool,
        body: Callable[..., Any],
        dialect: Dialect,
    ) -> None:
        self.options = options
        self._key = key or _origin_key
        self._has_fallback = has_fallback
        self._body = body
        self._dialect = dialect
        #: Whether the wrapped transport honours `Until`.
        self.bounded = False
        self._now = options.clock.monotonic
        self._lock = threading.Lock()
        self._circuits: cachetools.LRUCache[str, Circuit] = cachetools.LRUCache(_MOST_KEYS)
        self._last: Circuit | None = None
        self._abandoned: deque[Lease] = deque()
        _living.add(self)

    def circuit(self, name: str) -> Circuit:
        """Find what the calls with one key share."""
        last = self._last
        if last is not None and last.name == name:
            return last
        with self._lock:
            circuit: Circuit | None = self._circuits.get(name)
            if circuit is None:
                circuit = self._circuits[name] = Circuit(name, self.options)
            # It can't be evicted before another key was asked for, and so stood here.
            self._last = circuit
            return circuit

    def breakers(self) -> tuple[BreakerStatus, ...]:
        """Tell how each breaker stands."""
        with self._lock:
            circuits = list(self._circuits.values())
        return tuple(circuit.breaker.status() for circuit in circuits)

    def call(self, request: Any) -> Steps:
        """Take one request through; returns its answer."""
        while self._abandoned:
            self._abandoned.popleft().fail(None)
        name = self._key(request)
        if not isinstance(name, str):
            raise ConfigurationError(f"key must return a string for each request, not {name!r}")
        circuit = self.circuit(name)
        extensions = request.extensions
        call = _Call(
            request,
            circuit,
            self._now() + wanted(extensions, self.options.deadline),
            extensions.get("timeout") or {},
            replayable(request.stream, self._dialect.library),
        )
        # What this call makes others ask, such as a fallback's own call, has no more time than it has.
        outer = inherited.set(Deadline(self._now, call.ends)) if call.ends != _NEVER else None
        try:
            return (yield from self._through(call))
        finally:
            if outer is not None:
                inherited.reset(outer)

    def _through(self, call: _Call) -> Steps:
        request, circuit = call.request, call.circuit
        try:
            result: Result = yield from self._attempts(call)
            if result.failure is not None:
                raise result.failure.error
        except self._dialect.library.TransportError as error:
            error = self._located(error, call)
            if self._has_fallback:
                answer = yield Consult(request, error)
                if answer is not None:
                    return self._marked(answer, error, circuit)
            raise
        if self._has_fallback and not result.good:
            answer = yield from self._instead_of(result, call)
            if answer is not None:
                return answer
        return result.response

    def _attempts(self, call: _Call) -> Generator[Effect, Any, Result]:
        options, circuit = self.options, call.circuit
        number = 1
        last: Result | None = None
        while True:
            try:
                if options.hedge_after is None or call.request.method not in SAFE or not call.replayable:
                    result = yield from self._attempt(call, call.request)
                else:
                    result = yield Race(
                        self._attempt(call, self._copy(call)), lambda: self._hedge(call), options.hedge_after
                    )
            except ApiUnavailable:
                # The breaker opened or the line grew meanwhile: what happened first tells more.
                if last is not None and last.failure is not None:
                    return last
                raise
            if result.good:
                circuit.budget.earn()
                return result
            delay = self._delay(call, number, result)
            if delay is None:
                return result
            if result.response is not None:
                yield Close(result.response)
            emit(
                RetryScheduled(
                    at=options.clock.wall(),
                    authority=circuit.name,
                    purpose="api",
                    attempt=number,
                    delay=delay,
                    code=_code_of(result),
                )
            )
            yield Wait(delay)
            last = result
            number += 1

    def _delay(self, call: _Call, number: int, result: Result) -> float | None:
        """Tell when the next attempt is made; None for never."""
        options, circuit, failure = self.options, call.circuit, result.failure
        repeats = may_repeat(
            call.request.method,
            keyed="idempotency-key" in call.request.headers,
            replayable=call.replayable,
            sent=failure is None or failure.sent,
            status=None if failure is not None else result.response.status_code,
            retry_after=result.retry_after,
        )
        if number >= options.attempts or not repeats or (failure is not None and not failure.transient):
            return None
        delay = delay_before(number, result.retry_after, options, options.jitter)
        if self._now() + delay + min(options.connect_timeout, _FAIR_SHARE * options.attempt_timeout) > call.ends:
            return None
        if circuit.breaker.retry_at is not None or not circuit.budget.spend():
            return None
        return delay

    def _hedge(self, call: _Call) -> Generator[Effect, Any, Result] | None:
        if call.circuit.breaker.retry_at is not None or not call.circuit.budget.spend():
            return None
        emit(HedgeSent(at=self.options.clock.wall(), name=call.circuit.name))
        return self._attempt(call, self._copy(call))

    def _attempt(self, call: _Call, request: Any) -> Generator[Effect, Any, Result]:
        options, circuit = self.options, call.circuit
        if self._now() >= call.ends:
            raise self._dialect.deadline_passed(
                f"there is no time left in which to ask {circuit.name}", origin=circuit.name
            )
        permit = self._admit(circuit)
        try:
            if not circuit.bulkhead.enter():
                permit = yield from self._line_up(call, permit)
            lease = Lease(permit, circuit.bulkhead)
        except BaseException:
            permit.none()
            raise
        began = self._now()
        left = call.ends - began
        seconds = min(options.attempt_timeout, left)
        timeouts, ends = call.timeouts, began + seconds
        own, reads, writes = request.extensions, timeouts.get("read"), timeouts.get("write")
        head = Until.at(seconds, reads, ends, self._now)
        request.extensions = {
            **own,
            "timeout": {
                "connect": Until.at(min(seconds, options.connect_timeout), timeouts.get("connect"), ends, self._now),
                "read": head,
                "write": head if writes == reads else Until.at(seconds, writes, ends, self._now),
                "pool": min(seconds, timeouts.get("pool") or seconds),
            },
        }
        try:
            response = yield Send(request, seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call ends in it
            return self._failed(error, call, lease, self._now() - began)
        except BaseException:
            lease.fail(None)
            raise
        finally:
            request.extensions = own
        # What bounded the head now bounds the body.
        head.ends = call.ends
        return self._answered(response, call, lease, self._now() - began)

    def _admit(self, circuit: Circuit) -> Permit:
        try:
            return circuit.breaker.admit()
        except CircuitOpen as refusal:
            told = self._dialect.circuit_open(refusal.message, origin=circuit.name, retry_after=refusal.retry_after)
        raise told

    def _line_up(self, call: _Call, permit: Permit) -> Generator[Effect, Any, Permit]:
        """Wait for a slot; returns the permit to go on with."""
        circuit, bulkhead = call.circuit, call.circuit.bulkhead
        place = bulkhead.line_up()
        if place is None:
            raise self._crowded(circuit, "as many calls as may wait for their turn do")
        era = circuit.breaker.status().era
        seconds = min(self.options.queue_wait, call.ends - self._now())
        try:
            if not place.granted:
                yield LineUp(bulkhead, place, seconds)
        except BaseException:
            if bulkhead.give_up(place):
                bulkhead.leave()
            raise
        if not bulkhead.give_up(place):
            if self._now() >= call.ends:
                raise self._dialect.deadline_passed(
                    f"the time for this call was over before its turn to ask {circuit.name} came", origin=circuit.name
                )
            raise self._crowded(circuit, f"its turn didn't come within {seconds:.1f} s")
        if circuit.breaker.status().era != era:
            # It opened, or began to be probed, while this call stood in line: its permit is from better times.
            permit.none()
            try:
                return self._admit(circuit)
            except BaseException:
                bulkhead.leave()
                raise
        return permit

    def _crowded(self, circuit: Circuit, why: str) -> ApiUnavailable:
        emit(BulkheadRefused(at=self.options.clock.wall(), name=circuit.name, reason=why))
        return self._dialect.bulkhead_full(
            f"{circuit.name} isn't asked: {self.options.concurrency} calls are under way, and {why}",
            origin=circuit.name,
            retry_after=max(1.0, self.options.queue_wait),
        )

    def _failed(self, error: Exception, call: _Call, lease: Lease, took: float) -> Result:
        failure = explain(error, call.circuit.name, self._dialect)
        cause = failure.cause
        late = isinstance(error, (TimeoutError, self._dialect.library.TimeoutException)) and self._now() >= call.ends
        if late:
            # With hardly any time left, the API would be blamed for our hurry.
            fair = min(_FAIR_SHARE * self.options.attempt_timeout, _FAIR_AT_MOST)
            told = self._dialect.deadline_passed(
                f"the time for this call was over before {call.circuit.name} answered", origin=call.circuit.name
            )
            told.__cause__ = error
            failure = Failure(told, cause, sent=failure.sent, transient=False)
            cause = cause if took >= fair else None
        lease.fail(cause)
        return Result(None, failure, None)

    def _answered(self, response: Any, call: _Call, lease: Lease, took: float) -> Result:
        options, status = self.options, response.status_code
        retry_after = None
        if status == 429 or status in FAILING:
            retry_after = parse_retry_after(response.headers.get("retry-after"), options.clock.wall())
            # Throttling says nothing about whether the API works.
            lease.judge(None if status == 429 else f"status {status}")
        elif options.slow_call is not None and took > options.slow_call:
            lease.judge(f"slow: {took:.1f} s")
        if response.is_closed:  # its body is in memory
            lease.succeed()
        else:
            response.stream = self._body(
                response.stream,
                lease,
                name=call.circuit.name,
                ends=call.ends,
                now=self._now,
                dialect=self._dialect,
                bounded=self.bounded,
                patience=options.longest_delay,
                abandoned=self._abandoned,
            )
        return Result(response, None, retry_after)

    def _instead_of(self, result: Result, call: _Call) -> Generator[Effect, Any, Any]:
        """Ask for a fallback in place of an answer that says that the API failed."""
        name, status = call.circuit.name, result.response.status_code
        error = self._dialect.answered_error(f"{name} answered {status}", origin=name, retry_after=result.retry_after)
        error.response = result.response
        try:
            answer = yield Consult(call.request, self._located(error, call))
        except BaseException:
            yield Close(result.response)
            raise
        if answer is None:
            return None
        if answer is not result.response:
            yield Close(result.response)
        return self._marked(answer, error, call.circuit)

    def _marked(self, answer: Any, error: Exception, circuit: Circuit) -> Any:
        """Mark an answer that isn't the API's own, so that it can't be taken for one."""
        code = str(getattr(error, "code", type(error).__name__))
        if not isinstance(answer, self._dialect.library.Response):
            raise ConfigurationError(f"fallback must return a Response or None, not {type(answer).__name__}")
        answer.extensions["fallback"] = code
        answer.headers["X-Fallback"] = f"{code}; stale" if "age" in answer.headers else code
        emit(FallbackServed(at=self.options.clock.wall(), name=circuit.name, code=code))
        return answer

    def _located(self, error: Any, call: _Call) -> Any:
        """Say when to try again, and which request it was."""
        error.request = call.request
        if isinstance(error, ApiUnavailable) and error.retry_after is None:
            retry_at = call.circuit.breaker.retry_at
            if retry_at is not None:
                error.retry_after = max(0.0, retry_at - self._now())
            elif error.code != "api_circuit_open":
                error.retry_after = self.options.longest_delay
        return error

    def _copy(self, call: _Call) -> Any:
        """Copy a request, for an attempt beside another one."""
        request = call.request
        return self._dialect.library.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions=dict(request.extensions),
        )

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock = threading.Lock()
        self._abandoned.clear()
        for circuit in self._circuits.values():
            circuit.renew_locks()


def _origin_key(request: Any) -> str:
    # httpx has it in lower case and without a default port already.
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _code_of(result: Result) -> str:
    if result.failure is None:
        return f"status {result.response.status_code}"
    return str(getattr(result.failure.error, "code", type(result.failure.error).__name__))


_living: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def _after_fork() -> None:
    for pipeline in list(_living):
        pipeline.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
