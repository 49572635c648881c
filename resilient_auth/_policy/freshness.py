"""When a token is fresh, due for a refresh, about to expire, or over (G2, G5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..clock import Jitter
from ..token import Token
from .checks import require_number

__all__ = ["MSAL_MARGIN", "Freshness", "FreshnessOptions", "assess", "due_after"]

#: MSAL takes a token with less than this many seconds left for expired.
MSAL_MARGIN = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessOptions:
    """Choose when tokens are refreshed.

    Args:
        due_fraction: Where the provider gives no `refresh_in`, the share of a token's life after which a refresh is
            due. From 0.1 to 0.95.
        due_jitter: Shifts that moment once per token, by up to this share of the life either way, so that a fleet's
            refreshes spread. From 0 to 0.25.
        expiry_margin: Seconds before expiry within which a caller waits for a refresh, if none is known to fail.
        margin_wait: Seconds for which it waits there, at most; then the still valid token is served.
    """

    due_fraction: float = 0.5
    due_jitter: float = 0.05
    expiry_margin: float = 30.0
    margin_wait: float = 0.2

    def __post_init__(self) -> None:
        require_number("due_fraction", self.due_fraction, low=0.1, high=0.95, unit="")
        require_number("due_jitter", self.due_jitter, low=0.0, high=0.25, unit="")
        require_number("expiry_margin", self.expiry_margin, low=0.0, high=3600.0)
        require_number("margin_wait", self.margin_wait, low=0.0, high=60.0)


#: A token is never due before this share of its life.
_SOONEST_DUE = 0.05
#: Seconds; see `due_after`.
_SOONEST_REFRESH = 1.0
#: A margin is never more than this share of a token's life.
_LARGEST_MARGIN = 0.1


class Freshness(Enum):
    """What may be done with a token."""

    FRESH = "fresh"  # serve it
    DUE = "due"  # serve it and refresh in the background
    EXPIRING = "expiring"  # wait a moment for a refresh, then serve it: an API's refusal makes it so too
    EXPIRED = "expired"  # wait for a new one


def due_after(life: float, refresh_in: float | None, options: FreshnessOptions, jitter: Jitter) -> float:
    """Return after how many seconds of a token's `life` a refresh is due.

    A provider's `refresh_in` is taken as it is (G5), as long as it lies within the life; under a second is none: a
    token would be refreshed as soon as it comes, again and again.
    """
    if refresh_in is not None and _SOONEST_REFRESH <= refresh_in <= life:
        return refresh_in
    spread = options.due_jitter
    return life * min(1.0, max(_SOONEST_DUE, options.due_fraction + jitter(-spread, spread)))


def assess(token: Token | None, wall: float, now: float, options: FreshnessOptions) -> Freshness:
    """Place a token in its life, given the time on both clocks."""
    if token is None:
        return Freshness.EXPIRED
    age = token.age(wall, now)
    if age >= token.life:
        return Freshness.EXPIRED
    if token.suspect:
        return Freshness.EXPIRING
    if age < token.due_after:
        return Freshness.FRESH
    # With a short-lived token, a margin of its whole life would make every caller wait.
    if token.life - age <= min(options.expiry_margin, _LARGEST_MARGIN * token.life):
        return Freshness.EXPIRING
    return Freshness.DUE
