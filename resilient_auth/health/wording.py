"""Times as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["hour", "span"]


def span(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def hour(at: float) -> str:
    """Return the hour of a moment, given in seconds since the epoch."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a provider said so
        return "the end of time"
