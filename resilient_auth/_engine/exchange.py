"""An exchange: begun once for all who want it, made on a worker, and noted when it has ended.

begin ─▶ look what others have ─▶ fly: ask the provider ─▶ land: note it, tell those who wait, then whoever else
  │                 └──────────── found ────────────────────▶ ▲
  └─ refused: its circuit is open, it is throttled, or too many wait
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from .._policy.provider_errors import is_gone
from .._process import observing
from ..errors import (
    AcquisitionTimeout,
    CircuitOpen,
    Closed,
    LocalResourcesExhausted,
    Overloaded,
    ProviderUnavailable,
    Throttled,
)
from ..events import ExchangeDenied, ExchangeFailed, TokenAcquired, emit, told_later
from .cache import CacheEntry
from .engine import Engine
from .shared import SharedTokens
from .single_flight import Exchange, Flight, Outcome, carrying

__all__ = [
    "URGENT_SPREAD",
    "Landed",
    "Verdict",
    "begin",
    "challenge_under_way",
    "note_failure",
    "remaining",
    "spread",
    "under_way",
]

#: Seconds after a denial before a refresh is tried in the background again: MSAL replays a denial for as long.
_AFTER_DENIAL = 60.0
_NEVER = -1e9
#: Failures that say nothing about the provider.
_NOT_ASKED = (CircuitOpen, Overloaded, LocalResourcesExhausted)
#: Seconds over which a fleet's first probes spread once their tokens have run out, and while they are valid.
URGENT_SPREAD = 3.0
_CALM_SPREAD = 60.0


class Verdict(Enum):
    """What an exchange says of the provider."""

    ANSWERED = auto()
    FAILED = auto()
    NONE = auto()


#: Told what an exchange for a cache entry says of the provider, before those who wait for it.
Landed = Callable[[Engine, CacheEntry, Verdict], None]


def begin(
    engine: Engine,
    entry: CacheEntry,
    exchange: Exchange,
    *,
    landed: Landed,
    variant: str | None = None,
    unasked: bool = False,
) -> Flight:
    """Join the exchange for a cache entry, or begin one.

    Args:
        engine: Where it runs.
        entry: Whose token.
        exchange: How to ask the provider.
        landed: Told what a new one says of the provider.
        variant: Tells exchanges for one cache entry apart: the claims of a challenge.
        unasked: Nobody waits for it.

    Raises:
        CircuitOpen: Every authority that could answer failed a moment ago.
        Throttled: They asked for patience.
        Overloaded: Too many exchanges wait.
    """
    key = _key(entry, variant)
    flight = engine.flights.find(key)
    if flight is not None:
        engine.timers.revive()
        return flight
    # After a claims challenge what others have won't do.
    shared = entry.memory.shared
    looks_at = shared if variant is None else None
    now = engine.clock.monotonic()
    entry.failed_at = min(entry.failed_at, now)  # the clock may have been set back
    known, first_delay = entry.last_error, engine.settings.retry.first_delay
    refusal = engine.refusal(entry.ways) or (known and _lasting(known, entry.failed_at + first_delay - now))
    # What another process has obtained can be had while the provider can't be asked.
    if refusal is not None and (looks_at is None or entry.looked_lately(now)):
        engine.timers.revive()
        raise refusal
    flight, mine = engine.flights.join(key, now + engine.deadline)
    if mine:
        if variant is not None:
            entry.variant = variant
        gone, flight.replaced = flight.replaced, None
        entry.tried_at, flight.request, flight.ways = now, entry.request, entry.ways
        flight.begun = now
        # What its attempts have learned was told when they had.
        failed = _never_ended(engine, entry, gone) if gone is not None and gone.last_error is None else None
        flight.earliest = entry.failed_at + first_delay
        flight.spare = variant is None and entry.token is not None and remaining(engine, entry) > 0
        flight.on_failed_attempt = partial(_learn, engine, entry)
        if shared is not None:
            exchange = shared.exchange(entry, exchange, reuse=looks_at is not None)
        if observing.observer is not None:
            flight.observed = observing.observer.begin("exchange", entry=entry, request=entry.request, unasked=unasked)
        run = _Run(engine, entry, flight, exchange, landed, entry.generation)
        try:
            if looks_at is not None:
                engine.run(looks_at.lane, partial(run.look, looks_at), flight)
            else:
                run.board()
        except ProviderUnavailable as error:
            engine.flights.land(flight, Outcome(error=error))
            raise
        if failed is not None:
            emit(failed)
    return flight


def _lasting(known: ProviderUnavailable, left: float) -> ProviderUnavailable | None:
    """Tell again, for the seconds until the next attempt may be made, what waiting for that attempt wouldn't mend."""
    if left <= 0 or known.heals:
        return None
    again = copy.copy(known)
    again.retry_after = left
    return again


