"""Exchanges: begun once for all who want one, ahead of need, and again when a provider has recovered (G5)."""

from __future__ import annotations

import copy
import math
import threading
import weakref
from collections.abc import Callable, Hashable
from functools import partial

from .._fleet import coordination as fleet
from .._fleet.accounts import STORE_LANE, SharedCache
from .._policy.breaker import Breaker
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.freshness import Freshness, assess
from .._policy.levels import ProviderRequest
from .._policy.provider_errors import is_gone
from .._process import forks
from ..errors import (
    AcquisitionTimeout,
    CircuitOpen,
    LocalResourcesExhausted,
    Overloaded,
    ProviderUnavailable,
    Throttled,
)
from ..events import ExchangeDenied, ExchangeFailed, RefreshScheduled, TokenAcquired, emit, told_later
from .cache import CacheEntry, Exchange, memories
from .engine import Engine
from .single_flight import Flight, Outcome, carrying
from .timers import Timer

__all__ = ["await_recovery", "begin", "keep_fresh", "recovered", "refresh_in_background", "release", "under_way"]

#: Seconds after a denial before a background refresh is tried again: MSAL replays a denial for as long.
_AFTER_DENIAL = 60.0
_NEVER = -1e9
#: Failures that say nothing about the provider.
_NOT_ASKED = (CircuitOpen, Overloaded, LocalResourcesExhausted)
#: Seconds over which a fleet's first probes spread once their tokens have run out, and while they are valid.
_URGENT_SPREAD = 3.0
#: Seconds before its time at which a token counts as due for its timer: sums of floats are a little off.
_TOLERANCE = 0.01
_CALM_SPREAD = 60.0


def begin(engine: Engine, entry: CacheEntry, exchange: Exchange, *, variant: str | None = None) -> Flight:
    """Join the exchange for a cache entry, or begin one.

    Args:
        engine: Where it runs.
        entry: Whose token.
        exchange: How to ask the provider.
        variant: Tells exchanges for one cache entry apart: the claims of a challenge.

    Raises:
        CircuitOpen: Every authority that could answer failed a moment ago.
        Throttled: They asked for patience.
        Overloaded: Too many exchanges wait.
    """
    key = _key(entry, variant)
    engine.timers.revive()
    flight = engine.flights.find(key)
    if flight is not None:
        return flight
    shared_cache = entry.memory.shared_cache
    looks = shared_cache is not None and variant is None
    now = engine.clock.monotonic()
    entry.failed_at = min(entry.failed_at, now)  # the clock may have been set back
    refusal = engine.refusal(entry.ways) or _lasting(engine, entry, now)
    # What another process has obtained can be had while the provider can't be asked.
    if refusal is not None and not (looks and now - entry.looked_at > fleet.LOOK_AGAIN):
        raise refusal
    gone = engine.flights.overdue(key)
    flight, mine = engine.flights.join(key, now + engine.settings.deadline)
    if mine:
        entry.tried_at, flight.request = now, entry.request
        # What its attempts have learned was told when they had.
        failed = _never_ended(engine, entry, gone) if gone is not None and gone.last_error is None else None
        flight.earliest = entry.failed_at + engine.settings.retry.first_delay
        flight.spare = variant is None and _remaining(engine, entry) > 0
        flight.on_failed_attempt = partial(_learn, engine, entry)
        generation = entry.generation
        if shared_cache is not None:
            exchange = fleet.shared(engine, entry, shared_cache, exchange, reuse=looks)
        try:
            if shared_cache is not None and looks:
                engine.run(
                    STORE_LANE, partial(_look, engine, flight, entry, shared_cache, exchange, generation), flight
                )
            else:
                _board(engine, flight, entry, exchange, generation)
        except ProviderUnavailable as error:
            engine.flights.end(flight)
            flight.land(Outcome(error=error))
            raise
        if failed is not None:
            emit(failed)
    return flight


def _lasting(engine: Engine, entry: CacheEntry, now: float) -> ProviderUnavailable | None:
    """Tell again, until the next attempt may be made, what waiting for that attempt wouldn't mend."""
    left = entry.failed_at + engine.settings.retry.first_delay - now
    if left <= 0 or entry.last_error is None or entry.last_error.heals:
        return None
    known = copy.copy(entry.last_error)
    known.retry_after = left
    return known


def under_way(engine: Engine, entry: CacheEntry) -> Flight | None:
    """Find the exchange for a cache entry, if one is under way."""
    return engine.flights.find(_key(entry, None))


def _key(entry: CacheEntry, variant: str | None) -> Hashable:
    # After a removal nobody may join an exchange that began before it.
    return entry.memory, entry.request, entry.generation, variant


