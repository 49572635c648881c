"""Exchanges: begun once for all who want one, ahead of need, and again when a provider has recovered (G5)."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Hashable
from functools import partial

from .. import _forks
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.freshness import Freshness, assess
from .._policy.provider_errors import is_gone
from ..errors import (
    AcquisitionTimeout,
    CircuitOpen,
    LocalResourcesExhausted,
    Overloaded,
    ProviderUnavailable,
    Throttled,
)
from ..events import ExchangeDenied, ExchangeFailed, RefreshScheduled, TokenAcquired, emit, told_later
from . import fleet
from .engine import Engine
from .memory import Exchange, Slot, memories
from .shelf import STORE_LANE, Shelf
from .single_flight import Flight, Outcome, carrying
from .timers import Timer

__all__ = ["await_recovery", "begin", "behind", "keep_fresh", "recovered", "release", "under_way"]

#: Seconds after a denial before a refresh is tried behind again: MSAL replays a denial for as long.
_AFTER_DENIAL = 60.0
_NEVER = -1e9
#: Failures that say nothing about the provider.
_NOT_ASKED = (CircuitOpen, Overloaded, LocalResourcesExhausted)
#: Seconds over which a fleet's first probes spread once their tokens have run out, and while they are valid.
_URGENT_SPREAD = 3.0
#: Seconds before its time at which a token counts as due for its timer: sums of floats are a little off.
_TOLERANCE = 0.01
_CALM_SPREAD = 60.0


def begin(engine: Engine, slot: Slot, exchange: Exchange, *, variant: str | None = None) -> Flight:
    """Join the exchange for a slot, or begin one.

    Args:
        engine: Where it runs.
        slot: Whose token.
        exchange: How to ask the provider.
        variant: Tells exchanges for one slot apart: the claims of a challenge.

    Raises:
        CircuitOpen: Every authority that could answer failed a moment ago.
        Throttled: They asked for patience.
        Overloaded: Too many exchanges wait.
    """
    key = _key(slot, variant)
    engine.timers.revive()
    flight = engine.flights.find(key)
    if flight is not None:
        return flight
    shelf = slot.memory.shelf
    looks = shelf is not None and variant is None
    now = engine.clock.monotonic()
    refusal = engine.refusal(slot.authorities, slot.request.client_id, slot.request.subject, slot.purpose)
    refusal = refusal or _lasting(engine, slot, now)
    # What another process has obtained can be had while the provider can't be asked.
    if refusal is not None and not (looks and now - slot.looked_at > fleet.LOOK_AGAIN):
        raise refusal
    gone = engine.flights.overdue(key)
    flight, mine = engine.flights.join(key, now + engine.settings.deadline)
    if mine:
        # What its attempts have learned was told when they had.
        failed = _never_ended(engine, slot, gone) if gone is not None and gone.last_error is None else None
        flight.earliest = slot.failed_at + engine.settings.retry.first_delay
        flight.spare = variant is None and _remaining(engine, slot) > 0
        flight.on_failed_attempt = partial(_learn, engine, slot)
        generation = slot.generation
        if shelf is not None:
            exchange = fleet.shared(engine, slot, shelf, exchange, reuse=looks)
        try:
            if shelf is not None and looks:
                engine.run(STORE_LANE, partial(_look, engine, flight, slot, shelf, exchange, generation), flight)
            else:
                _board(engine, flight, slot, exchange, generation)
        except ProviderUnavailable as error:
            engine.flights.end(flight)
            flight.land(Outcome(error=error))
            raise
        if failed is not None:
            emit(failed)
    return flight


def _lasting(engine: Engine, slot: Slot, now: float) -> ProviderUnavailable | None:
    """Tell again, until the next attempt may be made, what waiting for that attempt wouldn't mend."""
    left = slot.failed_at + engine.settings.retry.first_delay - now
    if left <= 0 or slot.last_error is None or slot.last_error.heals:
        return None
    known = copy.copy(slot.last_error)
    known.retry_after = left
    return known


