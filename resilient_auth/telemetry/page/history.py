"""What circuits did while a status page was mounted: a bounded list, kept from events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..._policy.breaker import breakers
from ..._policy.circuit.status import Dependency, State
from ...events import BreakerClosed, BreakerHalfOpen, BreakerIsolated, BreakerOpened, Event
from ...events.delivery import subscribe_to
from ..listening import BreakerEvent, transition

__all__ = ["Change", "History", "Lane", "Outage", "history"]

#: Changes that are kept, and seconds for which one is shown. A half-open probe every minute and a half is two of them.
_MOST: Final = 4096
SHOWN: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Change:
    """A circuit that changed its state, at a time in seconds since the epoch."""

    at: float
    name: str
    state: State
    code: str = ""
    provider: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """A span in which a circuit wasn't closed; `ended` is None while that goes on."""

    name: str
    began: float
    ended: float | None
    code: str
    provider: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """One circuit's states, each with when it began."""

    name: str
    changes: tuple[Change, ...]


class History:
    """Keep what circuits did. Events come from any thread: each appends one value, without a lock."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=_MOST)
        self._unsubscribe: Callable[[], None] | None = None
        #: Since when it is kept, in seconds since the epoch; None before that.
        self.since: float | None = None

    def begin(self) -> None:
        """Keep it from now on; a second call changes nothing."""
        if self._unsubscribe is not None:
            return
        self._unsubscribe = subscribe_to((BreakerOpened, BreakerHalfOpen, BreakerClosed, BreakerIsolated), self)
        self.since = time.time()
        for breaker in breakers():
            status = breaker.status()
            if status.state != "closed":
                self._note(status, status.since, status.state, status.last_code or "")

    def end(self) -> None:
        """Keep nothing more, and forget what was kept."""
        unsubscribe, self._unsubscribe, self.since = self._unsubscribe, None, None
        if unsubscribe is not None:
            unsubscribe()
        self._changes.clear()

    def __call__(self, event: Event) -> None:
        """Note an event."""
        changed = transition(event)
        if changed is not None:
            breaker, state, code = changed
            self._note(breaker, event.at, state, code)

    def _note(self, of: Dependency | BreakerEvent, at: float, state: State, code: str) -> None:
        name = " ".join(filter(None, (of.authority or of.target, of.purpose, of.part)))
        self._changes.append(Change(at, f"{name} over {of.wire}" if of.wire else name, state, code, bool(of.authority)))

    def lanes(self, now: float, most: int) -> list[Lane]:
        """Return the circuits that changed lately, those that did so last first."""
        found: dict[str, list[Change]] = {}
        for change in list(self._changes):
            found.setdefault(change.name, []).append(change)
        kept = []
        for name, changes in found.items():
            begins = [n for n, change in enumerate(changes) if change.at <= now - SHOWN]
            shown = changes[begins[-1] :] if begins else changes
            if len(shown) > 1 or shown[0].state != "closed":
                kept.append(Lane(name, tuple(shown)))
        return sorted(kept, key=lambda lane: -lane.changes[-1].at)[:most]

    def outages(self, lanes: Sequence[Lane], most: int) -> list[Outage]:
        """Return the spans in which these circuits weren't closed, the last one first."""
        found: list[Outage] = []
        for lane in lanes:
            under_way: Outage | None = None
            for change in lane.changes:
                if change.state == "closed":
                    if under_way is not None:
                        found.append(replace(under_way, ended=change.at))
                    under_way = None
                elif under_way is None:
                    code = change.code or change.state
                    under_way = Outage(lane.name, change.at, None, code, change.provider)
            if under_way is not None:
                found.append(under_way)
        return sorted(found, key=lambda outage: -outage.began)[:most]


#: The process's.
history: Final = History()
