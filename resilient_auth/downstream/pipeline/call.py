"""One call, from its deadline to its answer: decided step by step, for the drivers of `_engine.steps`.

    deadline ─▶ retry ─▶ breaker ─▶ bulkhead ─▶ attempt ─┬─ good ───────────────────────────────▶ the answer
                  ▲        │           │                 ├─ may be repeated, in time ─ back off ──┐
                  │        └─ refused ─┴─▶ fallback, or   └─ else ─▶ fallback, or the answer ◀──   │
                  │                        the error                 or error itself              │
                  └───────────────────────────────────────────────────────────────────────────────┘

The order matters: a breaker outside of the retries would see one failure in place of three, and a queue outside of the
breaker would let calls line up for an API that is down.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..._engine.acquire import restore
from ..._engine.steps import Invoke, Steps
from ..._process import forks, observing
from ...errors import ConfigurationError
from ...events import FallbackServed, HedgeSent, RetryScheduled, emit
from ..deadlines import Deadline, inherited, wanted
from ..errors import ApiUnavailable, TokenUnavailable
from ..options import TransportOptions
from ..signed import SIGNED, Signed, replayable
from .attempt import Attempts, Call
from .circuit import Circuit, Circuits
from .failure import Dialect
from .lease import Lease, Turn
from .race import Race
from .retry import SAFE, delay_before, may_repeat
from .steps import Attempt, Close, Result
from .stream import BodyOptions

__all__ = ["Pipeline"]

_NEVER = math.inf
#: Of the attempt's time, the share without which a retry isn't begun.
_FAIR_SHARE = 0.5


class Pipeline:
    """Decide about every call of one transport.

    Args:
        options: The owner's.
        key: Returns the name under which calls share a breaker and a bulkhead; their origin when not given.
        fallback: The owner's function of request and error, if there is one; may be a coroutine function in tasks.
        sleep: Waits between attempts.
        wrapped: The transport underneath.
        body: Makes the body of an answer one that gives back what the call holds.
        bounded: Whether the wrapped transport honours `Until`.
        nests: Whether others' calls may be made within one, by a fallback or by the wrapped transport.
        dialect: The HTTP library.
    """

    def __init__(
        self,
        options: TransportOptions,
        *,
        key: Callable[[Any], str] | None,
        fallback: Callable[[Any, Any], Any] | None,
        sleep: Callable[[float], Any],
        wrapped: Any,
        body: Callable[..., Any],
        bounded: bool,
        nests: bool,
        dialect: Dialect,
    ) -> None:
        self.options = options
        self._key = _origin_of if key is None else partial(_named_by, key)
        self._fallback = fallback
        self._sleep = sleep
        self._nests = nests
        self._dialect = dialect
        self._now = options.clock.monotonic
        #: What the calls with one key share.
        self.circuits = Circuits(options)
        self._abandoned: deque[tuple[Lease | Turn, Any]] = deque()
        self._attempts = Attempts(
            options, wrapped, body, BodyOptions(dialect, self._now, bounded, options.longest_delay, self._abandoned)
        )
        after = options.hedge_after
        self._ask = self._attempts.make if after is None else partial(self._hedged, after)

    def call(self, request: Any) -> Steps[Any]:
        """Take one request through; returns its answer."""
        forks.notice()
        if observing.observer is None:
            return self._call(request)
        return observing.observer.through("call", self._call(request), request=request)

    def _call(self, request: Any) -> Steps[Any]:
        if self._abandoned:
            yield from self._let_go()
        circuit, now = self.circuits.find(self._key(request)), self._now
        call = Call(request, circuit, now() + wanted(request.extensions, self.options.deadline))
        # What this call makes others ask, such as a fallback's own call, has no more time than it has.
        outer = inherited.set(Deadline(now, call.ends)) if self._nests and call.ends != _NEVER else None
        try:
            try:
                signed = request.extensions.get(SIGNED)
                if isinstance(signed, TokenUnavailable):
                    raise signed
                result = yield from self._ask(call)
                if result.good:
                    circuit.budget.earn()
                    if signed is None:
                        return result.response
                else:
                    result = yield from self._repeat(call, result)
                if signed is not None:
                    result = yield from self._with_another_token(call, signed, result)
                if result.failure is not None:
                    raise result.failure.error
            except self._dialect.library.TransportError as error:
                self._locate(error, call)
                if self._fallback is None:
                    raise
                answer = yield Invoke(partial(self._fallback, request, error))
                if answer is None:
                    raise
                return self._marked(answer, error, circuit)
            if result.good or self._fallback is None:
                return result.response
            return (yield from self._instead_of(result, call, partial(self._fallback, request)))
        finally:
            if outer is not None:
                restore(inherited, outer)

    def _with_another_token(self, call: Call, signed: Signed, result: Result) -> Attempt:
        """Send a request again whose token was refused, if there is another one."""
        signed.below = True
        cookies: list[tuple[str, str]] = []
        while result.good and (response := result.response).status_code == 401:
            if not (yield from signed.again(call.request, response)):
                break
            cookies += [("set-cookie", cookie) for cookie in response.headers.get_list("set-cookie")]
            result = yield from self._ask(call)
            if not result.good:
                result = yield from self._repeat(call, result)
        if cookies and result.response is not None:
            # The client's jar learns of them by the one answer that it sees.
            headers = result.response.headers
            result.response.headers = type(headers)([*cookies, *headers.multi_items()])
        return result

    def _let_go(self) -> Steps[Any]:
        """Give back what lost bodies and calls hold: slots, and connections too, or the pool would run dry."""
        while True:
            try:
                lease, stream = self._abandoned.popleft()
            except IndexError:  # another thread was quicker
                return
            lease.fail(None)
            if stream is not None:
                with contextlib.suppress(Exception):
                    yield Close(stream)

    def _repeat(self, call: Call, result: Result) -> Attempt:
        """Make further attempts until one is good, or there may be no other."""
        options, circuit = self.options, call.circuit
        number = 1
        while not result.good and (delay := self._delay(call, number, result)) is not None:
            if result.response is not None:
                yield Close(result.response)
            emit(
                RetryScheduled(
                    at=options.clock.wall(),
                    target=circuit.name,
                    purpose="api",
                    attempt=number,
                    seconds=delay,
                    code=_code_of(result),
                )
            )
            yield Invoke(partial(self._sleep, delay))
            number += 1
            try:
                result = yield from self._ask(call)
            except ApiUnavailable:
                # The breaker opened or the line grew meanwhile: what happened first tells more.
                if result.failure is not None:
                    return result
                raise
        if result.good:
            circuit.budget.earn()
        return result

    def _delay(self, call: Call, number: int, result: Result) -> float | None:
        """Return when the next attempt is made; None for never."""
        options, circuit, failure = self.options, call.circuit, result.failure
        repeats = may_repeat(
            call.request.method,
            keyed="idempotency-key" in call.request.headers,
            replayable=replayable(call.request.stream, self._dialect.library),
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

    def _hedged(self, after: float, call: Call) -> Attempt:
        """Make an attempt, and another one beside it after a while, where both may be out at the same time."""
        request = call.request
        # A body that is read from files can't be read twice at once.
        if request.method not in SAFE or not isinstance(request.stream, self._dialect.library.ByteStream):
            return (yield from self._attempts.make(call))
        first = self._attempts.make(self._copy(call))
        result: Result = yield Race(first, lambda: self._second(call), after)
        return result

    def _second(self, call: Call) -> Attempt | None:
        if call.circuit.breaker.retry_at is not None or not call.circuit.budget.spend():
            return None
        emit(HedgeSent(at=self.options.clock.wall(), target=call.circuit.name))
        return self._attempts.make(self._copy(call))

    def _copy(self, call: Call) -> Call:
        """Give an attempt beside another one a request of its own."""
        request = call.request
        copy = self._dialect.library.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions=dict(request.extensions),
        )
        return call._replace(request=copy)

    def _instead_of(self, result: Result, call: Call, fallback: Callable[[Any], Any]) -> Steps[Any]:
        """Ask for a fallback in place of an answer that says that the API failed."""
        name, status = call.circuit.name, result.response.status_code
        # None where "at once" was asked for: those who do as they are told would be back before it is.
        asked = result.retry_after or None
        error = self._dialect.answered_error(f"{name} answered {status}", origin=name, retry_after=asked)
        error.response = result.response
        self._locate(error, call)
        try:
            answer = yield Invoke(partial(fallback, error))
        except GeneratorExit:  # its body hands over by itself
            raise
        except BaseException:
            yield Close(result.response)
            raise
        if answer is None:
            return result.response
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
        emit(FallbackServed(at=self.options.clock.wall(), target=circuit.name, code=code))
        return answer

    def _locate(self, error: Any, call: Call) -> None:
        """Say when to try again, and which request it was."""
        error.request = call.request
        if isinstance(error, ApiUnavailable) and error.retry_after is None:
            retry_at = call.circuit.breaker.retry_at
            if retry_at is not None:
                error.retry_after = max(0.0, retry_at - self._now())
            elif error.code != "api_circuit_open":
                error.retry_after = self.options.longest_delay

    def after_fork(self) -> None:
        """Make it usable in a forked child, in which none of the parent's calls are."""
        self._abandoned.clear()
        self.circuits.after_fork()


def _named_by(key: Callable[[Any], str], request: Any) -> str:
    name: object = key(request)
    if not isinstance(name, str):
        raise ConfigurationError(f"key must return a string for each request, not {name!r}")
    return name


def _origin_of(request: Any) -> str:
    # httpx has it in lower case and without a default port already.
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _code_of(result: Result) -> str:
    if result.failure is None:
        return f"http_{result.response.status_code}"
    return str(getattr(result.failure.error, "code", type(result.failure.error).__name__))
