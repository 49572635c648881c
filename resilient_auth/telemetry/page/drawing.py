"""Plain SVG: moments on a common width, strips and columns. The status page's and the drill's report draw with it.

Nothing carries a style of its own, which a strict content security policy would refuse: classes do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["WIDTH", "Axis", "line", "rect", "steps", "svg"]

WIDTH = 1000.0


class Axis:
    """Places moments on a common width.

    Args:
        first: The one at its left end.
        last: The one at its right end.
    """

    def __init__(self, first: float, last: float) -> None:
        self.first = first
        self.last = last

    def share(self, moment: float) -> float:
        """Place a moment between 0 and 1."""
        return min(1.0, max(0.0, (moment - self.first) / (self.last - self.first)))

    def x(self, moment: float) -> float:
        """Place a moment between 0 and `WIDTH`."""
        return WIDTH * self.share(moment)

    def marks(self) -> tuple[float, ...]:
        """Choose moments to write under it."""
        length = self.last - self.first
        step = next(s for s in (2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 86400) if length / s <= 8 or s == 86400)
        return tuple(float(n * step) for n in range(int(self.last // step) + 1) if self.share(n * step) < 0.97)


def svg(kind: str, height: float, parts: Iterable[str], *, label: str = "", width: float = WIDTH) -> str:
    """Draw parts on a ground that is stretched to the width that there is.

    Args:
        kind: Its class.
        height: As high as it is drawn.
        parts: What is drawn.
        label: What it shows, for those who can't see it; without one it is a decoration.
        width: As wide as it is drawn, before it is stretched.
    """
    told = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    opening = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" {told}>'
    return f"{opening}{''.join(parts)}</svg>"


def rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Draw a bar."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def line(kind: str, x: float, top: float, bottom: float) -> str:
    """Draw a vertical line."""
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>'


def steps(kind: str, heights: Sequence[float | None], column: float, bottom: float) -> str:
    """Draw a line of steps, one a column of this width; where nothing is known there is a gap."""
    path, there = [], False
    for number, height in enumerate(heights):
        if height is not None:
            left, y = number * column, bottom - height
            path.append(f"{'L' if there else 'M'}{left:.1f} {y:.1f}H{left + column:.1f}")
        there = height is not None
    return f'<path class="{kind}" d="{"".join(path)}"/>' if path else ""
