"""What stands between a store and its medium: two breakers, one health line, and an event at each change (G11).

Reads and writes have a breaker each: a full disk or a read-only replica still gives what it holds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

import cachetools

from .._policy.breaker import Breaker, BreakerOptions, Dependency, prepare
from .._process import forks, observing
from .._process.living import LiveObjects
from .._process.resources import exhausted
from ..clock import Clock, Jitter
from ..errors import CircuitOpen, LocalResourcesExhausted, StoreUnavailable
from ..events import Event, StoreFailed, StoreRecovered, StoreRejected, emit
from ..store import BackendFailed

__all__ = ["Gate", "StoreStatus", "stores"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: A store is tried again soon: its failures cost little and are often short.
_OPTIONS = BreakerOptions(consecutive_failures=2, first_break=5.0, longest_break=10.0, urgent_break=(5.0, 5.5))
#: Seconds without a failure after which a medium counts as recovered; one that flaps is reported once.
_CALM = 5.0
_BETWEEN_REJECTIONS = 60.0
_UNREADABLE = 1024

State = Literal["ok", "failing", "read_only", "unavailable", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Describe the state of a store."""

    target: str
    #: "failing": it failed a moment ago, and is still used; "read_only": writes are refused for some seconds;
    #: "unavailable": reads are, too.
    state: State
    #: The code of the last failure since it last worked, such as `timeout` or `full`.
    last_code: str | None
    #: Records that couldn't be verified, since the process started.
    rejected: int
    #: Records, 1,024 at most, that were seen and can't be opened here, though another process may be able to: their key
    #: isn't given, or a newer release wrote them. Their users sign in again.
    unreadable: int = 0
    #: The kind of the last one and why: "partition: unknown_key", for example.
    last_unreadable: str | None = None


