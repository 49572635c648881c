"""Refuse what can't be meant, by the argument's name: a fault that never happens is a test that can't fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["LONGEST", "check", "check_number", "check_text", "check_whole", "listed"]

#: Seconds; a hundred years, so that every moment is one that a clock can tell.
LONGEST: Final = 100 * 365 * 86400


def check(holds: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `holds`."""
    if not holds:
        raise ValueError(message)


def check_number(name: str, value: object, *, low: float = 0.0, high: float = LONGEST, above: bool = False) -> None:
    """Raise `ValueError` unless `value` is a number from `low`, or above it, to `high`."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    fits = number is not None and low <= number <= high and not (above and number == low)
    check(fits, f"{name} must be a number {'above' if above else 'from'} {low:g} to {high:g}, not {value!r}")


def check_whole(name: str, value: object, *, low: int, high: int) -> None:
    """Raise `ValueError` unless `value` is a whole number from `low` to `high`."""
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    check(fits, f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_text(name: str, value: object, such_as: str) -> None:
    """Raise `ValueError` unless `value` is a text with something in it."""
    check(isinstance(value, str) and bool(value), f"{name} must be a text, such as {such_as!r}, not {value!r}")


def listed(name: str, values: Any, kind: type[Any], such_as: str) -> tuple[Any, ...]:
    """Return the values of a list, none of them empty; raise `ValueError` for one alone, and for another kind."""
    several = not isinstance(values, str | bytes | Mapping) and isinstance(values, Iterable)
    given = tuple(values) if several else ()
    fits = several and all(isinstance(one, kind) and one for one in given)
    check(fits, f"{name} must be a list such as {such_as}")  # without the values, which may be secret
    return given
