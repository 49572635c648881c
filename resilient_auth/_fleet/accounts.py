"""One application's place in the store: which of its changes still have to be written, and what others have written."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from .._engine.single_flight import Flight, Outcome
from .._engine.timers import Timer
from .._process import forks
from ..errors import ProviderUnavailable, StoreUnavailable
from ..events import Event, RemovalPostponed, RemovalWritten, emit, told_later
from ..token import Token, TokenRequest, fingerprint
from .account_names import AccountNames
from .pending_writes import PendingWrites, Place, new_name
from .records import OF_ONE_RECORD, UNREADABLE, Hint, Records
from .user_record import (
    Change,
    Dropped,
    Entry,
    Key,
    StoredToken,
    UserRecord,
    is_from_the_future,
    stored_token,
    token_key,
)

if TYPE_CHECKING:
    from .._engine.engine import Engine

__all__ = ["STORE_LANE", "SharedCache"]

#: The workers' lane on which stores are read and written, apart from those of providers that may hang.
STORE_LANE = "store"
#: Seconds after which what couldn't be written is tried again.
_TRY_AGAIN = 5.0
#: Seconds after which a record is written again that can't be opened here.
_REST = 300.0
#: Seconds after which a thread that writes isn't waited for any more.
_LONGEST_WRITE = 30.0
#: Seconds after which a sign-in that couldn't be written is compared with removals that others have written.
_LATE = 2.0
#: Seconds for which a list of all accounts is good.
_LIST_AGAIN = 60.0
#: The application's own entries belong to no user, and its tokens are where their scopes say.
_NOBODY = ""
#: Applications that were let go are kept for their sign-outs, so many at most.
_MOST_REMOVING = 1024
#: Of how many partitions, of those that were wanted longest ago, it is seen at a time whether they can go.
_LOOKED_THROUGH = 256

#: Set on a thread that puts into MSAL's cache what a store has, or lets it go: no shared cache over it has to note it.
_quiet = threading.local()
#: Those with a sign-out that isn't written yet: whether or not anybody has their application still, it is.
_removing: set[SharedCache] = set()


class Owner(Protocol):
    """The application object whose users and tokens these are."""

    def put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        """Put entries into MSAL's cache, and take out those with the given keys."""

    def forgotten(self, subject: str | None) -> None:
        """Drop what memory holds of a subject whose account another process has removed."""

    def entries(self, subject: str) -> Mapping[Key, Entry]:
        """List what MSAL's cache holds of a user."""

    def owns(self, kind: str, entry: Entry) -> bool:
        """Return whether an entry of a kind is this application's, and not another one's at the same host."""

    def evict(self, subject: str) -> bool:
        """Let MSAL's cache go of a user, whom the store has; False where it must not."""