def under_way(engine: Engine, slot: Slot) -> Flight | None:
    """Find the exchange for a slot, if one is under way."""
    return engine.flights.find(_key(slot, None))


def _key(slot: Slot, variant: str | None) -> Hashable:
    # After a removal nobody may join an exchange that began before it.
    return slot.memory, slot.request, slot.generation, variant


def behind(engine: Engine, slot: Slot, exchange: Exchange) -> None:
    """Begin a refresh that nobody waits for, unless one runs or the last failure is too near."""
    if engine.clock.monotonic() < slot.not_before:
        return
    try:
        with carrying(None):  # it is a flight of its own, whoever has just landed
            begin(engine, slot, exchange)
    except ProviderUnavailable as error:
        await_recovery(engine, slot, error)


def _look(engine: Engine, flight: Flight, slot: Slot, shelf: Shelf, exchange: Exchange, generation: int) -> None:
    """Look at the store, on a worker of its own; where it doesn't help, have the exchange made."""
    started = engine.clock.monotonic()
    outcome: Outcome | None = None
    with carrying(flight.key):
        try:
            outcome = fleet.look(engine, slot, shelf)
            if outcome is None:
                _board(engine, flight, slot, exchange, generation)
                return
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
            outcome = Outcome(error=error)
        _land(engine, flight, slot, outcome, started, generation)


def _board(engine: Engine, flight: Flight, slot: Slot, exchange: Exchange, generation: int) -> None:
    """Have an exchange made on a worker."""
    fly = partial(_fly, engine, flight, slot, exchange, generation)
    engine.run(slot.authorities[0], fly, flight, own=slot.memory.lane)


def _fly(engine: Engine, flight: Flight, slot: Slot, exchange: Exchange, generation: int) -> None:
    """Make one exchange, on a worker."""
    started = engine.clock.monotonic()
    with carrying(flight.key):
        try:
            outcome = exchange(flight)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
            outcome = Outcome(error=error)
        _land(engine, flight, slot, outcome, started, generation)


def _land(engine: Engine, flight: Flight, slot: Slot, outcome: Outcome, started: float, generation: int) -> None:
    """Note how an exchange ended, tell those who wait, and then whoever else wants to know."""
    with told_later():
        try:
            # One that was overdue and replaced brings no news: its token is older, its failure is over.
            if engine.flights.is_current(flight):
                _note(engine, slot, outcome, engine.clock.monotonic() - started, generation)
        finally:
            engine.flights.end(flight)
            flight.land(outcome)


def _note(engine: Engine, slot: Slot, outcome: Outcome, took: float, generation: int) -> None:
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    request = slot.request
    if outcome.token is not None:
        slot.memory.put(slot, outcome.token, outcome.owner, generation=generation)
        slot.failures, slot.not_before, slot.failed_at, slot.denied, slot.last_error = 0, 0.0, _NEVER, False, None
        source = "store" if outcome.stored else "identity_provider"
        emit(TokenAcquired(at=wall, request=request, expires_in=outcome.token.life, took=took, source=source))
        if not outcome.stored:
            recovered(engine, slot)
        if slot.pinned:
            _schedule(engine, slot)
    elif outcome.refused and isinstance(outcome.error, ProviderUnavailable):
        await_recovery(engine, slot, outcome.error)
    elif isinstance(outcome.error, ProviderUnavailable):
        error = outcome.error
        emit(
            ExchangeFailed(
                at=wall, request=request, code=error.code, detail=error.message, retry_after=error.retry_after
            )
        )
        await_recovery(engine, slot, error, exchanged=not isinstance(error, _NOT_ASKED))
    else:
        # An answer without a token: the provider works. Or an error of the caller's, which says nothing about it.
        if outcome.error is None:
            slot.denied = outcome.denied
            slot.last_error = None
        else:
            kind = type(outcome.error).__name__
            emit(ExchangeFailed(at=wall, request=request, code="exchange_error", detail=kind, retry_after=None))
        if outcome.denied:
            emit(ExchangeDenied(at=wall, request=request, error=str(outcome.result["error"])[:100]))
            held = slot.token
            if held is not None and slot.generation == generation and is_gone(outcome.result):
                slot.memory.drop_token(slot, held, "the provider says that the account or its tokens are gone")
        recovered(engine, slot)
        slot.not_before = now + _AFTER_DENIAL
        if slot.pinned:
            _schedule(engine, slot, delay=_AFTER_DENIAL)