def refresh_in_background(engine: Engine, entry: CacheEntry, exchange: Exchange) -> None:
    """Begin a refresh that nobody waits for, unless one runs or the last failure is too near."""
    if entry.rest_left(engine.clock.monotonic()) > 0:
        return
    try:
        with carrying(None):  # it is a flight of its own, whoever has just landed
            begin(engine, entry, exchange)
    except ProviderUnavailable as error:
        await_recovery(engine, entry, error)


def _look(
    engine: Engine, flight: Flight, entry: CacheEntry, shared_cache: SharedCache, exchange: Exchange, generation: int
) -> None:
    """Look at the store, on a worker of its own; where it doesn't help, have the exchange made."""
    started = engine.clock.monotonic()
    outcome: Outcome | None = None
    with carrying(flight.key):
        try:
            outcome = fleet.look(engine, entry, shared_cache)
            if outcome is None:
                _board(engine, flight, entry, exchange, generation)
                return
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
            outcome = Outcome(error=error)
        _land(engine, flight, entry, outcome, started, generation)


def _board(engine: Engine, flight: Flight, entry: CacheEntry, exchange: Exchange, generation: int) -> None:
    """Have an exchange made on a worker."""
    fly = partial(_fly, engine, flight, entry, exchange, generation)
    engine.run(entry.authorities[0], fly, flight, own=entry.memory.lane)


def _fly(engine: Engine, flight: Flight, entry: CacheEntry, exchange: Exchange, generation: int) -> None:
    """Make one exchange, on a worker."""
    started = engine.clock.monotonic()
    with carrying(flight.key):
        try:
            outcome = exchange(flight)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
            outcome = Outcome(error=error)
        _land(engine, flight, entry, outcome, started, generation)


def _land(engine: Engine, flight: Flight, entry: CacheEntry, outcome: Outcome, started: float, generation: int) -> None:
    """Note how an exchange ended, tell those who wait, and then whoever else wants to know."""
    with told_later():
        try:
            # One that was overdue and replaced brings no news: its token is older, its failure is over.
            if engine.flights.is_current(flight):
                go_on = _note(engine, entry, outcome, engine.clock.monotonic() - started, generation)
                flight.over = True
                go_on(engine, entry)
        finally:
            engine.flights.end(flight)
            flight.land(outcome)


def _note(
    engine: Engine, entry: CacheEntry, outcome: Outcome, took: float, generation: int
) -> Callable[[Engine, CacheEntry], None]:
    """Note how an exchange ended; returns what it means for those that wait for recovery."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    request = entry.request
    if outcome.token is not None:
        entry.memory.put(entry, outcome.token, outcome.owner, generation=generation)
        entry.failures, entry.not_before, entry.failed_at, entry.denied, entry.last_error = 0, 0.0, _NEVER, False, None
        source = "store" if outcome.stored else "identity_provider"
        emit(TokenAcquired(at=wall, request=request, expires_in=outcome.token.life, seconds=took, source=source))
        if entry.pinned:
            _schedule(engine, entry)
        return come_back if outcome.stored else recovered
    if isinstance(outcome.error, ProviderUnavailable):
        error = outcome.error
        if not outcome.refused:
            emit(
                ExchangeFailed(
                    at=wall, request=request, code=error.code, detail=error.message, retry_after=error.retry_after
                )
            )
        _note_failure(engine, entry, error, exchanged=not outcome.refused and not isinstance(error, _NOT_ASKED))
        return _wait_for_recovery
    # An answer without a token: the provider works. Or an error of the caller's, which says nothing about it.
    if outcome.error is None:
        entry.denied = outcome.denied
        entry.last_error = None
    else:
        kind = type(outcome.error).__name__
        emit(ExchangeFailed(at=wall, request=request, code="exchange_error", detail=kind, retry_after=None))
    if outcome.denied:
        emit(ExchangeDenied(at=wall, request=request, code=str(outcome.result["error"])[:100]))
        held = entry.token
        if held is not None and entry.generation == generation and is_gone(outcome.result):
            entry.memory.drop_token(entry, held, "revoked")
    entry.rest(_AFTER_DENIAL, now)
    if entry.pinned:
        _schedule(engine, entry, delay=_AFTER_DENIAL)
    return recovered if outcome.error is None else come_back


def _backoff(engine: Engine, entry: CacheEntry, error: ProviderUnavailable) -> float:
    """Return for how many seconds to leave a provider alone that failed for this entry."""
    options, remaining = engine.settings.retry, _remaining(engine, entry)
    if isinstance(error, CircuitOpen):
        wait = 0.0  # its breaks grow by themselves
    elif remaining > 0:
        step = options.first_delay * 2.0 ** min(entry.failures, 10)
        wait = min(options.longest_delay, options.first_delay + engine.jitter(0.0, step))
    else:
        wait = engine.jitter(*engine.settings.breaker.urgent_break)
    if error.retry_after is None:
        return max(wait, options.first_delay)
    return max(wait, error.retry_after + engine.jitter(0.0, _spread(remaining)))


def _spread(remaining: float) -> float:
    """Return over how many seconds to spread what many were told to do at once, given how long one can wait."""
    return max(_URGENT_SPREAD, min(_CALM_SPREAD, remaining / 4))


def keep_fresh(engine: Engine, entry: CacheEntry) -> None:
    """Pin a cache entry: get its token now and refresh it ahead from then on, with or without traffic."""
    entry.pinned = True
    _schedule(engine, entry)


def release(entry: CacheEntry) -> None:
    """Unpin a cache entry."""
    entry.pinned = False
    timer, entry.timer = entry.timer, None
    if timer is not None:
        timer.cancel()


def _schedule(engine: Engine, entry: CacheEntry, delay: float | None = None) -> None:
    """Have a cache entry refreshed when it is due, or after `delay` seconds."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    if delay is None:
        token = entry.token
        if token is None:
            delay = 0.0
        else:
            # A little later than due, never later than half of what is left: a fleet that started together spreads.
            left = max(0.0, token.due_after - token.age(wall, now))
            spread = max(0.0, min(0.05 * token.life, 0.5 * (token.life - token.due_after)))
            delay = left + engine.jitter(0.0, spread)
    release_timer, entry.timer = entry.timer, None
    if release_timer is not None:
        release_timer.cancel()
    emit(RefreshScheduled(at=wall, request=entry.request, seconds=delay, code="keep_fresh"))
    timer = engine.timers.call_at(now + delay, _weakly(entry, lambda s: _refresh_if_due(engine, s)))
    if timer.pending:  # or it has come already, and the exchange that it began has set the next one
        entry.timer = timer


