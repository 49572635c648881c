"""A watch on a clock that stands still, over a tally that a test fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient_auth.telemetry.levels.options import WatchOptions
from resilient_auth.telemetry.levels.watching import Watch
from resilient_auth.telemetry.tally import Tally
from resilient_auth.testing import ManualClock, no_jitter

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


class Watched:
    """One process: its tally, its watch, and the time."""

    def __init__(self, clock: ManualClock, **options: Any) -> None:
        self.clock, self.tally = clock, Tally()
        usual = {
            "store": None, "name": "app", "webhook": None, "fall": 0.25, "objective": 0.999, "least": 100,
            "secret_expires": None, "clock": clock, "jitter": no_jitter,
        }  # fmt: skip
        self.watch = Watch(WatchOptions(**(usual | options)), self.tally, lambda _: None)

    def count(self, total: int, failed: int = 0) -> None:
        """Have so many acquisitions counted, and so many of them failed."""
        labels = ("login.example", "client_credentials")
        if total > failed:
            self.tally.add("resilient_auth.acquisitions", (*labels, "memory", "success"), total - failed)
        if failed:
            self.tally.add("resilient_auth.acquisitions", (*labels, "none", "failed"), failed)

    def live(self, seconds: float, a_step: Callable[[], tuple[int, int]] = lambda: (100, 0)) -> None:
        """Let time pass by steps of five minutes, each of which has so many requests and failures."""
        for _ in range(round(seconds / 300)):
            self.count(*a_step())
            self.watch.look()
            self.clock.advance(300)
        self.watch.look()

    @property
    def day(self) -> Any:
        return self.watch.levels().of("acquisitions").day


@pytest.fixture
def clock() -> ManualClock:
    """At a full hour, so that spans are whole buckets."""
    clock = ManualClock()
    clock.advance(HOUR - clock.wall() % HOUR)
    return clock


@pytest.fixture
def watched(clock: ManualClock) -> Iterator[Callable[..., Watched]]:
    """Begin to watch one process, or several; of one clock unless another one is given."""
    made: list[Watched] = []

    def begin(own: ManualClock | None = None, **options: Any) -> Watched:
        made.append(Watched(own or clock, **options))
        return made[-1]

    yield begin
    for one in made:
        one.watch.close()
