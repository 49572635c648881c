"""The sample of an API that providers call answers every sign-in, whatever its database does, and loses no write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_sign_in_fails_while_the_database_is_held_or_gone(own_environment: None) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "callouts" / "run.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"36 sign-ins and sign-ups, 0 failed", ended.stdout), ended.stdout
    assert "ann signs in: provideClaimsForToken gold (3 times)" in ended.stdout.split("is gone", 1)[1]
    assert "sign-ups written in the end: 3 of 3" in ended.stdout
