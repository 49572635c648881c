"""A watch: look every minute at what was counted, share it, judge it, and tell whoever wants to know.

    timer ─▶ its thread: collect ─▶ add to the fleet's ─▶ what was told? ─▶ the one who leads: judge ─┐
      ▲                                    │                                                          ▼
      └──── a minute, or when a message is due ◀── events, messages ◀── written: nobody else told it ─┘

Without a store a process leads itself, and so it does while its store fails: rather told twice than never.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from ..._engine.timers import Timer, timers_of
from ..._msal.rotation.trial import date, mark_passed, tell_elsewhere
from ..._process import forks
from ..._process.credential_ends import CredentialEnd, reporters
from ..._process.saying import say
from ...errors import StoreUnavailable
from ...events import (
    AlertOpened,
    AlertResolved,
    ClockJumped,
    ClocksDiffer,
    CredentialExpiring,
    Delivery,
    Event,
    emit,
)
from ..tally import Tally
from .counts import Counts
from .endings import Endings
from .fleet import Fleet
from .options import WatchOptions
from .outbox import Outbox, earliest, message
from .rules import Changed, changes
from .state import State
from .tallied import Tallied
from .values import KINDS, Alert, ServiceLevels

__all__ = ["Watch", "levels_of"]

#: Seconds between two looks; for which one process leads; and for which all read the fleet's numbers at each look, once
#: somebody has asked. Else they do so as rarely.
EVERY: Final = 60.0
_LEADS, _ASKED = 3 * EVERY, 300.0
#: Seconds that must have been looked on before a fall means anything, and by which two clocks may part.
SETTLES: Final = 2700.0
_JUMP: Final = 60.0
#: Seconds after which others have written what they counted while the store failed.
_OTHERS_WRITE: Final = 5 * EVERY
#: Times that what was told is read again, since another process has just written it.
_TRIES: Final = 4
#: Seconds that closing waits for a look that is under way.
_LAST = 2.0


class Watch:
    """Service levels that are measured, until `close` (G25); made by `resilient_auth.telemetry.watch`."""

    def __init__(self, options: WatchOptions, tally: Tally, on_close: Callable[[Watch], object]) -> None:
        self._options = options
        self._on_close = on_close
        self._clock = options.time
        self._tallied = Tallied(tally)
        self._endings = Endings(options.secret_expires, self._clock)
        self._fleet = None if options.store is None else Fleet(options.store, options.name)
        webhook = options.webhook
        self._outbox = None if webhook is None else Outbox(webhook, options.jitter, self._wake, self._wall)
        self._work: Delivery[Callable[[], object]] = Delivery(lambda look: look(), capacity=2)
        self._tallied.begin_here()
        self._closed = False
        self._begin_anew()
        forks.renew_in_children(self)

    def _begin_anew(self) -> None:
        wall, now = self._clock.wall(), self._clock.monotonic()
        # The second one is that of a look; but for the next look, `close` alone waits for it, for a moment.
        self._lock, self._looking = threading.Lock(), threading.Lock()
        #: What this process counted; and that of it which isn't in what was read of the fleet.
        self._own, self._since_read = Counts(wall), Counts(wall)
        self._total: Counts | None = None
        self._read_at: float | None = None
        self._asked_at = self._read_again_at = -math.inf
        #: What was told: by the fleet as it was read last, or by this process alone, where that isn't to be read.
        self._state, self._alone = State(), State()
        self._is_alone = self._fleet is None
        self._looked = (wall, now)
        #: Until when a fall isn't judged; and the ends of credentials aren't, since the clock was set.
        self._unsettled_until, self._doubtful_until = now + SETTLES, -math.inf
        self._timer: Timer | None = None

    def after_fork(self) -> None:
        """Be a process of its own in a forked child."""
        self._work.renew()
        self._endings.renew()
        if self._outbox is not None:
            self._outbox.renew()
        if self._fleet is not None:
            self._fleet.begin_anew()
        self._tallied.begin_at_zero()
        self._begin_anew()

    def begin(self) -> None:
        """Look from now on; in a forked child, again."""
        if not self._closed:
            reporters.add(self)
            tell_elsewhere(True)
            self._wake()

    def credential_ends(self) -> tuple[CredentialEnd, ...]:
        """Return when the credentials of this process's applications end, as far as that is known."""
        return self._endings.all()

    def levels(self) -> ServiceLevels:
        """Return how things stand, without asking anybody."""
        forks.notice()
        wall, now = self._wall(), self._clock.monotonic()
        counts = Counts()
        with self._lock:
            # The first one who asks for a while has the fleet's numbers read, for those who come after.
            stale = self._fleet is not None and now - self._asked_at > _ASKED
            self._asked_at = now
            counts.merge(self._own if self._total is None else self._total, wall)
            if self._total is not None:
                counts.merge(self._since_read, wall)
            for kind, (total, failed) in self._tallied.fresh(take=False).items():
                if total:
                    counts.add(kind, wall, total, failed)
            state = self._alone if self._is_alone else self._state
            read_at = self._read_at
        if stale:
            self._wake()
        return levels_of(counts, wall, watched=True, state=state, read_at=read_at)

    def close(self) -> None:
        """Look no more: what was counted goes to the store, and another process of the fleet leads."""
        forks.notice()
        with self._lock:
            was, self._closed = self._closed, True
            timer = self._timer
        if was:
            return
        if timer is not None:
            timer.cancel()
        reporters.discard(self)
        tell_elsewhere(False)
        self._work.end()
        self._endings.end()
        fleet = self._fleet
        if fleet is not None and self._looking.acquire(timeout=_LAST):
            try:
                wall = self._wall()
                fleet.add(self._collected(wall), wall)
                fleet.resign()
            except StoreUnavailable:
                say(logging.DEBUG, "What was counted last isn't in the store")
            finally:
                self._looking.release()
        if self._outbox is not None:
            self._outbox.end()
        self._on_close(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watch {self._options.name}{' (closed)' if self._closed else ''}>"

    def _wake(self) -> None:
        if not self._work.put(self._look_and_go_on):  # the system has no thread to give now
            self._go_on(EVERY)

    def _look_and_go_on(self) -> None:
        after = EVERY
        try:
            after = self.look()
        except Exception as error:  # noqa: BLE001 - an owner's store or clock; the next look is made in any case
            say(logging.WARNING, "A look at service levels failed: %s", type(error).__name__)
        self._go_on(after)

    def _go_on(self, after: float) -> None:
        with self._lock:
            if self._closed:
                return
            before, when = self._timer, self._clock.monotonic() + after
            self._timer = timers_of(self._clock).call_at(when, self._wake)
        if before is not None:
            before.cancel()

    def look(self) -> float:
        """Look once; return the seconds after which to look again. For one thread at a time; the others wait."""
        with self._looking:
            now = self._clock.monotonic()
            jumped = self._jumped(self._clock.wall(), now)
            if jumped is not None:
                emit(jumped)
            wall = self._wall()
            self._endings.look()
            fresh = self._collected(wall)
            try:
                state = (
                    self._by_itself(wall, now) if self._fleet is None else self._shared(self._fleet, fresh, wall, now)
                )
            except StoreUnavailable:
                state = self._by_itself(wall, now)
        next_at = None if state is None else earliest(state)
        rest = self._options.jitter(0.8 * EVERY, EVERY)
        return rest if next_at is None else min(rest, max(1.0, next_at - wall))

    def _wall(self) -> float:
        """Return the time by the clocks of most of the fleet: by one that is hours off, requests seem to fall."""
        return self._clock.wall() + (0.0 if self._fleet is None else self._fleet.clocks.behind)

    def _jumped(self, wall: float, now: float) -> Event | None:
        """Note that the clock was set, or that this process stood still: then a span wasn't seen whole."""
        (wall_before, before), self._looked = self._looked, (wall, now)
        parted, passed = (wall - wall_before) - (now - before), now - before
        if abs(parted) <= _JUMP and passed <= 5 * EVERY:
            return None
        self._unsettled_until = now + SETTLES
        if abs(parted) <= _JUMP:
            return None
        self._doubtful_until = now + SETTLES
        return ClockJumped(at=wall, target="wall", seconds=parted, rest=SETTLES)

    def _collected(self, wall: float) -> Counts:
        """Take what has come since the last look."""
        fresh = Counts(self._own.since)
        with self._lock:
            for kind, (total, failed) in self._tallied.fresh().items():
                if total:
                    fresh.add(kind, wall, total, failed)
            self._own.merge(fresh, wall)
            self._since_read.merge(fresh, wall)
        return fresh

    def _shared(self, fleet: Fleet, fresh: Counts, wall: float, now: float) -> State | None:
        """Share what was counted, and tell what there is to tell; return what is to be sent, if this process does so.

        Raises:
            StoreUnavailable: The store fails.
        """
        fleet.add(fresh, wall)
        if self._is_alone:  # what others counted meanwhile isn't there yet, and requests would seem to fall
            self._unsettled_until = max(self._unsettled_until, now + _OTHERS_WRITE)
        leads = fleet.lead(_LEADS)
        if leads or now - self._asked_at <= _ASKED or now >= self._read_again_at:
            self._read_fleet(fleet, wall, now)
        for _ in range(_TRIES):
            state, version = fleet.state(wall)
            revised = state.copy()
            if self._is_alone:
                self._hand_over(revised)
            events = list(self._revised(revised, self._total if leads else None, wall, now))
            revised.day = int(wall // 86_400)
            if revised == state or fleet.save(revised, version):
                break
        else:  # others write all the time: the next look says it
            return None
        with self._lock:
            self._state, self._alone, self._is_alone = revised, State(), False
        self._tell(events, revised, wall, sends=leads)
        return revised if leads else None

    def _read_fleet(self, fleet: Fleet, wall: float, now: float) -> None:
        total, unwritten = fleet.total(wall), fleet.unwritten(wall)
        with self._lock:
            self._total, self._since_read, self._read_at = total, unwritten, wall
        self._read_again_at = now + _ASKED
        clocks = fleet.clocks
        ahead = clocks.compare(fleet.reports, self._clock.wall(), now)
        if ahead is None and clocks.agree:
            return
        # What was counted meanwhile may be where others don't look.
        self._unsettled_until = now + SETTLES
        if ahead:
            detail = "counted by theirs" if clocks.agree else "none is that of most, and no fall is judged"
            emit(ClocksDiffer(at=wall, target=self._options.name, seconds=ahead, detail=detail))

    def _by_itself(self, wall: float, now: float) -> State:
        """Tell what there is to tell without a fleet, or beside one of which nobody knows more than was known last."""
        state = self._alone.copy() if self._is_alone else replace(self._state.copy(), outbox=[])
        events = list(self._revised(state, self._own, wall, now))
        with self._lock:
            self._alone, self._is_alone = state, True
        self._tell(events, state, wall, sends=True)
        return state

    def _hand_over(self, state: State) -> None:
        """Tell a fleet what this process has told while it was alone."""
        for key, alert in self._alone.alerts.items():
            if key not in self._state.alerts:
                state.alerts.setdefault(key, alert)
        known = {item.id for item in state.outbox}
        for item in self._alone.outbox:
            if item.id not in known:
                state.post(item)
        for credential, mark in self._alone.warned.items():
            state.warn(credential, mark)

    def _revised(self, state: State, counts: Counts | None, wall: float, now: float) -> Iterator[Event]:
        """Note in a state what there is to tell, and tell it.

        Args:
            state: What was told; it is changed.
            counts: By which to judge; None where another process does.
            wall: The wall time.
            now: The monotonic time.
        """
        if self._outbox is not None:
            yield from self._outbox.account(state, wall)
        found: list[Event] = []
        if counts is not None:
            settled, thresholds = now >= self._unsettled_until, self._options.thresholds
            changed = list(changes(counts, wall, thresholds, state.alerts, state.ended, settled=settled))
            # What a fleet has told isn't over since one process alone sees nothing of it.
            theirs = () if counts is not self._own else self._state.alerts
            changed = [each for each in changed if each.opened or (each.kind, each.code) not in theirs]
            found += [_noted(state, each, self._options.name, wall) for each in changed]
        if now >= self._doubtful_until:
            found += self._expiring(state, wall)
        for event in found:
            yield event
            if self._outbox is not None:
                dropped = state.post(message(event, self._options.name))
                if dropped is not None:
                    yield self._outbox.failed(wall, "queue_full", "too many messages wait", None)

    def _expiring(self, state: State, wall: float) -> Iterator[Event]:
        for end in self._endings.all():
            mark = mark_passed(end.remaining)
            if mark is None or not state.warn(f"{end.credential} of {end.client_id} until {date(end.at)}", mark):
                continue
            yield CredentialExpiring(
                at=wall,
                authority=end.authority,
                client_id=end.client_id,
                target=end.target,
                expires=date(end.at),
                remaining=end.remaining,
                credential=end.credential,
            )

    def _tell(self, events: list[Event], state: State, wall: float, *, sends: bool) -> None:
        for event in events:
            emit(event)
        if self._outbox is not None:
            self._outbox.accounted()
            if sends:
                self._outbox.send(state, wall)


def _noted(state: State, changed: Changed, name: str, wall: float) -> Event:
    """Note in a state that an alert opened or ended, and return the event."""
    kind, code, detail, totals = changed.kind, changed.code, changed.detail, changed.totals
    told: dict[str, Any] = {"at": wall, "target": name, "kind": kind, "code": code, "detail": detail}
    told |= {"count": totals.total, "failed": totals.failed}
    if changed.opened:
        state.alerts[kind, code] = Alert(kind=kind, code=code, since=wall, detail=detail)
        return AlertOpened(**told)
    lasted = max(0.0, wall - state.alerts.pop((kind, code)).since)
    state.ended[kind, code] = wall
    return AlertResolved(**told, seconds=lasted)


def levels_of(
    counts: Counts, wall: float, *, watched: bool, state: State | None = None, read_at: float | None = None
) -> ServiceLevels:
    """Return what is shown of counts."""
    return ServiceLevels(
        at=wall,
        watched=watched,
        levels=tuple(counts.level(kind, wall) for kind in KINDS),
        alerts=() if state is None else tuple(state.alerts.values()),
        read_at=read_at,
        since=None if counts.since == math.inf else counts.since,
    )
