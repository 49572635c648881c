"""Whether a provider is down, as scheduled probes see it, which no request can influence.

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
from .._process import forks
from ..errors import LocalResourcesExhausted, ProviderUnavailable
from ..events import ProviderSeenDown, ProviderSeenUp, emit
from .claims import Claims
from .keys.source import KeySource
from .options import GraceOptions

__all__ = ["Observation", "OutageWatch", "deserves_grace"]

#: Rounds that must have failed.
_ROUNDS: Final = 2
#: A role with one of these in its name is an administrator's.
_OF_ADMINISTRATORS: Final = ("admin", "privileged", "owner")
#: In Entra's `wids`: no directory role, but a member of the tenant.
_A_MEMBER: Final = "b79fbf4d-3ef9-4689-8143-76b194e85509"


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


def deserves_grace(
    claims: Claims, options: GraceOptions, *, past_expiry: float, seen_at: float, down_since: float, now: float
) -> bool:
    """Return whether every condition of the owner's grace holds for a token that was verified before.

    Args:
        claims: The token's.
        options: The owner's.
        past_expiry: Seconds since its expiry.
        seen_at: When it was first seen valid.
        down_since: Since when the provider has been seen to be down.
        now: The time, on the monotonic clock as the other two.
    """
    return (
        seen_at < down_since
        and now - down_since <= options.outage
        and past_expiry <= options.past_expiry
        and not claims.app_only
        and not _is_administrator(claims, options)
    )


def _is_administrator(claims: Claims, options: GraceOptions) -> bool:
    directory_roles = claims.raw.get("wids", ())
    if not isinstance(directory_roles, (list, tuple)) or any(role != _A_MEMBER for role in directory_roles):
        return True
    return any(
        role in options.refused_roles or any(part in role.lower() for part in _OF_ADMINISTRATORS)
        for role in claims.roles
    )


class OutageWatch:
    """Look at an issuer's provider from time to time, whatever requests there are."""

    def __init__(self, source: KeySource, options: GraceOptions) -> None:
        self._source = source
        self._options = options
        self._engine = source.engine
        self.observation = Observation()
        self._closed = False
        self._begin()
        forks.renew_in_children(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._timer: Timer | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent saw is the parent's."""
        self.observation = Observation()
        self._begin()

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
        """Stop probing."""
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
            began_at, facts = clock.monotonic(), self._source.documents.facts
            # Half a look is none.
            if facts is not None and facts.token_endpoint is not None:
                failure = self._round(facts.token_endpoint)
                if isinstance(failure, LocalResourcesExhausted):
                    failure = None  # this machine's own: it says nothing about the provider
                else:
                    after = before.after(answered=failure is None, began_at=began_at, now=clock.monotonic())
        finally:
            self._go_on(after)
        self._report(before, failure)

    def _round(self, token_endpoint: str) -> ProviderUnavailable | None:
        """Return how both probes failed, or None where one has an answer."""
        clock, timeout = self._engine.clock, self._engine.settings.attempt_timeout
        failure: ProviderUnavailable | None = None
        for purpose, url in ((Purpose.DISCOVERY, self._source.trust.discovery), (Purpose.TOKEN, token_endpoint)):
            failure = self._source.documents.transport.probe(purpose, url, ends=clock.monotonic() + timeout)
            if failure is None:
                return None
        return failure

    def _report(self, before: Observation, failure: ProviderUnavailable | None) -> None:
        wall, issuer, after = self._engine.clock.wall(), self._source.issuer, self.observation
        if failure is not None and after.failed == _ROUNDS:
            emit(ProviderSeenDown(at=wall, issuer=issuer, code=failure.code))
        elif after.failed == 0 and before.failed >= _ROUNDS and before.began_at is not None:
            seconds = (after.looked_at or before.began_at) - before.began_at
            emit(ProviderSeenUp(at=wall, issuer=issuer, seconds=seconds))

    def _go_on(self, observation: Observation) -> None:
        """Schedule the next look, and publish what was seen."""
        options = self._options
        every = options.probe_every_in_outage if observation.failed else options.probe_every
        with self._lock:
            if not self._closed:
                self._look_at(self._engine.clock.monotonic() + every * self._engine.jitter(0.9, 1.0))
            self.observation = observation
