"""When a breaker opens, for how long, and how it is probed."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import require, require_number, require_whole

__all__ = ["FLOOR", "BreakerOptions", "chosen_breaker"]

#: Seconds after a failure within which nothing is asked again (G9, G10).
FLOOR = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """Choose when a failing dependency is left alone, for how long, and how it is probed (G11).

    Args:
        consecutive_failures: Failures in a row that open the breaker.
        failure_rate: Share of the calls in the window, above 0 up to 1, that opens it too when they failed.
        window: Seconds over which that share is taken. As many without a failure bring breaks back to the first one.
        minimum_throughput: Verdicts that the window must hold before the share counts.
        first_break: Seconds of the first break, drawn from half of it to one and a half, so that a fleet spreads; at
            least 5 (G9).
        break_growth: Factor by which each failed probe makes breaks longer, and each recovery shorter.
        longest_break: Seconds that no break exceeds.
        urgent_break: Bounds in seconds within which a break is drawn while somebody has no token left.
        probes: Calls that may be out at a time while half-open.
        probe_lease: Seconds after which a probe without a verdict is given up; longer than an attempt can take.
        successes_to_close: Probes in a row that must succeed.
    """

    consecutive_failures: int = 3
    failure_rate: float = 0.5
    window: float = 60.0
    minimum_throughput: int = 10
    first_break: float = 10.0
    break_growth: float = 2.0
    longest_break: float = 90.0
    urgent_break: tuple[float, float] = (8.5, 9.5)
    probes: int = 1
    probe_lease: float = 30.0
    successes_to_close: int = 1

    def __post_init__(self) -> None:
        for name in ("consecutive_failures", "minimum_throughput", "probes", "successes_to_close"):
            require_whole(name, getattr(self, name), low=1)
        require_number("failure_rate", self.failure_rate, low=0.01, high=1.0, unit="")
        require_number("window", self.window, low=1.0, high=3600.0)
        require_number("first_break", self.first_break, low=FLOOR, high=3600.0)
        require_number("break_growth", self.break_growth, low=1.0, high=10.0, unit="")
        require_number("longest_break", self.longest_break, low=FLOOR, high=3600.0)
        require_number("probe_lease", self.probe_lease, low=1.0, high=3600.0)
        require(
            isinstance(self.urgent_break, tuple) and len(self.urgent_break) == 2,
            f"urgent_break must be a pair of seconds such as (8.5, 9.5), not {self.urgent_break!r}",
        )
        low, high = self.urgent_break
        require_number("the lower bound of urgent_break", low, low=FLOOR, high=3600.0)
        require_number("the upper bound of urgent_break", high, low=FLOOR, high=3600.0)
        require(low <= high, f"urgent_break of ({low:g}, {high:g}) s has its bounds the wrong way round: swap them")
        for name, seconds in (("first_break", self.first_break), ("the upper bound of urgent_break", high)):
            require(
                seconds <= self.longest_break,
                f"{name} of {seconds:g} s exceeds longest_break of {self.longest_break:g} s: "
                "lower the one or raise the other",
            )


def chosen_breaker(options: BreakerOptions | None) -> BreakerOptions:
    """Return what an owner chose, or the defaults.

    Raises:
        ConfigurationError: It is something else.
    """
    fits = options is None or isinstance(options, BreakerOptions)
    require(fits, f"breaker must be BreakerOptions(...), not {type(options).__name__}")
    return options or BreakerOptions()
