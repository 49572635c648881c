"""Search to the end: each module here that has a `whole`, and the tests that go through the orders of threads."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def main(wanted: list[str]) -> int:
    """Run the searches with these names, or all; returns an exit status."""
    logging.disable(logging.CRITICAL)
    sys.path.insert(0, str(HERE))
    for name in wanted or sorted(path.stem for path in HERE.glob("*_search.py") if not path.stem.startswith("test_")):
        began = time.monotonic()
        print(f"{name}: {importlib.import_module(name).whole()}, in {time.monotonic() - began:.0f} s", flush=True)
    if wanted:
        return 0
    # With one preemption more than the tests take.
    os.environ.setdefault("RESILIENT_AUTH_SEARCH", "2")
    return pytest.main([str(HERE), "-q", "--timeout=3600", "--durations=0"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
