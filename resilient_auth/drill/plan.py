"""What is broken, for how long, and how hard the clients ask meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..emulator import Fault

__all__ = ["MSAL_MARGIN", "QUICK", "QUICK_LIFETIME", "SCENARIOS", "Plan", "Scenario", "scenario"]

#: MSAL takes a token with fewer seconds left than this for expired.
MSAL_MARGIN: Final = 300.0
#: Seconds that a wave's processes take to start and to end, for an estimate.
_AROUND: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way in which the provider breaks.

    Attributes:
        name: What `--fault` calls it.
        title: What the report calls it.
        story: One sentence on what goes wrong.
        fault: What the emulator does.
        counted: Whether calls reach the emulator, so that it can count them.
    """

    name: str
    title: str
    story: str
    fault: Fault
    counted: bool = True


SCENARIOS: Final = (
    Scenario(
        name="http_503",
        title="503, JSON",
        story="The provider is down and says so in its own words.",
        fault=Fault.http_503(),
    ),
    Scenario(
        name="http_503_html",
        title="503, HTML page",
        story="A gateway answers for a provider that is down.",
        fault=Fault.http_503_html(),
    ),
    Scenario(
        name="http_429",
        title="429, seconds",
        story="The provider throttles: 429 with a Retry-After of 8 s.",
        fault=Fault.http_429(retry_after=8),
    ),
    Scenario(
        name="http_429_date",
        title="429, date",
        story="The same, with Retry-After as a date.",
        fault=Fault.http_429(retry_after=8, as_date=True),
    ),
    Scenario(
        name="html_200",
        title="200, HTML page",
        story="A captive portal or proxy answers 200 with a page of its own.",
        fault=Fault.html_200(),
    ),
    Scenario(
        name="json_array",
        title="200, []",
        story="The answer is JSON of the wrong shape: an empty array.",
        fault=Fault.json_array(),
    ),
    Scenario(
        name="json_object",
        title="200, {}",
        story="The answer is an object with nothing in it.",
        fault=Fault.json_object(),
    ),
    Scenario(
        name="truncated_json",
        title="200, truncated JSON",
        story="The JSON breaks off in the middle.",
        fault=Fault.truncated_json(),
    ),
    Scenario(
        name="wrong_content_length",
        title="Short answer",
        story="The connection ends before the promised length.",
        fault=Fault.wrong_content_length(),
    ),
    Scenario(
        name="reset",
        title="Connection reset",
        story="Each request is answered by a TCP reset.",
        fault=Fault.reset(),
    ),
    Scenario(
        name="refuse",
        title="Connection refused",
        story="Nothing listens any more, and live connections die.",
        fault=Fault.refuse(),
        counted=False,
    ),
    Scenario(
        name="black_hole",
        title="Black hole",
        story="The provider accepts requests and never answers.",
        fault=Fault.black_hole(),
    ),
    Scenario(
        name="trickle",
        title="Trickle",
        story="The answer arrives at 50 bytes a second.",
        fault=Fault.trickle(50.0),
    ),
    Scenario(
        name="slow",
        title="Slow, 2 s",
        story="Every answer is right, and takes two seconds.",
        fault=Fault.slow(2.0),
    ),
    Scenario(
        name="tls_failed",
        title="TLS failure",
        story="No handshake succeeds.",
        fault=Fault.tls_failed(),
    ),
    Scenario(
        name="flapping",
        title="Flapping",
        story="Two seconds of 503, two seconds of health, and so on.",
        fault=Fault.flapping(2.0),
    ),
    Scenario(
        name="expired_tokens",
        title="Expired tokens",
        story="The provider issues tokens that have expired on arrival.",
        fault=Fault.expired_tokens(),
    ),
)


def scenario(name: str) -> Scenario:
    """Return the scenario of a name, with `-` or `_`, and with or without `http_`.

    Raises:
        ValueError: There is none.
    """
    wanted = name.strip().lower().replace("-", "_")
    for each in SCENARIOS:
        if wanted in (each.name, each.name.removeprefix("http_")):
            return each
    raise ValueError(f"there is no fault {name!r}: use one of {', '.join(each.name for each in SCENARIOS)}")


#: What a short run for CI breaks: one fault of each kind.
QUICK: Final = ("http_503", "http_429", "html_200", "reset", "black_hole")
#: The life of tokens in a short run, in seconds: MSAL takes them for expired in its middle.
QUICK_LIFETIME: Final = MSAL_MARGIN + 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Lay out a drill.

    Args:
        scenarios: What is broken, each at a provider of its own.
        threads: Threads that ask in each client, from 1 to 256.
        rate: Requests a second of each client, all its threads together; up to 1000.
        healthy: Seconds before the outage.
        outage: Seconds of outage.
        recovery: Seconds to wait after it for fresh tokens, at most.
        token_lifetime: Life of the tokens in seconds; longer than the three above together.
        refresh_in: Seconds after which the provider wants tokens refreshed.
        msal_timeout: Seconds of plain MSAL's time-out; 0 leaves it without, as MSAL is by default.
        parallel: Scenarios that run at the same time.
        telemetry: A folder for what the SDK's processes tell their owner: a scrape as each phase ends, and the spans.
        app: An application that is drilled in the SDK's place: where its builder is, as `module:callable`.

    Raises:
        ValueError: A number is out of range, or no token would last.
    """

    scenarios: tuple[Scenario, ...] = SCENARIOS
    threads: int = 4
    rate: float = 20.0
    healthy: float = 4.0
    outage: float = 28.0
    recovery: float = 22.0
    token_lifetime: float = 320.0
    refresh_in: float = 2.0
    msal_timeout: float = 10.0
    parallel: int = len(SCENARIOS)
    telemetry: str | None = None
    app: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("threads", 1, 256),
            ("rate", 0.1, 1000.0),
            ("healthy", 1.0, 600.0),
            ("outage", 1.0, 86400.0),
            ("recovery", 0.0, 600.0),
            ("refresh_in", 0.0, 86400.0),
            ("msal_timeout", 0.0, 3600.0),
            ("parallel", 1, 100),
        ):
            value, kind = getattr(self, name), int if isinstance(low, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                whole = "a whole number " if kind is int else ""
                raise ValueError(f"{name.replace('_', '-')} must be {whole}from {low:g} to {high:g}, not {value!r}")
        if not self.scenarios:
            raise ValueError("there is no fault to drill: name one of those that --help lists")
        needed = self.healthy + self.outage + self.recovery
        if self.token_lifetime < needed:
            raise ValueError(
                f"a token-lifetime of {self.token_lifetime:g} s ends before the drill: {self.healthy:g} s healthy, "
                f"{self.outage:g} s dark and {self.recovery:g} s of recovery take {needed:g} s"
            )
        if self.refresh_in > self.token_lifetime:
            raise ValueError(f"refresh-in of {self.refresh_in:g} s exceeds token-lifetime of {self.token_lifetime:g} s")

    @property
    def seconds(self) -> float:
        """Seconds that it takes at most, about."""
        waves = math.ceil(len(self.scenarios) / self.parallel)
        return waves * (self.healthy + self.outage + self.recovery + _AROUND)

    @property
    def interval(self) -> float:
        """Seconds between two requests of one thread."""
        return self.threads / self.rate
