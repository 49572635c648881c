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
import weakref
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
from .._process.write_reports import WritesHealth, write_reporters
from ..clock import Clock, Jitter, SystemClock, system_jitter
from ..errors import CircuitOpen, Closed, Overloaded, ResilientAuthError, StoreUnavailable
from ..events import WriteFailed, WriteGivenUp, emit
from ..store import Store
from ..token import fingerprint
from .handling import place_of
from .write import DeadLetter, Kept, Target, Undeliverable, Write, WritesFull, carry_out

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
        name: What they are called in the store, in events and in health: small letters, digits and hyphens.
        target: Makes a write: called with a `Write` on a worker thread, `concurrency` at a time.
        store: Where they are kept: a `FileStore`, `RedisStore` or `SealedStore`. Processes that share it share
            the work.
        most: Writes that may wait; `put` refuses more.
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
        self._kind = f"write-{name}"
        self._most, self._attempts = most, attempts
        self._delays = {"first": first_delay, "longest": longest_delay}
        self._timeout, self._max_age = timeout, max_age
        self._concurrency = concurrency
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._closed = False
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
        self._lock = threading.Lock()
        #: What is known to wait: when it is due, and when it was taken.
        self._pending: dict[str, tuple[float, float]] = {}
        self._dead: set[str] = set()
        #: Those that are made, of which the store couldn't be told.
        self._made: set[str] = set()
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
            Whether it was taken; False where one with its key waits already.

        Raises:
            WritesFull: Too many wait.
            StoreUnavailable: The store fails: nothing was taken.
            Closed: This was closed.
        """
        forks.notice()
        require(isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY, f"key must have 1 to {_LONGEST_KEY} characters")
        require(isinstance(payload, Mapping), "payload must be a mapping")
        if self._closed:
            raise Closed(f"the writes {self.name} were closed")
        if len(self._pending) >= self._most:
            raise WritesFull(f"{self._most} writes {self.name} wait already")
        now = self._clock.wall()
        kept = Kept(payload, now, now + self._timeout)
        version = self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=None)
        if version is None:
            return False
        with self._lock:
            self._pending[key] = (kept.due, now)
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
            while self._pending and (left := ends - self._clock.monotonic()) > 0:
                self._clock.wait(over, min(left, 0.05))
        return not self._pending

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
        if record is None or not Kept.of(record).dead:
            return False
        now = self._clock.wall()
        kept = Kept.of(record).with_(dead="", attempts=0, blamed=0, due=now, taken_at=now)
        if self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=record.version) is None:
            return False
        with self._lock:
            self._dead.discard(key)
            self._pending[key] = (now, now)
        self._look_again(0.0)
        return True

    def discard(self, key: str) -> bool:
        """Forget a dead letter for good; tell whether there was one.

        Raises:
            StoreUnavailable: The store fails.
        """
        record = self._store.read(self._kind, key)
        if record is None or not Kept.of(record).dead:
            return False
        with self._lock:
            self._dead.discard(key)
        return self._store.erase(self._kind, key, expected=record.version)

    def report(self) -> WritesHealth:
        """Return how they stand, without asking the store; a signal's handler may ask."""
        taken = [taken_at for _, taken_at in list(self._pending.values())]
        return WritesHealth(
            name=self.name,
            pending=len(taken),
            most=self._most,
            oldest=max(0.0, self._clock.wall() - min(taken)) if taken else 0.0,
            dead=len(self._dead),
            last_code=self._last_code,
        )

    def close(self) -> None:
        """Take and try nothing more; what waits is in the store, for another process or another start."""
        self._closed = True
        write_reporters.discard(self)
        self._breaker.reset()  # what is closed is no part of health

    def _submit(self, work: Callable[[], object]) -> None:
        def quietly() -> None:
            # What the store can't be told now it is told when the write is due again.
            with contextlib.suppress(StoreUnavailable):
                work()

        ends = self._clock.monotonic() + self._timeout
        with contextlib.suppress(Overloaded):  # it is due later
            self._workers.take(Job((f"writes {self.name}",), quietly, ends=ends))

    def _look_again(self, seconds: float) -> None:
        """Look at what is due after so many seconds."""
        me = weakref.ref(self)

        def look() -> None:
            one = me()
            if one is not None and not one._closed:
                one._submit(one._look)

        timers_of(self._clock).call_at(self._clock.monotonic() + seconds, look)

    def _look(self) -> None:
        """Try what is due, after a look in the store for what others have left."""
        try:
            now = self._clock.monotonic()
            if now - self._looked_at >= _ORPHANS:
                self._find_all()
                self._looked_at = now
            wall = self._clock.wall()
            with self._lock:
                due = sorted((at, key) for key, (at, _) in self._pending.items() if at <= wall)[:_AT_ONCE]
            for key in [key for _, key in due if not self._closed and self._may_try(key)]:
                with self._lock:  # another look mustn't take it up as well
                    if key in self._pending:
                        self._pending[key] = (wall + self._timeout, self._pending[key][1])
                self._submit(partial(self._take_up, key))
        finally:
            self._look_again(_LOOK + self._jitter(0.0, _LOOK))

    def _may_try(self, key: str) -> bool:
        try:
            self._breaker.check(key)
        except CircuitOpen:
            return False
        return True

    def _find_all(self) -> None:
        """Note all that the store has."""
        found = {record.name: Kept.of(record) for record in self._store.scan(self._kind)}
        with self._lock:
            for key, kept in found.items():
                if not kept.dead:
                    self._pending.setdefault(key, (kept.due, kept.taken_at))
            self._dead = {key for key, kept in found.items() if kept.dead}
            # Those that this scan may have missed were noted a moment ago; others' are gone.
            old = self._clock.wall() - self._timeout
            for key in [key for key, (due, _) in self._pending.items() if key not in found and due < old]:
                del self._pending[key]

    def _take_up(self, key: str) -> None:
        """Claim a write that is due, and try it."""
        if key in self._made:
            self._erase(key)
            return
        record = self._store.read(self._kind, key)
        kept = None if record is None else Kept.of(record)
        now = self._clock.wall()
        if record is None or kept is None or kept.dead:
            self._over(key)
        elif kept.due > now or key in self._trying:  # another process tries it, or may
            with self._lock:
                self._pending[key] = (max(kept.due, now + _LOOK), kept.taken_at)
        elif self._may_try(key):
            claimed = kept.with_(due=now + self._timeout)
            version = self._store.write(self._kind, key, claimed.written(), ttl=_LIFE, expected=record.version)
            with self._lock:
                self._pending[key] = (claimed.due, kept.taken_at)
            if version is not None:
                self._try(key, claimed, version)

    def _try(self, key: str, kept: Kept, version: str) -> None:
        """Try a write that is this process's to try."""
        try:
            permit = self._breaker.admit(key)
        except CircuitOpen as error:
            self._later(key, kept, version, error.retry_after or self._delays["first"])
            return
        with permit:
            self._trying.add(key)
            try:
                carry_out(self._target, Write(key=key, payload=kept.payload, attempt=kept.attempts + 1))
            except Undeliverable as error:
                permit.success()  # the target works, and said no
                self._give_up(key, kept, version, error.code)
                return
            except Exception as error:  # noqa: BLE001 - the owner's code may raise anything
                code = error.code if isinstance(error, ResilientAuthError) else "handler_error"
                permit.failure(code)
                self._failed(key, kept, version, code, place_of(error))
                return
            finally:
                self._trying.discard(key)
            permit.success()
        self._last_code, self._worked_at = None, self._clock.wall()
        with self._lock:
            self._made.add(key)
        self._erase(key)

    def _erase(self, key: str) -> None:
        self._store.erase(self._kind, key)
        self._over(key)

    def _failed(self, key: str, kept: Kept, version: str, code: str, detail: str) -> None:
        self._last_code = code
        # While the target fails for all, no write is at fault.
        blamed = self._breaker.closed and self._worked_at > kept.taken_at
        kept = kept.with_(attempts=kept.attempts + 1, blamed=kept.blamed + int(blamed))
        if kept.blamed >= self._attempts or self._clock.wall() - kept.taken_at >= self._max_age:
            self._give_up(key, kept, version, code)
            return
        seconds = delay_before(kept.attempts, None, jitter=self._jitter, **self._delays)
        at = self._clock.wall()
        emit(WriteFailed(at=at, target=self.name, key=fingerprint(key), code=code, detail=detail, seconds=seconds))
        self._later(key, kept, version, seconds)

    def _later(self, key: str, kept: Kept, version: str, seconds: float) -> None:
        """Have a write tried again."""
        kept = kept.with_(due=self._clock.wall() + seconds)
        with self._lock:
            self._pending[key] = (kept.due, kept.taken_at)
        self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=version)

    def _give_up(self, key: str, kept: Kept, version: str, code: str) -> None:
        kept = kept.with_(dead=code)
        if self._store.write(self._kind, key, kept.written(), ttl=_LIFE, expected=version) is None:
            return  # another process tries it
        self._over(key)
        with self._lock:
            self._dead.add(key)
            count = len(self._dead)
        emit(WriteGivenUp(at=self._clock.wall(), target=self.name, key=fingerprint(key), code=code, count=count))

    def _over(self, key: str) -> None:
        with self._lock:
            self._pending.pop(key, None)
            self._made.discard(key)
