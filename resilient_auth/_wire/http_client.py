"""The http_client that MSAL is given: retry, each attempt through the breaker, then the wire."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from .._engine.acquire import restore
from .._engine.engine import Engine
from .._engine.single_flight import Flight, LeaseLost, Outcome, carrying
from .._fleet import coordination as fleet
from .._policy.endpoint import Endpoint, WireIdentity, origin_of
from .._policy.failure import Purpose, judge, readable
from .._policy.levels import ProviderRequest
from .._policy.provider_errors import Propagation
from .._policy.retry import retrying
from .._process import forks
from ..errors import (
    AttemptTimeout,
    CircuitOpen,
    Closed,
    ConfigurationError,
    LocalResourcesExhausted,
    MalformedAnswer,
    ProviderUnavailable,
    ServerFailed,
    StoreUnavailable,
    Throttled,
    TLSFailed,
)
from ..events import DiscoveryRejected, DiscoveryServedStale, RetryScheduled, emit, told_later
from .connection import Wire, WireResponse, as_failure
from .discovery import ALIASES, Document, Documents, Hosts, fault_in, hosts_for

__all__ = ["ExchangeContext", "Transport", "documents", "once_then_elsewhere", "origin_of", "time_left"]

#: Redeeming these twice after an ambiguous failure may use up a code or lock an account.
_NOT_REPLAYABLE = frozenset({"authorization_code", "password"})
_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds; the address answers at once or isn't there.
_REGION_TIMEOUT = 2.0

#: What is asked at an address of the tenant's, policy's or realm's own.
_IN_A_REALM = frozenset({Purpose.TOKEN, Purpose.DISCOVERY, Purpose.KEYS})
#: What is fetched for many exchanges, whichever of them is the first to need it.
_DOCUMENTS = frozenset({Purpose.DISCOVERY, Purpose.ALIASES})
#: Where what is asked for may be a token that is held.
_OF_TOKENS = frozenset({Purpose.TOKEN, Purpose.MANAGED_IDENTITY})
#: Seconds between two attempts to get a newer document.
_DOCUMENT_PAUSE = 60.0

#: The last known good documents of this process, shared by all application objects.
documents = Documents()


@dataclass(frozen=True, slots=True)
class _DocumentRequest:
    """A document that is wanted: how it is asked for, over what, and which hosts it may name."""

    purpose: Purpose
    url: str
    options: dict[str, Any]
    asked: str
    wire: WireIdentity
    hosts: Hosts

    @property
    def key(self) -> tuple[WireIdentity, str]:
        """What applications must have in common to share it."""
        return self.wire, self.asked


@dataclass(slots=True)
class ExchangeContext:
    """What is known of the exchange for which MSAL calls: set around it, read by the transport."""

    #: Monotonic time after which no attempt goes on.
    deadline: float
    #: Monotonic time before which none starts.
    earliest: float = 0.0
    #: Whose tokens; a user's throttling isn't everybody's.
    subject: str | None = None
    #: Attempts at most; None for the settings'.
    attempts: int | None = None
    managed_identity: bool = False
    #: Told when an attempt fails, before the next one: who has a valid token needn't wait for that.
    flight: Flight | None = None
    #: When the last attempt went out: a token's life is counted from here, on both clocks.
    sent_on: float | None = None
    sent_at: float | None = None

    def hold_on(self, seconds: float) -> None:
        """Tell the exchange for how many seconds the provider is left alone before it is asked."""
        if self.flight is not None and self.flight.on_back_off is not None:
            self.flight.on_back_off(seconds)

    @contextmanager
    def under_way(self) -> Iterator[ExchangeContext]:
        """Let the transport know of this exchange, on this thread."""
        token = _journey.set(self)
        try:
            yield self
        finally:
            _journey.reset(token)


_journey: contextvars.ContextVar[ExchangeContext | None] = contextvars.ContextVar(
    "resilient_auth_journey", default=None
)
_elsewhere: contextvars.ContextVar[bool] = contextvars.ContextVar("resilient_auth_elsewhere", default=False)


@contextmanager
def once_then_elsewhere() -> Iterator[None]:
    """Have exchanges begun in this block make one attempt, since their caller has another source to ask (G12)."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        restore(_elsewhere, token)


