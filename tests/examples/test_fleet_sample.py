"""The fleet serves every request through an outage, a restart in the middle of it, and a recovery."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHASE = re.compile(
    r"(\d+) of (\d+) +served; (\d+) calls at the provider; (\d+) tokens from the provider, (\d+) from the store"
)


@pytest.mark.slow
def test_the_fleet_asks_once_and_serves_every_request() -> None:
    """One worker asks for all at the start and at the recovery; those who start in the outage find what is stored."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "fleet" / "run.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    start, dark, restart, recovery = ([int(number) for number in found] for found in PHASE.findall(ended.stdout))
    for served, asked, *_ in (start, dark, restart, recovery):
        assert served == asked > 0
    assert start[2:] == [1, 1, 3]
    assert dark[2:4] == [0, 0]
    assert restart[2:] == [0, 0, 4]
    assert recovery[2] >= 1
    assert "eyJ" not in ended.stdout + ended.stderr
