"""One attempt: what it must hold before it is sent, how long it may take, and what its end says about the API."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..._engine.steps import Steps
from ..._policy.breaker import Permit
from ..._policy.failure import retry_after_of
from ..._process import observing
from ..._wire.network.bounded import Until
from ...errors import CircuitOpen
from ...events import BulkheadRefused, emit
from ..connections import proxy_of
from ..errors import ApiUnavailable
from ..options import TransportOptions
from .circuit import Circuit
from .failure import Dialect, Failure, explain
from .lease import Lease, Turn
from .retry import FAILING
from .steps import Attempt, JoinQueue, Result, Send
from .stream import BodyOptions
from .timeouts import Bounds, Timeouts

__all__ = ["Attempts", "Call"]

#: Of the attempt's time, the share without which one that timed out isn't blamed on the API.
_FAIR_SHARE = 0.5
_FAIR_AT_MOST = 2.0
_NEVER = math.inf
_TROUBLED = FAILING | {429}


class Call(NamedTuple):
    """A call on its way."""

    request: Any
    circuit: Circuit
    #: On the options' monotonic clock.
    ends: float


class Attempts:
    """Make attempts for the calls of one transport.

    Args:
        options: The owner's.
        wrapped: The transport underneath.
        body: Makes the body of an answer one that gives back what the call holds.
        terms: On which such bodies are read.
    """

    def __init__(self, options: TransportOptions, wrapped: Any, body: Callable[..., Any], terms: BodyOptions) -> None:
        self._options = options
        self._wrapped = wrapped
        self._body = body
        self._terms = terms
        self._proxy = proxy_of(wrapped)
        self._dialect: Dialect = terms.dialect
        self._now = terms.now
        self._longest = options.attempt_timeout
        self._timeouts = Timeouts(options)
        self._slow = options.slow_call

    def make(self, call: Call) -> Attempt:
        """Make one; raises where the API can't be asked at all."""
        request, circuit, now = call.request, call.circuit, self._now
        bounds = self._timeouts.of(request.extensions)
        began = now()
        if began >= call.ends:
            raise self._dialect.deadline_passed(
                f"deadline exceeded before {circuit.name} could be called", origin=circuit.name
            )
        try:
            permit = circuit.breaker.admit()
        except CircuitOpen as refusal:
            raise self._refused(refusal, circuit) from None
        bulkhead = circuit.bulkhead
        try:
            if not bulkhead.enter():
                permit = yield from self._line_up(call, permit)
                began = now()
            lease = Lease(permit, bulkhead)
        except GeneratorExit:  # handed over
            raise
        except BaseException:
            permit.none()
            raise
        seconds = call.ends - began
        if seconds > self._longest and not bounds.patient:
            seconds = self._longest
        own, ends = request.extensions, began + seconds
        head = Until.at(seconds, bounds.read, ends, now)
        request.extensions = {
            **own,
            "timeout": {
                "connect": Until.at(seconds, bounds.connect, ends, now),
                "read": head,
                "write": head if bounds.write == bounds.read else Until.at(seconds, bounds.write, ends, now),
                "pool": Until.at(seconds, bounds.pool, ends, now),
            },
        }
        try:
            # A transport of somebody else's is bounded from outside.
            within = None if self._terms.bounded or seconds == _NEVER else seconds
            send = Send(self._wrapped, request, within)
            if observing.observer is None:
                response = yield send
            else:
                response = yield from _observed(observing.observer, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call ends in it
            return self._failed(error, call, lease, now() - began, bounds)
        except GeneratorExit:
            self._terms.abandoned.append((lease, None))
            raise
        except BaseException:
            lease.fail(None)
            raise
        finally:
            request.extensions = own
        if head is not None:  # what bounded the head now bounds the body
            head.ends = call.ends
        return self._answered(response, call, lease, began)

    def _refused(self, refusal: CircuitOpen, circuit: Circuit) -> ApiUnavailable:
        return self._dialect.circuit_open(refusal.message, origin=circuit.name, retry_after=refusal.retry_after)

    def _line_up(self, call: Call, permit: Permit) -> Steps[Permit]:
        """Wait for a slot; returns the permit to go on with."""
        circuit, bulkhead = call.circuit, call.circuit.bulkhead
        place = bulkhead.line_up()
        if place is None:
            raise self._crowded(
                circuit, "queue_full", f"the queue for {circuit.name} is full ({self._options.queue} waiting)"
            )
        era = circuit.breaker.status().era
        seconds = min(self._options.queue_wait, call.ends - self._now())
        try:
            if not place.granted:
                yield JoinQueue(bulkhead, place, seconds)
        except GeneratorExit:
            self._terms.abandoned.append((Turn(permit, bulkhead, place), None))
            raise
        except BaseException:
            if bulkhead.give_up(place):
                bulkhead.leave()
            raise
        if not bulkhead.give_up(place):
            if self._now() >= call.ends:
                raise self._dialect.deadline_passed(
                    f"deadline exceeded in the queue for {circuit.name}", origin=circuit.name
                )
            raise self._crowded(circuit, "queue_timeout", f"no slot for {circuit.name} within {seconds:.1f} s")
        if circuit.breaker.status().era != era:
            # It opened, or began to be probed, while this call stood in line: its permit is from better times.
            permit.none()
            try:
                return circuit.breaker.admit()
            except BaseException as error:
                bulkhead.leave()
                if isinstance(error, CircuitOpen):
                    raise self._refused(error, circuit) from None
                raise
        return permit

    def _crowded(self, circuit: Circuit, code: str, what: str) -> ApiUnavailable:
        emit(BulkheadRefused(at=self._options.clock.wall(), target=circuit.name, code=code))
        return self._dialect.bulkhead_full(
            f"{what}; {self._options.concurrency} calls are under way",
            origin=circuit.name,
            retry_after=max(1.0, self._options.queue_wait),
        )

    def _failed(self, error: Exception, call: Call, lease: Lease, took: float, bounds: Bounds) -> Result:
        failure = explain(error, call.circuit.name, self._dialect, self._proxy)
        cause = failure.cause
        late = isinstance(error, (TimeoutError, self._dialect.library.TimeoutException)) and self._now() >= call.ends
        if late:
            # With hardly any time left, or less than the caller would have given it, the API would be blamed for our
            # hurry.
            fair, longer = min(_FAIR_SHARE * self._longest, _FAIR_AT_MOST), ""
            if bounds.patient:
                fair = _NEVER if bounds.read is None else bounds.read
                longer = ", before the time-out was over: a longer one needs a longer TransportOptions(deadline=...)"
            told = self._dialect.deadline_passed(
                f"deadline exceeded waiting for {call.circuit.name}{longer}", origin=call.circuit.name
            )
            told.__cause__ = error
            failure = Failure(told, cause, sent=failure.sent, transient=False)
            cause = cause if took >= fair else None
        lease.fail(cause)
        return Result(None, failure, False, None)

    def _answered(self, response: Any, call: Call, lease: Lease, began: float) -> Result:
        status, retry_after = response.status_code, None
        good = status not in _TROUBLED
        if not good:
            retry_after = retry_after_of(response.headers, self._options.clock.wall())
            # Throttling says nothing about whether the API works.
            lease.judge(None if status == 429 else f"http_{status}")
        elif self._slow is not None and self._now() - began > self._slow:
            lease.judge("slow")
        if response.is_closed:  # its body is in memory
            lease.succeed()
        else:
            response.stream = self._body(response.stream, lease, call.circuit.name, call.ends, self._terms)
        return Result(response, None, good, retry_after)


def _observed(observer: observing.Observer, send: Send) -> Steps[Any]:
    """Send a request as an operation of which the API learns."""
    operation = observer.begin("api_attempt", request=send.request)
    operation.carry(send.request.headers)
    try:
        response = yield send
    except GeneratorExit:  # by the collector, perhaps, and in the middle of anything
        operation.abandon()
        raise
    except BaseException as error:
        operation.end(error=error)
        raise
    operation.end(response)
    return response
