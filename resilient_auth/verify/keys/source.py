"""An issuer's keys, fetched on the engine's workers: in the background, on time, and once for all who wait (G15).

A caller whose token's key is held reads a view, and neither waits nor locks. One whose key isn't joins the one
fetch that is under way, for as long as it may wait.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import replace
from math import inf

from ..._engine.acquire import patience_of
from ..._engine.engine import Engine
from ..._engine.single_flight import Flight, Outcome, WaitFor, carrying
from ..._engine.timers import Timer
from ..._policy.endpoint import Endpoint, origin_of
from ..._policy.failure import Purpose
from ..._policy.key_reports import KeysHealth, reporters
from ..._process import forks
from ..._wire.connection import HttpxWire
from ...errors import Closed, ConfigurationError, MalformedAnswer, ProviderUnavailable
from ...events import KeysAnomaly, KeysRefreshed, KeysRefreshFailed, PinnedKeysInUse, emit, told_later
from ..errors import InvalidToken, VerificationUnavailable
from ..jose.jwk import VerificationKey
from ..options import KeyOptions
from ..trust import Trust
from .fetching import DocumentFetcher
from .key_set import FetchSchedule, KeySet, View

__all__ = ["KeySource", "Obtaining"]

#: Yields a flight and for how many seconds to wait for it; is sent its outcome, or None when that time has passed.
Obtaining = Generator[WaitFor, Outcome | None, VerificationKey]

#: The share of `refresh_every` after which a refresh is made, so that a fleet's don't come at once.
_EARLY = (0.8, 0.95)


class KeySource:
    """Keep one issuer's keys.

    Args:
        engine: Whose workers, timers and breakers are used.
        wire: Sends the requests.
        trust: What is expected of the documents.
        algorithms: Those that keys are wanted for.
        options: The owner's.
        pinned: The owner's keys for a cold start, by `kid`.
    """

    def __init__(
        self,
        engine: Engine,
        wire: HttpxWire,
        trust: Trust,
        *,
        algorithms: frozenset[str],
        options: KeyOptions,
        pinned: Mapping[str, VerificationKey] | None = None,
    ) -> None:
        self.engine = engine
        self.wire = wire
        self.trust = trust
        self.issuer = trust.issuers[0]
        self._options = options
        self._origin = origin_of(trust.discovery)
        self.site = Endpoint(self._origin, wire=wire.identity)
        self._asking = FetchSchedule(options)
        self.documents = DocumentFetcher(engine, wire, trust, algorithms, options)
        self._keys = KeySet(pinned=dict(pinned or {}))
        #: As the store was seen to keep them, for a forecast; they are read again when a token needs them.
        self._stored: KeySet | None = None
        self._last_error: str | None = None
        self._reported_pinned = False
        self._flight_key = ("keys", id(self))
        self.closed = False
        #: Read without a lock.
        self.view = View()
        self._renew()
        # A verifier that is dropped without being closed leaves no connection open.
        weakref.finalize(self, wire.abandon).atexit = False
        reporters.add(self)
        forks.renew_in_children(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        #: The places of callers that wait no more, until one that holds the lock clears them.
        self._left: deque[str] = deque()
        self._timer: Timer | None = None
        self._asking.forget_waiting()
        # The next look schedules refreshes again.
        self.view = replace(self.view, until=-inf)

    def after_fork(self) -> None:
        """Make it usable in a forked child, which has none of its parent's threads."""
        self.documents.renew()
        self._renew()

    @property
    def tenant(self) -> str | None:
        """The tenant whose tokens are accepted, where the trust or the discovery document names one."""
        facts = self.documents.facts
        return self.trust.tenant or (None if facts is None else facts.tenant)

    def look(self) -> View:
        """Take a new view, and schedule the next refresh."""
        now = self.engine.clock.monotonic()
        with self._lock:
            self._publish(now)
            # Where there is no key at all, the first caller that needs one fetches it.
            if self._timer is None and self.view.keys and not self.closed:
                due = now if self._keys.obtained_at is None else self._keys.obtained_at + self._after()
                self._refresh_at(max(now, due, self._asking.not_before))
            return self.view

    def current(self) -> View:
        """Return what can be verified with now."""
        view = self.view
        return view if self.engine.clock.monotonic() < view.until else self.look()

    def obtaining(self, kid: str | None) -> Obtaining:
        """Get a key that isn't held, step by step; the drivers do the waiting.

        Args:
            kid: Which; None for whichever, so that there are keys at all.

        Raises:
            InvalidToken: The issuer was asked for this token, and has no such key, or one that can't be used.
            VerificationUnavailable: The keys are unavailable.
        """
        clock = self.engine.clock
        arrived = clock.monotonic()
        ends = arrived + patience_of(self._options.wait)
        while True:
            found = self._key_or_flight(kid)
            if isinstance(found, VerificationKey):
                return found
            flight, place = found
            try:
                outcome = yield WaitFor(flight, max(0.0, ends - clock.monotonic()))
            finally:
                # Without the lock: a task that is never resumed is ended by the collector, where others may hold it.
                self._left.append(place)
            view = self.current()
            key = _key_in(view, kid)
            if key is not None:
                return key
            _check_fit(view, kid)
            if outcome is None:
                raise self._unavailable("it hasn't answered yet", 1.0)
            if outcome.error is not None:
                error = outcome.error
                detail = error.message if isinstance(error, ProviderUnavailable) else type(error).__name__
                raise self._unavailable(detail, self._wait_after_failure())
            sent_at: float = outcome.result
            # A fetch that was under way before this token came may have missed its key: then once more. And what was
            # missed for this token is no verdict on the next: keys are published at any time, replicas may be late.
            if kid is not None and sent_at >= arrived:
                raise InvalidToken("unknown_key", "the token's key isn't one of its issuer's")

    def _key_or_flight(self, kid: str | None) -> VerificationKey | tuple[Flight, str]:
        """Give a key, or the fetch to wait for and the place that was taken among those who wait."""
        engine = self.engine
        now = engine.clock.monotonic()
        with self._lock:
            if self.closed:
                raise Closed("this verifier was closed: make a new one, or close it later")
            self._publish(now)
            keys, asking = self.view.keys, self._asking
            while self._left:
                asking.leave(self._left.popleft())
            key = _key_in(self.view, kid)
            if key is not None:
                return key
            _check_fit(self.view, kid)
            flight = engine.flights.find(self._flight_key)
            place = kid if kid is not None and keys else ""
            if flight is None:
                wait = asking.may_ask(now) if place else asking.may_load(now)
                if wait > 0:
                    why = (
                        "an unknown key was requested a moment ago" if place else "the last request failed a moment ago"
                    )
                    raise self._unavailable(why, wait)
            if not asking.enter(place):
                raise self._unavailable("too many wait for them already", 1.0)
            if flight is None:
                if place:
                    asking.asked(now)
                flight = self._begin()
            return flight, place

    def refresh(self) -> None:
        """Fetch the keys in the background, unless they are being fetched."""
        with self._lock:
            if not self.closed and self.engine.flights.find(self._flight_key) is None:
                self._begin()

    def _begin(self) -> Flight:
        """Begin the one fetch; the caller holds the lock."""
        engine = self.engine
        # Two documents at most.
        deadline = engine.clock.monotonic() + 2 * engine.settings.attempt_timeout + 1.0
        flight, mine = engine.flights.join(self._flight_key, deadline)
        if mine:
            try:
                engine.run(f"{self.site.lane} {Purpose.KEYS}", lambda: self._fly(flight))
            except ProviderUnavailable as error:
                engine.flights.end(flight)
                flight.land(Outcome(error=error))
        return flight

    def _fly(self, flight: Flight) -> None:
        """Fetch, on a worker, and emit events when nobody waits any more."""
        with carrying(flight.key), told_later():
            self._carry_out(flight)

    def _carry_out(self, flight: Flight) -> None:
        outcome = Outcome(error=RuntimeError("the fetch ended early"))
        restored = False
        try:
            if self._keys.obtained_at is None and self._restore():
                # Callers that wait for these needn't wait for newer ones, which may be unavailable.
                outcome = Outcome(result=-inf)
                restored = True
            else:
                outcome = Outcome(result=self._fetch(flight.deadline))
        except ProviderUnavailable as error:
            outcome = Outcome(error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must get it
            detail = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
            text = f"the keys of {self._origin} couldn't be read: {detail}"
            outcome = Outcome(error=MalformedAnswer(text, authority=self._origin))
        finally:
            if isinstance(outcome.error, ProviderUnavailable):
                self._failed(outcome.error)
            self.engine.flights.end(flight)
            flight.land(outcome)
            if restored:
                self.refresh()

    def _fetch(self, ends: float) -> float:
        """Fetch what is due and take it in; return when the keys were asked for."""
        clock, options = self.engine.clock, self._options
        found, text, sent_at = self.documents.fetch(ends, urgent=not self.view.keys)
        now = clock.monotonic()
        with self._lock:
            before = self._keys
            self._keys, anomalies = before.merged(found.usable, now, options, found.unfit)
            good = self._keys.obtained_at == now
            if good:
                self._asking.succeeded()
                self._last_error = None
                self._schedule(now + self._after())
            self._publish(now, anew=True)
        wall = clock.wall()
        for anomaly in anomalies:
            emit(KeysAnomaly(at=wall, issuer=self.issuer, code=anomaly.kind, kids=anomaly.kids))
        if not good:
            why = f": {found.refused[0]}" if found.refused else ""
            raise MalformedAnswer(f"{self._origin} gave a key set without a usable key{why}")
        emit(
            KeysRefreshed(
                at=wall,
                issuer=self.issuer,
                count=len(found.usable),
                added=tuple(sorted(found.usable.keys() - before.held.keys())),
                missing=tuple(sorted(before.listed - found.usable.keys())),
                refused=found.refused,
            )
        )
        self.documents.keep(text, wall)
        return sent_at

    def _restore(self) -> bool:
        """Take in what the store has kept, unless it is too old; return whether it was."""
        kept = self.documents.restore()
        if kept is None:
            return False
        with self._lock:
            self._keys = kept.into(self._keys)
            self._publish(self.engine.clock.monotonic(), anew=True)
            return self._keys.obtained_at is not None

    def _failed(self, error: ProviderUnavailable) -> None:
        clock = self.engine.clock
        now = clock.monotonic()
        with self._lock:
            self._publish(now)
            keys, age, self._last_error = len(self.view.keys), self._keys.obtained_at, error.code
            delay = self._asking.failed(now, urgent=not keys, retry_after=error.retry_after)
            self._schedule(now + delay)
        emit(
            KeysRefreshFailed(
                at=clock.wall(),
                issuer=self.issuer,
                code=error.code,
                detail=error.message,
                count=keys,
                age=None if age is None else now - age,
                retry_after=delay,
            )
        )
        if self.view.provenance.keys == "pinned" and not self._reported_pinned:
            self._reported_pinned = True
            emit(PinnedKeysInUse(at=clock.wall(), issuer=self.issuer, count=keys))

    def _after(self) -> float:
        return self._options.refresh_every * self.engine.jitter(*_EARLY)

    def _publish(self, now: float, *, anew: bool = False) -> None:
        """Swap the view where its time is over, or the keys are others; the caller holds the lock."""
        if anew or now >= self.view.until:
            self.view = self._keys.view(now, self._options)

    def _schedule(self, when: float) -> None:
        """Have the keys refreshed then and not otherwise; the caller holds the lock."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed:
            self._refresh_at(when)

    def _refresh_at(self, when: float) -> None:
        reference = weakref.ref(self)

        def refresh() -> None:
            source = reference()
            if source is not None:
                source.refresh()

        self._timer = self.engine.timers.call_at(when, refresh)

    def _wait_after_failure(self) -> float:
        with self._lock:
            now = self.engine.clock.monotonic()
            return self._asking.may_ask(now) if self.view.keys else self._asking.may_load(now)

    def _unavailable(self, why: str, retry_after: float) -> VerificationUnavailable:
        message = f"signing keys of {self._origin} are unavailable ({why}); try again in {retry_after:.0f} s"
        return VerificationUnavailable(message, authority=self._origin, retry_after=retry_after)

    def report(self) -> KeysHealth:
        """Return how the keys stand, for health reports."""
        return self._report(self._keys)

    def foreseen(self) -> KeysHealth | None:
        """Return how they stand for who verifies next: where none is held, those in the store are restored then."""
        seen = self.report()
        if seen.state == "none" and self._stored is not None:
            seen = self._report(self._stored)
        return seen if seen.state != "none" or seen.failures else None

    def take_stock(self) -> bool:
        """See what the store keeps, where nothing is held, and return whether there is one; for forecasts.

        Raises:
            StoreUnavailable: It can't tell; what was seen last holds.
        """
        if not self.closed and self._keys.obtained_at is None and not self._keys.pinned:
            kept = self.documents.kept()
            self._stored = None if kept is None else kept.into(self._keys)
        return self.documents.has_store

    def _report(self, keys: KeySet) -> KeysHealth:
        # Without the lock: a signal's handler may ask, amid what holds it. What is read is swapped whole.
        now = self.engine.clock.monotonic()
        view, obtained_at = keys.view(now, self._options), keys.obtained_at
        return KeysHealth(
            authority=self._origin,
            issuer=self.issuer,
            state=view.provenance.keys if view.keys else "none",
            age=None if obtained_at is None else now - obtained_at,
            keys=len(view.keys),
            time_to_dark=keys.time_to_dark(now, self._options),
            failures=self._asking.failures,
            last_code=self._last_error,
        )

    def close(self) -> None:
        """End refreshes, and close idle connections."""
        with self._lock:
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
        reporters.discard(self)  # nobody verifies with these any more
        self.documents.transport.close()


def _key_in(view: View, kid: str | None) -> VerificationKey | None:
    return next(iter(view.keys.values()), None) if kid is None else view.keys.get(kid)


def _check_fit(view: View, kid: str | None) -> None:
    """Raise `InvalidToken` where the issuer lists a token's key, and it can't be used."""
    if kid in view.unfit:
        raise InvalidToken("key", "the token's key is listed by its issuer, and isn't fit to verify with")
