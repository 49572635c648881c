"""A blocking call made from a task, on a thread for which neither the loop nor the process's exit waits."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any


async def on_a_thread(call: Callable[[], Any]) -> Any:
    """Run a call that may block on a daemon thread of its own; give what it returns, or raise what it raises.

    The caller's context variables are seen there. A cancelled waiter harms nobody: the call goes on, and its result is
    dropped. So it is for what ends by itself; asyncio's own threads won't do, since a process joins these at its exit.
    """
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

    threading.Thread(target=run, name="resilient-auth-aio", daemon=True).start()
    return await done
