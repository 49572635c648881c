"""Refuse an option that is out of range, naming it and the fix."""

from __future__ import annotations

import math

from ..errors import ConfigurationError

__all__ = ["require", "require_number", "require_whole"]


def require(holds: bool, message: str) -> None:
    """Raise `ConfigurationError(message)` unless `holds`."""
    if not holds:
        raise ConfigurationError(message)


def require_number(name: str, value: object, *, low: float, high: float = math.inf, unit: str = " s") -> None:
    """Raise `ConfigurationError` unless `value` is a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:
        span = f"at least {low:g}{unit}" if high == math.inf else f"from {low:g} to {high:g}{unit}"
        raise ConfigurationError(f"{name} must be {span}, not {value:g}")


def require_whole(name: str, value: object, *, low: int, high: int | None = None) -> None:
    """Raise `ConfigurationError` unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigurationError(f"{name} must be {span}, not {value}")
