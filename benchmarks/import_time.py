"""What importing costs, each in a fresh interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .measure import table

MODULES = ("resilient_auth", "resilient_auth.msal", "msal", "azure.identity")


def run(rounds: int = 7) -> None:
    """Measure whole processes, less one that imports nothing."""
    taken: dict[str, list[float]] = {module: [] for module in (*MODULES, "sys")}
    for _ in range(rounds):
        for module in taken:
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            taken[module].append(time.perf_counter() - begun)
    nothing = statistics.median(taken.pop("sys"))
    costs = {module: max(1e-6, statistics.median(times) - nothing) for module, times in taken.items()}
    table("import, over an interpreter that imports nothing", costs, unit="ms", scale=1e3)
