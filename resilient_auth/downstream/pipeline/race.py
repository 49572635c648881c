"""Two attempts beside each other: the first good answer is taken, and the other one closed (hedging)."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .effects import Attempt, Race, Result

__all__ = ["race_of_tasks", "race_of_threads"]


class _End(NamedTuple):
    """How one of them ended."""

    result: Result | None
    error: BaseException | None

    @property
    def won(self) -> bool:
        return self.result is not None and self.result.good

    def close(self) -> None:
        if self.result is not None and self.result.response is not None:
            self.result.response.close()


def race_of_threads(race: Race, drive: Callable[[Attempt], Result]) -> Result:
    """Run attempts on threads of their own; a thread can't be stopped, so the loser closes what it gets.

    Args:
        race: What to run, and when.
        drive: Takes an attempt to its end.
    """
    ended: queue.SimpleQueue[_End] = queue.SimpleQueue()
    lock = threading.Lock()
    settled = False

    def run(attempt: Attempt) -> None:
        try:
            end = _End(drive(attempt), None)
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            end = _End(None, error)
        with lock:
            if not settled:
                ended.put(end)
                return
        end.close()

    def start(attempt: Attempt) -> None:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run, attempt), name="resilient-auth-hedge", daemon=True).start()

    start(race.first)
    running = 1
    best: _End | None = None
    try:
        try:
            best = ended.get(timeout=race.seconds)
            running -= 1
        except queue.Empty:
            second = race.second()
            if second is not None:
                start(second)
                running += 1
        while running and (best is None or not best.won):
            later = ended.get()
            running -= 1
            best = _better(best, later)
    finally:
        with lock:
            settled = True
        while not ended.empty():
            ended.get().close()
    assert best is not None  # noqa: S101 - the first one ended
    if best.error is not None:
        raise best.error
    assert best.result is not None  # noqa: S101 - each ends in a result or an error
    return best.result


def _better(first: _End | None, second: _End) -> _End:
    """Choose between two ends, and close the other one's answer."""
    if first is None:
        return second
    keep_first = first.won or (not second.won and second.result is None)
    (second if keep_first else first).close()
    return first if keep_first else second


async def race_of_tasks(race: Race, drive: Callable[[Attempt], Any]) -> Result:
    """Run attempts as tasks; the loser is cancelled.

    Args:
        race: What to run, and when.
        drive: Takes an attempt to its end, as a coroutine function.
    """
    tasks: list[asyncio.Task[Result]] = [asyncio.create_task(drive(race.first))]
    try:
        await asyncio.wait(tasks, timeout=race.seconds)
        if not tasks[0].done():
            second = race.second()
            if second is not None:
                tasks.append(asyncio.create_task(drive(second)))
        running = set(tasks)
        winner: asyncio.Task[Result] | None = None
        while running and winner is None:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in done if task.exception() is None and task.result().good), None)
        chosen = winner or next((task for task in tasks if task.exception() is None), tasks[0])
        result = chosen.result()
        tasks.remove(chosen)
    except GeneratorExit:  # the loop was closed, and its tasks end with it
        tasks.clear()
        raise
    else:
        return result
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Result) and ended.response is not None:
                    await ended.response.aclose()
