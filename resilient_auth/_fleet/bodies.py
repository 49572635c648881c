"""What records hold that aren't users': JSON that says of what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._policy.failure import json_object

__all__ = ["body_in", "body_of"]


def body_of(name: str, body: Mapping[str, Any]) -> bytes:
    """Write a record with what it is of inside, so that it can't stand for another one."""
    return json.dumps({**body, "of": name}).encode()


def body_in(value: bytes, name: str) -> dict[str, Any] | None:
    """Read a record; None for what isn't one, or is of something else."""
    body = json_object(value)
    return body if body is not None and body.get("of") == name else None
