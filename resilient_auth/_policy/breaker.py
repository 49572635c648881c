"""When the circuit of a failing dependency opens, and how it is probed (G9, G10, G11).

    closed ──failure that trips──▶ open ──break is over, next call──▶ half-open ──successes_to_close──▶ closed
                                     ▲                                    │
                                     └──────────── a probe failed ────────┘
    any ──isolate()──▶ isolated        any ──reset()──▶ closed

pybreaker holds the state and decides on every change but the one from open to half-open; the gate around it decides who
may call. Calls run outside of every lock and their outcomes are replayed through pybreaker afterwards. Each change of
state begins a new *era*: a verdict on a call that was admitted in an earlier one changes nothing, but for one thing:
no probe goes out within 5 s of any failure, late ones included.

A call may say who it is for. Then one of many that always fails neither opens the breaker nor holds it open: while it
is closed, who has failed counts once until they succeed, and as a probe they let those go first who haven't.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import asdict

from .._process.living import LiveObjects
from .._process.loading import load
from ..clock import Clock, Jitter
from ..errors import CircuitOpen
from ..events import BreakerClosed, BreakerHalfOpen, BreakerIsolated, BreakerOpened, Event, emit
from .circuit.options import FLOOR, BreakerOptions
from .circuit.permit import Permit, Verdict
from .circuit.status import BreakerStatus, Dependency, State

__all__ = [
    "Breaker",
    "BreakerOptions",
    "BreakerStatus",
    "Dependency",
    "Permit",
    "Verdict",
    "breakers",
    "dismiss",
    "prepare",
]

#: How far a break is drawn to either side of its middle, as a share of it.
_SPREAD = 0.5
#: Seconds for which who has failed lets those go first who haven't, and were refused in this break.
_YIELD = 5.0
#: Of so many it is known that they have failed and been counted.
_MOST_FAILING = 4096


def prepare() -> None:
    """Load what breakers stand on: called by whoever will make some, on their owner's thread and outside of locks."""
    load("resilient_auth._policy.circuit.window")


