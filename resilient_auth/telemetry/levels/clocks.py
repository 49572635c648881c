"""Which time it is in a fleet, where a clock may be hours off: what most of its processes say.

Each of them writes down what its clock says when it writes what it has counted. Who reads that twice knows of each
new report that it is no older than the first reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Clocks", "Report"]

#: Seconds by which clocks may differ, and which change nothing.
_TOLERATED: Final = 120.0
#: Seconds between two readings after which nobody knows how old a report is; and for which what was seen counts.
_NEW, _COUNTS = 600.0, 3600.0
#: Processes whose last number is kept before those that are gone are forgotten.
_MOST: Final = 10_000


class Report(NamedTuple):
    """What a process wrote last."""

    #: Grows with each write.
    number: int
    #: What its clock said, in seconds since the epoch.
    at: float


class _Seen(NamedTuple):
    """What was seen of another process's clock."""

    #: Seconds by which it is ahead of the monotonic one here, and by which that may be off.
    ahead: float
    gap: float
    #: When that was, by the monotonic one.
    at: float


class Clocks:
    """Compare the clocks of a fleet."""

    def __init__(self) -> None:
        #: Seconds by which this process's clock is behind that of most; 0 where it is one of those.
        self.behind = 0.0
        #: Whether there are most.
        self.agree = True
        self._numbers: Mapping[str, int] = {}
        self._read_at: float | None = None
        self._seen: dict[str, _Seen] = {}

    def compare(self, others: Mapping[str, Report], wall: float, now: float) -> float | None:
        """Take in what others wrote last.

        Args:
            others: By process.
            wall: What this process's clock says.
            now: The monotonic time.

        Returns:
            By how many seconds others are ahead, where that is news; None where it isn't.
        """
        gap = math.inf if self._read_at is None else now - self._read_at
        fresh = {who: report for who, report in others.items() if self._numbers.get(who) != report.number}
        self._read_at = now
        # A record that can't be read for a while has nothing new when it is there again.
        kept = self._numbers if len(self._numbers) < _MOST else {}
        self._numbers = {**kept, **{who: report.number for who, report in others.items()}}
        if gap <= _NEW:
            self._seen |= {who: _Seen(report.at + gap / 2 - now, gap, now) for who, report in fresh.items()}
        self._seen = {who: seen for who, seen in self._seen.items() if now - seen.at <= _COUNTS}
        ahead = sorted([0.0, *(seen.ahead - (wall - now) for seen in self._seen.values())])
        tolerated = _TOLERATED + max((seen.gap for seen in self._seen.values()), default=0.0)
        middle = ahead[(len(ahead) - 1) // 2]
        agree = 2 * sum(abs(each - middle) <= tolerated for each in ahead) > len(ahead)
        behind = middle if agree and abs(middle) > tolerated else 0.0
        if agree == self.agree and abs(behind - self.behind) <= tolerated:
            return None
        self.agree, self.behind = agree, behind
        return behind if agree else max(ahead, key=abs)
