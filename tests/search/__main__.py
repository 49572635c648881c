"""Search every order of threads that the tests here search a little of, with one preemption more: `make search`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("RESILIENT_AUTH_SEARCH", "2")
sys.exit(pytest.main([str(Path(__file__).parent), "-q", "--timeout=3600", "--durations=0", *sys.argv[1:]]))
