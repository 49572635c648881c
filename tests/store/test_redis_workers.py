"""Calls of a client that doesn't come back in its time keep nobody's place."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth._store.redis.clients import CALLS_AT_ONCE
from resilient_auth._store.redis.store import RedisBackend
from resilient_auth.store import BackendFailed


class Stalled:
    """A client whose first calls hang, as in name resolution, which no socket's time-out ends."""

    def __init__(self, calls: int) -> None:
        self.free = threading.Event()
        self._hang = iter(range(calls))

    def get(self, key: str) -> Any:
        if next(self._hang, None) is not None:
            self.free.wait()
        return None


def _try(backend: RedisBackend) -> None:
    with pytest.raises(BackendFailed):
        backend.get("name")


def test_a_store_answers_again_though_its_first_calls_never_return() -> None:
    """As many as it makes at a time hang; a second after their time, others have their places, and health tells."""
    client = Stalled(CALLS_AT_ONCE)
    backend = RedisBackend(lambda: client, owned=False, prefix="p", timeout=0.1)
    threads = [threading.Thread(target=_try, args=(backend,)) for _ in range(CALLS_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(1.1)
    assert backend.get("name") is None
    # Another test's may be alive in this process, too.
    assert CALLS_AT_ONCE in [lane.overdue for lane in ra.health().lanes if lane.name == backend.label]
    client.free.set()


@pytest.mark.slow
def test_calls_that_were_left_behind_are_bounded() -> None:
    """A client that never comes back costs so many threads, and no more."""
    client = Stalled(10_000)
    backend = RedisBackend(lambda: client, owned=False, prefix="p", timeout=0.01)
    began = threading.active_count()
    for _ in range(6):
        threads = [threading.Thread(target=_try, args=(backend,)) for _ in range(2 * CALLS_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(1.1)
    assert threading.active_count() - began <= CALLS_AT_ONCE + 64
    client.free.set()
