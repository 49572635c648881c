"""Write-back: what of an application's users and tokens still has to be written to the store, and when that is done."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final

from .._engine.engine import Engine
from .._engine.single_flight import Flight, Outcome
from .._engine.timers import Timer
from .._process import forks
from .._process.living import weakly
from ..errors import ProviderUnavailable, StoreUnavailable
from ..events import Event, RemovalPostponed, RemovalWritten, emit, told_later
from ..token import fingerprint
from .account_names import AccountNames
from .owner import Owner, quietly
from .pending_writes import PendingWrites, Place
from .records import OF_ONE_RECORD, UNREADABLE, Records
from .user_record import Entry, Key, new_name

__all__ = ["LONGEST_WRITE", "NOBODY", "STORE_LANE", "WriteBack", "removals_pending"]

#: The workers' lane on which stores are read and written, apart from those of providers that may hang.
STORE_LANE: Final = "store"
#: Seconds after which what couldn't be written is tried again.
_TRY_AGAIN = 5.0
#: Seconds after which a record is written again that can't be opened here.
_REST = 300.0
#: Seconds after which a thread that writes isn't waited for any more.
LONGEST_WRITE: Final = 30.0
#: The application's own entries belong to no user, and its tokens are where their scopes say.
NOBODY: Final = ""
#: Applications that were let go are kept for their sign-outs, so many at most.
_MOST_REMOVING = 1024
#: Of how many partitions, of those that were wanted longest ago, it is seen at a time whether they can go.
_LOOKED_THROUGH = 256

#: Those with a sign-out that isn't written yet: whether or not anybody has their application still, it is.
_removing: set[WriteBack] = set()


class WriteBack:
    """Write an application's users and tokens to a store, now or as soon as that can be done.

    Args:
        engine: Whose store, workers and timers are used.
        stored: The store.
        label: Names the application, and begins no other one's name: its authority, client id and capabilities.
        cloud: Names the client at the tenants between which a user's sign-in is shared; None where there are none.
        owner: The application object; it isn't kept alive.
    """

    def __init__(self, engine: Engine, stored: Records, label: str, cloud: str | None, owner: Owner) -> None:
        self._engine = engine
        self.stored = stored
        self.label = label
        self._names = AccountNames(stored, label, cloud)
        self._owner = weakref.ref(owner)
        self._most = engine.settings.max_users
        self.renew_locks()
        #: In the order in which they were wanted last.
        self._partitions: OrderedDict[Place, PendingWrites] = OrderedDict()
        forks.renew_in_children(self)

    def renew_locks(self) -> None:
        """Begin with locks of its own, and nothing under way."""
        self._lock = threading.Lock()
        #: Those with something that isn't written yet.
        self._unwritten: set[Place] = set()
        self._flushing = False
        self._timer: Timer | None = None

    def after_fork(self) -> None:
        """Start with locks of one's own in a forked child; what isn't written yet is the parent's to write."""
        self.renew_locks()
        for held in self._partitions.values():
            held.forget()
        _removing.discard(self)

    def name(self, subject: str | None) -> str:
        """Name a subject in the store, for leases and hints."""
        return f"{self.label} {subject or NOBODY}"

    def _record(self, place: Place) -> str:
        # What a provider calls its users never begins the name of another kind of partition. Scopes may be long.
        if isinstance(place, str):
            return f"{self.label} {place}"
        return f"{self.label}\n{hashlib.sha256(json.dumps(place).encode()).hexdigest()}"

    @property
    def removals_pending(self) -> int:
        """How many sign-outs the store hasn't heard of yet, those being written left out; takes no lock."""
        waiting = [self._partitions.get(place) for place in list(self._unwritten)]
        return sum(held is not None and held.postponed for held in waiting)

    def _held(self, place: Place) -> PendingWrites:
        held = self._partitions.get(place)
        if held is None:
            # An application's own tokens are of no sign-in.
            held = self._partitions[place] = PendingWrites(new_name() if isinstance(place, str) else "")
        self._partitions.move_to_end(place)
        return held

    def _make_room(self) -> None:
        """Let go of those that were wanted longest ago, of whom the store has everything."""
        owner = self._owner()
        with self._lock:
            excess = len(self._partitions) - self._most
            if excess <= 0:
                return
            longest_ago = islice(self._partitions.items(), _LOOKED_THROUGH)
            evicted = [place for place, held in longest_ago if place != NOBODY and not held.pending][:excess]
        for place in evicted:
            with quietly():
                if isinstance(place, str) and (owner is None or not owner.evict(place)):
                    return
            with self._lock:
                held = self._partitions.get(place)
                if held is not None and not held.pending:
                    del self._partitions[place]

    def _settle(self, who: Place, held: PendingWrites) -> None:
        """Note whether a partition has something to be written; the lock is held."""
        if held.pending:
            self._unwritten.add(who)
        else:
            self._unwritten.discard(who)
        if self in _removing and not any(self._partitions[place].erase for place in self._unwritten):
            _removing.discard(self)

    def wait_for(self, call: Callable[[], None], seconds: float) -> None:
        """Have something done on a worker, and wait for it on this thread for at most `seconds`.

        Raises:
            StoreUnavailable: The store fails, or takes longer; then it goes on.
        """
        flight = Flight(None, self._engine.clock.monotonic() + seconds, self._engine.clock)

        def run() -> None:
            outcome = Outcome()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits must learn of it
                outcome = Outcome(error=error)
            finally:
                flight.land(outcome)

        try:
            self._engine.run(STORE_LANE, run, flight, anyhow=True)
        except ProviderUnavailable:
            raise self._unavailable("busy", "its queue is full") from None
        self._finish(flight, seconds)

    def _finish(self, flight: Flight, seconds: float) -> None:
        """Wait for what a flight does, and fail as it does."""
        outcome = flight.wait(seconds)
        if outcome is None:
            raise self._unavailable("timeout", f"no answer within {seconds:g} s")
        if outcome.error is not None:
            error = outcome.error  # each who waits raises one of their own
            raise copy.copy(error) if isinstance(error, StoreUnavailable) else error

    def _unavailable(self, reason: str, detail: str) -> StoreUnavailable:
        return StoreUnavailable(self.stored.store.label, reason, detail, retry_after=_TRY_AGAIN)

    def _write(self, place: Place, held: PendingWrites) -> None:
        """Write what is pending, one thread at a time: a removal must not be overtaken by what came before it."""
        flights, clock = self._engine.flights, self._engine.clock
        while held.pending:
            flight, mine = flights.join(("user_record", self, place), clock.monotonic() + LONGEST_WRITE)
            if not mine:
                flight.wait(LONGEST_WRITE)
                continue
            with told_later():
                try:
                    self._write_now(place, held)
                finally:
                    flights.land(flight, Outcome())

    def _write_now(self, who: Place, held: PendingWrites) -> None:
        own = isinstance(who, tuple)
        with self._lock:
            erase, changes, tokens = held.erase, dict(held.changes), dict(held.tokens)
            recent, held.recent, born = held.recent, None, held.born
            anew, fence = held.sign_in, held.fence if held.sign_in is None else 0
        try:
            if erase:
                self._erase_now(who, held)
                recent = None
            if not changes and not tokens:
                return
            note = None if isinstance(who, tuple) else partial(self._names.note, who)
            written = self.stored.save(
                self._record(who), recent, born, changes, tokens, anew=anew, fence=fence, own=own, note=note
            )
            self._names.forget(changes)
        except StoreUnavailable as error:
            if error.reason == UNREADABLE:
                held.rests_until = self._engine.clock.monotonic() + _REST
            self._try_again()
            raise
        except (TypeError, ValueError):
            # What came beside the token can't be written down: it stays in memory.
            with self._lock:
                held.tokens.clear()
                held.changes.clear()
                held.erase, held.names = False, {}
                self._settle(who, held)
            return
        with self._lock:
            for key, change in changes.items():
                if held.changes.get(key) is change:
                    del held.changes[key]
            for name, token in tokens.items():
                if held.tokens.get(name) is token:
                    del held.tokens[name]
            held.sign_in = held.sign_in if held.changes else None
            held.fence = held.fence if held.pending else 0
            self._settle(who, held)
            if written is not None:
                held.born, held.read, held.keys = written.born, True, frozenset(written.entries)
                held.seen_on, held.over, held.rests_until = self._engine.clock.wall(), False, 0.0
                return
            stale, held.keys = held.keys | changes.keys(), frozenset()
        self._forget(who)
        self._put_back({}, stale)

    def _erase_now(self, who: Place, held: PendingWrites) -> None:
        """Remove a partition, and what else is known of its user there."""
        names, removed_on, removal = held.names, held.removed_on, held.removal
        if isinstance(who, tuple) or who == NOBODY:
            self.stored.erase_own(f"{self.label}\n")
        else:
            removal = self.stored.erase(self._record(who), removed_on, removal)
            # The refresh token is good in all tenants of a cloud: whoever has a record of it there is signed out too.
            others = self._names.other_tenants(who)
            for label in others:
                self.stored.erase(f"{label} {who}", removed_on, removal)
            if others:  # a sign-in in one of them may have taken that back meanwhile
                removal = self.stored.erase(self._record(who), removed_on, removal)
            self._names.forget(names)
        with self._lock:
            held.known = removal
            postponed, held.postponed = held.postponed, False
            held.erase, held.names = False, {}
            self._settle(who, held)
        if postponed:
            emit(self._told_of(RemovalWritten, who))

    def _told_of(self, kind: type[RemovalPostponed] | type[RemovalWritten], who: Place) -> Event:
        subject = fingerprint(who) if isinstance(who, str) and who != NOBODY else None
        return kind(at=self._engine.clock.wall(), target=self.stored.store.label, subject=subject)

    def _forget(self, who: Place) -> None:
        owner = self._owner()
        if owner is not None and isinstance(who, str):
            owner.forgotten(who or None)

    def _put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        owner = self._owner()
        if owner is not None:
            with quietly():
                owner.put_back(entries, gone)

    def erase(self, subject: str | None, seconds: float) -> None:
        """Remove a subject's partition, after its account was removed here; tried again until that can be done.

        Args:
            subject: Whose; None for all of the application's own tokens.
            seconds: For how long to wait for that.

        Raises:
            StoreUnavailable: It couldn't be done yet.
        """
        who = subject or NOBODY
        with self._lock:
            held = self._held(who)
            for place, each in self._partitions.items() if subject is None else ():
                if isinstance(place, tuple):
                    each.tokens.clear()
                    self._settle(place, each)
            held.names |= {key: change for key, change in held.changes.items() if key[0] == "Account"}
            held.changes.clear()
            held.tokens.clear()
            held.erase, held.sign_in, held.keys, held.born = True, None, frozenset(), new_name()
            held.removed_on = self._engine.clock.wall()
            held.removal = held.known = new_name()
            self._unwritten.add(who)
            if len(_removing) < _MOST_REMOVING:
                _removing.add(self)
        try:
            self.wait_for(lambda: self._write(who, held), seconds)
        except StoreUnavailable:
            self._try_again()
            with self._lock:
                pending, told = held.erase, held.postponed
                held.postponed = pending
            if not pending:
                return
            if not told:
                emit(self._told_of(RemovalPostponed, who))
            raise

    def flush(self, some: Collection[Place] | None = None) -> None:
        """Write what isn't written yet: all of it, or of some.

        Raises:
            StoreUnavailable: It can't be written now.
        """
        now = self._engine.clock.monotonic()
        with self._lock:
            wanted = self._unwritten if some is None else self._unwritten.intersection(some)
            pending = [(place, self._partitions[place]) for place in wanted]
        failure: StoreUnavailable | None = None
        try:
            for place, held in pending:
                if 0 < held.rests_until - now <= _REST and not held.erase:  # later still: the clock was set back
                    self._try_again()
                    continue
                try:
                    self._write(place, held)
                except StoreUnavailable as error:
                    if error.reason not in OF_ONE_RECORD:
                        raise
                    failure = error  # what goes wrong with one record is no reason to leave the others unwritten
        finally:
            self._are_late([held for place, held in pending if isinstance(place, str)])
        self._make_room()
        if failure is not None:
            raise failure

    def _are_late(self, some: Iterable[PendingWrites]) -> None:
        """Note of sign-ins that they couldn't be written at once."""
        with self._lock:
            for held in some:
                held.is_late()

    @property
    def settled(self) -> bool:
        """Return whether all is written."""
        with self._lock:
            return not self._flushing and not self._unwritten

    def flush_soon(self) -> None:
        """Have all that isn't written yet written on a worker."""
        with self._lock:
            if self._flushing:
                return
            self._flushing = True
        try:
            self._engine.run(STORE_LANE, weakly(self, WriteBack._flush_now))
        except ProviderUnavailable:  # too much waits there already
            with self._lock:
                self._flushing = False
            self._try_again()

    def _flush_now(self) -> None:
        with self._lock:
            self._flushing = False
        with suppress(StoreUnavailable):  # it is tried again
            self.flush()

    def _try_again(self) -> None:
        with self._lock:
            if self._timer is not None and self._timer.pending:
                return
            when = self._engine.clock.monotonic() + _TRY_AGAIN
            self._timer = self._engine.timers.call_at(when, weakly(self, WriteBack.flush_soon))


def removals_pending() -> int:
    """Return how many sign-outs the stores of this process haven't heard of yet."""
    return sum(each.removals_pending for each in list(_removing))


@forks.renewed
def _after_fork() -> None:
    _removing.clear()  # they are the parent's to write