def _refresh_if_due(engine: Engine, entry: CacheEntry) -> None:
    renew = entry.renew
    if renew is None or not entry.pinned:
        return
    state = assess(entry.token, engine.clock.wall(), engine.clock.monotonic(), engine.settings.freshness)
    if state is Freshness.FRESH and not _is_about_due(engine, entry):  # traffic was faster
        _schedule(engine, entry)
    else:
        entry.not_before = 0.0
        refresh_in_background(engine, entry, renew)
        _watch_over(engine, entry)


def _is_about_due(engine: Engine, entry: CacheEntry) -> bool:
    token = entry.token
    return token is None or token.due_after - token.age(engine.clock.wall(), engine.clock.monotonic()) <= _TOLERANCE


def _watch_over(engine: Engine, entry: CacheEntry) -> None:
    """See to it that an exchange which nobody waits for, and which never ends, isn't the last one."""
    flight = under_way(engine, entry)
    if flight is None:
        return

    # The flight's key holds the memory, which must be free to go.
    watched = weakref.ref(flight)

    def look(entry: CacheEntry) -> None:
        flight = watched()
        if flight is not None and flight.outcome is None:
            origin = entry.authorities[0].origin
            await_recovery(
                engine, entry, AcquisitionTimeout(f"a token request to {origin} never ended", authority=origin)
            )

    entry.timer = engine.timers.call_at(flight.deadline, _weakly(entry, look))


def _weakly(entry: CacheEntry, call: Callable[[CacheEntry], None]) -> Callable[[], None]:
    # A timer must not keep an application object alive that its owner has let go.
    reference = weakref.ref(entry)

    def run() -> None:
        living = reference()
        if living is not None:
            call(living)

    return run


