"""What takes time in a call to an API: sending, waiting in line, closing. `race` has one more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any, NamedTuple

from ..._engine.steps import Steps
from .bulkhead import Bulkhead, QueuePlace
from .failure import Failure

__all__ = ["Attempt", "Close", "JoinQueue", "Result", "Send"]


class Send(NamedTuple):
    """Send the request with the wrapped transport."""

    wrapped: Any
    request: Any
    #: Within how many seconds the answer's head must be there; None where the wrapped transport sees to that.
    seconds: float | None

    def run(self) -> Any:
        """Send it on this thread."""
        return self.wrapped.handle_request(self.request)

    def run_async(self) -> Awaitable[Any]:
        """Send it in this task."""
        sent: Awaitable[Any] = self.wrapped.handle_async_request(self.request)
        return sent if self.seconds is None else _within(self.seconds, sent)


async def _within(seconds: float, sent: Awaitable[Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await sent


class JoinQueue(NamedTuple):
    """Wait until it is this place's turn, for `seconds` at most; returns whether it came."""

    bulkhead: Bulkhead
    place: QueuePlace
    seconds: float

    def run(self) -> bool:
        """Wait on this thread."""
        turn = threading.Event()
        self.bulkhead.when_granted(self.place, turn.set)
        return turn.wait(max(0.0, self.seconds))

    async def run_async(self) -> bool:
        """Wait in this task."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def take() -> None:
            if not turn.done():
                turn.set_result(None)

        self.bulkhead.when_granted(self.place, lambda: loop.call_soon_threadsafe(take))
        try:
            async with asyncio.timeout(max(0.0, self.seconds)):
                await turn
        except TimeoutError:
            return False
        return True


class Close(NamedTuple):
    """Close an answer, or its body, that nobody will read."""

    response: Any

    def run(self) -> Any:
        """Close it."""
        return self.response.close()

    def run_async(self) -> Awaitable[Any]:
        """Close it in this task."""
        closed: Awaitable[Any] = self.response.aclose()
        return closed


class Result(NamedTuple):
    """How an attempt ended: with an answer, or with a failure."""

    response: Any
    failure: Failure | None
    #: Whether the API did its work, if only to say no.
    good: bool
    #: Seconds after which the API wants to be asked again, where it said so.
    retry_after: float | None


Attempt = Steps[Result]
