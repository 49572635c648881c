"""Somebody else's credential, or a function: asked for tokens like a provider, and judged like one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import json
import math
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .._flow.memory import Exchange, Slot
from .._flow.single_flight import Flight, Outcome
from .._policy.failure import Purpose, judge
from ..errors import AttemptTimeout, ConfigurationError, MalformedAnswer, ProviderUnavailable, Throttled, TokenDenied
from ..settings import Settings
from ..token import Token, TokenRequest
from .redaction import redact
from .session import Plan, Session
from .wire import _causes, as_failure

__all__ = ["AnyCredential", "Wanted", "drop", "slots_with"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say which token somebody wants of a credential."""

    scopes: tuple[str, ...]
    claims: str | None = None
    tenant_id: str | None = None
    enable_cae: bool = False


_numbers = itertools.count(1)


class AnyCredential:
    """Tokens of somebody else's credential, or of a function."""

    def __init__(self, credential: Any, settings: Settings | None, *, asynchronous: bool) -> None:
        ask = _way_to_ask(credential)
        self._coroutine = inspect.iscoroutinefunction(ask.method)
        if self._coroutine and not asynchronous:
            raise ConfigurationError(
                f"sources must not hold {ask.name}, whose tokens are awaited: use "
                "resilient_auth.aio.ResilientCredential"
            )
        # Two of a kind may ask different providers: each has a breaker of its own.
        self.name = f"{ask.name}-{next(_numbers)}"
        self.session = Session(settings, {"cache": None}, "cache")
        self._closing = threading.Condition(threading.Lock())
        self._credential = credential
        self._ask = ask
        #: The caller's event loop: what belongs to a loop is awaited there.
        self.loop: asyncio.AbstractEventLoop | None = None

    def prepare(self, wanted: Wanted) -> None:
        """Tell what must be done before a plan can be made: nothing."""

    def plan(self, wanted: Wanted) -> Plan:
        """Plan how a token is had."""
        variant = json.dumps([wanted.tenant_id, wanted.enable_cae]) if wanted.tenant_id or wanted.enable_cae else ""
        request = TokenRequest(self.name, self.name, "credential", wanted.scopes, None, variant)
        if wanted.claims:
            slot = self.session.memory.find(request)
            if slot is not None and slot.token is not None:
                self.session.memory.drop_token(slot, slot.token, "claims challenge")
        return self.session.plan(
            request,
            (self.name,),
            lambda slot: self._exchange(slot, wanted),
            repeatable=not wanted.claims,
            read=None,
            claims=wanted.claims,
        )

    def _exchange(self, slot: Slot, wanted: Wanted) -> Exchange:
        engine = self.session.engine

        def exchange(flight: Flight) -> Outcome:
            self._pause(min(flight.earliest, flight.deadline))
            engine.check_cooldown(self.name, self.name, None)
            with engine.breaker(self.name, Purpose.TOKEN).admit() as permit:
                # It can't be interrupted: who asks later must not wait for it too.
                alarm = engine.timers.call_at(flight.deadline, lambda: permit.failure("attempt_timeout"))
                sent_on, sent_at = engine.clock.wall(), engine.clock.monotonic()
                failure: ProviderUnavailable | None = None
                denial: dict[str, Any] | None = None
                try:
                    answer = self._answer(wanted, flight)
                    token = self._token(answer, sent_on, sent_at)
                except Exception as error:
                    verdict = _verdict_on(error, self.name, engine.clock.wall())
                    if verdict is None:
                        raise
                    failure, denial = verdict
                finally:
                    alarm.cancel()
                if failure is not None:
                    # Raised here and not there: what a credential raises may hold its request, and so its secrets.
                    if isinstance(failure, Throttled):
                        permit.none()
                        asked = failure.retry_after or 0.0
                        failure.retry_after = asked if asked >= 1.0 else engine.settings.retry.first_delay
                        engine.cool_down(self.name, Purpose.TOKEN, self.name, None, failure.retry_after)
                    else:
                        permit.failure(failure.code)
                    raise failure
                if denial is not None:
                    return Outcome(result=denial)
                if token is None:  # MSAL's way of saying no
                    return Outcome(result=dict(answer))
                permit.success()
                return Outcome(token, {"access_token": token.secret})

        return exchange

    def _pause(self, until: float) -> None:
        """Sleep on a worker, or until this is closed."""
        clock = self.session.engine.clock
        with self._closing:
            while not self.session.closed and (left := until - clock.monotonic()) > 0:
                clock.wait(self._closing, left)

    def _answer(self, wanted: Wanted, flight: Flight) -> Any:
        """Ask, on this worker or on the caller's loop."""
        if self._coroutine:
            return self._await(lambda: self._ask(wanted), flight)
        answer = self._ask(wanted)
        if inspect.isawaitable(answer):
            awaited = answer
            return self._await(lambda: awaited, flight)
        return answer

    def _await(self, ask: Callable[[], Awaitable[Any]], flight: Flight) -> Any:
        loop, clock = self.loop, self.session.engine.clock
        if loop is None or not loop.is_running():
            raise AttemptTimeout(f"{self.name} needs an event loop, and the last one ended", authority=self.name)

        async def run() -> Any:
            return await ask()

        coming = asyncio.run_coroutine_threadsafe(run(), loop)
        try:
            return coming.result(max(0.0, flight.deadline - clock.monotonic()))
        except TimeoutError:
            if coming.done():  # it was its own
                raise
            coming.cancel()
            raise AttemptTimeout(f"{self.name} didn't answer in time", authority=self.name) from None
        except concurrent.futures.CancelledError:
            raise AttemptTimeout(f"{self.name} was cancelled with its event loop", authority=self.name) from None

    def _token(self, answer: Any, sent_on: float, sent_at: float) -> Token | None:
        if isinstance(answer, Mapping) and "access_token" not in answer and "error" in answer:
            return None
        told = _told_by(answer)
        if told is None:
            raise ConfigurationError(
                f"{self.name} gave a {type(answer).__name__}: a source must give an AccessToken(token, expires_on), "
                "or a mapping with access_token and expires_in"
            )
        fault, life = _fault_in(told, sent_on)
        if fault is not None:
            raise MalformedAnswer(f"{self.name} gave {fault}", authority=self.name)
        refresh_in = None if told.refresh_on is None else max(0.0, told.refresh_on - sent_on)
        return Token(
            secret=told.secret,
            token_type=told.token_type,
            obtained_on=sent_on,
            obtained_at=sent_at,
            life=life,
            due_after=self.session.due(life, refresh_in),
            refresh_on=None if told.refresh_on is None else int(told.refresh_on),
        )

    def forget(self, token: str) -> None:
        """Forget this very token; what it holds by itself, somebody else's credential keeps."""
        drop(self.session, token)

    def close(self) -> None:
        """Forget the tokens held in memory, and end back-offs."""
        self.session.close()
        with self._closing:
            self._closing.notify_all()

    @property
    def credential(self) -> Any:
        """What was given: it is closed with the credential around it, as in azure-identity's chains."""
        return self._credential


