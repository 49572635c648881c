"""Whoever observes the process: counts what ends, and lets whoever traces know of what begins and ends."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from .._engine.acquire import Served
from .._engine.single_flight import Outcome
from .._process.observing import Count, Operation
from .._process.saying import LOG, say
from ..clock import Clock, SystemClock
from ..events import Event
from ..token import TokenRequest
from ..verify.errors import InvalidToken
from .labels import Addresses, code_of, known, port_of
from .tally import Labels, Tally

__all__ = ["Facts", "Span", "Telemetry", "Tracer", "failed"]

_T = TypeVar("_T")

#: What is told of an operation: labels of metrics and attributes of spans, by name.
Facts = dict[str, str]
#: Operations that were given up, at most, before somebody looks: the collector may end many at once.
_MOST_ABANDONED = 8192
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "CONNECT", "TRACE"})


class Span(Protocol):
    """What whoever traces knows of an operation."""

    def enter(self) -> Callable[[], None]:
        """Make what goes on in this context a part of it; return what ends that."""
        ...

    def carry(self, headers: MutableMapping[str, str]) -> None:
        """Write into headers what tells others what they are a part of."""
        ...

    def end(self, facts: Facts, at: int) -> None:
        """End it at a time in nanoseconds since the epoch; whoever exports it is waited for by nobody here."""
        ...


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, kind: str, facts: Facts, *, about: object, unasked: bool) -> Span:
        """Begin one, as a part of what goes on in this context."""
        ...


class Telemetry:
    """Count what ends in a tally, and tell those who trace and those who sum.

    Args:
        tally: Where it is counted.
        now: Gives monotonic seconds: what was waited for, whichever clock the engine has.
    """

    def __init__(self, tally: Tally, addresses: Addresses, now: Callable[[], float] = time.perf_counter) -> None:
        self.tally = tally
        self.addresses = addresses
        self.now = now
        self.tracer: Tracer | None = None
        #: Is told each value of a histogram.
        self.summed: Callable[[str, Labels, float], object] | None = None
        #: Counts each event.
        self.listening: Callable[[Event], object] | None = None
        self._abandoned: deque[_Operation] = deque(maxlen=_MOST_ABANDONED)

    def decided(self, event: object) -> None:
        """Count an event."""
        listening = self.listening
        if listening is not None and isinstance(event, Event):
            try:
                listening(event)
            except Exception as error:  # noqa: BLE001 - what is counted harms nobody
                failed(error)

    def settle(self) -> None:
        """Note how those ended that were given up since."""
        while True:
            try:
                operation = self._abandoned.popleft()
            except IndexError:
                return
            operation.give_up()

    def record(self, name: str, labels: Labels, value: float) -> None:
        """Note one of a histogram's values."""
        self.tally.record(name, labels, value)
        summed = self.summed
        if summed is not None:
            summed(name, labels, value)

    def begin(self, kind: str, **about: Any) -> Operation:
        """Begin an operation."""
        if self._abandoned:
            self.settle()
        return _Operation(self, kind, about)

    def through(self, kind: str, steps: Generator[Any, Any, _T], **about: Any) -> Generator[Any, Any, _T]:
        """Take steps through as an operation."""
        if self._abandoned:
            self.settle()
        operation = _Operation(self, kind, about)
        waiters = self._waiters(operation) if kind == "acquisition" else Count()
        leave = operation.enter()
        try:
            step = next(steps)
            while True:
                waiters.count += 1
                try:
                    got = yield step
                except GeneratorExit:  # perhaps in another context, which has nothing to be left
                    waiters.count -= 1
                    leave = _nothing
                    operation.abandon()
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - the generator decides about it
                    waiters.count -= 1
                    step = steps.throw(error)
                else:
                    waiters.count -= 1
                    step = steps.send(got)
        except StopIteration as ended:
            result: _T = ended.value
            operation.end(result)
            return result
        except GeneratorExit:
            operation.abandon()
            raise
        except BaseException as error:
            operation.end(error=error)
            raise
        finally:
            leave()

    def served(self, kind: str, **about: Any) -> Count:
        """Return the number of those that memory serves."""
        facts = self._facts(about)
        if kind == "verification":
            return self.tally.counter("resilient_auth.verifications", (facts["server.address"], "accepted", "", "true"))
        labels = (facts["server.address"], facts["resilient_auth.flow"], "memory", "success")
        return self.tally.counter("resilient_auth.acquisitions", labels)

    def _waiters(self, operation: _Operation) -> Count:
        return self.tally.counter("resilient_auth.waiters", (operation.facts["server.address"],))

    def _facts(self, about: dict[str, Any]) -> Facts:
        """Return what is told of an operation when it begins."""
        facts: Facts = {}
        request = about.get("request")
        if isinstance(request, TokenRequest):
            facts["server.address"] = self.addresses.of(request.authority)
            facts["resilient_auth.flow"] = request.flow
        elif (asked := about.get("asked")) is not None:
            facts["server.address"] = self.addresses.of(asked.endpoint.origin)
            facts["server.port"] = port_of(asked.endpoint.origin)
            facts["resilient_auth.purpose"] = asked.purpose.value
            facts["http.request.method"] = about["method"]
        elif request is not None:  # an HTTP library's
            url = f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"
            facts["server.address"] = self.addresses.of(url)
            facts["server.port"] = port_of(url)
            facts["resilient_auth.purpose"] = "api"
            facts["http.request.method"] = request.method if request.method in _METHODS else "_OTHER"
        elif (endpoint := about.get("endpoint")) is not None:
            facts["server.address"] = self.addresses.of(endpoint.origin)
            facts["resilient_auth.flow"] = "once"
        elif "side" in about:
            facts["resilient_auth.store"] = self.addresses.of(about["target"])
            facts["resilient_auth.operation"] = about["side"]
        else:
            facts["server.address"] = self.addresses.of(about.get("issuer", ""))
        return facts


