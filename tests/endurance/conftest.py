"""A provider that fails on command, and programs that live through it in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import resilient_auth
from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Leave out what the machine's environment says."""


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of this user's own, whatever the umask."""
    path = tmp_path / "stores"
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    return path


@pytest.fixture
def run_program() -> Callable[..., str]:
    """Run one of this directory's programs to its end; give what it printed, or fail with what it said of its hang."""

    def run(name: str, *arguments: object, seconds: float = 60.0) -> str:
        root = Path(resilient_auth.__file__).parents[1]
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name(name)), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr[-8000:]
        return ended.stdout

    return run
