"""What the routes of all frameworks share."""

from __future__ import annotations

from typing import Final

from ..._policy.checks import require, require_path
from ...callouts import Callout
from ..route_names import route_name

__all__ = ["CONTENT_TYPE", "check"]

CONTENT_TYPE: Final = "application/json"


def check(path: object, callout: object) -> str:
    """Return the name of a route.

    Raises:
        ConfigurationError: The path can't be one, or there is no callout.
    """
    require_path("path", path, "/callouts/token", slash=True)
    require(isinstance(callout, Callout), f"callout must be a Callout, not {type(callout).__name__}")
    return route_name(str(path))
