"""Service levels as values."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

from ..._policy.checks import require

__all__ = [
    "FINE",
    "HOUR",
    "KINDS",
    "Alert",
    "Bucket",
    "Comparison",
    "Kind",
    "ServiceLevel",
    "ServiceLevels",
    "Totals",
]

Kind = Literal["acquisitions", "verifications", "downstream"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Seconds of a bucket: of those that reach back a day, and of those that reach back two weeks.
FINE, HOUR = 300, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many there were in a span, and how many of them failed."""

    total: int = 0
    failed: int = 0

    @property
    def success_rate(self) -> float | None:
        """Return the share that succeeded, from 0 to 1; None where there were none."""
        return None if self.total <= 0 else 1.0 - self.failed / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket(Totals):
    """How many there were in a few minutes, or in an hour."""

    #: When it begins, in seconds since the epoch.
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A span that ends now, and the same span of the period before."""

    now: Totals
    #: None where nobody counted yet, at least at its beginning.
    before: Totals | None

    @property
    def change(self) -> float | None:
        """Return by which share there are more than before; less than 0 for fewer, None where that isn't known."""
        if self.before is None or not self.before.total:
            return None
        return self.now.total / self.before.total - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """How much of one kind was asked for, and how much of it failed."""

    kind: Kind
    #: The last 24 hours in buckets of five minutes, and the last two weeks in hours: the oldest first, none left out,
    #: the last one under way.
    minutes: tuple[Bucket, ...]
    hours: tuple[Bucket, ...]
    #: The last 24 hours against the 24 before, and the last seven days against the seven before.
    day: Comparison
    week: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that the owner was told of, and that goes on."""

    kind: Kind
    #: `requests_fell`, `success_rate` (the budget of errors is spent fast) or `error_budget` (slowly, for long).
    code: str
    #: When it was opened, in seconds since the epoch.
    since: float
    #: What was seen then, in plain words.
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevels:
    """Requests and success rates of this process, or of a fleet (G25)."""

    #: The wall time.
    at: float
    #: Whether `watch` is on; without it all is zero.
    watched: bool
    #: One of each kind, in the order of `KINDS`.
    levels: tuple[ServiceLevel, ...]
    alerts: tuple[Alert, ...] = ()
    #: When the whole fleet's numbers were read last; None for those of this process alone: there is no store, or it
    #: wasn't read yet.
    read_at: float | None = None
    #: Since when anybody has counted; None for nobody.
    since: float | None = None

    def of(self, kind: Kind) -> ServiceLevel:
        """Return those of one kind.

        Raises:
            ConfigurationError: There is no such kind.
        """
        require(kind in KINDS, f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        return self.levels[KINDS.index(kind)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, success rates and changes included."""
        found: dict[str, Any] = _json(self)
        return found


def _json(value: object) -> Any:
    if isinstance(value, tuple):
        return [_json(each) for each in value]
    if not is_dataclass(value):
        return value
    found = {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Totals):
        found["success_rate"] = value.success_rate
    if isinstance(value, Comparison):
        found["change"] = value.change
    return found
