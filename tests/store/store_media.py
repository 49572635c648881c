"""What the tests share: keys, ports, and backends as functions that a spawned process can find again."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from resilient_auth._store.redis.clients import connector
from resilient_auth._store.redis.store import RedisBackend
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock

PATH = "STORE_TEST_PATH"
URL = "STORE_TEST_URL"

KEY = bytes(range(7, 39))
OTHER_KEY = bytes(range(107, 139))


def free_port(below: int = 65_536) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < below:
            return port


def file_backend() -> SqliteBackend:
    return SqliteBackend(Path(os.environ[PATH]), timeout=10.0, clock=SystemClock())


def redis_backend() -> RedisBackend:
    return RedisBackend(connector(os.environ[URL], 5.0), owned=True, prefix="check", timeout=5.0)
