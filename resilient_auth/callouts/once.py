"""One effect for each request, however often it is sent, and one answer: in this process, and over the store in all.

    first of its key ─ claims it in the store ─┬─ it is this process's ──▶ the handler runs; its answer is written
                                               ├─ answered ──────────────▶ the same answer
                                               ├─ failed ────────────────▶ the default, and no second run
                                               └─ runs elsewhere ────────▶ wait, as long as the deadline allows
    another of its key, in this process ─────────────────────────────────▶ wait for the first one

What ran and failed isn't run again for a repeated request: whether it has had its effect isn't known.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from enum import Enum
from typing import Any, Final

from .._engine.single_flight import Flight
from .._policy.failure import json_object
from ..clock import Clock
from ..store import ANY, Store
from .contract import Reply

__all__ = ["Claimed", "Once", "Run"]

_KIND: Final = "callout"
_MOST: Final = 10_000


class Claimed(Enum):
    """What a claim in the store came to, where there is no answer yet."""

    OURS = "ours"
    RUNS = "runs elsewhere"
    FAILED = "failed"


class Run:
    """One run of a handler, and whoever waits for it."""

    __slots__ = ("began", "claimed", "ends", "flight", "key", "permit", "repeated", "request", "told")

    def __init__(self, key: str, request: Any, began: float, ends: float, clock: Clock) -> None:
        self.key = key
        #: Until it is answered.
        self.request = request
        self.began = began
        #: Monotonic time by which its first waiter wants an answer.
        self.ends = ends
        self.flight = Flight(key, ends, clock)
        #: The breaker's, once the handler was let in.
        self.permit: Any = None
        #: Whether the answer is another process's.
        self.repeated = False
        #: Whether the store says that it is this process's.
        self.claimed = False
        #: What the store is to be told of the user's claims.
        self.told: Any = None

    def too_slow(self) -> None:
        """Say that whoever waited for it has gone: a handler that hangs gives no verdict itself."""
        if self.permit is not None:
            self.permit.failure("slow")


class Once:
    """Know what runs and what was answered.

    Args:
        name: The callout's: others' keys are others.
        window: Seconds for which an answer is remembered.
        store: Where processes share that; None where each knows its own.
        clock: Gives the time.
    """

    def __init__(self, name: str, window: float, store: Store | None, clock: Clock) -> None:
        self._name = name
        self._window = window
        self._store = store
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with nothing: what the parent runs is the parent's."""
        self._lock = threading.Lock()
        #: In the order in which they began.
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def key(self, *parts: Any) -> str:
        """Return the name of a request by all that tells it from others."""
        told = json.dumps([self._name, *parts], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(told.encode()).hexdigest()

    def join(self, key: str, request: Any, began: float, ends: float) -> tuple[Run, bool]:
        """Return the run of a key, and whether it is a new one of this request."""
        now = self._clock.monotonic()
        with self._lock:
            while self._runs:
                oldest = next(iter(self._runs.values()))
                if len(self._runs) < _MOST and now - oldest.began < self._window:
                    break
                self._runs.popitem(last=False)
            found = self._runs.get(key)
            if found is not None:
                return found, False
            run = self._runs[key] = Run(key, request, began, ends, self._clock)
            return run, True

    def forget(self, run: Run) -> None:
        """Forget a run that never began, so that a repeated request begins it."""
        with self._lock:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]

    # What follows talks to the store.

    def claim(self, key: str) -> Claimed | Reply:
        """Take a key for this process, or find what became of it.

        Raises:
            StoreUnavailable: The store fails.
        """
        assert self._store is not None  # noqa: S101 - else nobody asks
        if self._store.write(_KIND, key, b'{"is":"runs"}', ttl=self._window, expected=None) is not None:
            return Claimed.OURS
        record = self._store.read(_KIND, key)
        if record is None:  # it has just run out
            return Claimed.RUNS
        match json_object(record.value):
            case {"is": "answered", "status": int(status), "body": str(body)} if 200 <= status < 600:
                return Reply(status, body.encode("utf-8", "replace"))
            case {"is": "runs"}:
                return Claimed.RUNS
        # It failed, or a newer release has run it and says so in its own words.
        return Claimed.FAILED

    def note(self, key: str, reply: Reply | None) -> None:
        """Tell other processes how a run ended.

        Raises:
            StoreUnavailable: The store fails.
        """
        assert self._store is not None  # noqa: S101 - else nobody tells
        said: dict[str, Any] = {"is": "failed"}
        if reply is not None:
            said = {"is": "answered", "status": reply.status, "body": reply.body.decode()}
        self._store.write(_KIND, key, json.dumps(said).encode(), ttl=self._window, expected=ANY)
