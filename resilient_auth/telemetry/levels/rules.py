"""When an owner is told that requests fall or success drops, and when that it is over: pure rules (G25).

    requests_fell   half an hour has a quarter fewer than a day and than a week before, and no chance explains it
    success_rate    errors spend their budget fast: 14.4 times over 1 h and 5 min, or 6 times over 6 h and 30 min
    error_budget    slowly, for long: once over 3 days and 6 h

The pairs of windows and their factors are those of the SRE workbook, chapter "Alerting on SLOs": the long one says
that it matters, the short one that it goes on. An alert ends well below where it began: one that wavers is told once.

What was a week before is known by the hour alone, and in the morning an hour is many times the one before it: the
least of those around it counts. So it does where clocks were set in between, somewhere: users get up by theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .counts import DAY, WEEK, Counts
from .values import FINE, HOUR, Alert, Kind, Totals

__all__ = ["Changed", "Thresholds", "changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What the owner wants to be told of."""

    #: Share of requests; None for never.
    fall: float | None
    #: Share of successes that is promised; None for nothing.
    objective: float | None
    #: Requests in the period before, at least, for a fall to mean anything.
    least: int


class Changed(NamedTuple):
    """An alert that was opened, or that is over."""

    opened: bool
    kind: Kind
    code: str
    #: What is seen, in plain words, and the requests behind it.
    detail: str
    totals: Totals


class _Pair(NamedTuple):
    long: int
    short: int
    factor: float


_FAST: Final = (_Pair(3600, 300, 14.4), _Pair(21_600, 1800, 6.0))
_SLOW: Final = _Pair(259_200, 21_600, 1.0)
#: Failures in a long window, at least: a single one is no rate.
_LEAST_FAILED: Final = 5
#: Of a threshold, below which an alert ends.
_OVER: Final = 0.5
#: Seconds that are compared, and by which others' numbers may be late.
_SPAN, _LATE = 1800, 120
#: Standard deviations by which requests must have fallen; those of both counts, as of Poisson's.
_SIGMAS: Final = 5.0