class _Recovery:
    """The slots that wait for one provider to give tokens again, over one wire.

    While somebody wants one of them, an exchange goes out for it at the moment when it may be asked for again, not at
    the next request. Of those that wait for the same breaker one goes at a time, and the one that was tried longest ago
    first: what always fails holds up nobody. When nothing valid is left for a cache entry, its breaks get short.
    """

    def __init__(self, engine: Engine, site: Endpoint, purpose: Purpose) -> None:
        self._engine = weakref.ref(engine)
        self._site = site
        self._purpose = purpose
        self._lock = threading.Lock()
        self._waiting: weakref.WeakSet[CacheEntry] = weakref.WeakSet()
        #: The exchanges that probe a breaker, with the breakers that they probe. A flight's key holds its memory.
        self._probes: list[tuple[weakref.ref[Flight], frozenset[Breaker]]] = []
        self._timer: Timer | None = None
        #: The monotonic time for which the timer is set.
        self._when = math.inf
        #: Whether nobody waits any more: the next one waits in another one.
        self._over = False

    def add(self, engine: Engine, entry: CacheEntry) -> bool:
        """Let a cache entry wait here; False where this is over."""
        with self._lock:
            if self._over:
                return False
            self._waiting.add(entry)
            armed, when = self._timer is not None and self._timer.pending, self._when
        now, remaining = engine.clock.monotonic(), _remaining(engine, entry)
        when_it_matters = self._ready_at(engine, entry, now)
        if remaining > 0:
            when_it_matters = min(when_it_matters, now + remaining)
        else:
            for breaker in self._breakers(engine, entry):
                breaker.hasten()
            when_it_matters = min(when_it_matters, self._ready_at(engine, entry, now))
        # A timer that is set for earlier than that sees to this entry too.
        if not armed or when_it_matters < when:
            self.arm(engine)
        return True

    def drain(self, engine: Engine, answered: CacheEntry) -> None:
        """Let all go on, since the authority has answered one; those with nothing to serve at once."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        self.arm(engine)
        for entry in waiting:
            if entry is answered:
                continue
            entry.not_before = 0.0
            renew = entry.renew  # a close, or a token that comes, may take it away at any time
            if renew is not None and (entry.pinned or _remaining(engine, entry) <= 0):
                refresh_in_background(engine, entry, renew)

    def arm(self, engine: Engine) -> bool:
        """Set the timer for when the first one of those who wait may go, or has nothing left; False where none does."""
        wanted, gone = self._wanted(engine)
        now = engine.clock.monotonic()
        dark = [entry for entry in wanted if _remaining(engine, entry) <= 0]
        hurried = {breaker for entry in dark for breaker in self._breakers(engine, entry)}
        for breaker in hurried:
            breaker.hasten()
        site = engine.breaker(self._site, self._purpose)
        for breaker in {site, *(b for entry in (*wanted, *gone) for b in self._breakers(engine, entry))} - hurried:
            breaker.relax()
        if not wanted:
            self._end(engine)
            return False
        ready, entry = min(((self._ready_at(engine, entry, now), entry) for entry in wanted), key=lambda pair: pair[0])
        when = ready
        if self._cooldown_left(engine, entry) > 0:
            when += engine.jitter(0.0, _spread(_remaining(engine, entry)))
        elif dark and when <= now:
            # A fleet whose tokens ran out together must not ask together.
            when = now + engine.jitter(0.05, _URGENT_SPREAD)
        calm = [_remaining(engine, entry) for entry in wanted if entry not in dark]
        when = max(min(when, now + min(calm, default=math.inf)), now + 0.05)
        reference, engines = weakref.ref(self), self._engine

        def fire() -> None:
            recovery, living = reference(), engines()
            if recovery is not None and living is not None:
                recovery._fire(living)

        with self._lock:
            if self._timer is not None:
                # One that was drawn before holds, or who comes often enough would put it off for ever.
                if self._timer.pending and max(ready, now) <= self._when <= when:
                    return True
                self._timer.cancel()
            self._when = when
            self._timer = engine.timers.call_at(when, fire)
        return True

    def _end(self, engine: Engine) -> None:
        """Let go of this where nobody waits."""
        with self._lock:
            if len(self._waiting):
                return
            self._over = True
            timer, self._timer = self._timer, None
            if engine.recoveries.get((self._site, self._purpose)) is self:
                del engine.recoveries[self._site, self._purpose]
        if timer is not None:
            timer.cancel()

    def _wanted(self, engine: Engine) -> tuple[list[CacheEntry], list[CacheEntry]]:
        """Return those that somebody wants, and those that nobody does any more, who wait no longer."""
        now = engine.clock.monotonic()
        wanted: list[CacheEntry] = []
        gone: list[CacheEntry] = []
        with self._lock:
            for entry in list(self._waiting):
                wants = entry.renew and (entry.pinned or now - entry.asked_at <= engine.settings.keep_trying)
                (wanted if wants else gone).append(entry)
            for entry in gone:
                self._waiting.discard(entry)
            self._probes = [probe for probe in self._probes if _ends(probe[0]) > now]
        return wanted, gone

    def _ways(self, entry: CacheEntry) -> list[ProviderRequest]:
        return [asked for asked in entry.ways if asked.endpoint.site == self._site]

    def _breakers(self, engine: Engine, entry: CacheEntry) -> set[Breaker]:
        return {breaker for asked in self._ways(entry) for breaker, _ in engine.levels.around(asked)}

    def _cooldown_left(self, engine: Engine, entry: CacheEntry) -> float:
        return min((engine.cooldown_left(asked) for asked in self._ways(entry)), default=0.0)

    def _ready_at(self, engine: Engine, entry: CacheEntry, now: float) -> float:
        """Return the monotonic time from which an exchange for a cache entry makes sense."""
        flight = under_way(engine, entry)
        if flight is not None and not flight.over:  # it comes back by itself, unless it never ends
            return flight.deadline
        ready = math.inf
        for asked in self._ways(entry):
            opens_at = engine.levels.opens_at(asked)
            if opens_at is None:
                opens_at = now + entry.rest_left(now)
            else:
                around = {breaker for breaker, _ in engine.levels.around(asked) if not breaker.closed}
                opens_at = max([opens_at, *(_ends(flight) for flight, probed in self._probes if probed & around)])
            ready = min(ready, max(opens_at, now + engine.cooldown_left(asked)))
        return ready

    def _fire(self, engine: Engine) -> None:
        wanted, _ = self._wanted(engine)
        now = engine.clock.monotonic()
        ready = [entry for entry in wanted if self._ready_at(engine, entry, now) <= now]
        if ready:
            entry = min(ready, key=lambda s: (s.tried_at, _remaining(engine, s)))
            self._begin(engine, entry)
        # However its exchange ends, it comes back here; and if it never does, the others don't wait for it.
        if not self.arm(engine):
            # What is known against an authority of which nobody wants anything troubles nobody's health.
            engine.levels.forget(self._site, self._purpose)

    def _begin(self, engine: Engine, entry: CacheEntry) -> None:
        renew = entry.renew
        if renew is None:  # since a moment ago
            return
        probed = frozenset(breaker for breaker in self._breakers(engine, entry) if not breaker.closed)
        try:
            flight = begin(engine, entry, renew)
        except ProviderUnavailable as error:
            await_recovery(engine, entry, error)
            return
        if probed:
            with self._lock:
                self._probes.append((weakref.ref(flight), probed))
        _watch_over(engine, entry)


def _ends(reference: weakref.ref[Flight]) -> float:
    """Return the monotonic time until which an exchange under way is to be waited for."""
    flight = reference()
    return -math.inf if flight is None or flight.over or flight.outcome is not None else flight.deadline


def _remaining(engine: Engine, entry: CacheEntry) -> float:
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


def await_recovery(engine: Engine, entry: CacheEntry, error: ProviderUnavailable) -> None:
    """Note that a entry's exchange is refused, and let it wait for its authority to work again."""
    _note_failure(engine, entry, error, exchanged=False)
    _wait_for_recovery(engine, entry)


