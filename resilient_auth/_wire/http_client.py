"""The http_client that MSAL is given: retry, each attempt through the breaker, then the wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .._engine.engine import Engine
from .._engine.single_flight import LeaseLost
from .._policy.endpoint import Endpoint, origin_of
from .._policy.failure import Purpose, judge, readable
from .._policy.levels import ProviderRequest
from .._policy.provider_errors import Propagation
from .._policy.retry import retrying
from .._process import forks, observing
from .._process.loading import load
from ..errors import (
    Closed,
    ConfigurationError,
    MalformedAnswer,
    ProviderUnavailable,
    ServerFailed,
    Throttled,
    TLSFailed,
)
from ..events import RetryScheduled, emit
from .answers import Wire, WireResponse
from .documents import DOCUMENTS, DocumentRequest
from .exchange_context import ExchangeContext, current, has_another_source
from .failures import Unsendable, as_failure
from .trail import Trail, shown_by_answer, shown_by_failure, shown_by_setting

__all__ = ["Transport"]

#: Redeeming these twice after an ambiguous failure may use up a code or lock an account.
_NOT_REPLAYABLE = frozenset({"authorization_code", "password"})
_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
#: Seconds; the address answers at once or isn't there.
_REGION_TIMEOUT = 2.0

#: What is asked at an address of the tenant's, policy's or realm's own.
_IN_A_REALM = frozenset({Purpose.TOKEN, Purpose.DISCOVERY, Purpose.KEYS})
#: Where what is asked for may be a token that is held.
_OF_TOKENS = frozenset({Purpose.TOKEN, Purpose.MANAGED_IDENTITY})


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
        load("httpx", "tenacity")
        self.engine = engine
        self.wire = wire
        self._client_id = client_id
        self._server_failed = server_failed
        self._propagation = Propagation()
        self.closed = False
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
        exchange_context = current() or self._context()
        options.update(params=params, data=data, headers=headers)
        asked = self.request_for(purpose, url, exchange_context, grant)
        if grant != _DEVICE_CODE:
            # By WS-Trust it is a password that is sent.
            replayable = purpose is Purpose.TOKEN and grant not in _NOT_REPLAYABLE
            return self.ask(asked, "POST", url, options, exchange_context, replayable=replayable)
        try:
            exchange_context.attempts = 1
            return self.ask(asked, "POST", url, options, exchange_context, replayable=True)
        except ProviderUnavailable as error:
            # MSAL polls on after this, and less often, as RFC 8628 (section 3.5) wants it after a failure.
            told = {"error": "slow_down", "error_description": f"Polling goes on: {error}"}
            return WireResponse(400, json.dumps(told), {"content-type": "application/json"})

    def get(
        self, url: str, params: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> WireResponse:
        """Get a document or a managed identity's token, as MSAL's contract for an http_client has it."""
        forks.notice()
        exchange_context = current() or self._context()
        purpose = _purpose_of(url, exchange_context)
        options.update(params=params, headers=headers)
        if purpose in DOCUMENTS:
            return DocumentRequest.of(self, purpose, url, options).answer()
        if purpose is Purpose.REGION:
            now = self.engine.clock.monotonic()
            exchange_context = ExchangeContext(deadline=now + _REGION_TIMEOUT, attempts=1)
        return self.ask(
            self.request_for(purpose, url, exchange_context), "GET", url, options, exchange_context, replayable=True
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
        asked = self.request_for(purpose, url, exchange_context)
        if urgent:
            self.engine.levels.hasten(asked)
        answer = self.ask(asked, "GET", url, options, exchange_context, replayable=True)
        if answer.status_code != 200:
            origin = origin_of(url)
            raise MalformedAnswer(
                f"{origin} answered {answer.status_code} for its {purpose} document", authority=origin
            )
        # What else may be wrong with it, its reader says.
        needed = _NEEDED.get(purpose)
        missing = needed is not None and not json.loads(answer.text).get(needed)
        self.engine.sightings.document(asked, f"a document without {needed}" if missing else None)
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
        wall = self.engine.clock.wall()
        fault = judge(purpose, origin, answer.status_code, answer.headers, answer.text, wall)
        return None if isinstance(fault, Throttled) else fault

    def close(self) -> None:
        """End back-offs, and close idle connections."""
        with self._closing:
            self.closed = True
            self._closing.notify_all()
        self.wire.close()

    def _pause(self, seconds: float) -> None:
        """Sleep on a worker, by the engine's clock, until then or until this is closed."""
        clock = self.engine.clock
        ends = clock.monotonic() + seconds
        with self._closing:
            while not self.closed and (left := ends - clock.monotonic()) > 0:
                clock.wait(self._closing, left)

    def _context(self) -> ExchangeContext:
        return ExchangeContext(deadline=self.engine.clock.monotonic() + self.engine.settings.deadline)

    def request_for(
        self, purpose: Purpose, url: str, exchange_context: ExchangeContext | None = None, grant: object = None
    ) -> ProviderRequest:
        """Return what a request asks, of whom and for whom."""
        exchange_context = exchange_context or self._context()
        # Where a path names no tenant or realm, the provider as a whole.
        endpoint = Endpoint.of(url, self.wire.identity)
        endpoint = endpoint if purpose in _IN_A_REALM else endpoint.site
        flight = exchange_context.flight
        if flight is not None and flight.request is not None and purpose in _OF_TOKENS:
            for way in flight.ways:
                if way.purpose is purpose and way.endpoint == endpoint:
                    return way
            return ProviderRequest.of(flight.request, endpoint, purpose)
        return ProviderRequest(endpoint, purpose, self._client_id, str(grant or ""), subject=exchange_context.subject)

    def ask(
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
        engine, endpoint, purpose = self.engine, asked.endpoint, asked.purpose
        too_early = exchange_context.earliest - engine.clock.monotonic()
        if too_early > 0:
            exchange_context.hold_on(too_early)
            self._pause(min(too_early, max(0.0, exchange_context.deadline - engine.clock.monotonic())))
        attempts = exchange_context.attempts or (1 if has_another_source() else engine.settings.retry.attempts)

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
            spend=lambda: engine.budget(asked.site).spend(asked.party),
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
        engine, authority, purpose = self.engine, asked.endpoint.origin, asked.purpose
        if self.closed:
            raise Closed("this application object was closed: make a new one, or close it later")
        # A document spends nothing, and others may wait for it: the lease is kept meanwhile, and found lost afterwards.
        asks_first = None if exchange_context.flight is None else exchange_context.flight.before_attempt
        if asks_first is not None and not asks_first() and purpose not in DOCUMENTS:
            raise LeaseLost
        engine.check_cooldown(asked)
        with engine.levels.admit(asked) as leave:
            now = engine.clock.monotonic()
            exchange_context.sent_on, exchange_context.sent_at = engine.clock.wall(), now
            ends = min(now + engine.settings.attempt_timeout, max(exchange_context.deadline, now + 0.05))
            failure: ProviderUnavailable | None = None
            wrong: ConfigurationError | None = None
            operation = (
                None if observing.observer is None else observing.observer.begin("attempt", asked=asked, method=method)
            )
            end_part = None if operation is None else operation.enter()
            trail = Trail(https := url.startswith("https:"), https and asked.endpoint.wire.verified)
            engine.sightings.out[trail], shown = (asked, now), None
            try:
                answer = self.wire.send(method, url, ends=ends, trail=trail, **options)
            except ConfigurationError as error:
                wrong = ConfigurationError(str(error))
                shown = None if isinstance(error, Unsendable) else shown_by_setting(error, trail)
            except Exception as error:  # noqa: BLE001 - an owner's client may raise anything
                failure = as_failure(error, authority)
                shown = shown_by_failure(error, failure, trail, engine.clock.monotonic() - ends)
            except BaseException as leaving:  # an exit, which shows nothing
                if operation is not None:
                    operation.end(error=leaving)
                engine.sightings.ended(asked, trail, None)
                raise
            finally:
                if exchange_context.flight is not None:
                    exchange_context.flight.attempts += purpose in _OF_TOKENS
                    exchange_context.flight.in_http += engine.clock.monotonic() - now
                if end_part is not None:
                    end_part()
            if wrong is not None or failure is not None:
                if operation is not None:
                    operation.end(error=wrong or failure)
                engine.sightings.ended(asked, trail, shown)
            if wrong is not None:  # this machine's, which says nothing of the provider
                leave.none()
                raise wrong
            if failure is not None:
                # Raised here and not there: what a client raises holds the request, and so its secrets.
                if not failure.of_request:
                    leave.failure(failure.code, of_host=isinstance(failure, TLSFailed) or not failure.sent)
                raise failure
            wall = engine.clock.wall()
            fault = judge(purpose, authority, answer.status_code, answer.headers, answer.text, wall)
            if fault is None and answer.status_code < 400:
                engine.sightings.answered(asked, trail, answer.headers.get("date"))
            else:
                engine.sightings.ended(asked, trail, shown_by_answer(answer, fault, trail, wall))
            if operation is not None:
                operation.end(answer, fault)
            unmatched = isinstance(fault, ServerFailed) and fault.of_request
            if unmatched and self._propagation.is_over(asked.kind, engine.clock.monotonic()):
                fault = None
            if fault is None:
                if answer.status_code < 400:
                    leave.success()
                    self._propagation.ended(asked.kind)
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
        lasts, whole = self.engine.cool_down(asked, seconds)
        self.engine.shared.throttled(asked, seconds, fault.message, whole=whole)
        return lasts


def _as_msal_reads_it(purpose: Purpose, answer: WireResponse) -> WireResponse:
    """Make of an answer what MSAL takes well.

    `Retry-After` is hidden: MSAL replays any answer that carries it, one user's token to another. So are how a provider
    writes its numbers, and a 500 by which AD FS says no: that would be replayed to all users of the domain.
    """
    if purpose is Purpose.WS_TRUST and answer.status_code >= 500:
        return WireResponse(400, answer.text, {})
    tokens = answer.status_code < 400 and purpose in (Purpose.TOKEN, Purpose.MANAGED_IDENTITY)
    text = readable(answer.text) if tokens else answer.text
    if text is answer.text and "retry-after" not in answer.headers:
        return answer
    headers = {k: v for k, v in answer.headers.items() if k != "retry-after"}
    return WireResponse(answer.status_code, text, headers)


#: By what a verifier's document is for, what it must say.
_NEEDED = {Purpose.DISCOVERY: "jwks_uri", Purpose.KEYS: "keys"}


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
