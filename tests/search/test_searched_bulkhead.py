"""The bulkhead of downstream calls, in every order that threads may run in: no place is lost, and its bound holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from interleavings import Run, search

from resilient_auth.downstream.pipeline import bulkhead as searched_module
from resilient_auth.downstream.pipeline.bulkhead import Bulkhead


class Scene:
    """A bulkhead in a run, and how many are in it."""

    def __init__(self, run: Run, *, slots: int = 1, queue: int = 5) -> None:
        self.run = run
        self.slots = slots
        self.bulkhead = Bulkhead(slots, queue)
        self.inside = self.served = self.refused = self.gave_up = 0

    def call(self) -> None:
        """Be one call, which waits for as long as it takes."""
        if not self.bulkhead.enter():
            place = self.bulkhead.line_up()
            if place is None:
                self.refused += 1
                return
            turn = [False]
            self.bulkhead.when_granted(place, lambda: turn.__setitem__(0, True))
            self.run.until(lambda: turn[0])
        self._be_served()

    def hasty_call(self) -> None:
        """Be one call that gives up, unless its turn has come by then."""
        place = self.bulkhead.line_up()
        if place is None:
            self.refused += 1
            return
        self.bulkhead.when_granted(place, lambda: None)
        self.run.pause()
        if self.bulkhead.give_up(place):
            self._be_served()
        else:
            self.gave_up += 1

    def gone_call(self) -> None:
        """Be one call of an event loop that is closed while it waits."""
        place = self.bulkhead.line_up()
        assert place is not None
        woken = [False]

        def wake() -> None:
            woken[0] = True
            raise RuntimeError("Event loop is closed")

        if place.granted:
            self._be_served()
            return
        try:
            self.bulkhead.when_granted(place, wake)
        except RuntimeError:  # it was its turn already, and nobody is there to use it
            self.bulkhead.leave()
            self.gave_up += 1
            return
        self.run.until(lambda: woken[0])
        self.gave_up += 1

    def _be_served(self) -> None:
        self.inside += 1
        self.run.check(self.inside <= self.slots, f"{self.inside} are inside")
        self.run.pause()
        self.inside -= 1
        self.served += 1
        self.bulkhead.leave()

    def at_end(self, calls: int) -> None:
        assert self.served + self.refused + self.gave_up == calls
        assert self.bulkhead._in_use == 0
        assert not self.bulkhead._line


def _crowd(run: Run) -> Callable[[], None]:
    """Three calls, and one place."""
    scene = Scene(run)
    for number in range(3):
        run.thread(f"call {number}", scene.call)
    return lambda: scene.at_end(3)


def _full(run: Run) -> Callable[[], None]:
    """More calls than places in and in line."""
    scene = Scene(run, queue=1)
    for number in range(3):
        run.thread(f"call {number}", scene.call)
    return lambda: scene.at_end(3)


def _hasty(run: Run) -> Callable[[], None]:
    """One gives up while it is being given its turn."""
    scene = Scene(run)
    run.thread("call", scene.call)
    run.thread("hasty call", scene.hasty_call)
    run.thread("another call", scene.call)
    return lambda: scene.at_end(3)


def _gone(run: Run) -> Callable[[], None]:
    """One is gone when it is given its turn, which goes to the next one then."""
    scene = Scene(run)
    run.thread("call", scene.call)
    run.thread("gone call", scene.gone_call)
    run.thread("another call", scene.call)
    return lambda: scene.at_end(3)


@pytest.mark.parametrize("script", [_crowd, _full, _hasty, _gone], ids=lambda script: script.__name__.strip("_"))
def test_a_bulkhead_in_every_order(script: Callable[[Run], Callable[[], None]], preemptions: int) -> None:
    """See each script."""
    assert search(script, searched_module, preemptions=preemptions + 1) > 10
