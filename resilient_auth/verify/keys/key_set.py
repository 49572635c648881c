"""An issuer's keys through roll-overs, outages and anomalies: a state machine, pure, with the time as an argument.

    nothing ──a set with usable keys──▶ FRESH ──a refresh is due and fails──▶ STALE ──last_known_good passes──▶ nothing
       │                                 ▲  └─ merged by kid; each key lives on from when it was last listed
       └── PINNED, from the owner's file, for as long as there is nothing else

A set is never replaced wholesale: Entra's own flap during a roll-over (G15).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import Final, Literal

from ..claims import Provenance
from ..jose.jwk import VerificationKey
from ..options import KeyOptions

__all__ = ["Anomaly", "FetchSchedule", "HeldKey", "KeySet", "View"]

_MINUTE: Final = 60.0
#: Seconds before the next attempt after a failed one, at first and at most: with no key at all, and with some.
_URGENT: Final = (5.0, 60.0)
_CALM: Final = (60.0, 900.0)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key, and when it was last listed, on the monotonic clock."""

    key: VerificationKey
    seen_at: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Describe what is odd about a fetched set."""

    kind: Literal["empty", "changed", "shrank"]
    kids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What can be verified with until `until`, when a new view must be taken; immutable, read without a lock."""

    keys: Mapping[str, VerificationKey] = field(default_factory=lambda: MappingProxyType({}))
    #: The `kid`s of keys that the issuer lists, and that can't be used.
    unfit: frozenset[str] = frozenset()
    provenance: Provenance = Provenance(keys="stale", keys_age=None)  # noqa: RUF009 - immutable
    until: float = -inf


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Hold an issuer's keys; each transition returns another set.

    Args:
        held: By `kid`, those that a fetched set listed.
        pinned: By `kid`, the owner's.
        obtained_at: When a good set was last fetched.
        listed: The `kid`s that it listed.
        unfit: The `kid`s of keys that the last set listed, and that can't be used.
        unfit_at: When that was; None for never.
    """

    held: Mapping[str, HeldKey] = field(default_factory=dict)
    pinned: Mapping[str, VerificationKey] = field(default_factory=dict)
    obtained_at: float | None = None
    listed: frozenset[str] = frozenset()
    unfit: frozenset[str] = frozenset()
    unfit_at: float | None = None

    def merged(
        self,
        found: Mapping[str, VerificationKey],
        now: float,
        options: KeyOptions,
        unfit: frozenset[str] = frozenset(),
    ) -> tuple[KeySet, tuple[Anomaly, ...]]:
        """Take a fetched set in: its keys, and the `kid`s of those that can't be used.

        A set without a key that can be used changes nothing but those. A key that comes with another modulus under a
        known `kid` isn't taken in, as long as the known one lives. One that isn't listed any more lives its life on.
        """
        if not found:
            return (replace(self, unfit=unfit, unfit_at=now) if unfit else self), (Anomaly("empty"),)
        known = self._alive(now, options) or {
            kid: HeldKey(key, now) for kid, key in self.pinned.items() if kid in found
        }
        held, changed = dict(known), []
        for kid, key in found.items():
            holder = known.get(kid)
            if holder is None:
                held[kid] = HeldKey(key, now)
            elif holder.key.parts <= key.parts or holder.key.parts >= key.parts:
                # The same object, unless what it is for has changed: what was verified with it stays verified.
                known_one = holder.key
                same = (known_one.material, known_one.issuer, known_one.keys.keys()) == (
                    key.material,
                    key.issuer,
                    key.keys.keys(),
                )
                held[kid] = HeldKey(holder.key if same else key, now)
            else:
                changed.append(kid)
        missing = self.listed - found.keys()
        anomalies = [Anomaly("changed", tuple(sorted(changed)))] if changed else []
        if missing and len(found) < len(self.listed):
            anomalies.append(Anomaly("shrank", tuple(sorted(missing))))
        after = replace(
            self, held=held, obtained_at=now, listed=frozenset(found), unfit=unfit, unfit_at=now if unfit else None
        )
        return after, tuple(anomalies)

    def restored(
        self, found: Mapping[str, VerificationKey], obtained_at: float, unfit: frozenset[str] = frozenset()
    ) -> KeySet:
        """Take in a set that was kept from an earlier process, unless there is one already."""
        if self.obtained_at is not None or not found:
            return self
        held = {kid: HeldKey(key, obtained_at) for kid, key in found.items()}
        return replace(
            self, held=held, obtained_at=obtained_at, listed=frozenset(found), unfit=unfit, unfit_at=obtained_at
        )

    def view(self, now: float, options: KeyOptions) -> View:
        """Return what can be verified with now, and until when that holds.

        Each end is reckoned once, and compared as it was reckoned: `(a + b) - b` isn't always `a`.
        """
        alive = self._alive(now, options)
        ends = [_end_of(holder, options) for holder in alive.values()]
        unfit = frozenset[str]()
        if self.unfit_at is not None and now < (unfit_until := self.unfit_at + options.refresh_every):
            # Older than that it may have been mended; then the issuer is asked.
            unfit = self.unfit
            ends.append(unfit_until)
        if self.obtained_at is None or not alive:
            pinned = Provenance(keys="pinned" if self.pinned else "stale", keys_age=None)
            return View(MappingProxyType(dict(self.pinned)), unfit, pinned, min((now + _MINUTE, *ends)))
        # Off by one to either side, where the difference is rounded.
        minutes = max(0.0, now - self.obtained_at) // _MINUTE
        while minutes and self.obtained_at + minutes * _MINUTE > now:
            minutes -= 1
        while (next_minute := self.obtained_at + (minutes + 1) * _MINUTE) <= now:
            minutes += 1
        ends.append(next_minute)
        due = self.obtained_at + options.refresh_every
        if now < due:
            ends.append(due)
        provenance = Provenance(keys="fresh" if now < due else "stale", keys_age=minutes * _MINUTE)
        return View(MappingProxyType({kid: h.key for kid, h in alive.items()}), unfit, provenance, min(ends))

    def time_to_dark(self, now: float, options: KeyOptions) -> float | None:
        """Return for how many seconds there will be a key without another fetch; None for pinned ones, which stay."""
        if self.pinned:
            return None
        return max((_end_of(holder, options) - now for holder in self._alive(now, options).values()), default=0.0)

    def _alive(self, now: float, options: KeyOptions) -> dict[str, HeldKey]:
        return {kid: holder for kid, holder in self.held.items() if now < _end_of(holder, options)}


def _end_of(holder: HeldKey, options: KeyOptions) -> float:
    return holder.seen_at + options.longest


class FetchSchedule:
    """Decide when an issuer's keys are fetched, and who may wait; its owner holds a lock around every call."""

    def __init__(self, options: KeyOptions) -> None:
        self._options = options
        self.failures = 0
        #: The time before which nothing is asked for without need, and the one before which nothing is at all.
        self.not_before = -inf
        self._rests_until = -inf
        self._asked_at = -inf
        self._waiting: Counter[str] = Counter()

    def succeeded(self) -> None:
        """Note a good set."""
        self.failures, self.not_before, self._rests_until = 0, -inf, -inf

    def failed(self, now: float, *, urgent: bool, retry_after: float | None) -> float:
        """Note a failed attempt; return for how many seconds none follows (G8, G9, G10)."""
        self.failures += 1
        first, most = _URGENT if urgent else _CALM
        delay = max(min(most, first * 2.0 ** min(self.failures - 1, 10)), retry_after or 0.0)
        self.not_before = now + delay
        self._rests_until = now + max(_URGENT[0], retry_after or 0.0)
        return delay

    def may_ask(self, now: float) -> float:
        """Return for how many seconds an unknown `kid` can't cause a fetch; 0 when it can."""
        return max(0.0, self._asked_at + self._options.unknown_every - now, self._rests_until - now)

    def may_load(self, now: float) -> float:
        """Return for how many seconds a caller without any key can't cause a fetch; 0 when it can."""
        return max(0.0, self.not_before - now)

    def asked(self, now: float) -> None:
        """Note that an unknown `kid` caused a fetch."""
        self._asked_at = now

    def enter(self, kid: str) -> bool:
        """Let a caller wait, "" for any key at all; return whether there is room."""
        options, waiting = self._options, self._waiting
        if waiting.total() >= options.waiters or (kid not in waiting and len(waiting) >= options.waiting_kids):
            return False
        waiting[kid] += 1
        return True

    def leave(self, kid: str) -> None:
        """Note that a caller waits no more."""
        self._waiting[kid] -= 1
        if self._waiting[kid] <= 0:
            del self._waiting[kid]

    def forget_waiting(self) -> None:
        """Forget who waits: a forked child's callers are its own."""
        self._waiting.clear()
