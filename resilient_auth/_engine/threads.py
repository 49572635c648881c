"""A blocking call made from a task, and an awaited one made from a thread; no process's exit waits for either."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .._process import forks
from .workers import Workers

if TYPE_CHECKING:
    import asyncio

__all__ = ["OnThread", "lasting_loop", "on_a_thread", "submit"]

#: Calls at the same time, and those that may wait: a person at the keyboard may hold one for minutes.
_MOST, _QUEUE = 256, 10_000

_workers = Workers(per_lane=_MOST, queue=_QUEUE)
#: By whose they are.
_loops: dict[str, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()
#: Those of parents: they aren't this process's to close.
_abandoned: list[asyncio.AbstractEventLoop] = []


def lasting_loop(name: str = "") -> asyncio.AbstractEventLoop:
    """Return an event loop that runs on a daemon thread for as long as the process; begun when it is first needed.

    Args:
        name: Whose it is: an owner's coroutine that blocks one holds up no other.

    Raises:
        RuntimeError: No thread can be had.
    """
    import asyncio  # only where something is awaited

    forks.notice()
    with _starting:
        loop = _loops.get(name)
        if loop is None:
            loop = asyncio.new_event_loop()
            try:
                forks.begin_thread(_run, loop, name="resilient-auth-loop")
            except RuntimeError:
                loop.close()
                raise
            _loops[name] = loop
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run it for good: a coroutine of an owner's that ends it, as with `SystemExit`, ends none of the others there."""
    while True:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def submit(lane: str, call: Callable[[], object]) -> None:
    """Have a call that may block made on a daemon thread, for nobody who waits.

    Raises:
        Overloaded: Too many calls wait already.
    """
    forks.notice()
    _workers.submit(lane, call)


async def on_a_thread(call: Callable[[], Any]) -> Any:
    """Run a call that may block on a daemon thread; give what it returns, or raise what it raises.

    The caller's context variables are seen there. A cancelled waiter harms nobody: the call goes on, and its result is
    dropped. So it is for what ends by itself; asyncio's own threads won't do, since a process joins these at its exit.

    Raises:
        Overloaded: Too many calls wait already.
    """
    import asyncio  # only where something is awaited

    forks.notice()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():  # the task was cancelled
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(call)
        except BaseException as raised:  # noqa: BLE001 - it is raised in the task
            # A future refuses StopIteration, and nothing else.
            error = RuntimeError("StopIteration") if isinstance(raised, StopIteration) else raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop closed: whoever waited there is gone
            return

    _workers.submit("asyncio", run)
    return await done


class OnThread(NamedTuple):
    """The step that makes a call which may block: a thread makes it itself, a task has another one make it."""

    run: Callable[[], Any]

    def run_async(self) -> Awaitable[Any]:
        """Have it made on a daemon thread."""
        return on_a_thread(self.run)


@forks.renewed
def _after_fork() -> None:
    global _workers, _loops, _starting
    _abandoned.extend(_loops.values())
    _loops, _starting = {}, threading.Lock()
    _workers = Workers(per_lane=_MOST, queue=_QUEUE)
