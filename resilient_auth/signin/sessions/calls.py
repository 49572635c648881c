"""The step that asks the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..._engine.threads import on_a_thread
from ...errors import Overloaded, StoreUnavailable

__all__ = ["StoreCall"]


class StoreCall(NamedTuple):
    """The step that makes a call which may block for the store: as `OnThread`, and no thread is as good as no store."""

    run: Callable[[], Any]

    async def run_async(self) -> Any:
        """Have it made on a daemon thread.

        Raises:
            StoreUnavailable: Too many calls wait already, with the reason `overloaded`; or as the call raises it.
        """
        try:
            return await on_a_thread(self.run)
        except Overloaded as error:
            raise StoreUnavailable(
                "session", error.code, "too many calls wait for a thread", retry_after=error.retry_after
            ) from None