class _Ask:
    """Call a credential or a function by the richest of the ways that it knows."""

    def __init__(self, name: str, method: Callable[..., Any], way: str) -> None:
        self.name = name
        self.method = method
        self._way = way
        self._takes = _keywords(method) if way == "function" else None

    def __call__(self, wanted: Wanted) -> Any:
        given: dict[str, Any] = {"claims": wanted.claims, "tenant_id": wanted.tenant_id}
        if wanted.enable_cae:
            given["enable_cae"] = True
        given = {name: value for name, value in given.items() if value is not None}
        if self._way == "get_token_info":
            return self.method(*wanted.scopes, options=given) if given else self.method(*wanted.scopes)
        if self._way == "get_token":
            return self.method(*wanted.scopes, **given)
        taken = {n: v for n, v in given.items() if self._takes is None or n in self._takes}
        return self.method(wanted.scopes, **taken)


def slots_with(session: Session, secret: str) -> list[Slot]:
    """Find the places of one token."""
    return [slot for slot in session.memory if (held := slot.token) is not None and held.secret == secret]


def drop(session: Session, secret: str) -> None:
    """Forget one token wherever it is held, and leave its successor alone."""
    for slot in slots_with(session, secret):
        held = slot.token
        if held is not None and held.secret == secret:
            session.memory.drop_token(slot, held, "refused by an API")


def _way_to_ask(source: Any) -> _Ask:
    for way in ("get_token_info", "get_token"):
        method = getattr(source, way, None)
        if callable(method) and not isinstance(source, type):
            return _Ask(type(source).__name__, method, way)
    name = getattr(source, "__name__", None) or type(source).__name__
    if inspect.isfunction(source) or inspect.ismethod(source) or inspect.isbuiltin(source):
        return _Ask(name.strip("<>"), source, "function")
    called = source.__call__ if inspect.iscoroutinefunction(getattr(source, "__call__", None)) else source  # noqa: B004
    return _Ask(name, called, "function")