def _backoff(engine: Engine, slot: Slot, error: ProviderUnavailable) -> float:
    """Tell for how many seconds to leave a provider alone that failed for this slot."""
    options, remaining = engine.settings.retry, _remaining(engine, slot)
    if isinstance(error, CircuitOpen):
        wait = 0.0  # its breaks grow by themselves
    elif remaining > 0:
        step = options.first_delay * 2.0 ** min(slot.failures, 10)
        wait = min(options.longest_delay, options.first_delay + engine.jitter(0.0, step))
    else:
        wait = engine.jitter(*engine.settings.breaker.urgent_break)
    if error.retry_after is None:
        return max(wait, options.first_delay)
    return max(wait, error.retry_after + engine.jitter(0.0, _spread(remaining)))


def _spread(remaining: float) -> float:
    """Tell over how many seconds to spread what many were told to do at once, given how long one can wait."""
    return max(_URGENT_SPREAD, min(_CALM_SPREAD, remaining / 4))


def keep_fresh(engine: Engine, slot: Slot) -> None:
    """Pin a slot: get its token now and refresh it ahead from then on, with or without traffic."""
    slot.pinned = True
    _schedule(engine, slot)


def release(slot: Slot) -> None:
    """Unpin a slot."""
    slot.pinned = False
    timer, slot.timer = slot.timer, None
    if timer is not None:
        timer.cancel()


def _schedule(engine: Engine, slot: Slot, delay: float | None = None) -> None:
    """Have a slot refreshed when it is due, or after `delay` seconds."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    if delay is None:
        token = slot.token
        if token is None:
            delay = 0.0
        else:
            # A little later than due, never later than half of what is left: a fleet that started together spreads.
            left = max(0.0, token.due_after - token.age(wall, now))
            spread = max(0.0, min(0.05 * token.life, 0.5 * (token.life - token.due_after)))
            delay = left + engine.jitter(0.0, spread)
    release_timer, slot.timer = slot.timer, None
    if release_timer is not None:
        release_timer.cancel()
    emit(RefreshScheduled(at=wall, request=slot.request, delay=delay, reason="keep fresh"))
    timer = engine.timers.call_at(now + delay, _weakly(slot, lambda s: _refresh_if_due(engine, s)))
    if timer.pending:  # or it has come already, and the exchange that it began has set the next one
        slot.timer = timer


def _refresh_if_due(engine: Engine, slot: Slot) -> None:
    renew = slot.renew
    if renew is None or not slot.pinned:
        return
    state = assess(slot.token, engine.clock.wall(), engine.clock.monotonic(), engine.settings.freshness)
    if state is Freshness.FRESH and not _is_about_due(engine, slot):  # traffic was faster
        _schedule(engine, slot)
    else:
        slot.not_before = 0.0
        behind(engine, slot, renew)
        _watch_over(engine, slot)


def _is_about_due(engine: Engine, slot: Slot) -> bool:
    token = slot.token
    return token is None or token.due_after - token.age(engine.clock.wall(), engine.clock.monotonic()) <= _TOLERANCE


def _watch_over(engine: Engine, slot: Slot) -> None:
    """See to it that an exchange which nobody waits for, and which never ends, isn't the last one."""
    flight = under_way(engine, slot)
    if flight is None:
        return

    # The flight's key holds the memory, which must be free to go.
    watched = weakref.ref(flight)

    def look(slot: Slot) -> None:
        flight = watched()
        if flight is not None and flight.outcome is None:
            origin = slot.authorities[0].origin
            await_recovery(engine, slot, AcquisitionTimeout(f"an exchange with {origin} never ended", authority=origin))

    slot.timer = engine.timers.call_at(flight.deadline, _weakly(slot, look))


