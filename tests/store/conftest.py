"""Private directories, and a way to run a program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of this user's own, whatever the umask."""
    path = tmp_path / "stores"
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    return path


@pytest.fixture
def program() -> Callable[..., subprocess.Popen[str]]:
    """Start a program in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", text, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in started:
        process.kill()
        process.communicate()
