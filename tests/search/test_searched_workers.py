"""The workers, in every order that threads may run in: no job and no place is lost, and every bound holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from interleavings import Run, search

from resilient_auth._engine import workers as searched_module
from resilient_auth._engine.lanes import Job
from resilient_auth._engine.workers import OWNERS_CODE, Workers
from resilient_auth.errors import Overloaded


class Scene:
    """Workers in a run, with jobs that are counted."""

    def __init__(self, run: Run, *, per_lane: int = 1, queue: int = 10) -> None:
        self.run = run
        self.per_lane = per_lane
        self.workers = Workers(
            per_lane=per_lane, queue=queue, in_owners_code=1, now=lambda: run.now, call_at=run.call_at
        )
        self.asked = self.ended = self.refused = self.late = 0
        self.inside: dict[str, int] = {}
        #: Whether the bound holds for what runs: not where places were given up or taken beyond it.
        self.bounded = True

    def job(
        self, lanes: tuple[str, ...] = ("a",), amid: Callable[[], None] | None = None, *, ends: float | None = None
    ) -> Job:
        """Make a job that counts itself."""
        name = lanes[0]

        def call() -> None:
            self.inside[name] = self.inside.get(name, 0) + 1
            if self.bounded:
                self.run.check(self.inside[name] <= self.per_lane, f"{self.inside[name]} run in {name}")
            (amid or self.run.pause)()
            self.inside[name] -= 1
            self.ended += 1

        def late() -> None:
            self.late += 1

        return Job(lanes, call) if ends is None else Job(lanes, call, ends=ends, late=late)

    def take(self, job: Job) -> None:
        """Submit a job."""
        self.asked += 1
        try:
            self.workers.take(job)
        except Overloaded:
            self.refused += 1

    def at_end(self) -> None:
        """Assert that nothing was lost and nothing is left."""
        assert self.asked == self.ended + self.refused + self.late, vars(self)
        workers = self.workers
        assert not workers._lanes, workers._lanes
        assert not workers._ready
        assert not workers._overdue
        assert workers._beyond == workers._idle == workers._coming == 0
        assert all(thread.over for thread in self.run.threads)


def _crowd(run: Run) -> Callable[[], None]:
    """Two threads submit to one place."""
    scene = Scene(run)
    for number in range(2):
        run.thread(f"caller {number}", lambda: scene.take(scene.job()))
    return scene.at_end


def _others(run: Run) -> Callable[[], None]:
    """One place is held until another lane's job is over."""
    scene = Scene(run)
    over = [False]
    run.thread("caller", lambda: scene.take(scene.job(amid=lambda: run.until(lambda: over[0]))))
    run.thread("elsewhere", lambda: scene.take(scene.job(("b",), amid=lambda: over.__setitem__(0, True))))
    return scene.at_end


def _full(run: Run) -> Callable[[], None]:
    """More than a lane and its queue take; what is refused is told so."""
    scene = Scene(run, queue=1)
    for number in range(3):
        run.thread(f"caller {number}", lambda: scene.take(scene.job()))
    return scene.at_end


def _two_lanes(run: Run) -> Callable[[], None]:
    """Jobs that have a lane each, and one place behind these that they share."""
    scene = Scene(run)
    for name in ("a", "b"):
        run.thread(f"caller of {name}", lambda name=name: scene.take(scene.job((name, OWNERS_CODE))))  # type: ignore[misc]
    return scene.at_end


def _two_lanes_nested(run: Run) -> Callable[[], None]:
    """One has the place that they share, and waits for the other one, which waits for that place."""
    scene = Scene(run)
    landed = [False]
    inner = scene.job(("b", OWNERS_CODE), amid=lambda: landed.__setitem__(0, True))

    def outer() -> None:
        scene.workers.hurry(inner)
        run.until(lambda: landed[0])

    run.thread("caller", lambda: scene.take(scene.job(("a", OWNERS_CODE), amid=outer)))
    run.thread("another caller", lambda: scene.take(inner))
    return scene.at_end


def _no_thread(run: Run) -> Callable[[], None]:
    """The system has no thread for a moment: who isn't refused is served, though nobody comes any more."""
    scene = Scene(run)
    run.failing_starts = 1
    for number in range(2):
        run.thread(f"caller {number}", lambda: scene.take(scene.job()))

    run.thread("time", lambda: run.pass_until(lambda: scene.asked == 2 == scene.ended + scene.refused))
    return scene.at_end


def _nested(run: Run) -> Callable[[], None]:
    """Two jobs that fill their lane, and each of which waits for another one of it."""
    scene = Scene(run)
    scene.bounded = False

    def outer() -> None:
        landed = [False]
        inner = scene.job(amid=lambda: landed.__setitem__(0, True))
        scene.take(inner)
        scene.workers.hurry(inner)
        run.until(lambda: landed[0])

    for number in range(2):
        run.thread(f"caller {number}", lambda: scene.take(scene.job(amid=outer)))
    return scene.at_end


def _hurried_first(run: Run) -> Callable[[], None]:
    """Whoever waits says so while the job is being submitted."""
    scene = Scene(run)
    scene.bounded = False
    landed = [False]
    inner = scene.job(amid=lambda: landed.__setitem__(0, True))

    def holder() -> None:
        scene.workers.hurry(inner)
        run.until(lambda: landed[0])

    run.thread("caller", lambda: scene.take(scene.job(amid=holder)))
    run.thread("its other thread", lambda: scene.take(inner))
    return scene.at_end


def _overdue(run: Run) -> Callable[[], None]:
    """A job hangs; the one behind it gets its place, and what hung comes back in the end."""
    scene = Scene(run)
    scene.bounded = False
    free, second = [False], [False]

    def hang() -> None:
        run.until(lambda: free[0])

    def caller() -> None:
        scene.take(scene.job(amid=hang, ends=10.0))
        scene.take(scene.job(amid=lambda: second.__setitem__(0, True), ends=100.0))

    def passes() -> None:
        run.until(lambda: scene.asked == 2)
        run.pass_until(lambda: second[0])
        free[0] = True

    run.thread("caller", caller)
    run.thread("time", passes)
    return scene.at_end


def _late(run: Run) -> Callable[[], None]:
    """What waited until its time was over is told so once, and isn't run; unless it was run before."""
    scene = Scene(run)
    free = [False]

    def caller() -> None:
        scene.take(scene.job(amid=lambda: run.until(lambda: free[0])))
        scene.take(scene.job(ends=10.0))

    def passes() -> None:
        run.until(lambda: scene.asked == 2)
        run.pass_until(lambda: scene.late + scene.ended > 0)
        free[0] = True

    run.thread("caller", caller)
    run.thread("time", passes)
    return scene.at_end


#: Each with the preemptions that it gets beyond the others', being small.
SCRIPTS = {
    _crowd: 1,
    _others: 0,
    _full: 0,
    _two_lanes: 0,
    _two_lanes_nested: 1,
    _no_thread: 0,
    _nested: 0,
    _hurried_first: 1,
    _overdue: 0,
    _late: 1,
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.strip("_"))
def test_workers_in_every_order(script: Callable[[Run], Callable[[], None]], preemptions: int) -> None:
    """See each script."""
    assert search(script, searched_module, preemptions=preemptions + SCRIPTS[script]) > 10