def _weakly(slot: Slot, call: Callable[[Slot], None]) -> Callable[[], None]:
    # A timer must not keep an application object alive that its owner has let go.
    reference = weakref.ref(slot)

    def run() -> None:
        living = reference()
        if living is not None:
            call(living)

    return run


class _Recovery:
    """The slots that wait for one authority to work again, over one wire.

    While somebody wants one of them, exactly one exchange goes out at the moment when the authority may be asked
    again, not at the next request: the neediest slot's. When nothing valid is left for a slot, breaks get short.
    """

    def __init__(self, engine: Engine, site: Endpoint, purpose: Purpose) -> None:
        self._engine = weakref.ref(engine)
        self._site = site
        self._purpose = purpose
        self._lock = threading.Lock()
        self._waiting: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._timer: Timer | None = None
        self._urgent = False
        #: Whether the timer waits for the end of cool-downs, which may be others' than a slot's that comes.
        self._cooled = False

    def add(self, engine: Engine, slot: Slot) -> None:
        """Let a slot wait here."""
        urgent = _remaining(engine, slot) <= 0
        cool = self._cooldown_left(engine, slot) > 0
        with self._lock:
            self._waiting.add(slot)
            soon = self._timer is not None and self._timer.pending and (cool or not self._cooled)
            if soon and (self._urgent or not urgent):
                return
        self._arm(engine)

    def drain(self, engine: Engine) -> None:
        """Let all go on, since the authority has answered; those with nothing to serve at once."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
            timer, self._timer, self._urgent = self._timer, None, False
        if timer is not None:
            timer.cancel()
        for slot in waiting:
            slot.not_before = 0.0
            renew = slot.renew  # a close, or a token that comes, may take it away at any time
            if renew is not None and (slot.pinned or _remaining(engine, slot) <= 0):
                behind(engine, slot, renew)

    def _wanted(self, engine: Engine) -> list[Slot]:
        now = engine.clock.monotonic()
        with self._lock:
            waiting = list(self._waiting)
        wanted = [s for s in waiting if s.renew and (s.pinned or now - s.asked_at <= engine.settings.keep_trying)]
        if len(wanted) < len(waiting):
            keep = set(wanted)
            with self._lock:
                for slot in waiting:
                    if slot not in keep:
                        self._waiting.discard(slot)
        return wanted

    def _arm(self, engine: Engine) -> None:
        wanted = self._wanted(engine)
        breaker = engine.breaker(self._site, self._purpose)
        if not wanted:
            breaker.relax()
            with self._lock:
                self._urgent = False
            return
        now = engine.clock.monotonic()
        soonest_dark = min(_remaining(engine, slot) for slot in wanted)
        urgent = soonest_dark <= 0
        if urgent:
            breaker.hasten()
        else:
            breaker.relax()
        opens_at = breaker.retry_at
        when = min(slot.not_before for slot in wanted) if opens_at is None else opens_at
        cooldown = min(self._cooldown_left(engine, slot) for slot in wanted)
        if now + cooldown > when:
            when = now + cooldown + engine.jitter(0.0, _spread(soonest_dark))
        if not urgent:
            when = min(when, now + soonest_dark)
        if urgent and when <= now:
            # A fleet whose tokens ran out together must not ask together.
            when = now + engine.jitter(0.05, _URGENT_SPREAD)
        reference = weakref.ref(self)

        def fire() -> None:
            recovery, living = reference(), self_engine()
            if recovery is not None and living is not None:
                recovery._fire(living)

        self_engine = self._engine
        with self._lock:
            self._urgent, self._cooled = urgent, cooldown > 0
            if self._timer is not None:
                self._timer.cancel()
            self._timer = engine.timers.call_at(max(when, now + 0.05), fire)

    def _cooldown_left(self, engine: Engine, slot: Slot) -> float:
        request = slot.request
        here = (endpoint for endpoint in slot.authorities if endpoint.site == self._site)
        return min((engine.cooldown_left(e, request.client_id, request.subject) for e in here), default=0.0)

    def _fire(self, engine: Engine) -> None:
        wanted = self._wanted(engine)
        opens_at = engine.breaker(self._site, self._purpose).retry_at
        now = engine.clock.monotonic()
        if not wanted or (opens_at is not None and now < opens_at):
            self._arm(engine)
            return
        # One tenant that asked for patience doesn't hold up the others.
        slot = min(wanted, key=lambda s: (self._cooldown_left(engine, s) > 0, _remaining(engine, s)))
        renew = slot.renew
        if renew is None:  # since a moment ago
            self._arm(engine)
            return
        # However that exchange ends, it comes back here: to `add` after a failure, to `drain` after an answer.
        try:
            begin(engine, slot, renew)
        except ProviderUnavailable as error:
            await_recovery(engine, slot, error)
        else:
            _watch_over(engine, slot)


def _remaining(engine: Engine, slot: Slot) -> float:
    token = slot.token
    return 0.0 if token is None else max(0.0, token.remaining(engine.clock.wall(), engine.clock.monotonic()))


def _root(known: ProviderUnavailable | None, error: ProviderUnavailable) -> ProviderUnavailable:
    """Return what is to be told of a provider: how it failed, and not that it isn't asked because of that."""
    if known is None or not isinstance(error, (CircuitOpen, Throttled, Overloaded)):
        return error
    root = copy.copy(known)
    root.retry_after = error.retry_after
    return root


