"""One client's timeline as a strip of SVG, with what happened above and calls at the provider below."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from .judge import BUCKET, Bucket, Finding

__all__ = ["Axis", "strip"]

_WIDTH = 1000.0
_TALL = 30.0
_TICKS = 7.0
_GAP = 2.0
#: Calls closer than this share of the width are drawn as one line.
_FINEST = 1 / 500


class Axis:
    """Places moments, in seconds from the outage's start, on a common width.

    Args:
        findings: Whose runs it must hold.
    """

    def __init__(self, *findings: Finding) -> None:
        self.first = min(finding.began for finding in findings)
        self.last = max(finding.ended for finding in findings)

    def share(self, moment: float) -> float:
        """Place a moment between 0 and 1."""
        return min(1.0, max(0.0, (moment - self.first) / (self.last - self.first)))

    def marks(self) -> tuple[float, ...]:
        """Choose moments to write under it."""
        length = self.last - self.first
        step = next(s for s in (2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 86400) if length / s <= 8 or s == 86400)
        return tuple(float(n * step) for n in range(int(self.last // step) + 1) if self.share(n * step) < 0.97)


def strip(finding: Finding, axis: Axis, *, label: str, discards: bool) -> str:
    """Draw a strip.

    Args:
        finding: What to draw.
        axis: Where.
        label: What it shows, for those who can't see it.
        discards: Whether to mark when the token came within MSAL's margin.
    """
    height = _TALL + _GAP + _TICKS
    dark, light, end = _x(axis, 0.0), _x(axis, finding.healed), _x(axis, finding.ended)
    parts = [
        f'<svg class="strip" viewBox="0 0 {_WIDTH:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">',
        f'<rect class="ground" width="{end:.1f}" height="{_TALL:g}"/>',
        f'<rect class="dark" x="{dark:.1f}" width="{light - dark:.1f}" height="{height:g}"/>',
        *_bars(finding, axis),
        *_calls(finding, axis),
    ]
    if discards and finding.discards is not None:
        x = _x(axis, finding.discards)
        parts.append(f'<line class="discard" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_TALL:g}"/>')
    parts.append("</svg>")
    return "".join(parts)


def _x(axis: Axis, moment: float) -> float:
    return _WIDTH * axis.share(moment)


def _bars(finding: Finding, axis: Axis) -> Iterator[str]:
    for heights, columns in groupby(enumerate(finding.buckets), key=lambda pair: _heights(pair[1])):
        numbers = [number for number, _ in columns]
        left = _x(axis, finding.began + numbers[0] * BUCKET)
        width = _x(axis, finding.began + (numbers[-1] + 1) * BUCKET) - left
        bottom = _TALL
        for kind, height in zip(("served", "late", "missed"), heights, strict=True):
            if height:
                bottom -= height
                yield (
                    f'<rect class="{kind}" x="{left:.1f}" y="{bottom:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
                )


def _heights(bucket: Bucket) -> tuple[float, float, float]:
    total = bucket.served + bucket.late + bucket.missed
    if total == 0:
        return 0.0, 0.0, 0.0
    served, late = (round(_TALL * part / total, 1) for part in (bucket.served, bucket.late))
    return served, late, round(_TALL - served - late, 1) if bucket.missed else 0.0


def _calls(finding: Finding, axis: Axis) -> Iterator[str]:
    top = _TALL + _GAP
    for place in sorted({round(axis.share(moment) / _FINEST) for moment in finding.call_times}):
        x = place * _FINEST * _WIDTH
        yield f'<line class="call" x1="{x:.0f}" x2="{x:.0f}" y1="{top:g}" y2="{top + _TICKS:g}"/>'
