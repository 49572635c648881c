"""What a client tells of its requests, one line of JSON each. A token never leaves its process: only its hash does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Request", "encode", "parse", "with_those_behind"]

_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Request:
    """One request for a token.

    Attributes:
        began: Seconds since the epoch.
        wait: Seconds until it ended; where it didn't, for which it had waited at the end of the drill.
        token: SHA-256 of the token that it got.
        error: What it got instead: a type of exception or an OAuth error.
        finished: Whether it ended.
    """

    began: float
    wait: float
    token: str | None = None
    error: str | None = None
    finished: bool = True

    @property
    def ended(self) -> float:
        """Seconds since the epoch."""
        return self.began + self.wait


def encode(request: Request) -> str:
    """Write a request as a line."""
    fields = [round(request.began, 6), round(request.wait, 7), request.token, request.error, request.finished]
    return json.dumps(fields, separators=(",", ":"))


def parse(line: str) -> Request:
    """Read a line that `encode` wrote.

    Raises:
        ValueError: It isn't one.
    """
    try:
        began, wait, token, error, finished = json.loads(line)
        return Request(float(began), float(wait), token, error, bool(finished))
    except (TypeError, ValueError):
        raise ValueError("this line isn't a request's") from None


def with_those_behind(requests: Iterable[Request], interval: float) -> Iterator[Request]:
    """Add the requests that came due while their thread was still waiting; they share its fate.

    A thread that hangs for 10 s would else count as one bad request, and the more a client hangs the better it would
    look. HdrHistogram calls this the correction for coordinated omission.

    Args:
        requests: Those that were made.
        interval: Seconds between two requests of one thread.
    """
    for request in requests:
        yield request
        left = request.wait - interval
        while left > _ROUNDING:
            yield replace(request, began=request.ended - left, wait=left)
            left -= interval
