"""The way of one token: held and fresh? held and due? else wait for the one exchange, else fall back."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from .._policy.checks import require_number
from .._policy.endpoint import Endpoint
from .._policy.fallback import Fallback, after_denial, after_failure
from .._policy.freshness import Freshness, assess
from .._policy.levels import ProviderRequest
from .._process import observing
from ..errors import AcquisitionTimeout, LocalResourcesExhausted, ProviderUnavailable
from ..events import GraceServed, TokenServed, emit
from ..token import Token
from .cache import CacheEntry
from .engine import Engine
from .exchange import begin, challenge_under_way
from .recovery import await_recovery, landed, refresh_in_background
from .single_flight import Exchange, Flight, Outcome, WaitFor, carrying
from .threads import OnThread

__all__ = [
    "Acquisition",
    "Served",
    "Source",
    "acquiring",
    "asking_once",
    "restore",
    "wait_at_most",
    "wait_within",
]

#: Seconds for which a caller waits, at most, for the successor of a token that an API has refused: until one has been
#: asked for, serving it brings the same refusal.
_SUCCESSOR_WAIT = 2.0

_patience: contextvars.ContextVar[float | None] = contextvars.ContextVar("resilient_auth_patience", default=None)
#: Gives the seconds that whatever is done around a wait has left.
_time_left: contextvars.ContextVar[Callable[[], float] | None]
_time_left = contextvars.ContextVar("resilient_auth_time_left", default=None)


@contextmanager
def wait_at_most(seconds: float) -> Iterator[None]:
    """Have the calls in this block wait for at most `seconds` when there is nothing to serve.

    In place of `Settings.wait`, for a caller with a deadline of its own; the exchange goes on for others. Works for
    threads and for asyncio tasks. The shorter one of nested blocks holds.

    Args:
        seconds: More than 0.

    Raises:
        ConfigurationError: `seconds` isn't a positive number.
    """
    require_number("seconds", seconds, low=0.001, high=3600.0)
    outer = _patience.get()
    token = _patience.set(seconds if outer is None else min(seconds, outer))
    try:
        yield
    finally:
        restore(_patience, token)


@contextmanager
def wait_within(left: Callable[[], float]) -> Iterator[None]:
    """Have the calls in this block wait for no more than `left` gives, and for no more than they would without it.

    For what has a deadline and waits for a token on its way: the shorter of the deadline and `Settings.wait` holds.
    """
    outer = _time_left.get()
    token = _time_left.set(left if outer is None else lambda: min(left(), outer()))
    try:
        yield
    finally:
        restore(_time_left, token)


def restore(variable: contextvars.ContextVar[Any], token: contextvars.Token[Any]) -> None:
    """Set a context variable back, where this is still its context.

    A task that is never resumed, since its loop was closed, is ended by the collector in whichever context that runs.
    """
    with suppress(ValueError):
        variable.reset(token)


def patience_of(seconds: float) -> float:
    """Return for how many seconds this caller waits: `seconds`, or what `wait_at_most` says; or what time is left."""
    patience, left = _patience.get() or seconds, _time_left.get()
    return patience if left is None else min(patience, max(0.001, left()))


class Source(StrEnum):
    """Where a token that was served came from; MSAL's values of `token_source`, and one more."""

    IDENTITY_PROVIDER = "identity_provider"
    CACHE = "cache"
    GRACE = "grace"


@dataclass(frozen=True, slots=True, repr=False)
class Served:
    """Say what a caller gets and why."""

    source: Source
    token: Token | None = None
    #: MSAL's own result, where the provider was just asked: with a token, or a denial.
    result: Any = None
    #: Why a token that isn't simply fresh was served.
    reason: str | None = None
    #: What is known of the provider then.
    error: ProviderUnavailable | None = None
    #: The token was found in the store just now.
    stored: bool = False
    #: The exchange that was waited for, where whoever asked wants to know.
    flight: Flight | None = None

    @property
    def whence(self) -> Literal["memory", "store", "provider", "fallback", "grace"]:
        """Return where it came from; `fallback` for a valid token that is served since no fresh one could be had."""
        if self.source is Source.GRACE:
            return "grace"
        if self.source is Source.IDENTITY_PROVIDER:
            return "provider"
        if self.stored:
            return "store"
        return "memory" if self.reason in (None, "refreshing") else "fallback"


