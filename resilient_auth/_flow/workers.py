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

    def submit(self, lane: str, job: Job) -> None:
        """Run `job` as soon as its lane has room.

        Raises:
            Overloaded: The lane's queue is full.
        """
        with self._changed:
            state = self._lanes.setdefault(lane, _Lane())
            if state.active >= self._per_lane:
                if len(state.waiting) >= self._queue:
                    raise Overloaded(
                        f"{len(state.waiting)} exchanges with {lane} wait already", authority=lane, retry_after=1.0
                    )
                state.waiting.append(job)
                return
            state.active += 1
            self._ready.append((lane, job))
            if self._idle >= len(self._ready):
                self._changed.notify()
                return
        try:
            threading.Thread(target=self._work, name="resilient-auth-worker", daemon=True).start()
        except RuntimeError:
            with self._changed:
                if (lane, job) not in self._ready:  # another worker has taken it
                    return
                self._ready.remove((lane, job))
                self._release(lane)
            raise Overloaded(f"no thread could be had for an exchange with {lane}", authority=lane) from None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ready:
                    self._idle += 1
                    woken = self._changed.wait(_IDLE_SECONDS)
                    self._idle -= 1
                    if not woken and not self._ready:
                        return
                lane, job = self._ready.popleft()
            try:
                job()
            except Exception:  # noqa: BLE001 - a job that fails must not take its lane's place along
                _log.exception("An exchange's job failed")
            finally:
                del job
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
