"""Leases and lives at every uptime that a machine can have: floating point must not end one early or keep one on."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from resilient_auth._store.memory import MemoryBackend
from resilient_auth._store.sqlite import SqliteBackend


class Uptime:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        raise NotImplementedError


#: Near zero, near powers of two, and anywhere within some years.
uptimes = st.one_of(
    st.floats(0.0, 20.0),
    st.builds(lambda power, off: max(0.0, 2.0**power + off), st.integers(0, 27), st.floats(-30.0, 30.0)),
    st.floats(0.0, 2.0e8),
)
lengths = st.one_of(st.floats(0.01, 60.0), st.sampled_from([12.0, 0.1, 0.3, 86_400.0]))


def backend_of(kind: str, directory: Path, clock: Any) -> Any:
    return MemoryBackend(clock=clock) if kind == "memory" else SqliteBackend(directory / "a.db", timeout=5, clock=clock)


@pytest.mark.parametrize("kind", ["memory", "file"])
class TestAtEveryUptime:
    def test_a_lease_is_held_from_its_first_moment_to_its_end(self, kind: str, directory: Path) -> None:
        """Nobody else gets it at the moment it was taken, nor at any later one; everybody does once it is over."""
        clock = Uptime()
        backend = backend_of(kind, directory, clock)
        count = 0

        @example(7.1, 12.0, 0.0)
        @example(0.1, 0.2, 0.0)
        @given(uptimes, lengths, st.floats(0.0, 1.0, exclude_max=True))
        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        def holds(now: float, seconds: float, share: float) -> None:
            nonlocal count
            count += 1
            name = f"lease.{count}"
            clock.now = now
            assert backend.lock(name, "first", seconds) is not None
            assert backend.lock(name, "second", seconds) is None
            clock.now = min(now + seconds * share, math.nextafter(now + seconds, 0.0))
            assert backend.lock(name, "second", seconds) is None
            assert backend.relock(name, "first", seconds)
            assert backend.lock(name, "second", seconds) is None
            clock.now += seconds * (1 + 1e-9) + 1e-5
            assert not backend.relock(name, "first", seconds)
            assert backend.lock(name, "second", seconds) is not None
            backend.unlock(name, "second")

        holds()
        backend.close()

    def test_what_was_written_is_there_to_its_end(self, kind: str, directory: Path) -> None:
        """A write that others compare with, at any time within its life."""
        clock = Uptime()
        backend = backend_of(kind, directory, clock)

        @given(uptimes, st.floats(0.01, 60.0))
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def lives(now: float, ttl: float) -> None:
            clock.now = now
            version = backend.put("token.a", b"x", ttl=ttl)
            clock.now = now + ttl * 0.999
            assert backend.get("token.a") == (b"x", version)
            assert backend.put("token.a", b"y", ttl=ttl, expected=version) is not None

        lives()
        backend.close()


def test_a_lease_from_before_the_machine_was_started_is_over(directory: Path) -> None:
    """Its end is further away than it was long, on a clock that began anew."""
    clock = Uptime()
    backend = SqliteBackend(directory / "a.db", timeout=5, clock=clock)
    clock.now = 1_000_000.3
    assert backend.lock("lease.a", "first", 12.0) is not None
    clock.now = 8.7
    assert backend.lock("lease.a", "second", 12.0) is not None
    backend.close()
