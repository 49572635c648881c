"""What the pipeline asks of its driver: whatever takes time. Each is yielded, and what came of it is sent back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from .bulkhead import Bulkhead, QueuePlace
from .failure import Failure

__all__ = ["Attempt", "CallFallback", "Close", "Effect", "JoinQueue", "Race", "Result", "Send", "Steps", "Wait"]


class Send(NamedTuple):
    """Send the request with the wrapped transport; the answer's head must be there within `seconds`."""

    request: Any
    seconds: float


class Wait(NamedTuple):
    """Let `seconds` pass."""

    seconds: float


class JoinQueue(NamedTuple):
    """Wait until it is this place's turn, for `seconds` at most."""

    bulkhead: Bulkhead
    place: QueuePlace
    seconds: float


class Close(NamedTuple):
    """Close an answer, or its body, that nobody will read."""

    response: Any


class CallFallback(NamedTuple):
    """Ask the owner's fallback function for an answer."""

    request: Any
    error: Exception


class Race(NamedTuple):
    """Run the first attempt, and the second one beside it where `seconds` went by without a result.

    Brings the first good result, or else one of the others; what comes later is closed.
    """

    first: Attempt
    second: Callable[[], Attempt | None]
    seconds: float


class Result(NamedTuple):
    """How an attempt ended: with an answer, or with a failure."""

    response: Any
    failure: Failure | None
    #: Whether the API did its work, if only to say no.
    good: bool
    #: Seconds after which the API wants to be asked again, where it said so.
    retry_after: float | None


Effect = Send | Wait | JoinQueue | Close | CallFallback | Race
Attempt = Generator[Effect, Any, Result]
#: A whole call; returns its answer.
Steps = Generator[Effect, Any, Any]
