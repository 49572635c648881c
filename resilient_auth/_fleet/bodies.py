"""What records hold: JSON, mostly with what it is of in it, which any release may have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .._policy.failure import json_object
from ..errors import StoreUnavailable
from ..store import Store

__all__ = ["body_in", "body_of", "finite", "unreadable", "whole"]

#: What a count, or a time in seconds, may be at most: whatever is made of it is a number still.
_MOST: Final = 2**53


def body_of(name: str, body: Mapping[str, Any]) -> bytes:
    """Write a record with what it is of inside, so that it can't stand for another one."""
    return json.dumps({**body, "of": name}).encode()


def body_in(value: bytes, name: str) -> dict[str, Any] | None:
    """Read a record; None for what isn't one, or is of something else."""
    body = json_object(value)
    return body if body is not None and body.get("of") == name else None


def finite(value: object) -> float:
    """Return a time or a length of a record, of which nobody knows who wrote it.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST <= value <= _MOST:
        raise ValueError("this is no number of seconds")
    return float(value)


def whole(value: object) -> int:
    """Return a count of a record.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError("this is no count")
    return value


def unreadable(store: Store) -> StoreUnavailable:
    """Return what to raise where a record must be understood and can't be: a newer release has written it."""
    return StoreUnavailable(store.label, "newer_schema", "a record is there that this release can't read")
