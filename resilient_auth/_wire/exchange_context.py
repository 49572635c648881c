"""What is known of the exchange for which MSAL calls its http_client."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .._engine.acquire import restore
from .._engine.engine import Engine
from .._engine.single_flight import Flight

__all__ = ["ExchangeContext", "current", "has_another_source", "once_then_elsewhere", "time_left"]


@dataclass(slots=True)
class ExchangeContext:
    """What is known of the exchange for which MSAL calls: set around it, read by the transport."""

    #: Monotonic time after which no attempt goes on.
    deadline: float
    #: Monotonic time before which none starts.
    earliest: float = 0.0
    #: Whose tokens; a user's throttling isn't everybody's.
    subject: str | None = None
    #: Attempts at most; None for the settings'.
    attempts: int | None = None
    managed_identity: bool = False
    #: Told when an attempt fails, before the next one: who has a valid token needn't wait for that.
    flight: Flight | None = None
    #: When the last attempt went out: a token's life is counted from here, on both clocks.
    sent_on: float | None = None
    sent_at: float | None = None

    def hold_on(self, seconds: float) -> None:
        """Tell the exchange for how many seconds the provider is left alone before it is asked."""
        if self.flight is not None and self.flight.on_back_off is not None:
            self.flight.on_back_off(seconds)

    @contextmanager
    def under_way(self) -> Iterator[ExchangeContext]:
        """Let the transport know of this exchange, on this thread."""
        token = _under_way.set(self)
        try:
            yield self
        finally:
            _under_way.reset(token)


_under_way: contextvars.ContextVar[ExchangeContext | None] = contextvars.ContextVar(
    "resilient_auth_exchange", default=None
)
_elsewhere: contextvars.ContextVar[bool] = contextvars.ContextVar("resilient_auth_elsewhere", default=False)


#: Returns what is known of the exchange under way on this thread; None outside of one.
current = _under_way.get
#: Returns whether the exchange under way is to make one attempt, since its caller has another source to ask.
has_another_source = _elsewhere.get


@contextmanager
def once_then_elsewhere() -> Iterator[None]:
    """Have exchanges begun in this block make one attempt, since their caller has another source to ask (G12)."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        restore(_elsewhere, token)


def time_left(engine: Engine) -> float:
    """Return how many seconds the exchange under way has left; outside of one, how long a constructor waits."""
    exchange_context = current()
    if exchange_context is None:
        return engine.settings.discovery_wait
    return max(0.0, exchange_context.deadline - engine.clock.monotonic())