#: Is sent the outcome of each flight that it waits for, or None when the time for that has passed.
Acquisition = Generator[WaitFor | OnThread, Outcome | None, Served]


def acquiring(
    engine: Engine,
    entry: CacheEntry,
    exchange: Exchange,
    *,
    load: Callable[[], None] | None = None,
    claims: str | None = None,
    force: bool = False,
) -> Acquisition:
    """Decide step by step how one caller gets a token; the drivers of `steps` do the waiting.

    Args:
        engine: Whose policies hold.
        entry: The token's place.
        exchange: How to ask the provider.
        load: Looks for the token elsewhere first, where it may be found; it may block.
        claims: A claims challenge: what is held must not be served any more (G17).
        force: Don't serve what is held.

    Raises:
        ProviderUnavailable: There is nothing that may be served, and no answer from the provider.
    """
    if load is not None:
        yield OnThread(load)
    settings, clock = engine.settings, engine.clock
    wall, now = clock.wall(), clock.monotonic()
    entry.asked_at = now
    patience = longest = patience_of(settings.wait)
    token = None if claims or force else entry.token
    if token is not None:
        state = assess(token, wall, now, settings.freshness)
        if state is Freshness.FRESH:
            return Served(Source.CACHE, token)
        if state is Freshness.DUE or (state is Freshness.EXPIRING and entry.rest_left(now) > 0):
            refresh_in_background(engine, entry, exchange)
            return _serve_held(entry, token, wall, now)
        elif state is Freshness.EXPIRING:
            margin = settings.freshness.margin_wait
            patience = min(patience, max(margin, _SUCCESSOR_WAIT) if token.suspect else margin)
    waits = token is None and entry.variant is not None and not (claims or force)
    challenged = challenge_under_way(engine, entry) if waits else None
    if challenged is not None:
        # What it brings will do for those who want no claims: they would ask for a second token beside it.
        outcome = yield WaitFor(challenged, patience)
        if outcome is not None and outcome.token is not None:
            return _conclude(engine, entry, token, outcome)
        patience = longest = max(0.0, longest - (clock.monotonic() - now))
    try:
        flight = begin(engine, entry, exchange, landed=landed, variant=claims or ("force" if force else None))
    except ProviderUnavailable as error:
        await_recovery(engine, entry, error)
        return _after_failure(engine, entry, token, error)
    if patience < longest and flight.doubted:
        patience = 0.0
    outcome = yield WaitFor(flight, patience)
    if outcome is None and patience < longest:
        # One wait in vain is enough: who comes next is served at once what is still valid.
        flight.doubted = True
        if token is None or token.remaining(clock.wall(), clock.monotonic()) <= 0:
            outcome = yield WaitFor(flight, longest - patience)
    if entry.token is not token:
        # Removed or challenged meanwhile, or replaced by a newer one.
        token = None if claims or force else entry.token
    if outcome is None:
        served = _after_failure(engine, entry, token, _too_late(engine, entry.authorities[0], longest, flight))
    else:
        served = _conclude(engine, entry, token, outcome)
    return replace(served, flight=flight) if settings.explain else served


def _conclude(engine: Engine, entry: CacheEntry, token: Token | None, outcome: Outcome) -> Served:
    if isinstance(outcome.error, ProviderUnavailable):
        return _after_failure(engine, entry, token, outcome.error)
    if outcome.token is not None:
        source = Source.CACHE if outcome.stored else Source.IDENTITY_PROVIDER
        return Served(source, outcome.token, outcome.result, stored=outcome.stored)
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    if outcome.error is not None:
        # Something of the application's own failed, such as the function that makes its assertions.
        if token is None or token.remaining(wall, now) <= 0 or not isinstance(outcome.error, Exception):
            raise outcome.error
        return Served(Source.CACHE, token, reason="exchange_error")
    if token is not None and outcome.denied and after_denial(token, wall, now, outcome.result) is Fallback.SERVE:
        return Served(Source.CACHE, token, reason="denied")
    if token is not None and not outcome.denied and token.remaining(wall, now) > 0:
        return Served(Source.CACHE, token, reason="not_renewable")
    return Served(Source.IDENTITY_PROVIDER, result=outcome.result)


