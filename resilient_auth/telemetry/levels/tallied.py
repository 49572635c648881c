"""What has been counted in this process since it was looked at last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..tally import Tally
from .values import KINDS, Kind

__all__ = ["Tallied"]

#: Flows in which no user has a part: there a denial is the application's own trouble, such as a secret that ran out.
_OWN_FLOWS = frozenset({"client_credentials", "managed_identity"})


class Tallied:
    """Tell how many more there are of each kind, and how many more failed."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._told: Mapping[Kind, tuple[int, int]] = {}

    def begin_at_zero(self) -> None:
        """Count all that the tally holds as new, as in a forked child, whose tally is its own."""
        self._told = {}

    def begin_here(self) -> None:
        """Count nothing that is there already."""
        self._told = self._now()

    def fresh(self, *, take: bool = True) -> dict[Kind, tuple[int, int]]:
        """Return what has come since it was taken last, and take it."""
        now, found = self._now(), {}
        for kind in KINDS:
            before = self._told.get(kind, (0, 0))
            found[kind] = (now[kind][0] - before[0], now[kind][1] - before[1])
        if take:
            self._told = now
        return found

    def _now(self) -> dict[Kind, tuple[int, int]]:
        return {
            "acquisitions": _summed(
                (number, outcome == "failed" or (outcome == "denied" and flow in _OWN_FLOWS))
                for (_, flow, _, outcome), number in self._tally.counts("resilient_auth.acquisitions")
            ),
            "verifications": _summed(
                (number, verdict == "unavailable")
                for (_, verdict, _, _), number in self._tally.counts("resilient_auth.verifications")
            ),
            "downstream": _summed(
                (sum(buckets), outcome == "failed")
                for (_, outcome, _), buckets, _ in self._tally.summed("resilient_auth.call.duration")
            ),
        }


def _summed(numbers: Iterator[tuple[int, bool]]) -> tuple[int, int]:
    total = failed = 0
    for number, is_failure in numbers:
        total += number
        failed += number if is_failure else 0
    return total, failed
