"""That our own backends keep what a third party's must, and that the check tells when one doesn't."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import store_media

from resilient_auth._store.conformance import check_backend
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.store import ANY, Expected
from resilient_auth.testing import ManualClock


def check(kind: type[MemoryBackend]) -> None:
    clock = ManualClock()
    check_backend(lambda: kind(clock=clock), pass_time=clock.advance)


def test_memory_conforms() -> None:
    """The shortest example of a backend passes."""
    check(MemoryBackend)


def test_a_file_conforms_between_processes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and spawned processes share one file."""
    monkeypatch.setenv(store_media.PATH, str(directory / "tokens.db"))
    check_backend(store_media.file_backend, processes=True)


def test_valkey_conforms_between_processes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and spawned processes share one server; a second run finds what the first one left."""
    monkeypatch.setenv(store_media.URL, redis_url)
    check_backend(store_media.redis_backend, processes=True)
    check_backend(store_media.redis_backend)


class _NoComparison(MemoryBackend):
    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        return super().put(key, value, ttl=ttl)


class _TwoSteps(MemoryBackend):
    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        found = self.get(key)
        if expected is not ANY and expected != (found and found[1]):
            return None
        os.sched_yield()
        return super().put(key, value, ttl=ttl)


class _Immortal(MemoryBackend):
    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        return super().put(key, value, ttl=1e9, expected=expected)


class _NoFence(MemoryBackend):
    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        return None if super().lock(name, holder, seconds) is None else 1


class _AnybodyUnlocks(MemoryBackend):
    def unlock(self, name: str, holder: str) -> None:
        self._locks.pop(name, None)


class _CountedVersions(MemoryBackend):
    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        before = self._values.get(key)
        if super().put(key, value, ttl=ttl, expected=expected) is None:
            return None
        version = str(int(before[1]) + 1 if before else 1)
        self._values[key] = (bytes(value), version, self._values[key][2])
        return version


class _AnyOrder(MemoryBackend):
    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        return super().get_many(sorted(keys))


class _EveryKey(MemoryBackend):
    def keys(self, prefix: str) -> Iterator[str]:
        return super().keys("")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (_NoComparison, "put must refuse"),
        (_TwoSteps, "comparison and write must be one step"),
        (_Immortal, "ttl is over"),
        (_NoFence, "greater number"),
        (_AnybodyUnlocks, "unlock by another one"),
        (_CountedVersions, "a version that it had before"),
        (_EveryKey, "no other"),
        (_AnyOrder, "order of the keys"),
    ],
)
def test_what_does_not_conform_is_told(kind: type[Any], says: str) -> None:
    """Each promise that is broken is named."""
    with pytest.raises(AssertionError, match=says):
        check(kind)