class Breaker:
    """Admit calls to one dependency while it works, and few or none while it doesn't (G11).

    Threads and asyncio tasks may share one: nothing here waits for anything but a lock held for microseconds.

    Args:
        dependency: What it is around, for errors, events and health.
        options: The owner's limits.
        clock: Gives the time; breaks are measured on its monotonic side.
        jitter: Draws breaks, so that a fleet doesn't come back in step.
        tell: Called with each event, outside of the lock.
    """

    def __init__(
        self,
        dependency: Dependency,
        options: BreakerOptions,
        *,
        clock: Clock,
        jitter: Jitter,
        tell: Callable[[Event], None] = emit,
    ) -> None:
        self.dependency = dependency
        self._told_as = asdict(dependency)
        self._options = options
        self._monotonic = clock.monotonic
        #: When the clock was looked at last.
        self._seen = clock.monotonic()
        self._wall = clock.wall
        self._jitter = jitter
        self._tell = tell
        self._era = 0
        #: Each probe that is out, with the time at which its lease ends.
        self._probes: dict[Permit, float] = {}
        #: Who has failed, and been counted, since they succeeded last.
        self._failing: dict[Hashable, None] = {}
        #: Whether somebody who hasn't failed was refused in this break.
        self._others_wait = False
        #: On the monotonic clock: the end of the last break, the end that it has when hastened, the last failure.
        self._break_ends = self._urgent_ends = self._last_failure = -math.inf
        from .circuit.window import Window

        self._window = Window(options, self._now)
        self.renew_lock()
        self._forget(self._seen)
        _breakers.add(self)

    def check(self, who: Hashable = None) -> None:
        """Raise `CircuitOpen` if a call would be refused now, and take no permit."""
        if self._state == "closed":
            return
        with self._lock:
            self._refuse_unless_ready(who)

    def admit(self, who: Hashable = None) -> Permit:
        """Take a permit for one call; its verdict is owed.

        Args:
            who: For whom it is, where some may fail alone; None where whatever fails is the dependency's doing.

        Raises:
            CircuitOpen: No call may be made now; `retry_after` says for how long.
        """
        event = None
        with self._lock:
            if self._state == "closed":
                return Permit(self, self._era, who)
            now = self._refuse_unless_ready(who)
            if self._state == "open":
                self._window.circuit.half_open()
                self._begin_era(now)
                event = BreakerHalfOpen(at=self._wall(), **self._told_as)
            permit = Permit(self, self._era, who)
            self._probes = {probe: end for probe, end in self._probes.items() if end > now}
            self._probes[permit] = now + self._options.probe_lease
        if event is not None:
            self._tell(event)
        return permit

    def hasten(self) -> None:
        """Say that somebody has nothing left to serve: breaks are drawn from `urgent_break` from now on.

        A running break ends no later than its urgent end, which was drawn with it, so that calling this again doesn't
        bring it nearer. It holds through failed probes until the breaker closes or `relax` is called. A success while
        closed ends it too.
        """
        with self._lock:
            self._hastened = True
            self._break_ends = min(self._break_ends, self._urgent_ends)

    def relax(self) -> None:
        """Take `hasten` back, from the next break on: a running one keeps the end that callers were told."""
        with self._lock:
            self._hastened = False

    def isolate(self) -> None:
        """Refuse every call until `reset`."""
        with self._lock:
            if self._state == "isolated":
                return
            self._isolated = True
            self._begin_era(self._now())
        self._tell(BreakerIsolated(at=self._wall(), isolated=True, **self._told_as))

    def reset(self) -> None:
        """Close, and forget every failure and break."""
        events: list[Event] = []
        with self._lock:
            now, wall = self._now(), self._wall()
            if self._isolated:
                events.append(BreakerIsolated(at=wall, isolated=False, **self._told_as))
            if self._window.state != "closed":
                self._window.circuit.close()
                events.append(BreakerClosed(at=wall, seconds=now - self._down_at, **self._told_as))
            self._window.forget()
            self._forget(now)
        for event in events:
            self._tell(event)

    def status(self) -> BreakerStatus:
        """Return how it stands, for health reports.

        It takes no lock: a signal's handler may ask, amid what holds it. At worst one value is a moment newer than
        another.
        """
        now, wall, state, failing_at = self._now(), self._wall(), self._state, self._failing_at
        return BreakerStatus(
            state=state,
            since=wall - (now - self._changed_at),
            retry_after=max(self._ready_at() - now, 0.0) if state in ("open", "half-open") else None,
            failing_since=None if failing_at is None else wall - (now - failing_at),
            last_code=self._code,
            era=self._era,
            **self._told_as,
        )

    @property
    def retry_at(self) -> float | None:
        """Return the monotonic time from which a call is let through; None while closed or isolated."""
        return self.opens_at()

    def opens_at(self, who: Hashable = None) -> float | None:
        """Return the monotonic time from which a call for `who` is let through; None while closed or isolated."""
        with self._lock:
            self._now()
            return self._ready_at(who) if self._state in ("open", "half-open") else None

    @property
    def closed(self) -> bool:
        """Return whether it is closed, without a lock."""
        return not self._isolated and self._window.state == "closed"

    def failing(self) -> tuple[bool, float]:
        """Return whether it is observed to be down, and the seconds since its first failure after its last success.

        Observed means open or half-open through failures: what an operator isolated isn't.
        """
        with self._lock:
            if self._failing_at is None:
                return False, 0.0
            return self._state in ("open", "half-open"), self._now() - self._failing_at

    @property
    def failing_at(self) -> float | None:
        """Return the monotonic time of the first failure after the last success, without a lock; None for none."""
        return self._failing_at

    def renew_lock(self) -> None:
        """Make a breaker usable in a forked child: the state stays, the parent's calls are forgotten."""
        self._lock = threading.Lock()
        self._window.renew_lock()
        self._probes = {}
        self._era += 1

    # What follows is called with the lock held, `settle` excepted, and by `status` without it.

    def _now(self) -> float:
        """Read the clock, and take along what was noted where it was set back, as when a machine is restored."""
        now = self._monotonic()
        back = self._seen - now
        self._seen = now
        if back > 0:
            self._break_ends -= back
            self._urgent_ends -= back
            self._last_failure -= back
            self._changed_at -= back
            self._down_at -= back
            if self._failing_at is not None:
                self._failing_at -= back
            self._probes = {probe: end - back for probe, end in self._probes.items()}
            self._window.begin_anew()
        return now

    @property
    def _state(self) -> State:
        return "isolated" if self._isolated else self._window.state  # type: ignore[return-value]

    def _forget(self, now: float) -> None:
        self._failing.clear()
        self._isolated = False
        self._hastened = False
        self._break = self._options.first_break
        self._break_ends = self._urgent_ends = self._last_failure = -math.inf
        self._failing_at: float | None = None
        self._code: str | None = None
        self._down_at = now
        self._begin_era(now)

    def _begin_era(self, now: float) -> None:
        self._era += 1
        self._changed_at = now
        self._probes = {}

    def _ready_at(self, who: Hashable = None) -> float:
        rested, leases = max(self._break_ends, self._last_failure + FLOOR), list(self._probes.values())
        if self._others_wait and who in self._failing:
            rested += _YIELD
        return rested if len(leases) < self._options.probes else max(rested, min(leases))

    def _refuse_unless_ready(self, who: Hashable) -> float:
        state, now = self._state, self._now()
        if state == "closed":
            return now
        if state == "isolated":
            text = f"{self.dependency.name}: isolated by hand with isolate(); reset() ends that"
            raise CircuitOpen(text, authority=self.dependency.whom)
        wait = self._ready_at(who) - now
        if wait <= 0:
            return now
        if who in self._failing:
            if not self._others_wait:
                wait += _YIELD  # others may come to wait until then, and what is told is to hold
        elif who is not None:
            self._others_wait = True
        if state == "half-open" and self._probes:
            wait = min(wait, 1.0)
            what = f"a probe is out, try again in {wait:.1f} s"
        else:
            what = f"next probe in {wait:.1f} s"
        text = f"{self.dependency.name}: circuit open after {self._code}; {what}"
        raise CircuitOpen(text, authority=self.dependency.whom, retry_after=wait)

    def settle(self, permit: Permit, verdict: Verdict, code: str = "", *, whoever: bool = False) -> bool:
        event: Event | None = None
        with self._lock:
            if permit.settled:
                return False
            permit.settled = True
            before, who = self._state, permit.who
            if verdict is Verdict.SUCCESS and self._failing:
                self._failing.pop(who, None)
            elif verdict is Verdict.FAILURE and who is not None and not whoever and permit.era == self._era:
                if who in self._failing and before == "closed":
                    return False
                if len(self._failing) >= _MOST_FAILING:
                    self._failing.clear()
                self._failing[who] = None
            if before == "closed" and verdict is Verdict.SUCCESS and permit.era == self._era:
                # Where nothing fails, this is all there is to a call: it changes no state and needs no time.
                self._failing_at = None
                self._hastened = False
                # As pybreaker would: a success while closed is a number in the window, and nothing else.
                self._window.reset_counter()
                return True
            now = self._now()
            counts = permit.era == self._era and (before == "closed" or self._probes.pop(permit, now) > now)
            if verdict is Verdict.FAILURE:
                quiet = now - max(self._last_failure, self._changed_at)
                self._last_failure = now
                if counts:
                    self._window.rated = who is None or whoever
                    event = self._failed(now, code, before, quiet)
            elif verdict is Verdict.SUCCESS and counts:
                event = self._probe_succeeded(now)
        if event is not None:
            self._tell(event)
        return counts

    def _probe_succeeded(self, now: float) -> Event | None:
        self._failing_at = None
        self._window.succeeded()
        if self._state != "closed":
            return None
        self._hastened = False
        self._window.forget()
        self._break = max(self._break / self._options.break_growth, self._options.first_break)
        self._begin_era(now)
        return BreakerClosed(at=self._wall(), seconds=now - self._down_at, **self._told_as)

    def _failed(self, now: float, code: str, before: State, quiet: float) -> Event | None:
        options = self._options
        self._code = code
        if self._failing_at is None:
            self._failing_at = now
        self._window.failed()
        if before == "closed" and quiet > options.window:
            self._break = options.first_break
        if self._state != "open":
            return None
        if before == "closed":
            self._down_at = self._failing_at
        else:
            # Kept as seconds and bounded: a number of steps would overflow in a long outage.
            self._break = min(self._break * options.break_growth, options.longest_break)
        # The bounds shrink, not what was drawn, or the fleet would come back in step at the longest break.
        middle = min(self._break, options.longest_break / (1 + _SPREAD))
        low = max(middle * (1 - _SPREAD), FLOOR)
        high = max(middle * (1 + _SPREAD), low)
        self._break_ends = now + self._jitter(low, high)
        self._urgent_ends = now + self._jitter(*options.urgent_break)
        if self._hastened:
            self._break_ends = min(self._break_ends, self._urgent_ends)
        self._others_wait = False
        self._begin_era(now)
        return BreakerOpened(at=self._wall(), seconds=self._break_ends - now, code=code, **self._told_as)


_breakers: LiveObjects[Breaker] = LiveObjects()


def dismiss(breaker: Breaker) -> None:
    """Take one out of the list: nobody goes by it any more."""
    _breakers.discard(breaker)


def breakers() -> list[Breaker]:
    """List the breakers of this process, around providers and APIs."""
    return sorted(_breakers.all(), key=lambda breaker: breaker.dependency.name)
