"""What may be served when the provider gives no new token (the table in the architecture page)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..token import Token
from .checks import require, require_number
from .provider_errors import is_gone

__all__ = ["Fallback", "FallbackOptions", "after_denial", "after_failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions:
    """Choose what may be served while the provider fails.

    Args:
        grace: Seconds past its expiry for which a token may still be served, while the provider is observed to be down.
            0, the default, means never. APIs that check `exp` themselves refuse such tokens: it is for those that
            don't, or that have a grace of their own.
        grace_outage: Seconds of an outage after which grace ends, whatever the token.
    """

    grace: float = 0.0
    grace_outage: float = 3600.0

    def __post_init__(self) -> None:
        require_number("grace", self.grace, low=0.0, high=24 * 3600.0)
        require_number("grace_outage", self.grace_outage, low=0.0, high=7 * 24 * 3600.0)
        require(
            self.grace <= self.grace_outage or not self.grace,
            f"grace of {self.grace:g} s exceeds grace_outage of {self.grace_outage:g} s: "
            "lower the one or raise the other",
        )


class Fallback(Enum):
    """What to do instead of serving a new token."""

    SERVE = "serve"
    GRACE = "grace"
    REFUSE = "refuse"


def after_failure(
    token: Token | None, wall: float, now: float, *, down_for: float | None, options: FallbackOptions
) -> Fallback:
    """Decide after a failure: a valid token is served; an expired one only under the owner's grace.

    Args:
        token: What is held.
        wall: Seconds since the epoch.
        now: Seconds on the monotonic clock.
        down_for: For how many seconds the provider has been observed to fail; None where it hasn't.
        options: The owner's.
    """
    if token is None:
        return Fallback.REFUSE
    past = -token.remaining(wall, now)
    if past < 0:
        return Fallback.SERVE
    if down_for is not None and past < options.grace and down_for <= options.grace_outage:
        return Fallback.GRACE
    return Fallback.REFUSE


def after_denial(token: Token | None, wall: float, now: float, denial: Mapping[str, Any]) -> Fallback:
    """Decide after a denial: a valid token is served to its end, unless the account or the token itself is gone.

    Args:
        token: What is held.
        wall: Seconds since the epoch.
        now: Seconds on the monotonic clock.
        denial: The error dict.
    """
    if token is not None and token.remaining(wall, now) > 0 and not is_gone(denial):
        return Fallback.SERVE
    return Fallback.REFUSE