#: One zone for each date, and each hour, at which clocks are set where many live.
_ZONES: Final = (
    *("Europe/Berlin", "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("America/Santiago", "Africa/Cairo", "Asia/Jerusalem", "Australia/Sydney", "Pacific/Auckland"),
)

#: Open alerts by kind and code; and when the last one of a kind and code ended.
Key = tuple[Kind, str]


def changes(
    counts: Counts,
    now: float,
    thresholds: Thresholds,
    opened: Mapping[Key, Alert],
    ended: Mapping[Key, float],
    *,
    settled: bool,
) -> Iterator[Changed]:
    """Tell which alerts open and end now.

    Args:
        counts: The fleet's.
        now: The wall time.
        thresholds: The owner's.
        opened: Those that are open.
        ended: When the last one of each kind and code ended.
        settled: Whether this process has looked on for long enough, by a clock that hasn't jumped, to judge a fall.
    """
    for kind in counts.kinds():
        if thresholds.fall is not None and settled:
            yield from _fall(counts, now, kind, thresholds, opened)
        if thresholds.objective is not None:
            yield from _drop(counts, now, kind, 1.0 - thresholds.objective, opened, ended)


def _fall(
    counts: Counts, now: float, kind: Kind, thresholds: Thresholds, opened: Mapping[Key, Alert]
) -> Iterator[Changed]:
    end = (now - _LATE) // FINE * FINE
    begin = end - _SPAN
    found = counts.totals(kind, begin, end, now)
    before: list[tuple[str, int]] = []
    for name, period in (("a day", DAY), ("a week", WEEK)):
        if counts.since <= begin - period:
            around = (period == WEEK) + _clocks_were_set(end - period, end)
            starts = [begin - period + hours * HOUR for hours in range(-around, around + 1)]
            total = min(counts.totals(kind, start, start + _SPAN, now).total for start in starts)
            if total >= thresholds.least:
                before.append((name, total))
            elif period == WEEK:  # such as a weekend, whose day before isn't one
                before = []
    is_open = (kind, "requests_fell") in opened
    than = " and ".join(f"{_fewer(found.total, total)} than the {total:,} {name} before" for name, total in before)
    detail = f"{found.total:,} {kind} in half an hour, {than}" if before else f"there were few {kind} before, too"
    fall = thresholds.fall or 0.0
    if is_open:
        if not before or any(total - found.total < fall * _OVER * total for _, total in before):
            yield Changed(False, kind, "requests_fell", detail, found)
    elif before and all(_has_fallen(found.total, total, fall) for _, total in before):
        yield Changed(True, kind, "requests_fell", detail, found)


def _clocks_were_set(before: float, now: float) -> bool:
    """Return whether clocks were set anywhere between two times."""
    return any(_offset(zone, before) != _offset(zone, now) for zone in _zones())


@cache
def _zones() -> tuple[ZoneInfo, ...]:
    found = []
    for name in _ZONES:
        try:
            found.append(ZoneInfo(name))
        except (ZoneInfoNotFoundError, OSError, ValueError):  # a machine without them: there it isn't known
            continue
    return tuple(found)


def _offset(zone: ZoneInfo, at: float) -> object:
    try:
        return datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
    except (OverflowError, ValueError, OSError):  # a clock that is out of its mind
        return None


def _has_fallen(now: int, before: int, share: float) -> bool:
    return before - now >= max(share * before, _SIGMAS * math.sqrt(before + now))


def _fewer(now: int, before: int) -> str:
    return f"{abs(1.0 - now / before):.0%} {'fewer' if now <= before else 'more'}"


def _drop(
    counts: Counts, now: float, kind: Kind, budget: float, opened: Mapping[Key, Alert], ended: Mapping[Key, float]
) -> Iterator[Changed]:
    fast = [_Burn.of(counts, now, kind, budget, pair) for pair in _FAST]
    fast_open, slow_open = ((kind, code) in opened for code in ("success_rate", "error_budget"))
    worst = next((burn for burn in fast if burn.begins), None)
    if not fast_open and worst is not None:
        yield Changed(True, kind, "success_rate", worst.told(), worst.long)
        fast_open = True
    elif fast_open and all(burn.ends for burn in fast):
        yield Changed(False, kind, "success_rate", fast[0].told(), fast[0].long)
    # What has just been told as fast isn't told again as slow; and a few hours are no three days.
    quiet = fast_open or now - ended.get((kind, "success_rate"), -math.inf) < _SLOW.short
    if not slow_open and (quiet or counts.since > now - _SLOW.long):
        return
    slow = _Burn.of(counts, now, kind, budget, _SLOW)
    if not slow_open and slow.begins:
        yield Changed(True, kind, "error_budget", slow.told(), slow.long)
    elif slow_open and slow.ends:
        yield Changed(False, kind, "error_budget", slow.told(), slow.long)


class _Burn(NamedTuple):
    """How fast errors spend their budget in a pair of windows."""

    pair: _Pair
    budget: float
    long: Totals
    short: Totals

    @classmethod
    def of(cls, counts: Counts, now: float, kind: Kind, budget: float, pair: _Pair) -> _Burn:
        # Whole buckets: of one that is under way others may not have told yet.
        long, short = ((now - seconds) // FINE * FINE for seconds in (pair.long, pair.short))
        return cls(pair, budget, counts.totals(kind, long, now, now), counts.totals(kind, short, now, now))

    def _rate(self, totals: Totals) -> float | None:
        return None if not totals.total else totals.failed / totals.total / self.budget

    @property
    def begins(self) -> bool:
        long, short = self._rate(self.long), self._rate(self.short)
        if long is None or short is None or self.long.failed < _LEAST_FAILED:
            return False
        return min(long, short) >= self.pair.factor

    @property
    def ends(self) -> bool:
        # Nobody asks, perhaps since all fails: that is no recovery, however long it lasts.
        short = self._rate(self.short)
        if short is None:
            return self.long.total > 0 and not self.long.failed
        return short < _OVER * self.pair.factor

    def told(self) -> str:
        parts = [
            f"{totals.success_rate:.2%} of {totals.total:,} succeeded in {_span(seconds)}"
            for totals, seconds in ((self.long, self.pair.long), (self.short, self.pair.short))
            if totals.success_rate is not None
        ]
        burns = f"; {self._rate(self.long) or 0.0:.1f} times as many errors as the objective allows"
        return (", ".join(parts) or "no requests") + burns


def _span(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