def under_way(engine: Engine, entry: CacheEntry) -> Flight | None:
    """Find the exchange for a cache entry, if one is under way."""
    return engine.flights.find(_key(entry, None))


def challenge_under_way(engine: Engine, entry: CacheEntry) -> Flight | None:
    """Find the exchange that a claims challenge has begun last for a cache entry, if it is under way."""
    return engine.flights.find(_key(entry, entry.variant))


def _key(entry: CacheEntry, variant: str | None) -> Hashable:
    # After a removal nobody may join an exchange that began before it.
    return entry.memory, entry.request, entry.generation, variant


@dataclass(slots=True, eq=False, repr=False)
class _Run:
    """One exchange, from its worker to those who wait for it."""

    _engine: Engine
    _entry: CacheEntry
    _flight: Flight
    _exchange: Exchange
    _landed: Landed
    #: The entry's when it began.
    _generation: int

    def look(self, shared: SharedTokens) -> None:
        """Look what others have, on a worker of its own; where that doesn't help, have the provider asked."""
        started = self._started()
        with carrying(self._flight.key):
            try:
                outcome = shared.look(self._entry)
                self._flight.begun = self._engine.clock.monotonic()
                self._flight.in_store += self._flight.begun - started
                if outcome is None:
                    self.board()
                    return
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
                outcome = Outcome(error=error)
            self._land(outcome, started)

    def board(self) -> None:
        """Have the provider asked on a worker."""
        self._engine.run(self._entry.authorities[0], self._fly, self._flight, own=self._entry.memory.lane)

    def _started(self) -> float:
        """Note on a worker that one has come; returns when that was."""
        started = self._engine.clock.monotonic()
        if self._flight.begun is not None:
            self._flight.in_queue += started - self._flight.begun
        if self._flight.observed is not None:
            self._flight.observed.enter()
        return started

    def _fly(self) -> None:
        started = self._started()
        with carrying(self._flight.key):
            try:
                outcome = self._exchange(self._flight)
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
                outcome = Outcome(error=error)
            self._land(outcome, started)

    def _land(self, outcome: Outcome, started: float) -> None:
        """Note how it ended, tell those who wait, and then whoever else wants to know."""
        engine, flight = self._engine, self._flight
        with told_later():
            try:
                # One that was overdue and replaced brings no news: its token is older, its failure is over.
                if engine.flights.is_current(flight):
                    verdict = self._note(outcome, engine.clock.monotonic() - started)
                    flight.over = True
                    self._landed(engine, self._entry, verdict)
            finally:
                engine.flights.land(flight, outcome)

    def _note(self, outcome: Outcome, took: float) -> Verdict:
        """Note how it ended; returns what that says of the provider."""
        engine, entry = self._engine, self._entry
        wall, now, request = engine.clock.wall(), engine.clock.monotonic(), entry.request
        if outcome.token is not None:
            entry.memory.put(entry, outcome.token, outcome.owner, generation=self._generation)
            entry.failures, entry.not_before, entry.failed_at = 0, 0.0, _NEVER
            entry.denied, entry.last_error = False, None
            source = "store" if outcome.stored else "identity_provider"
            emit(TokenAcquired(at=wall, request=request, expires_in=outcome.token.life, seconds=took, source=source))
            reschedule = entry.reschedule
            if reschedule is not None:
                reschedule(engine, entry, None)
            return Verdict.NONE if outcome.stored else Verdict.ANSWERED
        if isinstance(outcome.error, ProviderUnavailable):
            error = outcome.error
            if not outcome.refused:
                emit(
                    ExchangeFailed(
                        at=wall, request=request, code=error.code, detail=error.message, retry_after=error.retry_after
                    )
                )
            note_failure(engine, entry, error, exchanged=not outcome.refused and not isinstance(error, _NOT_ASKED))
            return Verdict.FAILED
        # An answer without a token: the provider works. Or an error of the caller's, which says nothing about it.
        if outcome.error is None:
            entry.denied = outcome.denied
            entry.last_error = None
        elif not isinstance(outcome.error, Closed):  # what its owner has closed is no failure
            kind = type(outcome.error).__name__
            emit(ExchangeFailed(at=wall, request=request, code="exchange_error", detail=kind, retry_after=None))
        if outcome.denied:
            emit(ExchangeDenied(at=wall, request=request, code=str(outcome.result["error"])[:100]))
            held = entry.token
            if held is not None and entry.generation == self._generation and is_gone(outcome.result):
                entry.memory.drop_token(entry, held, "revoked")
        entry.rest(_AFTER_DENIAL, now)
        reschedule = entry.reschedule
        if reschedule is not None:
            reschedule(engine, entry, _AFTER_DENIAL)
        return Verdict.ANSWERED if outcome.error is None else Verdict.NONE


