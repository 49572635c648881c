"""Recovery: what waits for a provider to give tokens again, and who asks it first (G5)."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Mapping

from .._policy.breaker import Breaker
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.levels import ProviderRequest
from .._process import forks
from .._process.living import weakly
from ..errors import AcquisitionTimeout, ProviderUnavailable
from .cache import CacheEntry
from .engine import Engine
from .exchange import URGENT_SPREAD, Verdict, begin, note_failure, remaining, spread, under_way
from .single_flight import Exchange, Flight, carrying
from .timers import Timer

__all__ = ["await_recovery", "landed", "refresh_in_background", "watch_over"]


def refresh_in_background(engine: Engine, entry: CacheEntry, exchange: Exchange) -> None:
    """Begin a refresh that nobody waits for, unless one runs or the last failure is too near."""
    if entry.rest_left(engine.clock.monotonic()) > 0:
        return
    try:
        with carrying(None):  # it is a flight of its own, whoever has just landed
            begin(engine, entry, exchange, landed=landed, unasked=True)
    except ProviderUnavailable as error:
        await_recovery(engine, entry, error)


def await_recovery(engine: Engine, entry: CacheEntry, error: ProviderUnavailable) -> None:
    """Note that an entry's exchange is refused, and let it wait for its authority to work again."""
    note_failure(engine, entry, error, exchanged=False)
    landed(engine, entry, Verdict.FAILED)


def watch_over(engine: Engine, entry: CacheEntry) -> None:
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

    entry.timer = engine.timers.call_at(flight.deadline, weakly(entry, look))


#: By engine, and by site and purpose, the tokens that wait for recovery.
_recovering: weakref.WeakKeyDictionary[Engine, dict[tuple[Endpoint, Purpose], _Recovery]] = weakref.WeakKeyDictionary()


class _Recovery:
    """The entries that wait for one provider to give tokens again, over one wire.

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
        now, left = engine.clock.monotonic(), remaining(engine, entry)
        when_it_matters = self._ready_at(engine, entry, now)
        if left > 0:
            when_it_matters = min(when_it_matters, now + left)
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
            if renew is not None and (entry.pinned or remaining(engine, entry) <= 0):
                refresh_in_background(engine, entry, renew)

    def arm(self, engine: Engine) -> bool:
        """Set the timer for when the first one of those who wait may go, or has nothing left; False where none does."""
        wanted, gone = self._wanted(engine)
        now = engine.clock.monotonic()
        dark = [entry for entry in wanted if remaining(engine, entry) <= 0]
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
            when += engine.jitter(0.0, spread(remaining(engine, entry)))
        elif dark and when <= now:
            # A fleet whose tokens ran out together must not ask together.
            when = now + engine.jitter(0.05, URGENT_SPREAD)
        calm = [remaining(engine, entry) for entry in wanted if entry not in dark]
        when = max(min(when, now + min(calm, default=math.inf)), now + 0.05)
        with self._lock:
            if self._timer is not None:
                # One that was drawn before holds, or who comes often enough would put it off for ever.
                if self._timer.pending and max(ready, now) <= self._when <= when:
                    return True
                self._timer.cancel()
            self._when = when
            self._timer = engine.timers.call_at(when, weakly(self, _Recovery._fire))
        return True

    def _end(self, engine: Engine) -> None:
        """Let go of this where nobody waits."""
        with self._lock:
            if len(self._waiting):
                return
            self._over = True
            timer, self._timer = self._timer, None
            kept = _recovering.get(engine, {})
            if kept.get((self._site, self._purpose)) is self:
                del kept[self._site, self._purpose]
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

    def _fire(self) -> None:
        engine = self._engine()
        if engine is None:
            return
        wanted, _ = self._wanted(engine)
        now = engine.clock.monotonic()
        ready = [entry for entry in wanted if self._ready_at(engine, entry, now) <= now]
        if ready:
            entry = min(ready, key=lambda s: (s.tried_at, remaining(engine, s)))
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
            flight = begin(engine, entry, renew, landed=landed, unasked=True)
        except ProviderUnavailable as error:
            await_recovery(engine, entry, error)
            return
        if probed:
            with self._lock:
                self._probes.append((weakref.ref(flight), probed))
        watch_over(engine, entry)


def _ends(reference: weakref.ref[Flight]) -> float:
    """Return the monotonic time until which an exchange under way is to be waited for."""
    flight = reference()
    return -math.inf if flight is None or flight.over or flight.outcome is not None else flight.deadline


def _wait(engine: Engine, entry: CacheEntry) -> None:
    kept = _recovering.setdefault(engine, {})
    for site in _sites(entry):
        key = (site, entry.purpose)
        while not kept.setdefault(key, _Recovery(engine, *key)).add(engine, entry):
            pass  # that one was over, and another takes its place


def _sites(entry: CacheEntry) -> list[Endpoint]:
    return list(dict.fromkeys(endpoint.site for endpoint in entry.authorities))


def _recoveries(kept: Mapping[tuple[Endpoint, Purpose], _Recovery], entry: CacheEntry) -> list[_Recovery]:
    found = (kept.get((site, entry.purpose)) for site in _sites(entry))
    return [recovery for recovery in found if recovery is not None]


def landed(engine: Engine, entry: CacheEntry, verdict: Verdict) -> None:
    """Let those who wait for a provider learn what an exchange says of it.

    Where it has answered they are woken. Where it failed, the entry waits with them. Where nothing is known, since its
    exchange has told nothing of the provider, they go on as they would have without it.
    """
    if verdict is Verdict.FAILED and entry.renew is not None:
        _wait(engine, entry)
        return
    kept = _recovering.get(engine)
    for recovery in _recoveries(kept, entry) if kept else ():
        if verdict is Verdict.ANSWERED:
            recovery.drain(engine, entry)
        else:
            recovery.arm(engine)


@forks.renewed
def _after_fork() -> None:
    global _recovering
    _recovering = weakref.WeakKeyDictionary()  # the parent's threads may have been in the middle of a change
