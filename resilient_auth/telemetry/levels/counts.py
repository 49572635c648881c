"""Requests and failures by time, in constant memory: buckets of five minutes for a day, and of hours for two weeks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..._fleet.bodies import finite, whole
from .values import FINE, HOUR, KINDS, Bucket, Comparison, Kind, ServiceLevel, Totals

__all__ = ["DAY", "WEEK", "Counts"]

DAY, WEEK = 86_400, 604_800
#: Seconds for which buckets of each width are looked at: a day, and two hours more, to compare an hour with.
_REACH = {FINE: DAY + 2 * HOUR, HOUR: 2 * WEEK}
#: How many are kept: some more, since a clock that was wrong for a while leaves some where nobody looks.
_MOST = {width: reach // width * 5 // 4 for width, reach in _REACH.items()}
#: Seconds by which clocks of one fleet may differ.
_SKEW = 3600.0

#: By kind, by width, by the number of the bucket since the epoch: how many there were, and how many failed.
_Buckets = dict[Kind, dict[int, dict[int, list[int]]]]


class Counts:
    """Count by kind and time. Not safe for threads: its owner has a lock, or there is one thread."""

    def __init__(self, since: float = math.inf) -> None:
        self._buckets: _Buckets = {kind: {width: {} for width in _MOST} for kind in KINDS}
        #: Since when anybody counts.
        self.since = since

    def add(self, kind: Kind, at: float, total: int, failed: int) -> None:
        """Count what happened at a wall time."""
        for width, buckets in self._buckets[kind].items():
            _add(buckets, int(at // width), total, failed)
        self._bound(at)

    def merge(self, other: Counts, now: float) -> None:
        """Add what others counted."""
        self.since = min(self.since, other.since)
        for kind, widths in other._buckets.items():
            for width, buckets in widths.items():
                for number, (total, failed) in buckets.items():
                    _add(self._buckets[kind][width], number, total, failed)
        self._bound(now)

    def _bound(self, now: float) -> None:
        """Forget what is too much: the oldest; or what lies in the future, and far from what most have counted.

        Nothing goes by a clock alone: a machine that believes to be in another year must not empty a fleet's record.
        """
        for widths in self._buckets.values():
            for width, buckets in widths.items():
                while len(buckets) > _MOST[width]:
                    numbers = sorted(buckets)
                    last = numbers[-1]
                    is_odd = last * width > now + _SKEW and last - numbers[len(numbers) // 2] > _MOST[width]
                    del buckets[last if is_odd else numbers[0]]

    def kinds(self) -> list[Kind]:
        """Return those kinds of which there is anything."""
        return [kind for kind, widths in self._buckets.items() if any(widths.values())]

    def __bool__(self) -> bool:
        return bool(self.kinds())

    def totals(self, kind: Kind, begin: float, end: float, now: float) -> Totals:
        """Return what there was in a span; of a bucket that is only in part in it, that share."""
        width = FINE if begin >= now - _REACH[FINE] else HOUR
        total = failed = 0.0
        buckets = self._buckets[kind][width]
        for number in range(int(begin // width), int(end // width) + 1):
            found = buckets.get(number)
            if found is None:
                continue
            start = float(number * width)
            # What is under way holds nothing of the time to come.
            until = min(start + width, max(now, start))
            if until > start:
                share = (min(end, until) - max(begin, start)) / (until - start)
            else:
                share = 1.0 if start <= now <= end else 0.0
            if share > 0:
                total += found[0] * share
                failed += found[1] * share
        return Totals(total=round(total), failed=round(failed))

    def level(self, kind: Kind, now: float) -> ServiceLevel:
        """Return what is told of a kind."""

        def against(span: int) -> Comparison:
            known = self.since <= now - 2 * span
            before = self.totals(kind, now - 2 * span, now - span, now) if known else None
            return Comparison(now=self.totals(kind, now - span, now, now), before=before)

        return ServiceLevel(
            kind=kind,
            minutes=self._series(kind, FINE, DAY, now),
            hours=self._series(kind, HOUR, 2 * WEEK, now),
            day=against(DAY),
            week=against(WEEK),
        )

    def _series(self, kind: Kind, width: int, reach: int, now: float) -> tuple[Bucket, ...]:
        buckets, last = self._buckets[kind][width], int(now // width)
        found = ((n, buckets.get(n, (0, 0))) for n in range(last - reach // width + 1, last + 1))
        return tuple(Bucket(start=float(n * width), total=total, failed=failed) for n, (total, failed) in found)

    def to_json(self) -> dict[str, Any]:
        """Return it as a record holds it."""
        kinds = {
            kind: {
                str(width): {str(n): counted for n, counted in sorted(buckets.items())}
                for width, buckets in widths.items()
            }
            for kind, widths in self._buckets.items()
        }
        return {"since": None if self.since == math.inf else self.since, "kinds": kinds}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Counts:
        """Read it.

        Raises:
            ValueError: It isn't of this form.
        """
        try:
            since = found["since"]
            counts = cls(math.inf if since is None else finite(since))
            for kind, widths in counts._buckets.items():
                for width, buckets in widths.items():
                    for number, (total, failed) in found["kinds"][kind][str(width)].items():
                        buckets[int(number)] = [whole(total), min(whole(failed), whole(total))]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("these aren't counts") from error
        return counts


def _add(buckets: dict[int, list[int]], number: int, total: int, failed: int) -> None:
    found = buckets.setdefault(number, [0, 0])
    found[0] += total
    found[1] += failed