class Gate:
    """Let calls through to a medium while it works.

    Args:
        label: The medium's name.
        clock: Gives the time.
        jitter: Draws breaks.
    """

    def __init__(self, label: str, *, clock: Clock, jitter: Jitter) -> None:
        prepare()
        self.label = label
        self._clock = clock
        self._lock = threading.Lock()
        self._reads, self._writes = (
            Breaker(Dependency(target=label, purpose=side), _OPTIONS, clock=clock, jitter=jitter, tell=_ignore)
            for side in ("reads", "writes")
        )
        self._failing_at: float | None = None
        self._last_failure = 0.0
        self._last_error: str | None = None
        self._rejected = 0
        self._unreadable: cachetools.LRUCache[str, str] = cachetools.LRUCache(_UNREADABLE)
        self._last_unreadable: str | None = None
        #: When each kind and reason was last reported, and how many came since.
        self._rejections: dict[tuple[str, str], tuple[float, int]] = {}
        self._closed = False
        _stores.add(self)
        forks.renew_in_children(self)

    def read(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a call that changes nothing.

        Raises:
            StoreUnavailable: It failed, or wasn't made.
        """
        return self._through(self._reads, call, *args, **kwargs)

    def write(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a call that needs a medium which can be written to.

        Raises:
            StoreUnavailable: It failed, or wasn't made.
        """
        return self._through(self._writes, call, *args, **kwargs)

    def reject(self, kind: str, reason: str, *, stays: str | None = None) -> None:
        """Note that a record couldn't be verified.

        Args:
            kind: Its kind.
            reason: Why.
            stays: The key under which it is left.
        """
        forks.notice()
        now = self._clock.monotonic()
        with self._lock:
            self._rejected += 1
            if stays is not None:
                self._unreadable[stays] = self._last_unreadable = f"{kind}: {reason}"
            reported_at, since = self._rejections.get((kind, reason), (-math.inf, 0))
            due = now - reported_at >= _BETWEEN_REJECTIONS
            self._rejections[kind, reason] = (now, 0) if due else (reported_at, since + 1)
        if due:
            emit(StoreRejected(at=self._clock.wall(), target=self.label, kind=kind, code=reason, count=since + 1))

    def opened(self, *keys: str) -> None:
        """Note that what is under keys can be opened, or is gone."""
        if self._unreadable:
            with self._lock:
                for key in keys:
                    self._unreadable.pop(key, None)
                if not self._unreadable:
                    self._last_unreadable = None

    def close(self) -> bool:
        """Refuse every call from now on; return whether it was open."""
        forks.notice()
        with self._lock:
            was, self._closed = self._closed, True
        for breaker in (self._reads, self._writes):
            breaker.reset()  # a closed store is no part of health
        return not was

    def status(self) -> StoreStatus:
        """Return its state."""
        reads, writes = (breaker.status().state in ("open", "isolated") for breaker in (self._reads, self._writes))
        state: State = "ok"
        if self._closed:
            state = "closed"
        elif reads:
            state = "unavailable"
        elif writes:
            state = "read_only"
        elif self._last_error is not None:
            state = "failing"
        return StoreStatus(
            target=self.label,
            state=state,
            last_code=self._last_error,
            rejected=self._rejected,
            unreadable=len(self._unreadable),
            last_unreadable=self._last_unreadable,
        )

    def after_fork(self) -> None:
        """Take locks of its own in a forked child, whose parent may have been in the middle of a change."""
        self._lock, self._unreadable = threading.Lock(), forks.rebuilt(self._unreadable)
        self._reads.renew_lock()
        self._writes.renew_lock()

    def _through(self, breaker: Breaker, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        forks.notice()
        if self._closed:
            raise StoreUnavailable(self.label, "closed", "close() was called")
        try:
            permit = breaker.admit()
        except CircuitOpen as error:
            raise StoreUnavailable(
                self.label, "circuit_open", f"last failure: {self._last_error}", retry_after=error.retry_after
            ) from None
        operation = None
        if observing.observer is not None:
            side = "read" if breaker is self._reads else "write"
            operation = observing.observer.begin("store", target=self.label, side=side)
        with permit:
            try:
                answer = call(*args, **kwargs)
            except BackendFailed as error:
                code, detail, ours = error.code, error.detail, exhausted(error)
            except Exception as error:  # noqa: BLE001 - a third party's medium may raise anything, and quote anything
                code, detail, ours = "failed", type(error).__name__, exhausted(error)
            except BaseException as leaving:
                if operation is not None:
                    operation.end(error=leaving)
                raise
            else:
                if operation is not None:
                    operation.end()
                permit.success()
                if self._failing_at is not None:
                    self._succeeded()
                return answer
            if ours:  # the medium may be well: this machine can't open it
                code = LocalResourcesExhausted.code
            else:
                permit.failure(code)
        self._failed(code, detail)
        failure = StoreUnavailable(self.label, code, detail)
        if operation is not None:
            operation.end(error=failure)
        raise failure

    def _failed(self, code: str, detail: str) -> None:
        now = self._clock.monotonic()
        with self._lock:
            first = self._failing_at is None
            if first:
                self._failing_at = now
            self._last_failure, self._last_error = now, code
        if first:
            emit(StoreFailed(at=self._clock.wall(), target=self.label, code=code, detail=detail))

    def _succeeded(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            began = self._failing_at
            well = all(breaker.status().state == "closed" for breaker in (self._reads, self._writes))
            if began is None or not well or now - self._last_failure < _CALM:
                return
            self._failing_at = self._last_error = None
        emit(StoreRecovered(at=self._clock.wall(), target=self.label, seconds=now - began))


def _ignore(event: Event) -> None:
    """Emit nothing: the store has events of its own."""


_stores: LiveObjects[Gate] = LiveObjects()


def stores() -> list[StoreStatus]:
    """Return the state of each open store of this process."""
    found = (gate.status() for gate in _stores.all())
    return sorted((status for status in found if status.state != "closed"), key=lambda status: status.target)
