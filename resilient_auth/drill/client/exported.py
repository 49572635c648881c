"""What the SDK's process in a drill tells its owner: a scrape as each phase ends, and every span."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._process.extras import MissingExtra, raise_missing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["require", "switch_on"]

_OPTION: Final = "drill --telemetry"


def require() -> None:
    """Check that what `--telemetry` needs is installed.

    Raises:
        MissingExtra: It isn't: the extra `prometheus`, or the extra `otel` with OpenTelemetry's SDK.
    """
    for module, extra in (("prometheus_client", "prometheus"), ("opentelemetry.sdk.trace", "otel")):
        try:
            import_module(module)
        except ImportError as error:
            if error.name == "opentelemetry.sdk":
                raise MissingExtra(f"{_OPTION} needs {error.name}: pip install opentelemetry-sdk") from error
            raise_missing(_OPTION, extra, error)


def switch_on(folder: Path, name: str) -> Callable[[str], None]:
    """Write this process's spans into a folder from now on.

    Args:
        folder: Where to.
        name: The fault's, with which the files' names begin.

    Returns:
        What writes a scrape, given the phase that ends.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    from prometheus_client import CollectorRegistry, generate_latest

    from ...telemetry import instrument, prometheus_collector

    spans = (folder / f"{name}.spans.jsonl").open("w", encoding="utf-8")
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans, formatter=_line)))
    instrument(MeterProvider(shutdown_on_exit=False), tracers)
    registry = CollectorRegistry()
    registry.register(prometheus_collector())

    def scrape(phase: str) -> None:
        (folder / f"{name}.{phase}.prom").write_bytes(generate_latest(registry))

    return scrape


def _line(span: ReadableSpan) -> str:
    return json.dumps(json.loads(span.to_json())) + "\n"