class SharedCache:
    """Keep an application's users and tokens in a store as well.

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
        #: Of the application whose users' refresh tokens this one's application spends as well.
        self._users: SharedCache | None = None
        self._renew()
        #: In the order in which they were wanted last.
        self._partitions: OrderedDict[Place, PendingWrites] = OrderedDict()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        #: Set on a thread that will save by itself: to `later`, to `anew` by a sign-in, or to `imported` with the times
        #: at which the users' entries were obtained.
        self._here = threading.local()
        #: Those with something that isn't written yet.
        self._unwritten: set[Place] = set()
        self._flushing = False
        self._timer: Timer | None = None
        self._listed_at = -1e9

    def after_fork(self) -> None:
        """Start with locks of one's own in a forked child; what isn't written yet is the parent's to write."""
        self._renew()
        for held in self._partitions.values():
            held.changes, held.tokens, held.names = {}, {}, {}
            held.recent, held.erase, held.postponed, held.anew, held.fence = None, False, False, False, 0
        _removing.discard(self)

    def name(self, subject: str | None) -> str:
        """Name a subject in the store, for leases and hints."""
        return f"{self.label} {subject or _NOBODY}"

    def share_users(self, shared_cache: SharedCache) -> None:
        """Have the users' refresh tokens in common with another application, whose they are."""
        self._users = shared_cache

    def users_name(self, subject: str | None) -> str:
        """Name the partition in which a user's refresh token is: exchanges that spend it mustn't overlap."""
        return self.name(subject) if self._users is None else self._users.users_name(subject)

    def _record(self, place: Place) -> str:
        # What a provider calls its users never begins the name of another kind of partition. Scopes may be long.
        if isinstance(place, str):
            return f"{self.label} {place}"
        return f"{self.label}\n{hashlib.sha256(json.dumps(place).encode()).hexdigest()}"

    def owns(self, kind: str, entry: Entry) -> bool:
        """Return whether an entry of a kind is this application's."""
        owner = self._owner()
        return owner is not None and owner.owns(kind, entry)

    def knows(self, subject: str | None) -> bool:
        """Return whether the store has said what it holds for a subject, and could say it when it was asked last."""
        with self._lock:
            held = self._partitions.get(subject or _NOBODY)
            return held is not None and held.read

    @property
    def removals_pending(self) -> int:
        """How many sign-outs the store hasn't heard of yet, those being written left out; takes no lock."""
        waiting = [self._partitions.get(place) for place in list(self._unwritten)]
        return sum(held is not None and held.postponed for held in waiting)

    def note(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """Note a change of MSAL's cache. Called with the cache's lock held: nothing is written here."""
        if getattr(_quiet, "on", False):
            return
        mode = getattr(self._here, "mode", None)
        subject = (old or new or {}).get("home_account_id") or _NOBODY
        if subject == _NOBODY:
            return  # the application's own tokens are kept with their requests
        with self._lock:
            held = self._held(subject)
            known = held.changes.get(key)
            held.changes[key] = Change(old if known is None else known.old, new)
            # MSAL notes how an account came to be only when somebody signed in.
            if mode == "imported":
                held.found(self._here.since.get(subject, 0.0))
            elif new is not None and (mode == "anew" or new.get("account_source")):
                held.signed_in(self._engine.clock.wall())
            self._unwritten.add(subject)
        if mode is None:
            self.flush_soon()

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
            evicted = [place for place, held in longest_ago if place != _NOBODY and not held.pending][:excess]
        for place in evicted:
            with _quietly():
                if isinstance(place, str) and (owner is None or not owner.evict(place)):
                    return
            with self._lock:
                held = self._partitions.get(place)
                if held is not None and not held.pending:
                    del self._partitions[place]

    @contextmanager
    def _on_this_thread(self, mode: str) -> Iterator[None]:
        outer = getattr(self._here, "mode", None)
        self._here.mode = mode
        try:
            yield
        finally:
            self._here.mode = outer

    @contextmanager
    def saving_later(self) -> Iterator[None]:
        """Let changes on this thread wait for the `save` that follows."""
        with self._on_this_thread("later"), nullcontext() if self._users is None else self._users.saving_later():
            yield

    def signing_in(self) -> AbstractContextManager[None]:
        """Let changes on this thread wait for the `flush` that follows, and begin anew what was removed before."""
        return self._on_this_thread("anew")

    @contextmanager
    def importing(self, since: Mapping[str, float]) -> Iterator[None]:
        """Let changes on this thread wait for the `flush` that follows, and give way to later removals.

        Args:
            since: By home account, when its latest entry was obtained, in seconds since the epoch.
        """
        self._here.since = since
        try:
            with self._on_this_thread("imported"):
                yield
        finally:
            del self._here.since

    def discarding(self) -> AbstractContextManager[None]:
        """Let changes on this thread be nobody's: entries that MSAL will never look up again."""
        return _quietly()

    def load(self, subject: str | None, request: TokenRequest | None = None) -> UserRecord | None:
        """Read a partition and put what is in it into MSAL's cache.

        Args:
            subject: Whose; None for the application's own tokens.
            request: Says which of those.

        Raises:
            StoreUnavailable: It can't be read.
        """
        return self.look(subject, (), request)[0]

    def look(
        self, subject: str | None, hints: Sequence[str], request: TokenRequest | None = None
    ) -> tuple[UserRecord | None, dict[str, Hint]]:
        """Do as `load`, and read hints of these names with it; those that there are.

        Raises:
            StoreUnavailable: They can't be read.
        """
        place, users = _place(subject, request), None if subject is None else self._users
        names = [self._record(place)] if users is None else [self._record(place), users.users_name(subject)]
        try:
            partitions, told = self.stored.look(names, hints, own=isinstance(place, tuple))
        except StoreUnavailable:
            for shared_cache in (self, users) if users is not None else (self,):
                shared_cache._doubt(place)
            raise
        user_record = partitions[0]
        if users is None:
            return self._take(place, user_record), told
        if user_record is not None and partitions[1] is not None:
            # Another process may have used the refresh token since for the application whose it is.
            own = {key: entry for key, entry in user_record.entries.items() if key[0] != "RefreshToken"}
            user_record = replace(user_record, entries=own)
        user_record = self._take(place, user_record)
        users._take(place, partitions[1])
        return user_record, told

    def _doubt(self, place: Place) -> None:
        """Note that the store can't say what it holds."""
        with self._lock:
            held = self._partitions.get(place)
            if held is not None and not (held.keys or held.erase):
                held.read = False  # they may have signed in since, in another process

    def _take(self, who: Place, user_record: UserRecord | None) -> UserRecord | None:
        """Follow what a partition in the store holds; None where that is nothing, or its account was removed."""
        wall = self._engine.clock.wall()
        removed = user_record is not None and user_record.removed
        entries = {} if user_record is None else user_record.entries
        mine = {k: e for k, e in entries.items() if self.owns(k[0], e) and not is_from_the_future(e, wall)}
        with self._lock:
            held = self._held(who)
            held.read = True
            gone = held.erase or removed or held.is_over(user_record, wall)
            follow = gone and not held.anew
            lost = user_record is None and bool(held.keys) and not gone
            stale = held.keys - held.changes.keys()
            if follow:
                stale = held.keys | held.changes.keys()
                held.changes.clear()
                held.tokens.clear()
            told, held.over = held.over and follow, follow
            fresh: dict[Key, Entry] = {}
            if user_record is not None and not removed and not held.erase:
                held.born, held.seen_on = user_record.born, wall
                fresh = mine
            put = {key: entry for key, entry in fresh.items() if key not in held.changes}
            held.keys = frozenset(fresh)
            held.recent = UserRecord("") if user_record is None else user_record
            self._settle(who, held)
        if follow and not told:
            self._forget(who)
        if lost:
            self._restore(who)
        elif put or (gone and stale):
            self._put_back(put, [key for key in stale if gone and key not in put])
            self._make_room()
        return None if user_record is None or gone else user_record

    def _restore(self, who: Place) -> None:
        """Write anew what a store has lost that others and later lives would look for: it was emptied, say."""
        owner = self._owner()
        entries = owner.entries(who) if owner is not None and isinstance(who, str) else {}
        with self._lock:
            held = self._held(who)
            for key, entry in entries.items():
                held.changes.setdefault(key, Change(entry, entry))
            self._settle(who, held)
        if entries:
            self.flush_soon()

    def _settle(self, who: Place, held: PendingWrites) -> None:
        """Note whether a partition has something to be written; the lock is held."""
        if held.pending:
            self._unwritten.add(who)
        else:
            self._unwritten.discard(who)
        if self in _removing and not any(self._partitions[place].erase for place in self._unwritten):
            _removing.discard(self)

    def refresh_tokens(self, subject: str | None) -> frozenset[str]:
        """List the refresh tokens that the store had of a user when it was read last."""
        if self._users is not None:
            return self._users.refresh_tokens(subject)
        with self._lock:
            held = self._partitions.get(subject or _NOBODY)
            recent = None if held is None else held.recent
        entries = {} if recent is None else recent.entries
        return frozenset(str(e.get("secret")) for (kind, _), e in entries.items() if kind == "RefreshToken")

    def save(
        self, subject: str | None, request: TokenRequest, token: Token | None, *, anew: bool = False, fence: int = 0
    ) -> None:
        """Write what has changed for a subject, and a token that was obtained, unless that is an entry of a user's.

        Args:
            subject: Whose.
            request: What was asked for.
            token: What was obtained.
            anew: Whether it begins a partition anew where there was a removal.
            fence: That of the lease under which it was obtained; 0 for none.

        Raises:
            StoreUnavailable: It can't be written; it is kept, and tried again.
        """
        who = _place(subject, request)
        with self._lock:
            held = self._held(who)
            if token is not None:
                if anew or subject is None:
                    held.signed_in(self._engine.clock.wall())
                if request.flow != "silent":
                    held.tokens[token_key(request)] = stored_token(token, fence)
            held.fence = fence
            self._settle(who, held)
        try:
            if self._users is not None and subject is not None:
                self._users.save(subject, request, None, fence=fence)
        finally:
            self._write(who, held)
        self._make_room()

    def note_token(self, request: TokenRequest, token: Token) -> None:
        """Have a token written that was found in MSAL's cache, unless that is an entry of a user's."""
        if request.flow == "silent":
            return
        self._note_token(request, stored_token(token))

    def drop_token(self, request: TokenRequest, token: Token) -> None:
        """Have a token removed that must not be served any more, unless it is an entry of a user's."""
        if request.flow != "silent":
            self._note_token(request, Dropped(token.secret))

    def _note_token(self, request: TokenRequest, token: StoredToken | Dropped) -> None:
        place = _place(request.subject, request)
        with self._lock:
            held = self._held(place)
            held.tokens[token_key(request)] = token
            self._settle(place, held)
        self.flush_soon()

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
            flight, mine = flights.join(("user_record", self, place), clock.monotonic() + _LONGEST_WRITE)
            if not mine:
                flight.wait(_LONGEST_WRITE)
                continue
            with told_later():
                try:
                    self._write_now(place, held)
                finally:
                    flights.end(flight)
                    flight.land(Outcome())

    def _write_now(self, who: Place, held: PendingWrites) -> None:
        own = isinstance(who, tuple)
        with self._lock:
            erase, changes, tokens = held.erase, dict(held.changes), dict(held.tokens)
            recent, held.recent, born = held.recent, None, held.born
            anew, fence = 0.0, 0 if held.anew else held.fence
            if held.anew:
                # Written at once it counts whatever the clocks say; late, it may be older than a removal elsewhere.
                late = held.imported or self._engine.clock.wall() - held.changed_on > _LATE
                anew = held.changed_on if late and not own else math.inf
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
            held.anew = held.anew and bool(held.changes)
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
        names, removed_on = held.names, held.removed_on
        if isinstance(who, tuple) or who == _NOBODY:
            self.stored.erase_own(f"{self.label}\n")
        else:
            self.stored.erase(self._record(who), removed_on)
            # The refresh token is good in all tenants of a cloud: whoever has a record of it there is signed out too.
            for label in self._names.other_tenants(who):
                self.stored.erase(f"{label} {who}", removed_on)
            self._names.forget(names)
        with self._lock:
            postponed, held.postponed = held.postponed, False
            held.erase, held.names = False, {}
            self._settle(who, held)
        if postponed:
            emit(self._told_of(RemovalWritten, who))

    def _told_of(self, kind: type[RemovalPostponed] | type[RemovalWritten], who: Place) -> Event:
        subject = fingerprint(who) if isinstance(who, str) and who != _NOBODY else None
        return kind(at=self._engine.clock.wall(), target=self.stored.store.label, subject=subject)

    def _forget(self, who: Place) -> None:
        owner = self._owner()
        if owner is not None and isinstance(who, str):
            owner.forgotten(who or None)

    def _put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        owner = self._owner()
        if owner is not None:
            with _quietly():
                owner.put_back(entries, gone)

    def erase(self, subject: str | None, seconds: float) -> None:
        """Remove a subject's partition, after its account was removed here; tried again until that can be done.

        Args:
            subject: Whose; None for all of the application's own tokens.
            seconds: For how long to wait for that.

        Raises:
            StoreUnavailable: It couldn't be done yet.
        """
        who = subject or _NOBODY
        with self._lock:
            held = self._held(who)
            for place, each in self._partitions.items() if subject is None else ():
                if isinstance(place, tuple):
                    each.tokens.clear()
                    self._settle(place, each)
            held.names |= {key: change for key, change in held.changes.items() if key[0] == "Account"}
            held.changes.clear()
            held.tokens.clear()
            held.erase, held.anew, held.keys, held.born = True, False, frozenset(), new_name()
            held.removed_on = self._engine.clock.wall()
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

    def load_accounts(self, username: str | None) -> None:
        """Bring accounts into MSAL's cache: those with a user name, or all.

        Raises:
            StoreUnavailable: They can't be read.
        """
        if username is not None:
            self._load_unknown(self._names.subjects(username))
            return
        flights, clock = self._engine.flights, self._engine.clock
        flight, mine = flights.join(("accounts", self), clock.monotonic() + _LONGEST_WRITE)
        if not mine:
            self._finish(flight, _LONGEST_WRITE)
            return
        outcome = Outcome()
        try:
            if clock.monotonic() - self._listed_at >= _LIST_AGAIN:
                self._load_unknown(islice(self._names.all_subjects(), self._most))
                self._listed_at = clock.monotonic()
        except StoreUnavailable as error:
            outcome = Outcome(error=error)
            raise
        finally:
            flights.end(flight)
            flight.land(outcome)

    def _load_unknown(self, subjects: Iterable[str]) -> None:
        with self._lock:
            # One of whom nothing was there a while ago may have signed in since, in another process.
            unknown = [who for who in subjects if not self._is_held(who)]
        for who, user_record in zip(unknown, self.stored.partitions([*map(self._record, unknown)]), strict=True):
            self._take(who, user_record)

    def _is_held(self, who: str) -> bool:
        held = self._partitions.get(who)
        return held is not None and bool(held.keys or held.pending)

    def flush(self) -> None:
        """Write all that isn't written yet.

        Raises:
            StoreUnavailable: It can't be written now.
        """
        now = self._engine.clock.monotonic()
        with self._lock:
            pending = [(place, self._partitions[place]) for place in self._unwritten]
        failure: StoreUnavailable | None = None
        for place, held in pending:
            if now < held.rests_until and not held.erase:
                self._try_again()
                continue
            try:
                self._write(place, held)
            except StoreUnavailable as error:
                if error.reason not in OF_ONE_RECORD:
                    raise
                failure = error  # what goes wrong with one record is no reason to leave the others unwritten
        self._make_room()
        if failure is not None:
            raise failure

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
        reference = weakref.ref(self)

        def run() -> None:
            shared_cache = reference()
            if shared_cache is not None:
                with shared_cache._lock:
                    shared_cache._flushing = False
                try:
                    shared_cache.flush()
                except StoreUnavailable:
                    return

        try:
            self._engine.run(STORE_LANE, run)
        except ProviderUnavailable:  # too much waits there already
            with self._lock:
                self._flushing = False
            self._try_again()

    def _try_again(self) -> None:
        with self._lock:
            if self._timer is not None and self._timer.pending:
                return
            reference = weakref.ref(self)

            def later() -> None:
                shared_cache = reference()
                if shared_cache is not None:
                    shared_cache.flush_soon()

            self._timer = self._engine.timers.call_at(self._engine.clock.monotonic() + _TRY_AGAIN, later)


def removals_pending() -> int:
    """Return how many sign-outs the stores of this process haven't heard of yet."""
    return sum(shared_cache.removals_pending for shared_cache in list(_removing))


def _place(subject: str | None, request: TokenRequest | None) -> Place:
    """Return whose partition it is: the application's own tokens are apart by their scopes, however many there are."""
    if subject is None and request is not None:
        return request.scopes
    return subject or _NOBODY


@forks.renewed
def _after_fork() -> None:
    _removing.clear()  # they are the parent's to write


@contextmanager
def _quietly() -> Iterator[None]:
    outer = getattr(_quiet, "on", False)
    _quiet.on = True
    try:
        yield
    finally:
        _quiet.on = outer