def _note_failure(engine: Engine, entry: CacheEntry, error: ProviderUnavailable, *, exchanged: bool) -> None:
    """Note a failure; where the provider wasn't asked, a refusal of our own is no failure of its."""
    now = engine.clock.monotonic()
    entry.rest(_backoff(engine, entry, error), now)
    if exchanged:
        entry.failures += 1
        entry.failed_at = now
    # Last: whoever sees it, as health does, sees the rest.
    entry.last_error = error if exchanged else _root(entry.last_error, error)


def _wait_for_recovery(engine: Engine, entry: CacheEntry) -> None:
    if entry.renew is None:
        come_back(engine, entry)
        return
    for site in _sites(entry):
        key = (site, entry.purpose)
        while not engine.recoveries.setdefault(key, _Recovery(engine, *key)).add(engine, entry):
            pass  # that one was over, and another takes its place


def _sites(entry: CacheEntry) -> list[Endpoint]:
    return list(dict.fromkeys(endpoint.site for endpoint in entry.authorities))


def _recoveries(engine: Engine, entry: CacheEntry) -> list[_Recovery]:
    found = (engine.recoveries.get((site, entry.purpose)) for site in _sites(entry))
    return [recovery for recovery in found if recovery is not None]


def recovered(engine: Engine, entry: CacheEntry) -> None:
    """Wake what waits for the authorities that have just given a token."""
    for recovery in _recoveries(engine, entry):
        recovery.drain(engine, entry)


def come_back(engine: Engine, entry: CacheEntry) -> None:
    """Have those go on who waited for this entry's exchange, which has told nothing of the provider, or is nobody's."""
    for recovery in _recoveries(engine, entry):
        recovery.arm(engine)


@forks.resumed
def _after_fork() -> None:
    # The parent's timers aren't there: what is pinned is scheduled anew.
    for memory in memories():
        for entry in memory:
            if entry.pinned:
                _schedule(memory.engine, entry)
