"""What an owner's exporters and scrapes see of a process."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

SCOPE = ["api://orders/.default"]
#: What no metric, span or page may hold.
SECRET = "s3cret-of-the-daemon"


class Seen:
    """What an owner's exporters and scrapes see."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.registry = CollectorRegistry()

    def spans(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """The spans of a name, as soon as there are so many."""
        ends = time.monotonic() + 5.0
        while True:
            found = [span for span in self.exporter.get_finished_spans() if span.name == name]
            if len(found) >= count:
                return found
            assert time.monotonic() < ends, [span.name for span in self.exporter.get_finished_spans()]
            time.sleep(0.01)

    def points(self, name: str) -> list[Any]:
        """OpenTelemetry's data points of a metric, as soon as there are any: durations are handed on by a thread."""
        ends = time.monotonic() + 5.0
        while True:
            data = self.reader.get_metrics_data()
            for resource in data.resource_metrics if data is not None else ():
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == name and metric.data.data_points:
                            return list(metric.data.data_points)
            assert time.monotonic() < ends, f"nothing of {name}"
            time.sleep(0.01)

    def scraped(self, name: str, **labels: str) -> float:
        """The sum of a sample's values at a scrape, of those with these labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
