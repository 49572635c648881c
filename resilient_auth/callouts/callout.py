"""One endpoint that a provider calls: an answer in the contract's shape and in time, whatever the handler does.

    request ─ who calls? ─┬─ a stranger ─────────────────────────────────────────────▶ 401, nothing else is read
                          └─ the provider ─ read strictly ─ not the contract's ──────▶ the default
                                                │
                             a repeated one? ───┼─ its answer, or wait for it ───────▶ the same answer
                                                ▼
                             the breaker, a free place ─ neither ────────────────────▶ the default
                                                ▼
                             the handler ───────┬─ an answer that fits, in time ─────▶ the answer
                                                └─ late, an exception, unfit ────────▶ the default

The handler runs on a worker thread, or as a task of the framework's own event loop; whoever waits for it has a deadline
below the provider's time-out and leaves it behind then. It goes on, and its answer is there for a repeated request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

from .._engine.single_flight import Outcome, WaitFor
from .._engine.steps import Invoke, Steps, run, run_async
from .._policy.checks import require, require_clock, require_number, require_store, require_whole
from .._policy.circuit.options import BreakerOptions, chosen_breaker
from .._process import forks
from ..clock import Clock, Jitter, SystemClock, system_jitter
from ..errors import ResilientAuthError
from ..events import CalloutAnswered, CalloutDefaulted, CalloutRejected, emit
from ..store import Store
from ..verify.errors import InvalidToken, VerificationUnavailable
from ..verify.http import refused
from ..verify.jose.compact import NotStrict, json_object
from .answers import Answer, Continue, LastKnown, longest
from .caller import Admitted, Arriving, Caller, Stranger
from .contract import CalloutRequest, MalformedCallout, Reply, UnfitAnswer, json_reply
from .encrypted import KeyGiven, decryption
from .handling import Begin, Handling, outcome_of, place_of

__all__ = ["Callout"]

_R = TypeVar("_R", bound=CalloutRequest)

#: Of the provider's time-out, what the handler may take: the rest is the network's, TLS included.
_SHARE: Final = 0.5
#: Seconds for which a request counts as repeated, at least.
_WINDOW: Final = 10.0


class Callout(Generic[_R]):
    """Answer one kind of request of a provider's by a function of the owner's, or by a default (G18, G19, G20).

    `mount_callout` of `integrations.fastapi`, `integrations.flask` and `integrations.django` serves it.

    Args:
        asks: What is asked: `TokenIssuanceStart`, `AttributeCollectionStart`, `AttributeCollectionSubmit`,
            `EmailOtpSend`, `PasswordSubmit`, `ApiConnector` or `RestProfile`.
        handler: Called with that; returns an answer, such as `Continue`. A coroutine function runs in the framework's
            event loop; another function on a thread of its own. API calls and tokens that it asks for are over by the
            deadline; what else it waits for should be.
        caller: Who may call: `EntraCaller`, `BasicCaller`, `CertificateCaller`, or anything with their method.
        default: What is answered where the handler's answer can't be: an answer, or `LastKnown`.
        name: What it is called in events, health and the store; the event's name when not given. Two callouts that
            share a store have two names.
        timeout: Seconds that the provider waits, as configured there: for Entra from 0.2 to 2, and 1 when not given;
            for B2C 20.
        deadline: Seconds after which the default is answered; half of `timeout` when not given.
        store: Where processes share which requests were answered, and `LastKnown` its claims; None for this process
            alone.
        when_store_fails: Whether a request is handled where the store can't say whether another process handles it:
            `run`, which may give two effects to a request that is repeated in such a moment; or `default`.
        concurrency: Handlers at the same time.
        queue: Requests that may wait for one, where the handler runs on threads.
        breaker: When the handler is left alone after failures.
        repeat_window: Seconds for which a request like an earlier one counts as the provider's retry of it, more than
            the time-out; twice that and a second, or 10 when that is more.
        largest_body: Bytes of a request, at most.
        decryption_keys: For `PasswordSubmit`: RSA private keys in PEM, their paths, or loaded.
        clock: Where the time comes from; for tests.
        jitter: Where randomness of breaks comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong, or the contract doesn't know the default.
    """

    def __init__(
        self,
        asks: type[_R],
        handler: Callable[[_R], Answer | Awaitable[Answer]],
        *,
        caller: Caller,
        default: Answer | LastKnown,
        name: str | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        store: Store | None = None,
        when_store_fails: Literal["run", "default"] = "run",
        concurrency: int = 64,
        queue: int = 64,
        breaker: BreakerOptions | None = None,
        repeat_window: float | None = None,
        largest_body: int = 64 * 1024,
        decryption_keys: KeyGiven | list[KeyGiven] | tuple[KeyGiven, ...] | None = None,
        clock: Clock | None = None,
        jitter: Jitter = system_jitter,
    ) -> None:
        require(isinstance(asks, type) and bool(getattr(asks, "event", "")), "asks must be such as TokenIssuanceStart")
        require(callable(handler), "handler must be a function of what is asked")
        require(callable(getattr(caller, "admit", None)), "caller must be such as EntraCaller(verifier)")
        stands_in = default.otherwise if isinstance(default, LastKnown) else default
        known = ", ".join(each.__name__ for each in asks.defaults)
        require(isinstance(stands_in, asks.defaults), f"the default of {asks.event} must be one of {known}")
        require(
            not isinstance(default, LastKnown) or asks.has_claims, f"{asks.event} has no claims for LastKnown to keep"
        )
        name = asks.event if name is None else name
        require(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100, "name must be a short text")
        timeout = asks.timeout if timeout is None else timeout
        low, high = asks.timeouts
        require_number("timeout", timeout, low=low, high=high)
        deadline = timeout * _SHARE if deadline is None else deadline
        require_number("deadline", deadline, low=0.05)
        require(
            deadline <= timeout * 0.9,
            f"deadline of {deadline:g} s leaves nothing of the provider's {timeout:g} s for the network: lower it",
        )
        if store is not None:
            require_store(store)
        require_clock(clock)
        require(when_store_fails in ("run", "default"), "when_store_fails must be 'run' or 'default'")
        require_whole("concurrency", concurrency, low=1, high=1024)
        require_whole("queue", queue, low=0, high=100_000)
        window = max(_WINDOW, 2 * timeout + 1.0) if repeat_window is None else repeat_window
        require_number("repeat_window", window, low=1.0, high=3600.0)
        require(
            window > timeout,
            f"repeat_window of {window:g} s is over before the provider asks again, which it does after {timeout:g} s",
        )
        require_whole("largest_body", largest_body, low=1024, high=4 * 1024 * 1024)
        asks.write(longest(stands_in), None)  # which says what is wrong with it, here and not to the first user
        self.name = name
        self.asks = asks
        self.deadline = deadline
        self.largest_body = largest_body
        self._caller = caller
        self._stands_in: Answer = stands_in
        self._plain = asks.write(stands_in, None)
        self._decrypt = None if decryption_keys is None else decryption(decryption_keys)
        self._clock = clock or SystemClock()
        self._handling: Handling[_R] = Handling(
            asks,
            handler,
            name=name,
            deadline=deadline,
            window=window,
            store=store,
            runs_without_store=when_store_fails == "run",
            last_known=default if isinstance(default, LastKnown) else None,
            concurrency=concurrency,
            queue=queue,
            breaker=chosen_breaker(breaker),
            clock=self._clock,
            jitter=jitter,
        )

    def __repr__(self) -> str:
        return f"Callout({self.asks.__name__}, name={self.name!r}, deadline={self.deadline:g})"

    def answer(self, arriving: Arriving, read: Callable[[int, float], bytes]) -> Reply:
        """Answer a request, in time.

        Args:
            arriving: What is known before the body is read.
            read: Reads the body: so many bytes at most, within so many seconds.
        """
        return run(self._steps(arriving, read))

    async def answer_async(self, arriving: Arriving, read: Callable[[int, float], Awaitable[bytes]]) -> Reply:
        """Answer a request, in time, in a task; see `answer`."""
        return await run_async(self._steps(arriving, read))

    # One request.

    def _steps(self, arriving: Arriving, read: Callable[[int, float], Any]) -> Steps[Reply]:
        forks.notice()
        began = self._clock.monotonic()
        ends = began + self.deadline
        who = yield from self._admitted(arriving, ends)
        if isinstance(who, Reply):
            return who
        try:
            request, key = yield from self._understood(arriving, read, who, ends)
        except MalformedCallout as error:
            emit(CalloutRejected(at=self._clock.wall(), target=self.name, code=error.code, detail=str(error)))
            return self._defaulted(None, began, error.code, str(error), None)
        known = self._handling.look_up(request, ends)
        handled, first = self._handling.once.join(key, request, began, ends)
        if first:
            yield Begin(self._handling, handled)
        outcome: Outcome | None = yield WaitFor(handled.flight, ends - self._clock.monotonic())
        if outcome is not None and outcome.error is None:
            reply: Reply = outcome.result
            self._tell(reply, began, repeated=handled.repeated or not first)
            return reply
        if outcome is None:
            handled.too_slow()
            code, detail = "slow", ""
        else:
            code, detail = getattr(outcome.error, "code", "handler_error"), getattr(outcome.error, "detail", "")
        claims = yield from self._handling.last_known(request, known, ends)
        return self._defaulted(request, began, code, detail, claims)

    def _asked(self, arriving: Arriving, ends: float) -> Steps[Outcome | None]:
        """Ask who calls; return what came of it, None where nothing has in time."""
        steps = getattr(self._caller, "steps", None)
        if steps is not None:
            try:
                return Outcome(result=(yield from steps(arriving, lambda: ends - self._clock.monotonic())))
            except Exception as error:  # noqa: BLE001 - whoever asked decides about it
                return Outcome(error=error)
        admit = partial(self._caller.admit, arriving)
        if not getattr(self._caller, "waits", True):
            return outcome_of(admit)
        flight = self._handling.call(f"who calls {self.name}", admit, ends)
        outcome: Outcome | None = yield WaitFor(flight, ends - self._clock.monotonic())
        return outcome

    def _admitted(self, arriving: Arriving, ends: float) -> Steps[Admitted | Reply]:
        """Return who calls, or the reply to a stranger."""
        outcome = yield from self._asked(arriving, ends)
        if outcome is None:
            error: BaseException | None = VerificationUnavailable("who calls isn't known in time", retry_after=1.0)
        else:
            error = outcome.error
            if error is None:
                who = outcome.result if isinstance(outcome.result, Admitted) else Admitted(outcome.result)
                if who.tenant is None or isinstance(who.tenant, str):
                    return who
                error = TypeError()
        code = str(getattr(error, "code", "handler_error"))
        detail = str(error) if isinstance(error, ResilientAuthError) else place_of(error)
        emit(CalloutRejected(at=self._clock.wall(), target=self.name, code=code, detail=detail))
        return _to_strangers(error)

    def _understood(
        self, arriving: Arriving, read: Callable[[int, float], Any], who: Admitted, ends: float
    ) -> Steps[tuple[_R, str]]:
        """Read a request; return it, and the key by which a repeated one is known."""
        kind = arriving.header("Content-Type")
        if [one.partition(";")[0].strip().lower() for one in kind] != ["application/json"]:
            raise MalformedCallout("the body's type isn't application/json")
        try:
            body: bytes = yield Invoke(partial(read, self.largest_body + 1, ends - self._clock.monotonic()))
        except Exception as error:  # noqa: BLE001 - the server's, or the caller went away
            raise MalformedCallout(f"the body can't be read ({type(error).__name__})") from None
        if len(body) > self.largest_body:
            raise MalformedCallout(f"the body has more than {self.largest_body} bytes")
        try:
            request, told = self.asks.read(json_object(body), self._decrypt)
        except NotStrict as error:
            raise MalformedCallout(f"the body {error}") from None
        except MalformedCallout:
            raise
        except Exception as error:  # noqa: BLE001 - whatever nobody has thought of is no reason to fail a sign-in
            raise MalformedCallout(f"the body can't be understood ({place_of(error)})") from None
        if who.tenant is not None and request.tenant_id and request.tenant_id.lower() != who.tenant.lower():
            raise MalformedCallout("the body is about another tenant than the caller speaks for")
        return request, self._handling.once.key(*who, request.tenant_id, request.correlation_id, told)

    def _defaulted(
        self, request: _R | None, began: float, code: str, detail: str, claims: Mapping[str, Any] | None
    ) -> Reply:
        answer: Answer = self._stands_in if claims is None else Continue(claims)
        event = CalloutDefaulted(
            at=self._clock.wall(),
            target=self.name,
            source="default" if claims is None else "last_known",
            code=code,
            detail=detail,
            seconds=self._clock.monotonic() - began,
        )
        emit(event)
        for said in (answer, self._stands_in):
            try:
                return self.asks.write(said, request)
            except UnfitAnswer:  # claims that another release had kept, or what comes with it from the request
                continue
        return self._plain

    def _tell(self, reply: Reply, began: float, *, repeated: bool) -> None:
        seconds = self._clock.monotonic() - began
        emit(
            CalloutAnswered(
                at=self._clock.wall(), target=self.name, status=reply.status, repeated=repeated, seconds=seconds
            )
        )


def _to_strangers(error: BaseException | None) -> Reply:
    """Answer who may not call: 401, or 503 where that can't be known now."""
    if isinstance(error, Stranger):
        told = json_reply(401, {"error": error.code})
        headers = {"WWW-Authenticate": error.challenge} if error.challenge else {}
        return Reply(401, told.body, {**told.headers, **headers})
    if isinstance(error, (InvalidToken, VerificationUnavailable)):
        refusal = refused(error)
        status = 401 if refusal.status == 403 else refusal.status
        return Reply(status, json_reply(status, {"error": refusal.code}).body, refusal.headers)
    told = json_reply(503, {"error": "unavailable"})
    return Reply(503, told.body, {**told.headers, "Retry-After": "5"})
