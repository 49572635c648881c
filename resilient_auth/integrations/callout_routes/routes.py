"""What the routes of all frameworks share."""

from __future__ import annotations

from typing import Any, Final

from ..._policy.checks import require
from ...callouts import Callout

__all__ = ["CONTENT_TYPE", "check"]

CONTENT_TYPE: Final = "application/json"


def check(path: object, callout: object) -> str:
    """Return the name of a route.

    Raises:
        ConfigurationError: The path can't be one, or there is no callout.
    """
    fits = isinstance(path, str) and path.startswith("/") and path.isprintable()
    require(fits, f'path must begin with a slash, such as "/callouts/token", not {path!r}')
    require(isinstance(callout, Callout), f"callout must be a Callout, not {type(callout).__name__}")
    shown: Any = path
    return f"resilient_auth{shown.replace('/', '_').replace('.', '_')}"
