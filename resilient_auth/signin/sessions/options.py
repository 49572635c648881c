"""How long sessions live, how often their id changes, and how many there may be."""

from __future__ import annotations

from dataclasses import dataclass

from ..._policy.checks import require, require_number, require_whole

__all__ = ["SessionOptions"]

_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Choose the bounds of sessions (G13). That an ID token has expired ends none.

    Args:
        idle: Seconds without a request after which a session is over.
        lifetime: Seconds after the sign-in at which it is over, whatever happens; its user signs in again.
        extension: Seconds past its end for which a session goes on, once, while the provider is seen to be down; 0 for
            not at all. Requests don't renew a session in its extension.
        rotate_every: Seconds after which the browser is given another id.
        overlap: Seconds for which the id before is still taken once the new one has come back: requests under way
            still have it.
        recheck: Seconds for which a process goes by what it read last; within them a session that was ended elsewhere
            is found to be over.
        stale_if_error: Seconds for which a process goes by what it read last while the store can't be read; 0 for not
            at all. Who has signed out at another process, or was signed out there, may be let in here for so long.
        per_user: Sessions of one user; one more ends the oldest.
        most: Sessions in all; one more is refused.
        most_guests: Sessions of guests, whom nobody has let in.
    """

    idle: float = 1800.0
    lifetime: float = 8 * 3600.0
    extension: float = 4 * 3600.0
    rotate_every: float = 900.0
    overlap: float = 60.0
    recheck: float = 1.0
    stale_if_error: float = 0.0
    per_user: int = 20
    most: int = 100_000
    most_guests: int = 1000

    def __post_init__(self) -> None:
        require_number("idle", self.idle, low=60.0, high=30 * _DAY)
        require_number("lifetime", self.lifetime, low=60.0, high=365 * _DAY)
        require_number("extension", self.extension, low=0.0, high=7 * _DAY)
        require_number("rotate_every", self.rotate_every, low=10.0, high=_DAY)
        require_number("overlap", self.overlap, low=1.0, high=600.0)
        require_number("recheck", self.recheck, low=0.0, high=1.5)
        require_number("stale_if_error", self.stale_if_error, low=0.0, high=300.0)
        require_whole("per_user", self.per_user, low=1, high=1000)
        require_whole("most", self.most, low=1, high=1_000_000)
        require_whole("most_guests", self.most_guests, low=1, high=2_000)
        require(
            self.idle <= self.lifetime,
            f"idle of {self.idle:g} s exceeds lifetime of {self.lifetime:g} s: lower the one or raise the other",
        )
        require(
            self.overlap <= self.rotate_every,
            f"overlap of {self.overlap:g} s exceeds rotate_every of {self.rotate_every:g} s: an id would outlive the "
            "next one; lower the one or raise the other",
        )
        require(
            self.per_user <= self.most,
            f"per_user of {self.per_user} exceeds most of {self.most}: lower the one or raise the other",
        )

    @property
    def touch_every(self) -> float:
        """Return after how many seconds a request is written down as activity: a page and its pictures are one."""
        return min(60.0, self.idle / 10)

    @property
    def longest(self) -> float:
        """Return for how many seconds a session may be in the store, at most."""
        return self.lifetime + self.extension