def _backoff(engine: Engine, entry: CacheEntry, error: ProviderUnavailable) -> float:
    """Return for how many seconds to leave a provider alone that failed for this entry."""
    options, left = engine.settings.retry, remaining(engine, entry)
    if isinstance(error, CircuitOpen):
        wait = 0.0  # its breaks grow by themselves
    elif left > 0:
        step = options.first_delay * 2.0 ** min(entry.failures, 10)
        wait = min(options.longest_delay, options.first_delay + engine.jitter(0.0, step))
    else:
        wait = engine.jitter(*engine.settings.breaker.urgent_break)
    if error.retry_after is None:
        return max(wait, options.first_delay)
    return max(wait, error.retry_after + engine.jitter(0.0, spread(left)))


def spread(remaining: float) -> float:
    """Return over how many seconds to spread what many were told to do at once, given how long one can wait."""
    return max(URGENT_SPREAD, min(_CALM_SPREAD, remaining / 4))


def remaining(engine: Engine, entry: CacheEntry) -> float:
    token = entry.token
    return 0.0 if token is None else max(0.0, token.remaining(engine.clock.wall(), engine.clock.monotonic()))


def _root(known: ProviderUnavailable | None, error: ProviderUnavailable) -> ProviderUnavailable:
    """Return what is to be told of a provider: how it failed, and not that it isn't asked because of that."""
    if known is None or not isinstance(error, (CircuitOpen, Throttled, Overloaded)):
        return error
    root = copy.copy(known)
    root.retry_after = error.retry_after
    return root


def _never_ended(engine: Engine, entry: CacheEntry, flight: Flight) -> ExchangeFailed:
    """Note that an exchange hasn't come back: a failure, but none of a provider that was never asked.

    Returns:
        What is to be told of it when the next one has been begun.
    """
    origin = entry.authorities[0].origin
    text = f"a token request to {origin} never ended: {flight.calls or 'what it calls'} hangs"
    error = AcquisitionTimeout(text, authority=origin)
    entry.failures += 1
    entry.last_error = error
    wall = engine.clock.wall()
    return ExchangeFailed(at=wall, request=entry.request, code=error.code, detail=error.message, retry_after=None)


def _learn(engine: Engine, entry: CacheEntry, flight: Flight, error: ProviderUnavailable) -> None:
    """Note at once what an exchange's attempt has learned, while it goes on: the next one is seconds away."""
    if engine.flights.is_current(flight):
        entry.last_error = error


def note_failure(engine: Engine, entry: CacheEntry, error: ProviderUnavailable, *, exchanged: bool) -> None:
    """Note a failure; where the provider wasn't asked, a refusal of our own is no failure of its."""
    now = engine.clock.monotonic()
    entry.rest(_backoff(engine, entry, error), now)
    if exchanged:
        entry.failures += 1
        entry.failed_at = now
    # Last: whoever sees it, as health does, sees the rest.
    entry.last_error = error if exchanged else _root(entry.last_error, error)
