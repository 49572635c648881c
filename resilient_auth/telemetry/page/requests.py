"""Requests and their success against the period before, as columns of an hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...health.wording import at_time
from ..levels.values import Bucket, Kind, ServiceLevel, ServiceLevels, Totals
from .drawing import WIDTH, rect, steps, svg
from .markup import Html, details, element, listed, table

__all__ = ["requests_section"]

_HOURS: Final = 24
_COLUMN: Final = WIDTH / _HOURS
_TALL, _RATE_TALL = 96.0, 48.0
_NAMES: Final[Mapping[Kind, str]] = {
    "acquisitions": "Tokens asked for",
    "verifications": "Tokens verified",
    "downstream": "Calls to APIs",
}
_LEGEND: Final = (
    ("served", "succeeded"),
    ("missed", "failed"),
    ("before", "the same hour of the day before"),
)


def requests_section(levels: ServiceLevels) -> Iterator[Html]:
    """Write each kind that there was any of, and the alerts that are open."""
    if not levels.watched:
        call = element("code", "resilient_auth.telemetry.watch()")
        yield element("p", "They aren't counted here: call ", call, " when the application starts.", kind="soft")
        return
    whose = "this process's" if levels.read_at is None else "the whole fleet's, from its store"
    yield element("p", f"The last 24 hours by the hour, in UTC; {whose}.", kind="soft")
    yield listed(
        element(
            "strong",
            f"{_NAMES[alert.kind]}: {alert.code.replace('_', ' ')}",
            f" since {at_time(alert.since)}: {alert.detail}",
        )
        for alert in levels.alerts
    )
    kinds = [level for level in levels.levels if any(bucket.total for bucket in level.hours)]
    if not kinds:
        yield element("p", "None yet.")
        return
    marks = (
        element("li", Html(svg("key", 14, [_mark(kind)], width=22)), text) for kind, text in _LEGEND
    )  # fmt: skip
    yield element("ul", *marks, kind="legend")
    for level in kinds:
        yield element("article", *_chart(level), kind="chart")


def _mark(kind: str) -> str:
    return steps("before", [7.0], 22, 14) if kind == "before" else rect(kind, 0, 0, 22, 14)


def _chart(level: ServiceLevel) -> Iterator[Html]:
    now, before = level.hours[-_HOURS:], level.hours[-2 * _HOURS : -_HOURS]
    name = _NAMES[level.kind]
    yield element("h3", name)
    yield element("p", *_figures(level), kind="figures")
    told = f"{name}: {level.day.now.total:,} in 24 hours, {_rate(level.day.now)} succeeded"
    yield Html(svg("columns", _TALL, _totals(now, before), label=told))
    least = _least(now, before)
    yield element("p", f"Success, on a scale from {least:.0%} to 100%:", kind="small soft")
    label = f"{name}: success rate by the hour, from {least:.0%} to 100%"
    yield Html(svg("rates", _RATE_TALL, _rates(now, before, least), label=label))
    first, last = at_time(now[0].start), at_time(now[-1].start)
    yield element("div", element("span", first), element("span", last), kind="hours", aria_hidden="true")
    pairs = list(zip(now, before, strict=False)) if before else [(each, Totals()) for each in now]
    rows = [
        (at_time(one.start), f"{one.total:,}", f"{one.failed:,}", _rate(one), f"{then.total:,}", _rate(then))
        for one, then in reversed(pairs)
    ]
    columns = ("Hour", "Requests", "Failed", "Success", "Day before", "Its success")
    caption = f"{name} by the hour"
    yield details(f"numbers-{level.kind}", f"{caption}, as a table", table(caption, columns, rows))


def _figures(level: ServiceLevel) -> Iterator[object]:
    for compared, what in ((level.day, "24 hours"), (level.week, "7 days")):
        change = compared.change
        against = "nothing to compare with"
        if change is not None:
            than = f"than in the {what} before"
            more = f"{abs(change):.0%} {'more' if change > 0 else 'fewer'} {than}"
            against = more if abs(change) >= 0.005 else "as many as before"
        rate = compared.now.success_rate
        kind = "good" if rate is None or rate >= 0.999 else "tardy" if rate >= 0.99 else "bad"
        earlier = "" if compared.before is None else f" (before: {_rate(compared.before)})"
        yield element(
            "span",
            element("b", f"{compared.now.total:,}"), f" in {what}, {against}; ",
            element("b", _rate(compared.now), kind=kind), f" succeeded{earlier}. ",
        )  # fmt: skip


def _rate(totals: Totals) -> str:
    rate = totals.success_rate
    if rate is None:
        return "none"
    # What isn't whole mustn't look as if it were.
    return f"{min(rate, 0.9999 if totals.failed else 1.0):.2%}"


def _totals(now: Sequence[Bucket], before: Sequence[Bucket]) -> Iterator[str]:
    most = max(1, *(bucket.total for bucket in (*now, *before)))
    for number, bucket in enumerate(now):
        tall, failed = ((_TALL - 2) * part / most for part in (bucket.total, bucket.failed))
        yield rect("served", number * _COLUMN + 3, _TALL - tall, _COLUMN - 6, tall - failed)
        yield rect("missed", number * _COLUMN + 3, _TALL - failed, _COLUMN - 6, failed)
    yield steps("before", [(_TALL - 2) * bucket.total / most for bucket in before], _COLUMN, _TALL)


def _least(*spans: Sequence[Bucket]) -> float:
    """Return where the scale of success begins: 90 % tells 99.9 from 99, where nothing is below it."""
    rates = [bucket.success_rate for buckets in spans for bucket in buckets]
    return 0.9 if all(rate is None or rate >= 0.9 for rate in rates) else 0.0


def _rates(now: Sequence[Bucket], before: Sequence[Bucket], least: float) -> Iterator[str]:
    def tall(bucket: Bucket) -> float | None:
        rate = bucket.success_rate
        return None if rate is None else (_RATE_TALL - 2) * (rate - least) / (1.0 - least)

    yield rect("ground", 0, 0, WIDTH, _RATE_TALL)
    for number, bucket in enumerate(now):
        height, rate = tall(bucket), bucket.success_rate
        if height is not None and rate is not None:
            kind = "served" if rate >= 0.999 else "late" if rate >= 0.99 else "missed"
            yield rect(kind, number * _COLUMN + 3, _RATE_TALL - height, _COLUMN - 6, height)
    yield steps("before", [tall(bucket) for bucket in before], _COLUMN, _RATE_TALL)
