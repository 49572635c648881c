"""What an owner may choose of a watch, checked."""

from __future__ import annotations

from dataclasses import dataclass

from ..._policy.checks import require, require_clock, require_function, require_number, require_store, require_whole
from ...clock import Clock, Jitter, SystemClock, system_jitter
from ...store import Store
from .endings import SecretExpires
from .rules import Thresholds
from .webhooks import Webhook

__all__ = ["WatchOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """What `watch` was given; see there."""

    store: Store | None
    name: str
    webhook: Webhook | None
    fall: float | None
    objective: float | None
    least: int
    secret_expires: SecretExpires | None
    clock: Clock | None
    jitter: Jitter = system_jitter

    def __post_init__(self) -> None:
        if self.store is not None:
            require_store(self.store)
        require_clock(self.clock)
        if callable(self.secret_expires):
            require_function("secret_expires", self.secret_expires, of="no argument")
        named = isinstance(self.name, str) and 0 < len(self.name) <= 100 and self.name.isprintable()
        require(named, f"name must be up to 100 printable characters, not {self.name!r}")
        require(
            self.webhook is None or isinstance(self.webhook, Webhook),
            f"webhook must be a Webhook(url, secret=...), not {type(self.webhook).__name__}",
        )
        if self.fall is not None:
            require_number("fall", self.fall, low=0.05, high=1.0, unit="")
        if self.objective is not None:
            # With less, 14.4 times the errors that it allows would be more than all.
            require_number("objective", self.objective, low=0.95, high=0.99999, unit="")
        require_whole("least", self.least, low=1)

    @property
    def thresholds(self) -> Thresholds:
        """Return what is alerted on."""
        return Thresholds(fall=self.fall, objective=self.objective, least=self.least)

    @property
    def time(self) -> Clock:
        """Return the clock."""
        return self.clock or SystemClock()
