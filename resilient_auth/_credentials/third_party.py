"""Somebody else's credential, or a function: asked for tokens like a provider, and judged like one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import itertools
import json
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from .._engine.single_flight import Exchange, Flight, Outcome
from .._engine.threads import lasting_loop
from .._msal.plans import Plan, plan_token
from .._msal.session import Session
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.levels import ProviderRequest
from .._policy.provider_errors import Propagation
from .._policy.subject import Subject, SubjectOf, subject_now
from ..errors import (
    AttemptTimeout,
    Closed,
    ConfigurationError,
    ProviderUnavailable,
    Throttled,
)
from ..settings import Settings
from ..token import Token, TokenRequest
from .request import CredentialCall, CredentialRequest
from .source import Source
from .third_party_errors import denied, verdict_on
from .third_party_tokens import is_denial, told_by

__all__ = ["AnyCredential", "where_it_belongs"]

_numbers = itertools.count(1)

#: What is being asked for here: whoever asks for the same again would wait for themselves.
_asking: contextvars.ContextVar[frozenset[TokenRequest]] = contextvars.ContextVar(
    "resilient_auth_asking", default=frozenset()
)
#: What was asked for last in this context, and its caller's event loop: a flight that they began may be awaited there.
_asked_in: contextvars.ContextVar[tuple[TokenRequest, weakref.ref[asyncio.AbstractEventLoop]] | None]
_asked_in = contextvars.ContextVar("resilient_auth_asked_in", default=None)
#: What is said of a session, a lock or a connection that belongs to another event loop: by aiohttp and asyncio.
_OF_ANOTHER_LOOP = (
    "Timeout context manager should be used inside a task",
    "attached to a different loop",
    "is bound to a different event loop",
    "Event loop is closed",
)


class AnyCredential(Source):
    """Tokens of somebody else's credential, or of a function.

    Args:
        credential: What is asked; by default it answers for one identity always.
        settings: The owner's.
        asynchronous: Whether the callers are asyncio tasks.
        subject: For whom it answers, where that differs from call to call. Everything that is held, shared or counted
            against somebody is kept by subject then, and nobody is asked but in a context of that subject's.
    """

    takes = ("settings",)

    def __init__(
        self, credential: Any, settings: Settings | None, *, asynchronous: bool, subject: SubjectOf | None = None
    ) -> None:
        ask = CredentialCall(credential)
        self._asynchronous = asynchronous
        if ask.is_async and not asynchronous:
            raise _to_be_awaited(ask.name)
        # Two of a kind may ask different providers: each has a breaker of its own.
        self.name = f"{ask.name}-{next(_numbers)}"
        self._alone, self._within = Endpoint(self.name), Endpoint(f"{self.name} within itself")
        self.session = Session(settings, {"cache": None}, "cache")
        self.session.name_lane(self.name, calls_owner=True)
        #: It is closed with the credential around it, as in azure-identity's chains. What it holds itself, it keeps.
        self.credential = credential
        self._call = ask
        self._subject = subject
        self._propagation = Propagation()
        self.after_fork()

    @property
    def _endpoint(self) -> Endpoint:
        """Whom a breaker stands for: what it asks itself for, while it is asked, is part of that and no other call.

        Else its own probe would keep it from what it needs to succeed, for ever.
        """
        return self._within if any(request.authority == self.name for request in _asking.get()) else self._alone

    def after_fork(self) -> None:
        """Start with a lock of one's own."""
        self._closing = threading.Condition(threading.Lock())

    def plan(self, wanted: CredentialRequest) -> Plan:
        """Plan how a token is had."""
        variant = json.dumps([wanted.tenant_id, wanted.enable_cae]) if wanted.tenant_id or wanted.enable_cae else ""
        subject = wanted.subject
        digest = None if subject is None else subject.digest
        request = TokenRequest(self.name, self.name, "credential", wanted.scopes, digest, variant)
        if self._asynchronous:
            with suppress(RuntimeError):  # nobody's: a refresh ahead
                _asked_in.set((request, weakref.ref(asyncio.get_running_loop())))
        if request in _asking.get():
            raise ConfigurationError(f"{self.name} asks the credential around it for the very token that it is to give")
        if wanted.claims:
            entry = self.session.memory.find(request)
            if entry is not None and entry.token is not None:
                self.session.memory.drop_token(entry, entry.token, "claims_challenge")
        exchange = self._exchange(request, wanted)
        plan = plan_token(
            self.session,
            request,
            (self._endpoint,),
            lambda _: exchange,
            repeatable=not wanted.claims and subject is None,
            read=None,
            claims=wanted.claims,
        )
        entry = plan.entry
        if entry is not None and subject is not None and not wanted.claims and not self._is_fresh(entry.token):
            entry.renew = _in_this_context(exchange)
        return plan

    def _is_fresh(self, token: Token | None) -> bool:
        clock = self.session.engine.clock
        return token is not None and not token.suspect and token.age(clock.wall(), clock.monotonic()) < token.due_after

    def _exchange(self, request: TokenRequest, wanted: CredentialRequest) -> Exchange:
        engine = self.session.engine

        def exchange(flight: Flight) -> Outcome:
            self._pause(min(flight.earliest, flight.deadline))
            asked = ProviderRequest.of(request, self._endpoint, Purpose.TOKEN)
            engine.check_cooldown(asked)
            self._check_subject(wanted.subject)
            with engine.levels.admit(asked) as leave:
                # It can't be interrupted: who asks later must not wait for it too.
                alarm = engine.timers.call_at(flight.deadline, lambda: leave.failure("attempt_timeout"))
                outer = _asking.set(_asking.get() | {request})
                asked_on, asked_at = engine.clock.wall(), engine.clock.monotonic()
                try:
                    outcome: Outcome | ProviderUnavailable = self._outcome(request, wanted, flight, asked_on, asked_at)
                except Exception as error:
                    verdict = verdict_on(error, self.name, engine.clock.wall(), partial(self._propagating, wanted))
                    if verdict is None:
                        raise
                    outcome = Outcome(result=verdict) if isinstance(verdict, dict) else verdict
                finally:
                    _asking.reset(outer)
                    alarm.cancel()
                # Raised here and not there: what a credential raises may hold its request, and so its secrets.
                if isinstance(outcome, Throttled):
                    leave.none()
                    told_to_wait = outcome.retry_after or 0.0
                    wait = told_to_wait if told_to_wait >= 1.0 else engine.settings.retry.first_delay
                    outcome.retry_after, _ = engine.cool_down(asked, wait)
                    raise outcome
                if isinstance(outcome, ProviderUnavailable):
                    if outcome.of_request:
                        leave.none()
                    else:
                        leave.failure(outcome.code)
                    raise outcome
                if outcome.token is not None:
                    self._propagation.ended((wanted.tenant_id, wanted.subject))
                    leave.success()
                    engine.answered(asked)
                    # Whom the context named may have signed out while it was asked.
                    self._check_subject(wanted.subject)
                    entry = self.session.memory.find(request)
                    if entry is not None and wanted.subject is not None:
                        entry.renew = None  # until they call again; their context may hold a whole request
                else:
                    leave.denied()
                return outcome

        return exchange

    def _check_subject(self, expected: Subject | None) -> None:
        """Raise `ConfigurationError` unless this context is one of the subject for whom a token is wanted."""
        if expected is not None and self._subject is not None and subject_now(self._subject) != expected:
            raise ConfigurationError(
                f"subject named somebody else where {self.name} was asked than where the token was: let it read "
                "context variables, which are the caller's in both places, and nothing that other calls change"
            )

    def _outcome(
        self, request: TokenRequest, wanted: CredentialRequest, flight: Flight, asked_on: float, asked_at: float
    ) -> Outcome | ProviderUnavailable:
        """Ask, and read the answer."""
        answer = self._answer(request, wanted, flight)
        if is_denial(answer):
            verdict = denied(dict(answer), self.name, partial(self._propagating, wanted))
            return Outcome(result=verdict) if isinstance(verdict, dict) else verdict
        told = told_by(answer, self.name, asked_on)
        refresh_in = None if told.refresh_on is None else max(0.0, told.refresh_on - asked_on)
        token = Token(
            secret=told.secret,
            token_type=told.token_type,
            obtained_on=asked_on,
            obtained_at=asked_at,
            life=told.life,
            due_after=self.session.due(told.life, refresh_in),
            refresh_on=None if told.refresh_on is None else int(told.refresh_on),
        )
        return Outcome(token, {"access_token": token.secret})

    def _propagating(self, wanted: CredentialRequest) -> bool:
        now = self.session.engine.clock.monotonic()
        return not self._propagation.is_over((wanted.tenant_id, wanted.subject), now)

    def _pause(self, until: float) -> None:
        """Sleep on a worker.

        Raises:
            Closed: This was closed meanwhile: nobody is to be asked any more.
        """
        clock = self.session.engine.clock
        with self._closing:
            while not self.session.closed and (left := until - clock.monotonic()) > 0:
                clock.wait(self._closing, left)
        if self.session.closed:
            raise Closed("this credential was closed: make a new one, or close it later")

    def _answer(self, request: TokenRequest, wanted: CredentialRequest, flight: Flight) -> Any:
        """Ask on this worker; what is to be awaited, in an event loop."""
        if self._call.is_async:
            return self._await(request, lambda: self._ask(wanted), flight)
        answer = self._ask(wanted)
        if not inspect.isawaitable(answer):
            return answer
        if not self._asynchronous:
            if inspect.iscoroutine(answer):
                answer.close()
            raise _to_be_awaited(self._call.name)
        made = iter([answer])
        return self._await(request, lambda: next(made, None) or self._ask(wanted), flight)

    def _ask(self, wanted: CredentialRequest) -> Any:
        options: dict[str, Any] = {"claims": wanted.claims, "tenant_id": wanted.tenant_id}
        if wanted.enable_cae:
            options["enable_cae"] = True
        options = {name: value for name, value in options.items() if value is not None}
        if not self._call.is_function:
            return self._call.bound(*wanted.scopes, **options)()
        return self._call.bound(wanted.scopes, **{name: options[name] for name in options.keys() & self._call.takes})()

    def _await(self, request: TokenRequest, ask: Callable[[], Awaitable[Any]], flight: Flight) -> Any:
        """Await in the loop that lasts: a caller's may end at any moment, as where each job is an `asyncio.run`.

        What turns out to belong to a caller's loop is awaited there, by a flight that this caller began, and only then.
        """
        try:
            return self._await_in(lasting_loop(), ask, flight)
        except RuntimeError as error:
            asked, loop = _asked_in.get() or (None, lambda: None)
            callers = loop() if asked == request else None
            if not _of_another_loop(error) or callers is None or not callers.is_running():
                raise
        return self._await_in(callers, ask, flight)

    def _await_in(self, loop: asyncio.AbstractEventLoop, ask: Callable[[], Awaitable[Any]], flight: Flight) -> Any:
        clock = self.session.engine.clock
        running = _made(ask)
        try:
            coming = asyncio.run_coroutine_threadsafe(running, loop)
        except RuntimeError:
            running.close()
            raise
        try:
            return coming.result(max(0.0, flight.deadline - clock.monotonic()))
        except TimeoutError:
            if coming.done():  # it was its own
                raise
            coming.cancel()
            raise AttemptTimeout(f"{self.name} didn't answer in time", authority=self.name) from None
        except concurrent.futures.CancelledError:
            raise AttemptTimeout(f"{self.name} was cancelled with its event loop", authority=self.name) from None

    def close(self) -> None:
        """Forget the tokens held in memory, and end back-offs."""
        super().close()
        with self._closing:
            self._closing.notify_all()


def _in_this_context(exchange: Exchange) -> Exchange:
    """Have a refresh that nobody waits for see what this caller's context variables say, on whatever thread it runs."""
    context = contextvars.copy_context()

    def exchange_there(flight: Flight) -> Outcome:
        # A copy: a context can be entered once at a time.
        return context.copy().run(exchange, flight)

    return exchange_there


def _of_another_loop(error: RuntimeError) -> bool:
    return any(told in str(error) for told in _OF_ANOTHER_LOOP)


async def where_it_belongs(call: Callable[[], Awaitable[Any]]) -> Any:
    """Await a credential's own coroutine, such as `close`, in the loop in which its tokens are awaited."""
    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_made(call), lasting_loop()))
    except RuntimeError as error:
        if not _of_another_loop(error):
            raise
    return await call()


async def _made(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def _to_be_awaited(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"sources must not hold {name}, whose tokens are awaited: use resilient_auth.aio.ResilientCredential"
    )
