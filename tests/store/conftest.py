"""Private directories, each medium, and a way to run a program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_auth._store.memory import MemoryBackend
from resilient_auth._store.redis.clients import connector
from resilient_auth._store.redis.store import RedisBackend
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock
from resilient_auth.store import Backend


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


@pytest.fixture(params=["memory", "file", "valkey"])
def backend(request: pytest.FixtureRequest, directory: Path) -> Iterator[Backend]:
    """Each medium, empty."""
    made: Any
    if request.param == "memory":
        made = MemoryBackend()
    elif request.param == "file":
        made = SqliteBackend(directory / "a.db", timeout=5.0, clock=SystemClock())
    else:
        url = request.getfixturevalue("redis_url")
        made = RedisBackend(connector(url, 5.0), owned=True, prefix="media", timeout=5.0)
    yield made
    made.close()