def _nothing() -> None:
    return


class _Operation:
    """Something that is under way."""

    __slots__ = ("_began", "_clock", "_entered", "_gone", "_over", "_span", "_telemetry", "facts", "kind")

    def __init__(self, telemetry: Telemetry, kind: str, about: dict[str, Any]) -> None:
        self._telemetry = telemetry
        self._began = telemetry.now()
        #: By which tokens end.
        self._clock: Clock = about.get("clock") or SystemClock()
        self._entered: float | None = None
        self._over = False
        #: When it was given up, on the monotonic clock and in nanoseconds since the epoch.
        self._gone: tuple[float, int] | None = None
        self._span: Span | None = None
        self.kind = kind
        self.facts: Facts = {"server.address": ""}
        try:
            self.facts |= telemetry._facts(about)
            unasked = about.get("unasked") is True
            if kind == "exchange":
                self.facts["resilient_auth.unasked"] = str(unasked).lower()
            tracer = telemetry.tracer
            if tracer is not None and kind in _TRACED:
                self._span = tracer.begin(kind, self.facts, about=about.get("entry"), unasked=unasked)
        except Exception as error:  # noqa: BLE001 - whoever traces, or samples, may raise anything
            failed(error)

    def enter(self) -> Callable[[], None]:
        """Take what goes on in this context as a part of it, until what this returns is called."""
        if self._entered is None:
            self._entered = self._telemetry.now()
        try:
            return _nothing if self._span is None else self._span.enter()
        except Exception as error:  # noqa: BLE001
            failed(error)
            return _nothing

    def carry(self, headers: MutableMapping[str, str]) -> None:
        """Let the one who is asked know what its work is a part of."""
        if self._span is not None:
            try:
                self._span.carry(headers)
            except Exception as error:  # noqa: BLE001 - an owner's propagator may raise anything
                failed(error)

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Note how it ended."""
        if self._over:
            return
        self._over = True
        self._end(result, error, self._telemetry.now(), time.time_ns())

    def abandon(self) -> None:
        """Note that what it is of was given up, without a lock; `settle` does the rest."""
        if self._over:
            return
        self._over = True
        self._gone = self._telemetry.now(), time.time_ns()
        self._telemetry._abandoned.append(self)

    def give_up(self) -> None:
        """Note how it ended where it was given up."""
        if self._gone is not None:
            self._end(None, GeneratorExit(), *self._gone)

    def _end(self, result: Any, error: BaseException | None, now: float, at: int) -> None:
        try:
            _ENDS[self.kind](self, result, error, now - self._began)
            if self._span is not None:
                self._span.end(self.facts, at)
        except Exception as failure:  # noqa: BLE001 - what is told harms nobody
            failed(failure)

    def _labels(self, *names: str) -> Labels:
        return tuple(self.facts.get(name, "") for name in names)

    def _record(self, name: str, value: float, *names: str) -> None:
        self._telemetry.record(name, self._labels(*names), value)

    def _acquired(self, served: Served | None, error: BaseException | None, took: float) -> None:
        facts = self.facts
        facts["resilient_auth.source"] = "none"
        facts["error.type"], facts["resilient_auth.outcome"] = code_of(error), _failed_by(error)
        if served is not None:
            facts["resilient_auth.source"] = served.whence
            facts["resilient_auth.outcome"], facts["error.type"] = _outcome_of(served.result, served.token is not None)
        names = ("server.address", "resilient_auth.flow", "resilient_auth.source", "resilient_auth.outcome")
        self._telemetry.tally.add("resilient_auth.acquisitions", self._labels(*names))
        self._record("resilient_auth.acquisition.duration", took, *names, "error.type")
        if served is not None and served.token is not None:
            left = max(0.0, served.token.remaining(self._clock.wall(), self._clock.monotonic()))
            self._record("resilient_auth.token.remaining", left, "server.address", "resilient_auth.source")
        if facts["error.type"] in ("circuit_open", "api_circuit_open"):
            self._refused("token")

    def _refused(self, purpose: str) -> None:
        self._telemetry.tally.add("resilient_auth.breaker.refused", (self.facts["server.address"], purpose))

    def _exchanged(self, outcome: Outcome | None, error: BaseException | None, took: float) -> None:
        facts = self.facts
        facts["resilient_auth.source"] = "store" if outcome is not None and outcome.stored else "provider"
        facts["error.type"], facts["resilient_auth.outcome"] = code_of(error), _failed_by(error)
        if error is None and outcome is not None:
            told = _outcome_of(outcome.result, outcome.token is not None)
            facts["resilient_auth.outcome"], facts["error.type"] = told
        self._record(
            "resilient_auth.exchange.duration",
            took,
            "server.address",
            "resilient_auth.flow",
            "resilient_auth.source",
            "resilient_auth.outcome",
            "error.type",
            "resilient_auth.unasked",
        )
        if self._entered is not None:
            self._record("resilient_auth.exchange.queue.duration", self._entered - self._began, "server.address")

    def _attempted(self, answer: Any, error: BaseException | None, took: float) -> None:
        facts, status = self.facts, getattr(answer, "status_code", None)
        if status is not None:
            facts["http.response.status_code"] = str(status)
        facts["error.type"] = str(status) if status is not None and status >= 400 else code_of(error)
        self._record(
            "http.client.request.duration",
            took,
            "http.request.method",
            "server.address",
            "server.port",
            "http.response.status_code",
            "error.type",
            "resilient_auth.purpose",
        )

    def _called(self, answer: Any, error: BaseException | None, took: float) -> None:
        facts = self.facts
        fallback = None
        with suppress(AttributeError):
            fallback = answer.extensions.get("fallback")
        failed = error is not None or fallback is not None or getattr(answer, "status_code", 200) >= 500
        facts["resilient_auth.outcome"] = _failed_by(error) if failed else "success"
        facts["error.type"] = code_of(error)
        if fallback is not None:
            facts["error.type"] = known(fallback)
        elif failed and error is None:
            facts["error.type"] = f"http_{answer.status_code}"
        self._record("resilient_auth.call.duration", took, "server.address", "resilient_auth.outcome", "error.type")
        if facts["error.type"] == "api_circuit_open":
            self._refused("api")

    def _verified(self, _: Any, error: BaseException | None, took: float) -> None:
        facts = self.facts
        verdict = "accepted" if error is None else "refused" if isinstance(error, InvalidToken) else "unavailable"
        if _failed_by(error) == "cancelled":
            verdict = "cancelled"
        facts["resilient_auth.verdict"], facts["error.type"] = verdict, code_of(error)
        self._telemetry.tally.add(
            "resilient_auth.verifications",
            (*self._labels("server.address", "resilient_auth.verdict", "error.type"), "false"),
        )
        self._record("resilient_auth.verification.duration", took, "server.address", "resilient_auth.verdict")

    def _stored(self, _: Any, error: BaseException | None, took: float) -> None:
        reason = getattr(error, "reason", None)
        self.facts["error.type"] = code_of(error) if reason is None else known(str(reason))
        self._record(
            "resilient_auth.store.operation.duration",
            took,
            "resilient_auth.store",
            "resilient_auth.operation",
            "error.type",
        )


def _outcome_of(result: Any, has_token: bool) -> tuple[str, str]:
    """Return what an answer of MSAL's means, and the code of a denial."""
    if has_token or (isinstance(result, dict) and "access_token" in result):
        return "success", ""
    if isinstance(result, dict) and "error" in result:
        return "denied", known(str(result["error"]))
    return "nothing" if not result else "success", ""


def _failed_by(error: BaseException | None) -> str:
    """Return the outcome where there is none: whoever gives up, or exits, says nothing of who was asked."""
    return "failed" if error is None or isinstance(error, Exception) else "cancelled"


def failed(error: Exception) -> None:
    """Note that somebody's code that measures or traces has failed, which changes nothing for callers."""
    if LOG.isEnabledFor(logging.DEBUG):
        say(logging.DEBUG, "Telemetry failed: %s", type(error).__name__)


_ENDS: dict[str, Callable[[_Operation, Any, BaseException | None, float], None]] = {
    "acquisition": _Operation._acquired,
    "exchange": _Operation._exchanged,
    "attempt": _Operation._attempted,
    "api_attempt": _Operation._attempted,
    "call": _Operation._called,
    "verification": _Operation._verified,
    "store": _Operation._stored,
}
_TRACED = frozenset({"exchange", "attempt", "api_attempt", "call", "verification"})
