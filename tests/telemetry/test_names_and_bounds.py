"""What a metric is called, wherever it is told, and how many series it can have, whoever writes its labels."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest
from exported import Seen
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser

import resilient_auth as ra
from resilient_auth._process.credential_ends import CredentialEnd, reporters
from resilient_auth.events import CODES
from resilient_auth.telemetry.labels import Addresses, known
from resilient_auth.telemetry.metrics import METRICS, MOST_SERIES, OTHER, Metric
from resilient_auth.telemetry.prometheus import name_of
from resilient_auth.telemetry.reading import current
from resilient_auth.telemetry.standing import standing
from resilient_auth.telemetry.tally import Tally

#: The labels that have few values whatever is asked for, and by which rules and pages sum.
SUMMED = {"http.request.method"} | {
    f"resilient_auth.{name}"
    for name in (
        *("blame", "flow", "operation", "outcome", "purpose", "remembered", "source", "state", "unasked", "verdict"),
    )
}


def translated(metric: Metric) -> str:
    """A name as what writes OpenTelemetry's metrics for Prometheus makes it: by the compatibility specification."""
    name = re.sub(r"[^a-zA-Z0-9_:]+", "_", metric.name)
    unit = re.sub(r"\{.*\}", "", metric.unit)
    if unit == "s":
        name += "_seconds"
    elif unit == "1" and metric.kind == "gauge":
        name += "_ratio"
    else:
        assert unit == "", metric
    return name + "_total" if metric.kind == "counter" else name


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_both_ways_to_prometheus_lead_to_one_name(metric: Metric) -> None:
    """By its client, and by OpenTelemetry and a collector: the same alert rules and dashboard read both."""
    assert translated(metric) == name_of(metric)


def test_a_registry_knows_the_names(seen: Seen) -> None:
    """A second collector would tell everything twice; and a scrape may ask for a few by name."""
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        seen.registry.register(ra.telemetry.prometheus_collector())
    current.tally.add("resilient_auth.events", ("token_served",))
    few = generate_latest(seen.registry.restricted_registry(["resilient_auth_events_total"])).decode()  # type: ignore[arg-type]
    assert 'resilient_auth_events_total{event="token_served"} 1.0' in few
    assert few.count("# TYPE") == 1


def test_openmetrics_own_parser_reads_it(seen: Seen) -> None:
    """With labels that hold whatever text allows."""
    for host in ('a"b', "a\\b", "a\nb", "\u202e", "é"):
        current.tally.add("resilient_auth.breaker.refused", (host, "token"))
        current.record("resilient_auth.exchange.queue.duration", (host,), 0.3)
    text = exposition.generate_latest(seen.registry).decode()
    found = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert len(found["resilient_auth_breaker_refused"].samples) == 5


def test_what_is_owned_by_others_too_may_be_in_the_registry() -> None:
    """Such as another instrumentation's durations of requests."""
    from prometheus_client import Histogram

    registry = CollectorRegistry()
    Histogram("http_client_request_duration_seconds", "another's", registry=registry)
    registry.register(ra.telemetry.prometheus_collector())
    ra.telemetry.uninstrument()


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_above_the_bound_sums_are_still_right(metric: Metric) -> None:
    """Hosts, codes and applications without end: what failed is still told as that, in a bounded number of series."""
    draw, tally = random.Random(7), Tally()
    few = [at for at, label in enumerate(metric.labels) if label in SUMMED]
    expected: Counter[tuple[str, ...]] = Counter()
    for number in range(4 * MOST_SERIES):
        labels = tuple(
            draw.choice(("a", "b", "c")) if label in SUMMED else f"{label}-{number}" if number % 7 else ""
            for label in metric.labels
        )
        if metric.kind == "histogram":
            tally.record(metric.name, labels, 1.0)
        else:
            tally.add(metric.name, labels)
        expected[tuple(labels[at] for at in few)] += 1
    found: Counter[tuple[str, ...]] = Counter()
    series = (
        [(labels, sum(buckets)) for labels, buckets, _ in tally.summed(metric.name)]
        if metric.kind == "histogram"
        else list(tally.counts(metric.name))
    )
    for labels, count in series:
        found[tuple(labels[at] for at in few)] += count
    assert found == expected
    others = len(metric.labels) - len(few)
    assert len(series) <= MOST_SERIES + 3 ** len(few) * 2**others


class ManyEnds:
    """A watch that knows of very many secrets."""

    def credential_ends(self) -> tuple[CredentialEnd, ...]:
        return tuple(
            CredentialEnd(
                credential="secret",
                client_id=f"app-{number}",
                authority="",
                target="t",
                at=0.0,
                remaining=float(number),
            )
            for number in range(3 * MOST_SERIES, 0, -1)
        )


def test_gauges_are_bounded_too() -> None:
    """Of very many applications those that come first are told apart; of the others the soonest end."""
    ends = ManyEnds()
    reporters.add(ends)
    try:
        told = [
            (labels, value)
            for name, labels, value in standing(Addresses())
            if name == "resilient_auth.credential.remaining"
        ]
    finally:
        reporters.discard(ends)
    assert len(told) == MOST_SERIES + 1
    assert dict(told)["", OTHER] == 1.0


@pytest.mark.parametrize(
    "code",
    [
        "http_٥٠٣",
        "http_\uff15\uff10\uff13",
        "http_५०३",
        "HTTP_503",
        "http_5030",
        "http_50",
        "x" * 10_000,
        "",
        "a\nb",
        "\ud800",
        "http_503\n",
    ],
)
def test_a_code_that_somebody_made_up_is_none(code: str) -> None:
    """Whatever a provider writes where a code belongs."""
    assert known(code) == OTHER
    assert known("http_503") == "http_503"
    assert all(known(each) == each for each in CODES)


def test_an_address_is_a_hosts_name_or_one_of_a_few() -> None:
    """Whatever is called one: by a token, a configuration, a document."""
    addresses, draw = Addresses(), random.Random(3)
    letters = "ab/:@[]?#%\\ .é\n\x00"
    texts = ["".join(draw.choices(letters, k=draw.randrange(12))) for _ in range(3000)]
    found: set[Any] = {addresses.of(f"{draw.choice(('https://', '', '//', 'urn:'))}{text}") for text in texts}
    assert len(found) <= 101
