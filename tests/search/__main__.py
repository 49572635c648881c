"""Search to the end: each module here that has a `whole` goes through all that its bounds allow, and says so."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(wanted: list[str]) -> None:
    """Run the searches with these names, or all."""
    logging.disable(logging.CRITICAL)
    sys.path.insert(0, str(HERE))
    for name in wanted or sorted(path.stem for path in HERE.glob("*_search.py") if not path.stem.startswith("test_")):
        began = time.monotonic()
        print(f"{name}: {importlib.import_module(name).whole()}, in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
