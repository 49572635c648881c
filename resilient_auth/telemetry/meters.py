"""The metrics, by OpenTelemetry's API: what is counted is read when the owner's reader asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from .labels import attributes
from .metrics import METRICS, MOST_SERIES
from .reading import Reading, readings
from .tally import BOUNDS, Labels

__all__ = ["Meters"]

#: What is remembered of counters that were begun anew, at most: those of several times as many as there are.
_MOST_TOLD = 32 * MOST_SERIES


class Meters:
    """The instruments of one meter. They can't be taken back: while `on` says no, they tell nothing.

    Args:
        meter: The owner's.
        on: Tells whether anything is to be told.
        read: Returns a metric's readings.
    """

    def __init__(self, meter: Meter, on: Callable[[], bool], read: Callable[[str], list[Reading]] = readings) -> None:
        self._on = on
        self._read = read
        self._histograms: dict[str, Histogram] = {}
        #: What counters told last, and what they had told before they were begun anew. Readers of a process keep what
        #: they were told: one that went back would be a negative number of requests.
        self._told: dict[tuple[str, Labels], float] = {}
        self._before: dict[tuple[str, Labels], float] = {}
        for metric in METRICS.values():
            about: dict[str, Any] = {"unit": metric.unit, "description": metric.text}
            if metric.kind == "histogram":
                self._histograms[metric.name] = meter.create_histogram(
                    metric.name, explicit_bucket_boundaries_advisory=BOUNDS, **about
                )
            elif metric.kind == "counter":
                meter.create_observable_counter(metric.name, [self._observing(metric.name, grows=True)], **about)
            else:
                meter.create_observable_gauge(metric.name, [self._observing(metric.name)], **about)

    def begin_anew(self) -> None:
        """Go on from what was told, since what was counted is forgotten; in a forked child too."""
        newest = list(self._told.items())[-_MOST_TOLD:]
        self._told, self._before = dict(newest), dict(newest)

    def record(self, name: str, labels: Labels, value: float) -> None:
        """Hand one of a histogram's values on."""
        if self._on():
            self._histograms[name].record(value, _attributes(name, labels))

    def _observing(self, name: str, *, grows: bool = False) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            if self._on():
                for labels, value in self._read(name):
                    yield Observation(self._grown(name, labels, value) if grows else value, _attributes(name, labels))

        return observe

    def _grown(self, name: str, labels: Labels, counted: float) -> float:
        key = name, labels
        self._told[key] = told = max(self._told.get(key, 0.0), self._before.get(key, 0.0) + counted)
        return told


def _attributes(name: str, labels: Labels) -> dict[str, str | int]:
    return attributes(zip(METRICS[name].labels, labels, strict=True))