def time_left(engine: Engine) -> float:
    """Return how many seconds the exchange under way has left; outside of one, how long a constructor waits."""
    exchange_context = _journey.get()
    if exchange_context is None:
        return engine.settings.discovery_wait
    return max(0.0, exchange_context.deadline - engine.clock.monotonic())


class Transport:
    """Ask a provider on MSAL's behalf, and raise a `requests.RequestException` where there is no answer.

    Raised, not returned: MSAL replays a 429 or a 5xx that it is returned, for seconds to minutes, without asking again.

    Args:
        engine: Whose policies hold.
        wire: Sends one request.
        client_id: Whose cool-downs hold.
        server_failed: What to raise for a 5xx status.
    """

    def __init__(
        self, engine: Engine, wire: Wire, client_id: str, server_failed: type[ServerFailed] = ServerFailed
    ) -> None:
        self._engine = engine
        self.wire = wire
        self._client_id = client_id
        self._server_failed = server_failed
        self._propagation = Propagation()
        self._closed = False
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of its own, also in a forked child."""
        self._closing = threading.Condition(threading.Lock())

    def post(
        self, url: str, params: Any = None, data: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> WireResponse:
        """Post a form, as MSAL's contract for an http_client has it."""
        forks.notice()
        grant = data.get("grant_type") if isinstance(data, dict) else None
        purpose = Purpose.TOKEN if isinstance(data, dict) else Purpose.WS_TRUST
        exchange_context = _journey.get() or self._journey()
        options.update(params=params, data=data, headers=headers)
        asked = self._asked(purpose, url, exchange_context, grant)
        if grant != _DEVICE_CODE:
            return self._ask(asked, "POST", url, options, exchange_context, replayable=grant not in _NOT_REPLAYABLE)
        try:
            exchange_context.attempts = 1
            return self._ask(asked, "POST", url, options, exchange_context, replayable=True)
        except ProviderUnavailable as error:
            # MSAL polls on after this, and less often, as RFC 8628 (section 3.5) wants it after a failure.
            told = {"error": "slow_down", "error_description": f"Polling goes on: {error}"}
            return WireResponse(400, json.dumps(told), {"content-type": "application/json"})

    def get(
        self, url: str, params: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> WireResponse:
        """Get a document or a managed identity's token, as MSAL's contract for an http_client has it."""
        forks.notice()
        exchange_context = _journey.get() or self._journey()
        purpose = _purpose_of(url, exchange_context)
        options.update(params=params, headers=headers)
        if purpose in _DOCUMENTS:
            return self._document(purpose, url, options)
        if purpose is Purpose.REGION:
            now = self._engine.clock.monotonic()
            exchange_context = ExchangeContext(deadline=now + _REGION_TIMEOUT, attempts=1)
        return self._ask(
            self._asked(purpose, url, exchange_context), "GET", url, options, exchange_context, replayable=True
        )

    def fetch(self, purpose: Purpose, url: str, *, ends: float, largest: int, urgent: bool = False) -> str:
        """Get a document from exactly this address, in one attempt, through the breaker.

        Args:
            purpose: What it is; its content is judged by that.
            url: Where; a redirect isn't followed.
            ends: Monotonic time by which it must be there.
            largest: Bytes, at most.
            urgent: Whether somebody has none at all.

        Raises:
            ProviderUnavailable: There is no document, and when to ask again.
        """
        # Not compressed: what a few bytes expand to would only be known when it is there.
        headers = {"Accept-Encoding": "identity"}
        options: dict[str, Any] = {"redirects": False, "largest": largest, "headers": headers}
        exchange_context = ExchangeContext(ends, attempts=1)
        asked = self._asked(purpose, url, exchange_context)
        if urgent:
            self._engine.levels.hasten(asked)
        answer = self._ask(asked, "GET", url, options, exchange_context, replayable=True)
        if answer.status_code != 200:
            origin = origin_of(url)
            raise MalformedAnswer(
                f"{origin} answered {answer.status_code} for its {purpose} document", authority=origin
            )
        return answer.text

    def probe(self, purpose: Purpose, url: str, *, ends: float) -> ProviderUnavailable | None:
        """Look whether an endpoint works: any answer of its own will do, a denial or throttling too.

        Neither breakers nor cool-downs are asked or told: what is seen here depends on no other request. A token
        endpoint is sent a form that asks for nothing.

        Args:
            purpose: What it is for.
            url: Where.
            ends: Monotonic time by which it must have answered.

        Returns:
            How it failed, or None where it works.

        Raises:
            ConfigurationError: It can't be asked as this machine is set up, and so nothing was seen.
        """
        origin = origin_of(url)
        posted: dict[str, Any] = {"data": {}} if purpose is Purpose.TOKEN else {"redirects": False}
        method = "POST" if purpose is Purpose.TOKEN else "GET"
        try:
            answer = self.wire.send(method, url, ends=ends, **posted)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
            return as_failure(error, origin)
        wall = self._engine.clock.wall()
        fault = judge(purpose, origin, answer.status_code, answer.headers, answer.text, wall)
        return None if isinstance(fault, Throttled) else fault

    def close(self) -> None:
        """End back-offs, and close idle connections."""
        with self._closing:
            self._closed = True
            self._closing.notify_all()
        self.wire.close()

    def _pause(self, seconds: float) -> None:
        """Sleep on a worker, by the engine's clock, until then or until this is closed."""
        clock = self._engine.clock
        ends = clock.monotonic() + seconds
        with self._closing:
            while not self._closed and (left := ends - clock.monotonic()) > 0:
                clock.wait(self._closing, left)

    def _journey(self) -> ExchangeContext:
        return ExchangeContext(deadline=self._engine.clock.monotonic() + self._engine.settings.deadline)

    def _asked(
        self, purpose: Purpose, url: str, exchange_context: ExchangeContext, grant: object = None
    ) -> ProviderRequest:
        """Return what a request asks, of whom and for whom."""
        endpoint = self._endpoint(purpose, url)
        request = None if exchange_context.flight is None else exchange_context.flight.request
        if request is not None and purpose in _OF_TOKENS:
            return ProviderRequest.of(request, endpoint, purpose)
        return ProviderRequest(endpoint, purpose, self._client_id, str(grant or ""), subject=exchange_context.subject)

    def _ask(
        self,
        asked: ProviderRequest,
        method: str,
        url: str,
        options: dict[str, Any],
        exchange_context: ExchangeContext,
        *,
        replayable: bool,
    ) -> WireResponse:
        """Make an exchange's attempts."""
        engine, endpoint, purpose = self._engine, asked.endpoint, asked.purpose
        too_early = exchange_context.earliest - engine.clock.monotonic()
        if too_early > 0:
            exchange_context.hold_on(too_early)
            self._pause(min(too_early, max(0.0, exchange_context.deadline - engine.clock.monotonic())))
        attempts = exchange_context.attempts or (1 if _elsewhere.get() else engine.settings.retry.attempts)

        def tell(attempt: int, delay: float, error: BaseException) -> None:
            code = getattr(error, "code", type(error).__name__)
            event = RetryScheduled(
                at=engine.clock.wall(),
                authority=endpoint.origin,
                purpose=purpose.value,
                attempt=attempt,
                seconds=delay,
                code=code,
            )
            emit(event)
            exchange_context.hold_on(delay)
            if exchange_context.flight is not None and isinstance(error, ProviderUnavailable):
                exchange_context.flight.attempt_failed(error, engine.clock.monotonic() + delay)

        def rest(seconds: float) -> None:
            self._pause(seconds)
            # Another request may have made the cool-down longer meanwhile: an attempt that it refuses would be lost.
            left = engine.cooldown_left(asked)
            if left > 0 and engine.clock.monotonic() + left < exchange_context.deadline:
                exchange_context.hold_on(left)
                self._pause(left)

        controller = retrying(
            options=engine.settings.retry,
            attempts=attempts,
            # An attempt with hardly any time left would blame the provider for our hurry.
            deadline=exchange_context.deadline - min(2.0, engine.settings.attempt_timeout / 2),
            replayable=replayable,
            spare=exchange_context.flight is not None and exchange_context.flight.spare,
            budget=engine.budget(endpoint),
            who=asked.party,
            refused=lambda: not engine.levels.closed(asked),
            clock=engine.clock,
            jitter=engine.jitter,
            sleep=rest,
            before_sleep=tell,
        )
        return controller(self._attempt, asked, method, url, options, exchange_context)

    def _attempt(
        self, asked: ProviderRequest, method: str, url: str, options: dict[str, Any], exchange_context: ExchangeContext
    ) -> WireResponse:
        """Send one request through the breakers, and judge the answer."""
        engine, authority, purpose = self._engine, asked.endpoint.origin, asked.purpose
        if self._closed:
            raise Closed("this application object was closed: make a new one, or close it later")
        # A document spends nothing, and others may wait for it: the lease is kept meanwhile, and found lost afterwards.
        if (
            exchange_context.flight is not None
            and not exchange_context.flight.may_attempt()
            and purpose not in _DOCUMENTS
        ):
            raise LeaseLost
        engine.check_cooldown(asked)
        with engine.levels.admit(asked) as leave:
            now = engine.clock.monotonic()
            exchange_context.sent_on, exchange_context.sent_at = engine.clock.wall(), now
            ends = min(now + engine.settings.attempt_timeout, max(exchange_context.deadline, now + 0.05))
            failure: ProviderUnavailable | None = None
            wrong: ConfigurationError | None = None
            try:
                answer = self.wire.send(method, url, ends=ends, **options)
            except ConfigurationError as error:
                wrong = ConfigurationError(str(error))
            except Exception as error:  # noqa: BLE001 - an owner's client may raise anything
                failure = as_failure(error, authority)
            if wrong is not None:  # this machine's, which says nothing of the provider
                leave.none()
                raise wrong
            if failure is not None:
                # Raised here and not there: what a client raises holds the request, and so its secrets.
                if not isinstance(failure, LocalResourcesExhausted):
                    leave.failure(
                        failure.code, of_host=isinstance(failure, TLSFailed) or not getattr(failure, "sent", True)
                    )
                raise failure
            wall = engine.clock.wall()
            fault = judge(purpose, authority, answer.status_code, answer.headers, answer.text, wall)
            unmatched = isinstance(fault, ServerFailed) and fault.of_request
            if unmatched and self._propagation.is_over(engine.clock.monotonic()):
                fault = None
            if fault is None:
                if answer.status_code < 400:
                    leave.success()
                    self._propagation.ended()
                    engine.answered(asked)
                else:
                    leave.denied()
                return _as_msal_reads_it(purpose, answer)
            if isinstance(fault, Throttled):
                leave.none()
                told_to_wait = fault.retry_after or 0.0
                wait = told_to_wait if told_to_wait >= 1.0 else engine.settings.retry.first_delay
                fault.retry_after = self._cool_down(asked, wait, fault)
                raise fault
            if fault.of_request:
                leave.none()
            else:
                leave.failure(fault.code if not isinstance(fault, ServerFailed) else f"http_{answer.status_code}")
            if fault.retry_after:
                fault.retry_after = self._cool_down(asked, fault.retry_after, fault)
            if isinstance(fault, ServerFailed):
                told = self._server_failed(fault.message, authority=authority, retry_after=fault.retry_after)
                told.of_request = fault.of_request
                raise told
            raise fault

    def _cool_down(self, asked: ProviderRequest, seconds: float, fault: ProviderUnavailable) -> float:
        """Leave alone who has asked for it, and tell the other processes of the fleet."""
        engine = self._engine
        lasts, whole = engine.cool_down(asked, seconds)
        for name in (fleet.throttled(asked), fleet.throttled(asked, whole=True) if whole else None):
            if engine.stored is not None and name is not None:
                engine.stored.post_hint(name, seconds, Throttled.code, fault.message)
        return lasts

    def _endpoint(self, purpose: Purpose, url: str) -> Endpoint:
        """Return whom a URL belongs to; where a path names no tenant or realm, the provider as a whole."""
        endpoint = Endpoint.of(url, self.wire.identity)
        return endpoint if purpose in _IN_A_REALM else endpoint.site

    def _document(self, purpose: Purpose, url: str, options: dict[str, Any]) -> WireResponse:
        """Serve the last known good document, and fetch a newer one in the background when it is old."""
        engine, wire, params = self._engine, self.wire.identity, options.get("params") or {}
        asked = f"{purpose} {url} {json.dumps(params, sort_keys=True, default=str)}"
        hosts = hosts_for(purpose, url, params, engine.settings.discovery_hosts)
        wanted = _DocumentRequest(purpose, url, options, asked, wire, hosts)
        held = documents.get(wanted.key)
        if held is not None and fault_in(purpose, held.answer.text, hosts) is not None:
            held = None  # another application's owner allows what this one's doesn't
        if held is None and purpose is Purpose.ALIASES and params.get("api-version") == "1.1":
            held = Document(WireResponse(200, ALIASES, {"content-type": "application/json"}), float("-inf"))
            documents.put(wanted.key, held)
        if held is None:
            return self._fetch(wanted)
        now = engine.clock.monotonic()
        if now - held.obtained_at > engine.settings.discovery_refresh and now - held.tried_at > _DOCUMENT_PAUSE:
            self._fetch_in_background(wanted, held)
        return held.answer

    def _fetch(self, wanted: _DocumentRequest) -> WireResponse:
        """Have a document fetched, once for all who wait for it."""
        engine = self._engine
        outer = _journey.get()
        asked = self._asked(wanted.purpose, wanted.url, outer or self._journey())
        endpoint, authority = asked.endpoint, asked.endpoint.origin
        engine.levels.hasten(asked)  # somebody has none at all
        if engine.stored is None:
            engine.levels.check(asked)
        wait = engine.settings.discovery_wait if outer is None else time_left(engine)
        # However long this one waits: who comes next joins it.
        ends = engine.clock.monotonic() + max(wait, engine.settings.attempt_timeout)
        flight, mine = engine.flights.join(("document", wanted.key), ends)
        if mine:

            def fetch() -> None:
                outcome = Outcome()
                with carrying(flight.key), told_later():
                    try:
                        answer = self._stored(wanted) or self._fetch_now(wanted, outer)
                        outcome = Outcome(result=answer)
                    except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
                        outcome = Outcome(error=error)
                    finally:
                        engine.flights.end(flight)
                        flight.land(outcome)

            try:
                engine.run(f"{endpoint.lane} {wanted.purpose}", fetch, flight)
            except ProviderUnavailable as error:
                engine.flights.end(flight)
                flight.land(Outcome(error=error))
        outcome = flight.wait(wait)
        if outcome is None:
            raise AttemptTimeout(f"{authority} gave no discovery document within {wait:g} s", authority=authority)
        if outcome.error is not None:
            raise outcome.error
        answer: WireResponse = outcome.result
        return answer

    def _fetch_now(self, wanted: _DocumentRequest, outer: ExchangeContext | None = None) -> WireResponse:
        """Fetch a document, and keep it when it is good.

        A constructor doesn't wait through a back-off for it; an exchange does, for as long as it has time.
        """
        clock, url = self._engine.clock, wanted.url
        exchange_context = ExchangeContext(clock.monotonic() + self._engine.settings.attempt_timeout, attempts=1)
        if outer is not None:
            exchange_context = ExchangeContext(outer.deadline, flight=outer.flight)
        asked = self._asked(wanted.purpose, url, exchange_context)
        answer = self._ask(asked, "GET", url, dict(wanted.options), exchange_context, replayable=True)
        if answer.status_code == 200:
            fault = fault_in(wanted.purpose, answer.text, wanted.hosts)
            if fault is not None:
                emit(DiscoveryRejected(at=clock.wall(), target=url, detail=fault))
                message = f"{origin_of(url)} gave a discovery document that can't be used: {fault}"
                raise MalformedAnswer(message, authority=origin_of(url))
            documents.put(wanted.key, Document(answer, clock.monotonic()))
            # A session may have been told meanwhile to verify, or not to.
            if self._engine.stored is not None and self.wire.identity.keeps == wanted.wire.keeps:
                with suppress(StoreUnavailable):
                    body = {"text": answer.text, "obtained_on": clock.wall()}
                    self._engine.stored.put_document(wanted.asked, wanted.wire, body)
        return answer

    def _stored(self, wanted: _DocumentRequest) -> WireResponse | None:
        """Find the document that another process, or this one in an earlier life, got last."""
        stored, clock = self._engine.stored, self._engine.clock
        if stored is None:
            return None
        with suppress(StoreUnavailable, KeyError, TypeError, ValueError):
            body = stored.document(wanted.asked, wanted.wire)
            if body is not None and fault_in(wanted.purpose, str(body["text"]), wanted.hosts) is None:
                answer = WireResponse(200, str(body["text"]), {"content-type": "application/json"})
                age = max(0.0, clock.wall() - float(body["obtained_on"]))
                documents.put(wanted.key, Document(answer, clock.monotonic() - age))
                return answer
        return None

    def _fetch_in_background(self, wanted: _DocumentRequest, held: Document) -> None:
        """Have a newer document fetched, and nobody wait for it."""
        engine = self._engine
        flight, mine = engine.flights.join(
            ("document", wanted.key), engine.clock.monotonic() + engine.settings.attempt_timeout
        )
        if not mine:
            return

        def fetch() -> None:
            with carrying(flight.key), told_later():
                try:
                    self._fetch_now(wanted)
                except (ConfigurationError, ProviderUnavailable) as error:
                    documents.put(wanted.key, replace(held, tried_at=engine.clock.monotonic()))
                    if not isinstance(error, (CircuitOpen, Throttled)):
                        age = engine.clock.monotonic() - held.obtained_at
                        emit(DiscoveryServedStale(at=engine.clock.wall(), target=wanted.url, age=age, code=error.code))
                finally:
                    engine.flights.end(flight)
                    flight.land(Outcome(result=held.answer))

        try:
            engine.run(f"{self._endpoint(wanted.purpose, wanted.url).lane} {wanted.purpose}", fetch, flight)
        except ProviderUnavailable as error:
            engine.flights.end(flight)
            flight.land(Outcome(error=error))


def after_fork() -> None:
    """Take locks of one's own, in a forked child."""
    documents.after_fork()


def _as_msal_reads_it(purpose: Purpose, answer: WireResponse) -> WireResponse:
    """Make of an answer what MSAL takes well.

    `Retry-After` is hidden: MSAL replays any answer that carries it, one user's token to another. So is how a provider
    writes its numbers.
    """
    tokens = answer.status_code < 400 and purpose in (Purpose.TOKEN, Purpose.MANAGED_IDENTITY)
    text = readable(answer.text) if tokens else answer.text
    if text is answer.text and "retry-after" not in answer.headers:
        return answer
    headers = {k: v for k, v in answer.headers.items() if k != "retry-after"}
    return WireResponse(answer.status_code, text, headers)


def _purpose_of(url: str, exchange_context: ExchangeContext) -> Purpose:
    path = urlsplit(url).path.lower()
    if path.endswith("/.well-known/openid-configuration"):
        return Purpose.DISCOVERY
    if path.endswith("/discovery/instance"):
        return Purpose.ALIASES
    if "/userrealm/" in path:
        return Purpose.USER_REALM
    if path.startswith("/metadata/instance"):
        return Purpose.REGION
    return Purpose.MANAGED_IDENTITY if exchange_context.managed_identity else Purpose.WS_TRUST
