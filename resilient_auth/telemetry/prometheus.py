"""The metrics, for a registry of prometheus-client: what is counted is read at a scrape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .._process.extras import raise_missing
from .metrics import METRICS, Metric
from .reading import current, readings
from .tally import BOUNDS

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as error:
    raise_missing("resilient_auth.telemetry.prometheus_collector", "prometheus", error)

__all__ = ["PrometheusCollector", "name_of"]


class PrometheusCollector(Collector):
    """Give a registry the metrics, under their names as Prometheus has them; see `name_of`."""

    def collect(self) -> Iterator[Family]:
        """Read them all."""
        current.settle()
        for metric in METRICS.values():
            family = _family(metric)
            if isinstance(family, HistogramMetricFamily):
                for labels, buckets, total in current.tally.summed(metric.name):
                    below = itertools.accumulate(buckets)
                    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
                    family.add_metric(labels, [(b, float(n)) for b, n in zip(bounds, below, strict=True)], total)
            else:
                for labels, value in readings(metric.name):
                    family.add_metric(labels, value)
            yield family

    def describe(self) -> list[Family]:
        """Return the names, by which a registry refuses a second collector, and finds those that a scrape asks for.

        The semantic conventions' aren't ours alone: an owner's own instrumentation may be there, too.
        """
        return [_family(metric) for metric in METRICS.values() if metric.name.startswith("resilient_auth.")]


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    names = [label.replace(".", "_") for label in metric.labels]
    if metric.kind == "histogram":
        return HistogramMetricFamily(name_of(metric), metric.text, labels=names)
    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return made(name_of(metric).removesuffix("_total"), metric.text, labels=names)


def name_of(metric: Metric) -> str:
    """Return a metric's name as Prometheus has it: with its unit, and `_total` for a counter."""
    name = metric.name.replace(".", "_")
    if metric.unit == "s":
        name += "_seconds"
    return f"{name}_total" if metric.kind == "counter" else name
