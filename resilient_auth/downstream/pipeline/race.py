"""Two attempts beside each other: the first good answer is taken, and the other one closed (hedging)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ..._engine.steps import run, run_async
from ..._process import forks
from .steps import Attempt, Result

__all__ = ["Race"]

#: An attempt under way: a `concurrent.futures.Future` or an `asyncio.Task`.
_Running = TypeVar("_Running", bound=Any)


class Race(NamedTuple):
    """Run the first attempt, and the second one beside it where `seconds` went by without a result.

    Brings the first good result, or else one of the others; what comes later is closed.
    """

    first: Attempt
    second: Callable[[], Attempt | None]
    seconds: float

    def run(self) -> Result:
        """Run attempts on threads of their own; a thread can't be stopped, so the loser's answer is closed by it."""
        running = [_on_a_thread(self.first)]
        try:
            concurrent.futures.wait(running, timeout=self.seconds)
            if not running[0].done() and (second := self.second()) is not None:
                running.append(_on_a_thread(second))
            left, winner = set(running), None
            while left and winner is None:
                done, left = concurrent.futures.wait(left, return_when=concurrent.futures.FIRST_COMPLETED)
                winner = _winner(done)
            chosen = winner or _without_error(running)
            running.remove(chosen)
            return chosen.result()
        finally:
            for loser in running:
                loser.add_done_callback(_close)

    def run_async(self) -> Awaitable[Result]:
        """Run attempts as tasks; the loser is cancelled."""
        return _race_of_tasks(self)


def _winner(done: Iterable[_Running]) -> _Running | None:
    return next((one for one in done if one.exception() is None and one.result().good), None)


def _without_error(ended: Sequence[_Running]) -> _Running:
    return next((one for one in ended if one.exception() is None), ended[0])


def _on_a_thread(attempt: Attempt) -> concurrent.futures.Future[Result]:
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()
    context = contextvars.copy_context()

    def carry_out() -> None:
        try:
            future.set_result(run(attempt))
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            future.set_exception(error)

    # Not of a pool's: a process joins those at its exit.
    try:
        forks.begin_thread(context.run, carry_out, name="resilient-auth-hedge")
    except RuntimeError:  # no thread is to be had: then this one makes it, and the other one waits
        carry_out()
    return future


def _close(loser: concurrent.futures.Future[Result]) -> None:
    if loser.exception() is None and loser.result().response is not None:
        loser.result().response.close()


async def _race_of_tasks(race: Race) -> Result:
    tasks = [asyncio.create_task(run_async(race.first))]
    try:
        await asyncio.wait(tasks, timeout=race.seconds)
        if not tasks[0].done() and (second := race.second()) is not None:
            tasks.append(asyncio.create_task(run_async(second)))
        running, winner = set(tasks), None
        while running and winner is None:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            winner = _winner(done)
        chosen = winner or _without_error(tasks)
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
