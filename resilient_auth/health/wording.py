"""Times as people say them, and values as JSON has them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["as_json", "at_time", "span"]


def as_json(value: object) -> Any:
    """Return a value as JSON has it, with numbers rounded to milliseconds."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    return value


def span(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def at_time(at: float) -> str:
    """Return the time of day of a moment, given in seconds since the epoch."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a provider said so
        return "the end of time"