def _after_failure(engine: Engine, entry: CacheEntry, token: Token | None, error: ProviderUnavailable) -> Served:
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    # Who can open no connection has seen nothing of the provider, whatever was seen before.
    blind = isinstance(error, LocalResourcesExhausted)
    down_for = _down_for(engine, entry) if token is not None and not blind else None
    match after_failure(token, wall, now, down_for=down_for, options=engine.settings.fallback):
        case Fallback.SERVE if token is not None:
            return _serve_held(entry, token, wall, now, error)
        case Fallback.GRACE if token is not None and not entry.denied and not token.suspect:
            past = -token.remaining(wall, now)
            emit(GraceServed(at=wall, request=entry.request, past_expiry=past, outage=down_for or 0.0))
            known = entry.last_error or error
            return Served(Source.GRACE, token, reason=known.code, error=known)
        case _:
            raise _own(error)


def _serve_held(
    entry: CacheEntry, token: Token, wall: float, now: float, error: ProviderUnavailable | None = None
) -> Served:
    # What the provider did is told, and not that it is left alone since.
    known = entry.last_error or error
    if known is None:
        return Served(Source.CACHE, token, reason="denied" if entry.denied else "refreshing")
    if entry.told is not token:
        entry.told = token
        remaining = token.remaining(wall, now)
        emit(TokenServed(at=wall, request=entry.request, remaining=remaining, code=known.code))
    return Served(Source.CACHE, token, reason=known.code, error=known)


def _down_for(engine: Engine, entry: CacheEntry) -> float | None:
    """Return for how many seconds every authority that could answer has been seen to fail; None where one hasn't."""
    seen = [engine.levels.failing(asked) for asked in entry.ways]
    return min(seconds for _, seconds in seen) if seen and all(down for down, _ in seen) else None


def _own(error: BaseException) -> BaseException:
    """Make this caller's own copy of an error that reaches all who waited.

    Its traceback doesn't grow with each of them, nor does it hold the worker's frames, in which there are secrets.
    """
    return copy.copy(error) if isinstance(error, ProviderUnavailable) else error


def _too_late(engine: Engine, endpoint: Endpoint, patience: float, flight: Flight) -> AcquisitionTimeout:
    known = flight.last_error
    so_far = "no answer yet" if known is None else f"so far: {known.message}"
    if flight.calls is not None:
        so_far = f"{flight.calls} hasn't returned"
    retry_after = None if flight.next_attempt is None else max(0.0, flight.next_attempt - engine.clock.monotonic())
    message = f"deadline of {patience:g} s exceeded waiting for {endpoint} ({so_far}); the request goes on, try again"
    return AcquisitionTimeout(message, authority=endpoint.origin, retry_after=retry_after)


def asking_once(
    engine: Engine,
    authorities: tuple[Endpoint, ...],
    client_id: str,
    subject: str | None,
    exchange: Exchange,
    own: str | None = None,
) -> Acquisition:
    """Make one exchange whose result is nobody else's: a code's, a password's. Nothing is held, nothing falls back.

    Raises:
        ProviderUnavailable: There is no answer from the provider.
    """
    refusal = engine.refusal(
        ProviderRequest(endpoint, client_id=client_id, subject=subject) for endpoint in authorities
    )
    if refusal is not None:
        raise refusal
    flight = Flight(None, engine.clock.monotonic() + engine.deadline, engine.clock)
    if observing.observer is not None:
        flight.observed = observing.observer.begin("exchange", endpoint=authorities[0])

    def job() -> None:
        if flight.observed is not None:
            flight.observed.enter()
        with carrying(("once", id(flight))):
            try:
                outcome = exchange(flight)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must learn of it
                outcome = Outcome(error=error)
        flight.land(outcome)

    try:
        engine.run(authorities[0], job, flight, own=own)
    except ProviderUnavailable as error:
        flight.land(Outcome(error=error))
        raise
    patience = patience_of(engine.settings.wait)
    outcome = yield WaitFor(flight, patience)
    if outcome is None:
        raise _too_late(engine, authorities[0], patience, flight)
    if outcome.error is not None:
        raise _own(outcome.error)
    return Served(Source.IDENTITY_PROVIDER, result=outcome.result)
