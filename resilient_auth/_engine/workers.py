"""Run exchanges on daemon threads that come when needed and go when idle.

Each authority has a lane with a bound of its own, so that one that hangs holds up its own lane and no other. Daemon
threads, because a process that ends must never wait for a provider that hangs.

    waits in a lane ─ a place is free ──────────────▶ ready ─ a thread ─▶ runs ─▶ over: its places go to the next ones
        │                                               ▲                   └ overdue ─▶ the same, while it goes on
        ├─ one that runs waits for it (`hurry`) ────────┘
        └─ its time is over ─▶ told so, and never run
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .._process import forks
from .._process.living import LiveObjects, unlocked
from .._process.saying import say
from ..errors import Overloaded
from ..events import ExchangesOverdue, emit
from .lanes import Job, Lane, LaneStatus

__all__ = ["OWNERS_CODE", "Workers", "lanes", "pause_behind"]

_IDLE_SECONDS = 5.0
#: The lane that all pass which call the owner's code, behind the one of their own.
OWNERS_CODE = "the owner's code"
#: Jobs that run beyond a lane's bound since others that run wait for them.
_MOST_BEYOND = 256
#: Jobs that were left behind and haven't come back, at most.
_MOST_OVERDUE = 256
#: How many times a lane's places are given to others as soon as their jobs are overdue. From then on each one waits
#: longer than the one before: what hangs for hours leaves few threads behind, and what works again is soon seen to.
_ROUNDS = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 3600.0
#: Seconds that a job gets beyond its time: what it says of that itself tells more.
_MOMENT = 1.0


def pause_behind(left: int, quick: int) -> float:
    """Return for how many seconds more to wait for a call that is overdue, before another one is made beside it.

    Args:
        left: How many were left behind before, and haven't come back.
        quick: How many of these may be, without a pause.
    """
    return 0.0 if left < quick else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(left - quick, 16))


class Workers:
    """Run jobs, at most `per_lane` of a lane at the same time.

    Args:
        per_lane: Places of a lane.
        queue: Jobs that may wait for one.
        in_owners_code: Places of the lane `OWNERS_CODE`.
        now: Gives the monotonic time, by which jobs are overdue.
        wall: Gives the time for what is told of these.
        call_at: Calls a function at a monotonic time. Without it, a job that waits behind overdue ones isn't begun
            before another one is submitted.
    """

    def __init__(
        self,
        *,
        per_lane: int,
        queue: int,
        in_owners_code: int = 256,
        now: Callable[[], float] = lambda: 0.0,
        wall: Callable[[], float] = lambda: 0.0,
        call_at: Callable[[float, Callable[[], Any]], object] = lambda when, call: None,
    ) -> None:
        self._per_lane = per_lane
        self._queue = queue
        #: Those of lanes that have other bounds.
        self._limits = {OWNERS_CODE: in_owners_code}
        self._now = now
        self._wall = wall
        self._call_at = call_at
        self._changed = threading.Condition(threading.Lock())
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Job] = deque()
        self._overdue: dict[Job, None] = {}
        self._beyond = 0
        self._idle = 0
        #: Threads that have been started and haven't begun yet.
        self._coming = 0
        #: Whether a timer will look for a thread that couldn't be had.
        self._comes_again = False
        _workers.add(self)

    def submit(self, lane: str, call: Callable[[], object], *, ends: float = math.inf) -> None:
        """Run `call` as soon as its lane has room; on this thread where the interpreter is ending and gives no other.

        Raises:
            Overloaded: The lane's queue is full, or the system has no thread to give.
        """
        self.take(Job((lane,), call, ends=ends))

    def take(self, job: Job) -> None:
        """Run a job as soon as its lanes have room; on this thread where the interpreter is ending and gives no other.

        Raises:
            Overloaded: The first lane's queue is full, or what ran there hasn't come back, or the system has no thread
                to give.
        """
        name = job.lanes[0]
        with self._changed:
            lane = self._lanes.setdefault(name, Lane())
            full = len(lane.active) >= self._per_lane
            if full:
                self._leave_behind(lane)
            full = len(lane.active) >= self._per_lane and not job.hurried
            refusal = self._refusal(name, lane) if full else None
            if refusal is None:
                self._admit(job)
            waits = job.held < len(job.lanes)
            waits_in = job.lanes[job.held] if waits else name
            when = self._watch(self._lanes[waits_in]) if waits and refusal is None else None
        error = self._staff()
        if when is not None:
            self._call_at(when, partial(self._look, waits_in))
        if refusal is not None:
            raise refusal
        if error is None or waits:
            return
        with self._changed:
            if job not in self._ready:  # another worker has taken it
                return
            self._ready.remove(job)
            if "shutdown" not in str(error):
                self._release(job)
                raise Overloaded(f"no thread could be started for a call to {name}", authority=name) from error
        # An exit handler's call: no thread comes any more, and nobody else's deadline is at stake.
        self._run(job)

    def hurry(self, job: Job) -> None:
        """Let a job wait for no place: one that runs waits for it, and may hold the place that it would wait for."""
        with self._changed:
            job.hurried = True
            lane = self._lanes.get(job.lanes[job.held]) if job.held < len(job.lanes) else None
            if lane is None or job not in lane.waiting or self._beyond >= _MOST_BEYOND:
                return
            del lane.waiting[job]
            self._admit(job)
        self._staff()

    def status(self) -> list[LaneStatus]:
        """Return how the lanes stand, without the lock: a signal's handler may ask, amid what holds it."""
        late = self._now() - _MOMENT
        lanes = unlocked(lambda: [(name, [*lane.active], len(lane.waiting)) for name, lane in [*self._lanes.items()]])
        behind = [job.lanes[0] for job in unlocked(lambda: [*self._overdue])]
        found = {name: (len(active), waiting) for name, active, waiting in lanes}
        overdue = {name: sum(job.call is None and job.ends <= late for job in active) for name, active, _ in lanes}
        for name in behind:
            overdue[name] = overdue.get(name, 0) + 1
        return [
            LaneStatus(name=name, active=active, waiting=waiting, overdue=overdue[name])
            for name in sorted(overdue)
            if name != OWNERS_CODE
            for active, waiting in [found.get(name, (0, 0))]
        ]

    def _staff(self) -> RuntimeError | None:
        """Have workers for what is ready, earlier jobs too for which there were none to be had; tells what failed."""
        while True:
            with self._changed:
                if self._idle + self._coming >= len(self._ready):
                    self._changed.notify(len(self._ready))
                    return None
                self._coming += 1
            try:
                forks.begin_thread(self._work, name="resilient-auth-worker")
            except RuntimeError as error:
                with self._changed:
                    self._coming -= 1
                    again, self._comes_again = not self._comes_again, True
                if again:
                    self._call_at(self._now() + _MOMENT, self._try_again)
                return error

    def _try_again(self) -> None:
        """Look for a thread once more for what was accepted."""
        with self._changed:
            self._comes_again = False
        self._staff()

    def _work(self) -> None:
        with self._changed:
            self._coming -= 1
        while True:
            with self._changed:
                while not self._ready:
                    self._idle += 1
                    woken = self._changed.wait(_IDLE_SECONDS)
                    self._idle -= 1
                    if not woken and not self._ready:
                        return
                job = self._ready.popleft()
            self._run(job)
            del job

    def _run(self, job: Job) -> None:
        """Run a job, and hand its places on: to one job at most, which this thread takes next."""
        call, job.call = job.call, None
        assert call is not None  # noqa: S101 - a job is run once
        if job.late is not None and self._now() >= job.ends:
            call = job.late
        try:
            call()
        except Exception:  # noqa: BLE001 - a job that fails must not take its lane's place along
            say(logging.ERROR, "An exchange's job failed", traced=True)
        finally:
            del call
            job.late = None
            with self._changed:
                self._overdue.pop(job, None)
                self._release(job)

    # The next ones are called with the lock held; `_look` and `_tell` aren't.

    def _admit(self, job: Job) -> None:
        """Give a job its places, or let it wait for the first one that isn't free."""
        while job.held < len(job.lanes):
            name = job.lanes[job.held]
            lane = self._lanes.setdefault(name, Lane())
            if len(lane.active) >= self._limits.get(name, self._per_lane):
                if not job.hurried or self._beyond >= _MOST_BEYOND:
                    lane.waiting[job] = None
                    return
                self._beyond += 1
                job.beyond += 1
            lane.active[job] = None
            job.held += 1
        self._ready.append(job)
        self._changed.notify()

    def _release(self, job: Job) -> None:
        """Hand a job's places on."""
        held, job.held = job.held, 0
        self._beyond -= job.beyond
        job.beyond = 0
        for name in job.lanes[:held]:
            lane = self._lanes[name]
            del lane.active[job]
            if lane.waiting and len(lane.active) < self._limits.get(name, self._per_lane):
                following, _ = lane.waiting.popitem(last=False)
                self._admit(following)
            if not lane.active and not lane.waiting:
                del self._lanes[name]

    def _leave_behind(self, lane: Lane) -> None:
        """Hand on the places of those that should have come back; they go on without."""
        now = self._now()
        left: list[Job] = []
        for job in [job for job in lane.active if job.call is None and job.ends < math.inf]:
            if len(self._overdue) >= _MOST_OVERDUE or self._left_at(job) > now:
                break  # those behind it have begun later
            self._overdue[job] = None
            self._release(job)
            left.append(job)
        if left:
            # On a worker: a log handler may ask for a token, and whoever came here has others wait.
            self._ready.append(Job((), partial(self._tell, left)))
            self._changed.notify()

    def _left_at(self, job: Job) -> float:
        """Return when a job's place may be given to another one."""
        left = sum(other.lanes[0] == job.lanes[0] for other in self._overdue)
        return job.ends + _MOMENT + pause_behind(left, _ROUNDS * self._per_lane)

    def _refusal(self, name: str, lane: Lane) -> Overloaded | None:
        """Return why a job mustn't even wait in a full lane."""
        late = self._now() - _MOMENT
        if all(job.call is None and job.ends <= late for job in lane.active):
            gone = len(lane.active) + sum(job.lanes[0] == name for job in self._overdue)
            text = f"{gone} calls to {name} are overdue: what they call, such as a function of yours, hangs"
            return Overloaded(text, authority=name, retry_after=1.0)
        if len(lane.waiting) >= self._queue:
            return Overloaded(
                f"the queue for {name} is full ({len(lane.waiting)} waiting)", authority=name, retry_after=1.0
            )
        return None

    def _watch(self, lane: Lane) -> float | None:
        """Return when to look for overdue ones in a lane in which others wait; None where that is seen to already."""
        if lane.watched:
            return None
        when = min((self._left_at(job) for job in lane.active), default=math.inf)
        late = min((job.ends + _MOMENT for job in lane.waiting if job.late is not None), default=math.inf)
        when = min(when, late)
        if when == math.inf:
            return None
        lane.watched = True
        return max(when, self._now() + _MOMENT)

    def _look(self, name: str) -> None:
        """Leave behind what is overdue, and let those go whose time is over though they still wait."""
        with self._changed:
            lane = self._lanes.get(name)
            if lane is None:
                return
            lane.watched = False
            self._leave_behind(lane)
            now = self._now()
            late = [job for job in lane.waiting if job.late is not None and job.ends <= now]
            for job in late:
                del lane.waiting[job]
                self._release(job)
            when = self._watch(lane) if lane.waiting else None
        self._staff()
        for job in late:
            job.call, told, job.late = None, job.late, None
            if told is not None:
                told()
        if when is not None:
            self._call_at(when, partial(self._look, name))

    def _tell(self, left: list[Job]) -> None:
        for name in dict.fromkeys(job.lanes[0] for job in left):
            behind = sum(job.lanes[0] == name for job in list(self._overdue))
            emit(ExchangesOverdue(at=self._wall(), lane=name, count=behind))


_workers: LiveObjects[Workers] = LiveObjects()


@forks.renewed
def _after_fork() -> None:
    # What the parent's threads are in the middle of is theirs; a child makes workers of its own.
    global _workers
    _workers = LiveObjects()


def lanes() -> list[LaneStatus]:
    """List the lanes of this process that are in use or of which something hasn't come back."""
    return [status for workers in _workers.all() for status in workers.status()]
