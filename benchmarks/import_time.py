"""What importing costs, each in a fresh interpreter, from compiled files."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .measure import table

STATEMENTS = (
    "import resilient_auth",
    "from resilient_auth import msal",
    "from resilient_auth import msal; msal.ClientApplication",
    "import msal",
    "import azure.identity",
)
_NOTHING = "pass"


def run(rounds: int = 7) -> None:
    """Measure whole processes, less one that imports nothing."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        # Where the environment forbids it, ours would be compiled each time, and those installed with pip wouldn't.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        taken: dict[str, list[float]] = {statement: [] for statement in (*STATEMENTS, _NOTHING)}
        for number in range(rounds + 1):
            for statement in taken:
                begun = time.perf_counter()
                subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
                if number:  # the first one compiles
                    taken[statement].append(time.perf_counter() - begun)
    nothing = statistics.median(taken.pop(_NOTHING))
    costs = {statement: max(1e-6, statistics.median(times) - nothing) for statement, times in taken.items()}
    table("import, over an interpreter that imports nothing", costs, unit="ms", scale=1e3)
