"""Run exchanges on daemon threads that come when needed and go when idle.

Each authority has a lane with a bound of its own, so that one that hangs holds up its own lane and no other. Daemon
threads, because a process that ends must never wait for a provider that hangs.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import Overloaded

__all__ = ["Workers"]

_log = logging.getLogger("resilient_auth")
_IDLE_SECONDS = 5.0

Job = Callable[[], None]


@dataclass(slots=True)
class _Lane:
    active: int = 0
    waiting: deque[Job] = field(default_factory=deque)


class Workers:
    """Run jobs, at most `per_lane` of a lane at the same time."""

    def __init__(self, *, per_lane: int, queue: int) -> None:
        self._per_lane = per_lane
        self._queue = queue
        self._changed = threading.Condition(threading.Lock())
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[tuple[str, Job]] = deque()
        self._idle = 0
        #: Threads that have been started and haven't begun yet.
        self._coming = 0

    def submit(self, lane: str, job: Job) -> None:
        """Run `job` as soon as its lane has room; on this thread where the interpreter is ending and gives no other.

        Raises:
            Overloaded: The lane's queue is full, or the system has no thread to give.
        """
        with self._changed:
            state = self._lanes.setdefault(lane, _Lane())
            waits = state.active >= self._per_lane
            if waits:
                if len(state.waiting) >= self._queue:
                    raise Overloaded(
                        f"{len(state.waiting)} exchanges with {lane} wait already", authority=lane, retry_after=1.0
                    )
                state.waiting.append(job)
            else:
                state.active += 1
                self._ready.append((lane, job))
        error = self._staff()
        if error is None or waits:
            return
        with self._changed:
            if (lane, job) not in self._ready:  # another worker has taken it
                return
            self._ready.remove((lane, job))
            if "shutdown" not in str(error):
                self._release(lane)
                raise Overloaded(f"no thread could be had for an exchange with {lane}", authority=lane)
        # An exit handler's call: no thread comes any more, and nobody else's deadline is at stake.
        self._run(lane, job)

    def _staff(self) -> RuntimeError | None:
        """Have a worker for what is ready, an earlier job too for which there was none to be had; tells what failed."""
        with self._changed:
            if self._idle + self._coming >= len(self._ready):
                self._changed.notify(len(self._ready))
                return None
            self._coming += 1
        try:
            threading.Thread(target=self._work, name="resilient-auth-worker", daemon=True).start()
        except RuntimeError as error:
            with self._changed:
                self._coming -= 1
            return error
        return None

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
                lane, job = self._ready.popleft()
            self._run(lane, job)
            del job

    def _run(self, lane: str, job: Job) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - a job that fails must not take its lane's place along
            _log.exception("An exchange's job failed")
        finally:
            with self._changed:
                self._release(lane)

    def _release(self, lane: str) -> None:
        """Hand the place in a lane on; the caller holds the lock."""
        state = self._lanes[lane]
        if state.waiting:
            self._ready.append((lane, state.waiting.popleft()))
            self._changed.notify()
            return
        state.active -= 1
        if not state.active:
            del self._lanes[lane]
