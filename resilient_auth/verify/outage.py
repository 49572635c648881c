"""Whether a provider is down, as scheduled probes see it, on which no request has any influence.

    UP ──a round fails──▶ SUSPECTED ──the next one fails too──▶ DOWN
     ▲                        │                                  │
     └────── any answer ──────┴──────────────────────────────────┘

A round looks at the discovery document and at the token endpoint, and fails when neither answers.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Final

from .._engine.timers import Timer
from .._policy.failure import Purpose
from .._process.living import LiveObjects
from ..errors import LocalResourcesExhausted, ProviderUnavailable
from ..events import ProviderSeenDown, ProviderSeenUp, emit
from .keys.source import KeySource
from .options import GraceOptions

__all__ = ["Observation", "OutageWatch", "watches"]

#: Rounds that must have failed.
_ROUNDS: Final = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """What has been seen of a provider; each round gives another observation."""

    #: When the first of the failed rounds began, on the monotonic clock; None while it works.
    began_at: float | None = None
    failed: int = 0
    looked_at: float | None = None

    def after(self, *, answered: bool, began_at: float, now: float) -> Observation:
        """Take a round in."""
        if answered:
            return Observation(looked_at=now)
        return Observation(began_at if self.began_at is None else self.began_at, self.failed + 1, now)

    def down_since(self, now: float, longest_silence: float) -> float | None:
        """Return since when the provider is down; None where that isn't so, or nobody has looked for too long."""
        if self.failed < _ROUNDS or self.looked_at is None or now - self.looked_at > longest_silence:
            return None
        return self.began_at


class OutageWatch:
    """Look at an issuer's provider from time to time, whether or not anybody asks anything."""

    def __init__(self, source: KeySource, options: GraceOptions) -> None:
        self._source = source
        self._options = options
        self._engine = source.engine
        self.observation = Observation()
        self._closed = False
        self._renew()
        watches.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._timer: Timer | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent saw is the parent's."""
        self.observation = Observation()
        self._renew()

    def start(self) -> None:
        """Begin to look, unless that has been done."""
        if self._timer is None and not self._closed:
            with self._lock:
                if self._timer is None:
                    self._look_at(self._engine.clock.monotonic())

    def down_since(self) -> float | None:
        """Return since when the provider has been seen to be down."""
        timeout = self._engine.settings.attempt_timeout
        silence = 3 * self._options.probe_every_in_outage + 2 * timeout
        return self.observation.down_since(self._engine.clock.monotonic(), silence)

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _look_at(self, when: float) -> None:
        reference = weakref.ref(self)

        def due() -> None:
            watch = reference()
            if watch is not None:
                watch._submit()

        self._timer = self._engine.timers.call_at(when, due)

    def _submit(self) -> None:
        try:
            # A lane of its own: nothing that anybody asks for holds it up.
            self._engine.run(f"{self._source.site.lane} probe", self._look)
        except ProviderUnavailable:
            self._go_on(self.observation)

    def _look(self) -> None:
        """Look once, on a worker."""
        clock = self._engine.clock
        before = after = self.observation
        failure: ProviderUnavailable | None = None
        try:
            began_at, facts = clock.monotonic(), self._source.facts
            # Half a look is none.
            if facts is not None and facts.token_endpoint is not None:
                failure = self._round(facts.token_endpoint)
                if isinstance(failure, LocalResourcesExhausted):
                    failure = None  # nothing was seen
                else:
                    after = before.after(answered=failure is None, began_at=began_at, now=clock.monotonic())
        finally:
            self._go_on(after)
        self._tell(before, failure)

    def _round(self, token_endpoint: str) -> ProviderUnavailable | None:
        """Return how both probes failed, or None where one has an answer."""
        clock, timeout = self._engine.clock, self._engine.settings.attempt_timeout
        failure: ProviderUnavailable | None = None
        for purpose, url in ((Purpose.DISCOVERY, self._source.trust.discovery), (Purpose.TOKEN, token_endpoint)):
            failure = self._source.transport.probe(purpose, url, ends=clock.monotonic() + timeout)
            if failure is None:
                return None
        return failure

    def _tell(self, before: Observation, failure: ProviderUnavailable | None) -> None:
        wall, issuer, after = self._engine.clock.wall(), self._source.issuer, self.observation
        if failure is not None and after.failed == _ROUNDS:
            emit(ProviderSeenDown(at=wall, issuer=issuer, code=failure.code))
        elif after.failed == 0 and before.failed >= _ROUNDS and before.began_at is not None:
            seconds = (after.looked_at or before.began_at) - before.began_at
            emit(ProviderSeenUp(at=wall, issuer=issuer, seconds=seconds))

    def _go_on(self, observation: Observation) -> None:
        """Look again later, and let it be known what was seen."""
        options = self._options
        every = options.probe_every_in_outage if observation.failed else options.probe_every
        with self._lock:
            if not self._closed:
                self._look_at(self._engine.clock.monotonic() + every * self._engine.jitter(0.9, 1.0))
            self.observation = observation


#: Those that are alive, for forks.
watches: LiveObjects[OutageWatch] = LiveObjects()
