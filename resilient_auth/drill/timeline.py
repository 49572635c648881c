"""One client's timeline as a strip of SVG, with what happened above and calls at the provider below."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ..telemetry.page.drawing import WIDTH, Axis, line, rect, svg
from .judge import BUCKET, Bucket, Finding

__all__ = ["Axis", "axis_of", "strip"]

_TALL = 30.0
_TICKS = 7.0
_GAP = 2.0
#: Calls closer than this share of the width are drawn as one line.
_FINEST = 1 / 500


def axis_of(*findings: Finding) -> Axis:
    """Return an axis that holds these runs, in seconds from the outage's start."""
    return Axis(min(finding.began for finding in findings), max(finding.ended for finding in findings))


def strip(finding: Finding, axis: Axis, *, label: str, discards: bool) -> str:
    """Draw a strip.

    Args:
        finding: What to draw.
        axis: Where.
        label: What it shows, for those who can't see it.
        discards: Whether to mark when the token came within MSAL's margin.
    """
    height = _TALL + _GAP + _TICKS
    dark, light, end = axis.x(0.0), axis.x(finding.healed), axis.x(finding.ended)
    parts = [
        rect("ground", 0.0, 0.0, end, _TALL),
        rect("dark", dark, 0.0, light - dark, height),
        *_bars(finding, axis),
        *_calls(finding, axis),
    ]
    if discards and finding.discards is not None:
        parts.append(line("discard", axis.x(finding.discards), 0.0, _TALL))
    return svg("strip", height, parts, label=label)


def _bars(finding: Finding, axis: Axis) -> Iterator[str]:
    for heights, columns in groupby(enumerate(finding.buckets), key=lambda pair: _heights(pair[1])):
        numbers = [number for number, _ in columns]
        left = axis.x(finding.began + numbers[0] * BUCKET)
        width = axis.x(finding.began + (numbers[-1] + 1) * BUCKET) - left
        bottom = _TALL
        for kind, height in zip(("served", "late", "missed"), heights, strict=True):
            if height:
                bottom -= height
                yield rect(kind, left, bottom, width, height)


def _heights(bucket: Bucket) -> tuple[float, float, float]:
    total = bucket.served + bucket.late + bucket.missed
    if total == 0:
        return 0.0, 0.0, 0.0
    served, late = (round(_TALL * part / total, 1) for part in (bucket.served, bucket.late))
    return served, late, round(_TALL - served - late, 1) if bucket.missed else 0.0


def _calls(finding: Finding, axis: Axis) -> Iterator[str]:
    top = _TALL + _GAP
    for place in sorted({round(axis.share(moment) / _FINEST) for moment in finding.call_times}):
        yield line("call", place * _FINEST * WIDTH, top, top + _TICKS)