def _keywords(function: Callable[..., Any]) -> frozenset[str] | None:
    """Tell which keywords a function takes; None for any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


@dataclass(frozen=True, slots=True, repr=False)
class _Told:
    """What a source said of its token, as it said it."""

    secret: Any
    token_type: str
    expires_on: Any
    expires_in: Any = None
    refresh_on: Any = None


def _told_by(answer: Any) -> _Told | None:
    """Read what is like a token: azure-core's two kinds, MSAL's result, or a pair of token and expiry."""
    if isinstance(answer, Mapping):
        if "access_token" not in answer:
            return None
        return _Told(
            answer["access_token"],
            str(answer.get("token_type") or "Bearer"),
            _number(answer.get("expires_on")),
            _number(answer.get("expires_in")),
            _number(answer.get("refresh_on")),
        )
    if hasattr(answer, "token") and hasattr(answer, "expires_on"):
        kind = str(getattr(answer, "token_type", None) or "Bearer")
        return _Told(answer.token, kind, _number(answer.expires_on), None, _number(getattr(answer, "refresh_on", None)))
    if isinstance(answer, tuple) and len(answer) == 2:
        return _Told(answer[0], "Bearer", _number(answer[1]))
    return None


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _fault_in(told: _Told, wall: float) -> tuple[str | None, float]:
    """Tell what is wrong with a token, and how many seconds it has to live."""
    if not isinstance(told.secret, str) or not told.secret:
        return "a token that isn't a string", 0.0
    life = told.expires_in if told.expires_in is not None else None
    if life is None and told.expires_on is not None:
        life = told.expires_on - wall
    if life is None:
        return "a token without expires_on, in seconds since the epoch", 0.0
    if life <= 0:
        # It must not take the place of a token that is still valid.
        return "a token that is over already", 0.0
    if life > _LONGEST_LIFE:
        return "a token whose expires_on isn't in seconds since the epoch", 0.0
    return None, life


#: Seconds; milliseconds since the epoch would give far more.
_LONGEST_LIFE = 10 * 366 * 24 * 3600.0

#: Entra's codes for failures of its own, which azure-identity tells like denials.
_TRANSIENT = re.compile(r"AADSTS(?:50033|90006|90012|90024|90033|90055)\b|\btemporarily_unavailable\b|\bserver_error\b")
_DENIED = re.compile(
    r"\b(?:AADSTS|AADB2C|MSIS)\d+|\b(?:invalid_(?:client|grant|request|resource|scope|target)|unauthorized_client|"
    r"unsupported_grant_type|access_denied|interaction_required|login_required|consent_required)\b"
)


def _verdict_on(
    error: Exception, name: str, wall: float
) -> tuple[ProviderUnavailable | None, dict[str, Any] | None] | None:
    """Judge what a source raised: a failure, or a denial as MSAL would tell it; None where it is neither.

    What can't be told apart is a failure: a valid token stays in use, and another source is asked.
    """
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ProviderUnavailable):
            return as_failure(cause, name), None
        if isinstance(cause, TokenDenied):
            return None, {"error": cause.error, "error_description": cause.description, "claims": cause.claims}
        status = _status(cause)
        if status is not None:
            response = getattr(cause, "response", None)
            headers = {str(k).lower(): str(v) for k, v in dict(getattr(response, "headers", None) or {}).items()}
            failure = judge(Purpose.WS_TRUST, name, status, headers, "", wall)
            return (failure, None) if failure is not None else (None, _denial(cause, error))
    for cause in causes:
        if _kinds(cause) & _NETWORK or isinstance(cause, (ConnectionError, TimeoutError, httpx.TransportError)):
            return as_failure(_deepest(cause), name), None
    if isinstance(error, OSError):
        return ProviderUnavailable(f"{name} failed: {type(error).__name__}", authority=name), None
    if "ClientAuthenticationError" not in _kinds(error):
        return None
    told = str(error)
    if "CredentialUnavailableError" not in _kinds(error) and _DENIED.search(told) and not _TRANSIENT.search(told):
        return None, _denial(error, error)
    return ProviderUnavailable(f"{name} gave no token: {_short(told)}", authority=name), None


#: By name, since azure-core needn't be there: nothing went out, or nothing that can be read came back.
_NETWORK = frozenset({"ServiceRequestError", "ServiceResponseError", "RequestException", "SSLError", "gaierror"})


def _kinds(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    for cause in _causes(error):
        yield cause
        inner = getattr(cause, "inner_exception", None)  # azure-core's way of telling a cause
        if isinstance(inner, BaseException) and inner is not cause:
            yield from _causes(inner)


def _deepest(error: BaseException) -> Exception:
    inner = getattr(error, "inner_exception", None)
    found = inner if isinstance(inner, Exception) else error
    assert isinstance(found, Exception)  # noqa: S101 - the chain of one holds nothing else of these kinds
    return found


def _status(error: BaseException) -> int | None:
    for holder in (getattr(error, "response", None), error):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _denial(cause: BaseException, error: Exception) -> dict[str, Any]:
    told = str(error)
    found = re.search(r"\b[a-z]+_(?:client|grant|request|resource|scope|required|denied|type)\b", told)
    return {"error": found.group() if found else "denied", "error_description": _short(told or type(cause).__name__)}


def _short(text: str) -> str:
    return redact(" ".join(text.split()))[:500]