def _never_ended(engine: Engine, slot: Slot, flight: Flight) -> ExchangeFailed:
    """Note that an exchange hasn't come back: a failure, but none of a provider that was never asked.

    Returns:
        What is to be told of it when the next one has been begun.
    """
    origin = slot.authorities[0].origin
    text = f"an exchange with {origin} never ended: {flight.calls or 'what it calls'} hangs"
    error = AcquisitionTimeout(text, authority=origin)
    slot.failures += 1
    slot.last_error = error
    wall = engine.clock.wall()
    return ExchangeFailed(at=wall, request=slot.request, code=error.code, detail=error.message, retry_after=None)


def _learn(engine: Engine, slot: Slot, flight: Flight, error: ProviderUnavailable) -> None:
    """Tell at once what an exchange's attempt has learned, while it goes on: the next one is seconds away."""
    if engine.flights.is_current(flight):
        slot.last_error = error


def await_recovery(engine: Engine, slot: Slot, error: ProviderUnavailable, *, exchanged: bool = False) -> None:
    """Note a failure, and let the slot wait for its authority to work again.

    Args:
        engine: Whose policies hold.
        slot: Whose token.
        error: What happened.
        exchanged: Whether the provider was asked; a refusal of our own is no failure of its.
    """
    now = engine.clock.monotonic()
    slot.not_before = now + _backoff(engine, slot, error)
    if exchanged:
        slot.failures += 1
        slot.failed_at = now
    # Last: whoever sees it, as health does, sees the rest.
    slot.last_error = error if exchanged else _root(slot.last_error, error)
    if slot.renew is not None:
        for site in _sites(slot):
            _recovery_of(engine, site, slot.purpose).add(engine, slot)


def _sites(slot: Slot) -> list[Endpoint]:
    return list(dict.fromkeys(endpoint.site for endpoint in slot.authorities))


def _recovery_of(engine: Engine, site: Endpoint, purpose: Purpose) -> _Recovery:
    key = (site, purpose)
    recovery: _Recovery = engine.recoveries.get(key) or engine.recoveries.setdefault(key, _Recovery(engine, *key))
    return recovery


def recovered(engine: Engine, slot: Slot) -> None:
    """Wake what waits for the authorities that have just given a token."""
    for site in _sites(slot):
        recovery = engine.recoveries.get((site, slot.purpose))
        if recovery is not None:
            recovery.drain(engine)


@_forks.resumed
def _after_fork() -> None:
    # The parent's timers aren't there: what is pinned is scheduled anew.
    for memory in memories():
        for slot in memory:
            if slot.pinned:
                _schedule(memory.engine, slot)
