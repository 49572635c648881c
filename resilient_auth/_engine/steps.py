"""Steps: a generator decides without I/O, and one of two drivers carries out what it yields.

    generator ── yields a step ──▶ run, which blocks ─────┬─ a result ─▶ sent back into the generator
                                   run_async, which waits ┴─ an error ─▶ thrown into it: the generator decides about it

Whatever ends a step is thrown in, cancellation and Ctrl-C too: a `finally` in the generator gives back what it holds,
at once and in every way out. `yield from` makes one generator of several.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, Protocol, TypeVar

__all__ = ["Invoke", "Step", "Steps", "run", "run_async"]

_T = TypeVar("_T")


class Step(Protocol):
    """Something that takes time; it knows both ways of being carried out."""

    def run(self) -> Any:
        """Do it on this thread; return what came of it."""

    def run_async(self) -> Awaitable[Any]:
        """Do it in this task, whose loop is never blocked."""


#: Yields steps, is sent what came of each, and returns the end of it all.
Steps = Generator[Step, Any, _T]


def run(steps: Generator[Step, Any, _T]) -> _T:
    """Carry steps out on this thread; return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result = step.run()
            except BaseException as error:  # noqa: BLE001 - the generator decides about it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: _T = end.value
        return value
    finally:
        steps.close()


async def run_async(steps: Generator[Step, Any, _T]) -> _T:
    """Carry steps out in this task; return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result = await step.run_async()
            except BaseException as error:  # noqa: BLE001 - the generator decides about it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: _T = end.value
        return value
    finally:
        steps.close()


class Invoke(NamedTuple):
    """The step that makes a call in which a thread may wait, or whose result a task awaits where it can be awaited."""

    run: Callable[[], Any]

    async def run_async(self) -> Any:
        """Make it, and await what it returns if need be."""
        result = self.run()
        return await result if inspect.isawaitable(result) else result
