"""What a drill has left behind, and how its scrapes are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Drilled:
    """What a short drill has left behind."""

    status: int
    report: str
    findings: Any
    #: The scrapes by the phase that they end, and the spans.
    scrapes: dict[str, str]
    spans: list[Any]

    @property
    def texts(self) -> list[str]:
        """All that it has written."""
        return [self.report, json.dumps(self.findings), *self.scrapes.values(), json.dumps(self.spans)]


def told(drilled: Drilled, phase: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name with these labels, in the scrape at the end of a phase."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(drilled.scrapes[phase])
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
