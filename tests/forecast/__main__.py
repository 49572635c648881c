"""Compare the forecast of many random states with what then happens: `python -m tests.forecast [SEEDS [FIRST]]`."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forecast_world import run

from resilient_auth.emulator import Emulator


def main(states: int = 200, first: int = 0) -> int:
    """Run so many states; returns an exit status."""
    logging.disable(logging.CRITICAL)
    began, wrong = time.monotonic(), 0
    with Emulator() as idp:
        for seed in range(first, first + states):
            found = run(idp, seed)
            wrong += bool(found)
            print(*found, sep="\n  ", end="\n" if found else "", flush=True)
    print(f"{states} states, {wrong} with a wrong forecast, in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
