"""A fleet whose store fails for a while: what one process sees alone is no word on the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.events import AlertOpened, AlertResolved
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock, capture_events

KEY = bytes(range(32))


class Failing(MemoryBackend):
    """A medium that fails while it is told to."""

    fails = False

    def _answer(self, name: str, *args: Any, **options: Any) -> Any:
        if self.fails:
            raise BackendFailed("timeout")
        return getattr(super(), name)(*args, **options)

    def get(self, key: str) -> Any:
        return self._answer("get", key)

    def get_many(self, keys: Any) -> Any:
        return self._answer("get_many", keys)

    def put(self, *args: Any, **options: Any) -> Any:
        return self._answer("put", *args, **options)

    def lock(self, *args: Any) -> Any:
        return self._answer("lock", *args)

    def relock(self, *args: Any) -> Any:
        return self._answer("relock", *args)


class Two:
    """Two processes of one fleet, of which each has its requests."""

    def __init__(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        self.backend, self._clock = Failing(), clock
        self.processes = [
            watched(store=ra.SealedStore(self.backend, key=KEY, clock=clock), name="app") for _ in range(2)
        ]

    def live(self, hours: float, *each: tuple[int, int]) -> None:
        for _ in range(round(hours * 12)):
            for process, (total, failed) in zip(self.processes, each, strict=True):
                process.count(total, failed)
                process.watch.look()
            self._clock.advance(300)


def test_an_alert_of_the_fleet_isnt_over_for_who_sees_nothing_of_it(
    watched: Callable[..., Any], clock: ManualClock
) -> None:
    """One process has the failures, and another one hardly a request; the store is away in the middle of it."""
    two = Two(watched, clock)
    with capture_events() as told:
        two.live(2, (100, 0), (1, 0))
        two.live(0.5, (100, 100), (1, 0))
        told.wait_for(AlertOpened)
        two.backend.fails = True
        two.live(1, (100, 100), (1, 0))
        assert not told.of(AlertResolved)
        two.backend.fails = False
        two.live(3, (100, 0), (1, 0))
        told.wait_for(AlertResolved)
    assert (len(told.of(AlertOpened)), len(told.of(AlertResolved))) == (1, 1)


def test_requests_that_others_havent_written_yet_havent_fallen(watched: Callable[..., Any], clock: ManualClock) -> None:
    """The first one that finds the store back knows its own of the last hours alone."""
    two = Two(watched, clock)
    with capture_events() as told:
        two.live(30, (100, 0), (100, 0))
        two.backend.fails = True
        two.live(2, (100, 0), (100, 0))
        two.backend.fails = False
        two.live(1, (100, 0), (100, 0))
        assert not told.of(AlertOpened)
        two.live(1, (100, 0), (0, 0))
        told.wait_for(AlertOpened)
