"""Writes that are taken at once and made later, so that who answers a sign-in waits for no database (G21).

    put ─ the store has it ─▶ tried ─┬─ made ────────────────────────────▶ gone from the store
                                ▲    ├─ failed ─ back-off, breaker ──┐
                                └────┴───────────────────────────────┘
                                     └─ fails though others succeed ─▶ a dead letter: health says so, nothing is lost

A write that the store has is this process's to try until it is due again; then it is anybody's who shares the store. So
a process that is killed loses none, and a target may see a write twice: its key says that it is the same.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from string import ascii_lowercase, digits
from typing import Any, Final

from .._engine.lanes import Job
from .._engine.threads import on_a_thread
from .._engine.timers import timers_of
from .._engine.workers import Workers
from .._policy.breaker import Breaker, Dependency, prepare
from .._policy.checks import require, require_clock, require_function, require_number, require_store, require_whole
from .._policy.circuit.options import BreakerOptions, chosen_breaker
from .._policy.retry import delay_before
from .._process import forks
from .._process.living import weakly
from .._process.write_reports import WritesHealth, write_reporters
from ..clock import Clock, Jitter, SystemClock, system_jitter
from ..errors import CircuitOpen, Closed, Overloaded, ResilientAuthError, StoreUnavailable
from ..events import WriteFailed, WriteGivenUp, emit
from ..store import Store
from ..token import fingerprint
from .handling import place_of
from .waiting import Waiting
from .write import UNREADABLE, DeadLetter, Kept, Target, Undeliverable, WritesFull, carry_out

__all__ = ["BackgroundWrites"]

#: Writes that are taken up in one look.
_AT_ONCE: Final = 500
#: Seconds for which a store keeps what nobody touches: longer than any outage. Each attempt begins them anew.
_LIFE: Final = 90 * 86_400.0
#: Seconds between two looks at what is due; and between two looks for what other processes have left.
_LOOK, _ORPHANS = 1.0, 60.0
_LONGEST_KEY: Final = 256


class BackgroundWrites:
    """Take writes at once, keep them in a store, and make them in the background, each at least once (G21).

    Args:
        name: What they are called in the store, in events and in health: small letters, digits and hyphens. One for
            each target: any process may make any of the writes of a name.
        target: Makes a write: called with a `Write` on a worker thread, `concurrency` at a time. It isn't awaited.
        store: Where they are kept: a `FileStore`, `RedisStore` or `SealedStore`. Processes that share it share
            the work.
        most: Writes that may wait, and that may have been given up; `put` refuses more.
        attempts: How often a write may fail while the target works for others, before it becomes a dead letter.
        first_delay: Seconds before a write is tried again, at least; 5 or more (G9).
        longest_delay: Seconds between two attempts, at most.
        timeout: Seconds that one attempt may take: after these another process may try.
        max_age: Seconds after which a write is given up, whatever the target does.
        concurrency: Attempts at the same time.
        breaker: When the target is left alone.
        clock: Where the time comes from; for tests.
        jitter: Where randomness comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        *,
        store: Store,
        most: int = 10_000,
        attempts: int = 10,
        first_delay: float = 5.0,
        longest_delay: float = 300.0,
        timeout: float = 30.0,
        max_age: float = 7 * 86_400.0,
        concurrency: int = 4,
        breaker: BreakerOptions | None = None,
        clock: Clock | None = None,
        jitter: Jitter = system_jitter,
    ) -> None:
        fits = isinstance(name, str) and 0 < len(name) <= 25 and not set(name) - set(ascii_lowercase + digits + "-")
        require(fits, f"name must be 1 to 25 small letters, digits and hyphens, not {name!r}")
        require_function("target", target, of="a Write")
        require_store(store)
        require_clock(clock)
        require_whole("most", most, low=1, high=1_000_000)
        require_whole("attempts", attempts, low=1, high=1000)
        require_number("first_delay", first_delay, low=5.0, high=3600.0)
        require_number("longest_delay", longest_delay, low=first_delay, high=86_400.0)
        require_number("timeout", timeout, low=1.0, high=3600.0)
        require_number("max_age", max_age, low=60.0, high=30 * 86_400.0)
        require_whole("concurrency", concurrency, low=1, high=256)
        self.name, self._target, self._store = name, target, store
        alike = [one for one in write_reporters.all() if isinstance(one, BackgroundWrites) and one.name == name]
        fits = all(one._store is not store or one._target == target for one in alike)
        require(
            fits, f"name: the writes {name} over this store have another target; close those first, or rename these"
        )
        self._kind = f"write-{name}"
        self._most, self._attempts, self._timeout, self._max_age = most, attempts, timeout, max_age
        self._delays = {"first": first_delay, "longest": longest_delay}
        self._farthest = 2.0 * max(timeout, longest_delay)  # so many seconds ahead a write may be due
        self._concurrency, self._closed = concurrency, False
        self._clock, self._jitter = clock or SystemClock(), jitter
        prepare()
        about = Dependency(target=f"writes {name}", purpose="writes")
        self._breaker = Breaker(about, chosen_breaker(breaker), clock=self._clock, jitter=jitter)
        self._begin()
        write_reporters.add(self)
        forks.renew_in_children(self)
        self._look_again(0.0)

    def after_fork(self) -> None:
        """Begin with threads and locks of one's own; what the store has is found there."""
        self._breaker.renew_lock()
        self._begin()
        if not self._closed:
            self._look_again(0.0)

    def _begin(self) -> None:
        self._waiting = Waiting()
        #: Those that the target was given and hasn't come back from: another process may, this one mayn't again.
        self._trying: set[str] = set()
        #: When the target last made one, in seconds since the epoch.
        self._worked_at = -math.inf
        self._last_code: str | None = None
        self._looked_at = -math.inf
        self._workers = Workers(
            per_lane=self._concurrency,
            queue=self._most,
            now=self._clock.monotonic,
            wall=self._clock.wall,
            call_at=timers_of(self._clock).call_at,
        )

    def put(self, payload: Mapping[str, Any], *, key: str) -> bool:
        """Take a write; when this returns, the store has it.

        Args:
            payload: What to write, as JSON has it.
            key: Names it, such as the correlation id with what it is about: a second one with the key of one that still
                waits isn't taken.

        Returns:
            Whether it was taken; False where one with its key waits already, or was given up.

        Raises:
            WritesFull: Too many wait, or were given up.
            StoreUnavailable: The store fails: nothing was taken.
            Closed: This was closed.
        """
        forks.notice()
        require(isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY, f"key must have 1 to {_LONGEST_KEY} characters")
        require(isinstance(payload, Mapping), "payload must be a mapping")
        if self._closed:
            raise Closed(f"the writes {self.name} were closed")
        if len(self._waiting) >= self._most:
            raise WritesFull(f"{self._most} writes {self.name} wait already")
        if self._waiting.dead >= self._most:
            raise WritesFull(f"{self._most} writes {self.name} were given up: look at their dead_letters()")
        now = self._clock.wall()
        kept = Kept.taken(payload, now, now + self._timeout)
        version = self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=None)
        if version is None:
            return False
        self._waiting.wait_until(kept.due, key, kept)
        self._submit(partial(self._try, key, kept, version))
        return True

    async def put_async(self, payload: Mapping[str, Any], *, key: str) -> bool:
        """Take a write, in a task; see `put`."""
        taken: bool = await on_a_thread(partial(self.put, payload, key=key))
        return taken

    def flush(self, seconds: float) -> bool:
        """Wait until nothing waits that this process knows of, for at most so many seconds; tell whether that is so."""
        require_number("seconds", seconds, low=0.0)
        over, ends = threading.Condition(), self._clock.monotonic() + seconds
        with over:
            while self._waiting and (left := ends - self._clock.monotonic()) > 0:
                self._clock.wait(over, min(left, 0.05))
        return not self._waiting

    def dead_letters(self) -> list[DeadLetter]:
        """Return the writes that were given up.

        Raises:
            StoreUnavailable: The store fails.
        """
        found = ((record.name, Kept.of(record)) for record in self._store.scan(self._kind))
        return [kept.letter(key) for key, kept in found if kept.dead]

    def retry(self, key: str) -> bool:
        """Have a dead letter tried again; tell whether there was one.

        Raises:
            StoreUnavailable: The store fails.
        """
        record = self._store.read(self._kind, key)
        if record is None or (letter := Kept.of(record)).dead in ("", UNREADABLE):
            return False
        now = self._clock.wall()
        kept = letter.with_(dead="", attempts=0, blamed=0, begun=False, due=now, taken_at=now)
        if self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=record.version) is None:
            return False
        self._waiting.discarded(key)
        self._waiting.wait_until(now, key, kept)
        self._submit(partial(self._take_up, key))
        return True

    def discard(self, key: str) -> bool:
        """Forget a dead letter for good; tell whether there was one.

        Raises:
            StoreUnavailable: The store fails.
        """
        record = self._store.read(self._kind, key)
        if record is None or not Kept.of(record).dead:
            return False
        erased = self._store.erase(self._kind, key, expected=record.version)
        if erased:
            self._waiting.discarded(key)
        return erased

    def report(self) -> WritesHealth:
        """Return how they stand, without asking the store; a signal's handler may ask."""
        taken = self._waiting.taken_at()
        return WritesHealth(
            name=self.name,
            pending=len(taken),
            most=self._most,
            oldest=max(0.0, self._clock.wall() - min(taken)) if taken else 0.0,
            dead=self._waiting.dead,
            last_code=self._last_code,
        )

    def close(self) -> None:
        """Take and try nothing more; what waits is in the store, for another process or another start."""
        self._closed = True
        write_reporters.discard(self)
        self._breaker.reset()  # what is closed is no part of health

    def _submit(self, work: Callable[[], object], lane: str = "writes") -> bool:
        """Have something done on a worker; tell whether there is one for it. What hangs holds up its own lane alone."""

        def quietly() -> None:
            with contextlib.suppress(StoreUnavailable):  # it is told when the write is due again
                work()

        ends = self._clock.monotonic() + self._timeout
        try:
            self._workers.take(Job((f"{lane} {self.name}",), quietly, ends=ends))
        except Overloaded:  # it is due later
            return False
        return True

    def _look_again(self, seconds: float) -> None:
        """Look at what is due after so many seconds."""
        timers_of(self._clock).call_at(self._clock.monotonic() + seconds, weakly(self, BackgroundWrites._begin_look))

    def _begin_look(self) -> None:
        if not self._closed and not self._submit(lambda: self._look(), "look at writes"):
            self._look_again(_LOOK)

    def _look(self) -> None:
        """Try what is due, after a look in the store for what others have left."""
        try:
            now = self._clock.monotonic()
            if now - self._looked_at >= _ORPHANS:
                found = ((record.name, Kept.of(record)) for record in self._store.scan(self._kind))
                # Those that this scan may have missed were noted a moment ago.
                self._waiting.learn(found, self._clock.wall() - self._timeout)
                self._looked_at = now
            wall = self._clock.wall()
            for key in self._waiting.due(wall, self._farthest, _AT_ONCE):
                if not self._closed and self._may_try(key):
                    self._waiting.put_off(key, wall + self._timeout)
                    self._submit(partial(self._take_up, key))
        finally:
            self._look_again(_LOOK + self._jitter(0.0, _LOOK))

    def _may_try(self, key: str) -> bool:
        try:
            self._breaker.check(key)
        except CircuitOpen:
            return False
        return True

    def _take_up(self, key: str) -> None:
        """Claim a write that is due, and try it."""
        noted = self._waiting.noted(key)
        record = self._store.read(self._kind, key)
        kept = None if record is None else Kept.of(record)
        now = self._clock.wall()
        if record is None or kept is None or kept.dead:
            self._waiting.gone(key, noted)
        elif self._waiting.is_made(key, kept):
            self._erase(key, kept, record.version)
        elif (kept.begun or key in self._trying) and kept.due <= now and self._is_over(kept):
            self._give_up(key, kept, record.version, "timeout")  # nobody comes back from it, to say that it failed
        elif now < kept.due <= now + self._farthest or key in self._trying:  # another process tries it, or may
            self._waiting.wait_until(min(max(kept.due, now + _LOOK), now + self._farthest), key, kept)
        elif self._may_try(key):
            self._claim(key, kept, record.version)

    def _claim(self, key: str, kept: Kept, version: str) -> None:
        """Have a write to oneself for as long as an attempt may take, and try it."""
        # Whoever claimed it before hasn't come back from it.
        blamed = kept.blamed + (kept.begun and self._blames(kept.due - self._timeout))
        claimed = kept.with_(due=self._clock.wall() + self._timeout, begun=True, blamed=blamed)
        ours = self._store.write(self._kind, key, claimed.written(), ttl=_LIFE, expected=version)
        if ours is not None:
            self._waiting.wait_until(claimed.due, key, claimed)
            self._try(key, claimed, ours)

    def _try(self, key: str, kept: Kept, version: str) -> None:
        """Try a write that is this process's to try."""
        if self._closed:
            return
        if self._clock.wall() > kept.due - self._timeout / 2:  # it waited here, and may be another process's by now
            self._claim(key, kept, version)
            return
        try:
            permit = self._breaker.admit(key)
        except CircuitOpen as error:
            seconds = min(error.retry_after or self._delays["first"], self._delays["longest"])
            self._later(key, kept, version, seconds)
            return
        with permit:
            self._trying.add(key)
            try:
                carry_out(self._target, kept.write(key))
            except Undeliverable as error:
                permit.success()  # the target works, and said no
                self._give_up(key, kept, version, error.code)
                return
            except BaseException as error:  # noqa: BLE001 - the owner's code may raise anything, and end nothing but itself
                code = error.code if isinstance(error, ResilientAuthError) else "handler_error"
                permit.failure(code)
                self._failed(key, kept, version, code, place_of(error))
                return
            finally:
                self._trying.discard(key)
            permit.success()
        self._last_code, self._worked_at = None, self._clock.wall()
        self._waiting.made(key, kept)
        self._erase(key, kept, version)

    def _erase(self, key: str, kept: Kept, version: str) -> None:
        """Remove what is made, whoever has claimed it since; but not another write that was taken under its key."""
        if not self._store.erase(self._kind, key, expected=version):
            record = self._store.read(self._kind, key)
            if record is not None and Kept.of(record).id == kept.id:
                self._store.erase(self._kind, key, expected=record.version)
        self._waiting.over(key, kept)

    def _failed(self, key: str, kept: Kept, version: str, code: str, detail: str) -> None:
        self._last_code = code
        at = self._clock.wall()
        blamed = kept.blamed + self._blames(max(kept.taken_at, kept.failed_at))
        kept = kept.with_(attempts=kept.attempts + 1, blamed=blamed, failed_at=at)
        if self._is_over(kept):
            self._give_up(key, kept, version, code)
            return
        seconds = delay_before(kept.attempts, None, jitter=self._jitter, **self._delays)
        emit(WriteFailed(at=at, target=self.name, key=fingerprint(key), code=code, detail=detail, seconds=seconds))
        self._later(key, kept, version, seconds)

    def _blames(self, since: float) -> bool:
        """Return whether the target has worked for others since: while it fails for all, no write is at fault."""
        return self._breaker.closed and since < self._worked_at <= self._clock.wall()

    def _is_over(self, kept: Kept) -> bool:
        return kept.blamed >= self._attempts or self._clock.wall() - kept.taken_at >= self._max_age

    def _later(self, key: str, kept: Kept, version: str, seconds: float) -> None:
        """Have a write tried again."""
        kept = kept.with_(due=self._clock.wall() + seconds, begun=False)
        self._waiting.wait_until(kept.due, key, kept)
        self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=version)

    def _give_up(self, key: str, kept: Kept, version: str, code: str) -> None:
        kept = kept.with_(dead=code)
        if self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=version) is None:
            return  # another process tries it
        count = self._waiting.given_up(key, kept)
        emit(WriteGivenUp(at=self._clock.wall(), target=self.name, key=fingerprint(key), code=code, count=count))
