"""Time calls fairly: in turns, so that a machine whose speed drifts treats all alike, and by medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["in_turns", "table"]


def in_turns(calls: Mapping[str, Callable[[], object]], *, rounds: int = 15, seconds: float = 0.04) -> dict[str, float]:
    """Return each call's median cost in seconds, over `rounds` turns of about `seconds` each."""
    counts = {}
    for name, call in calls.items():
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            call()
            count += 1
        counts[name] = max(1, count)
    costs: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            turns = range(counts[name])
            begun = time.perf_counter()
            for _ in turns:
                call()
            costs[name].append((time.perf_counter() - begun) / counts[name])
    return {name: statistics.median(taken) for name, taken in costs.items()}


def table(title: str, costs: Mapping[str, float], *, unit: str = "us", scale: float = 1e6) -> None:
    """Print costs, and each one's ratio to the first."""
    first = next(iter(costs.values()))
    print(f"\n{title}")
    for name, cost in costs.items():
        print(f"  {name:<44}{cost * scale:>10.2f} {unit}{cost / first:>9.1f} x")
