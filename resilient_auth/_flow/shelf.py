"""One application's place in the store: which of its changes still have to be written, and what others have written."""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from ..errors import ProviderUnavailable, StoreUnavailable
from ..token import Token, TokenRequest
from .held import Held, new_name
from .partition import (
    Change,
    Entry,
    Key,
    Partition,
    is_from_the_future,
    stored_token,
    token_key,
)
from .single_flight import Flight, Outcome
from .stored import Stored
from .timers import Timer

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["STORE_LANE", "Shelf"]

#: The workers' lane on which stores are read and written, apart from those of providers that may hang.
STORE_LANE = "store"
#: Seconds after which what couldn't be written is tried again.
_TRY_AGAIN = 5.0
#: Seconds after which a thread that writes isn't waited for any more.
_LONGEST_WRITE = 30.0
#: Seconds after which a sign-in that couldn't be written is compared with removals that others have written.
_LATE = 2.0
#: Seconds for which a list of all accounts is good.
_LIST_AGAIN = 60.0
#: The application's own entries belong to no user.
_NOBODY = ""
#: Of how many partitions, of those that were wanted longest ago, it is seen at a time whether they can go.
_LOOKED_THROUGH = 256

#: Set on a thread that puts into MSAL's cache what a store has, or lets it go: no shelf over that cache has to note it.
_quiet = threading.local()


class Owner(Protocol):
    """The application object whose users and tokens these are."""

    def put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        """Put entries into MSAL's cache, and take out those with the given keys."""

    def forgotten(self, subject: str | None) -> None:
        """Drop what memory holds of a subject whose account another process has removed."""

    def entries(self, subject: str) -> Mapping[Key, Entry]:
        """List what MSAL's cache holds of a user."""

    def evict(self, subject: str) -> bool:
        """Let MSAL's cache go of a user, whom the store has; False where it must not."""


class Shelf:
    """Keep an application's users and tokens in a store as well.

    Args:
        engine: Whose store, workers and timers are used.
        stored: The store.
        label: Names the application: its authority and client id.
        owner: The application object; it isn't kept alive.
    """

    def __init__(self, engine: Engine, stored: Stored, label: str, owner: Owner) -> None:
        self._engine = engine
        self.stored = stored
        self.label = label
        self._owner = weakref.ref(owner)
        self._most = engine.settings.max_users
        self._renew()
        #: In the order in which they were wanted last.
        self._partitions: OrderedDict[str, Held] = OrderedDict()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        #: Set on a thread that will save by itself: to `later`, or to `anew` by a sign-in.
        self._here = threading.local()
        #: Those with something that isn't written yet.
        self._unwritten: set[str] = set()
        self._flushing = False
        self._timer: Timer | None = None
        self._listed_at = -1e9

    def after_fork(self) -> None:
        """Start with locks of one's own in a forked child; what isn't written yet is the parent's to write."""
        self._renew()
        for held in self._partitions.values():
            held.changes, held.tokens, held.names = {}, {}, {}
            held.recent, held.erase, held.anew = None, False, False

    def name(self, subject: str | None) -> str:
        """Name a subject's partition in the store."""
        return f"{self.label} {subject or _NOBODY}"

    def knows(self, subject: str | None) -> bool:
        """Tell whether the store has said what it holds for a subject."""
        with self._lock:
            held = self._partitions.get(subject or _NOBODY)
            return held is not None and held.read

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
            if new is not None and (mode == "anew" or new.get("account_source")):
                held.anew, held.changed_on = True, self._engine.clock.wall()
            self._unwritten.add(subject)
        if mode is None:
            self.flush_soon()

    def _held(self, subject: str) -> Held:
        held = self._partitions.get(subject)
        if held is None:
            held = self._partitions[subject] = Held()
        self._partitions.move_to_end(subject)
        return held

    def _make_room(self) -> None:
        """Let go of those that were wanted longest ago, of whom the store has everything."""
        owner = self._owner()
        with self._lock:
            excess = len(self._partitions) - self._most
            if excess <= 0:
                return
            longest_ago = islice(self._partitions.items(), _LOOKED_THROUGH)
            evicted = [who for who, held in longest_ago if who != _NOBODY and not held.pending][:excess]
        for who in evicted:
            with _quietly():
                if owner is None or not owner.evict(who):
                    return
            with self._lock:
                held = self._partitions.get(who)
                if held is not None and not held.pending:
                    del self._partitions[who]

    @contextmanager
    def _on_this_thread(self, mode: str) -> Iterator[None]:
        outer = getattr(self._here, "mode", None)
        self._here.mode = mode
        try:
            yield
        finally:
            self._here.mode = outer

    def saving_later(self) -> AbstractContextManager[None]:
        """Let changes on this thread wait for the `save` that follows."""
        return self._on_this_thread("later")

    def signing_in(self) -> AbstractContextManager[None]:
        """Let changes on this thread wait for the `flush` that follows, and begin anew what was removed before."""
        return self._on_this_thread("anew")

    def discarding(self) -> AbstractContextManager[None]:
        """Let changes on this thread be nobody's: entries that MSAL will never look up again."""
        return _quietly()

    def load(self, subject: str | None) -> Partition | None:
        """Read a partition and put what is in it into MSAL's cache.

        Raises:
            StoreUnavailable: It can't be read.
        """
        who = subject or _NOBODY
        partition = self.stored.partition(self.name(subject))
        wall = self._engine.clock.wall()
        removed = partition is not None and partition.removed
        with self._lock:
            held = self._held(who)
            held.read = True
            gone = held.erase or removed or held.is_over(partition, wall)
            follow = gone and not held.anew
            lost = partition is None and bool(held.keys) and not gone
            stale = held.keys - held.changes.keys()
            if follow:
                stale = held.keys | held.changes.keys()
                held.changes.clear()
                held.tokens.clear()
            told, held.over = held.over and follow, follow
            fresh: dict[Key, Entry] = {}
            if partition is not None and not removed and not held.erase:
                held.born, held.seen_on = partition.born, wall
                fresh = {key: e for key, e in partition.entries.items() if not is_from_the_future(e, wall)}
            put = {key: entry for key, entry in fresh.items() if key not in held.changes}
            held.keys = frozenset(fresh)
            held.recent = partition
            self._settle(who, held)
        if follow and not told:
            self._forget(who)
        if lost:
            self._restore(who)
        elif put or (gone and stale):
            self._put_back(put, [key for key in stale if gone and key not in put])
            self._make_room()
        return None if partition is None or gone else partition

    def _restore(self, who: str) -> None:
        """Write anew what a store has lost that others and later lives would look for: it was emptied, say."""
        owner = self._owner()
        entries = {} if owner is None or who == _NOBODY else owner.entries(who)
        with self._lock:
            held = self._held(who)
            for key, entry in entries.items():
                held.changes.setdefault(key, Change(entry, entry))
            self._settle(who, held)
        if entries:
            self.flush_soon()

    def _settle(self, who: str, held: Held) -> None:
        """Note whether a partition has something to be written; the lock is held."""
        if held.pending:
            self._unwritten.add(who)
        else:
            self._unwritten.discard(who)

    def refresh_tokens(self, subject: str | None) -> frozenset[str]:
        """List the refresh tokens that the store had of a user when it was read last."""
        with self._lock:
            held = self._partitions.get(subject or _NOBODY)
            recent = None if held is None else held.recent
        entries = {} if recent is None else recent.entries
        return frozenset(str(e.get("secret")) for (kind, _), e in entries.items() if kind == "RefreshToken")

    def save(self, subject: str | None, request: TokenRequest, token: Token | None, *, anew: bool = False) -> None:
        """Write what has changed for a subject, and a token that was obtained, unless that is an entry of a user's.

        Raises:
            StoreUnavailable: It can't be written; it is kept, and tried again.
        """
        who = subject or _NOBODY
        with self._lock:
            held = self._held(who)
            if token is not None:
                if anew:
                    held.changed_on = self._engine.clock.wall()
                held.anew = held.anew or anew or who == _NOBODY
                if request.flow != "silent":
                    held.tokens[token_key(request)] = stored_token(token)
            self._settle(who, held)
        self._write(who, held)
        self._make_room()

    def note_token(self, request: TokenRequest, token: Token) -> None:
        """Have a token written that was found in MSAL's cache, unless that is an entry of a user's."""
        if request.flow == "silent":
            return
        who = request.subject or _NOBODY
        with self._lock:
            self._held(who).tokens[token_key(request)] = stored_token(token)
            self._unwritten.add(who)
        self.flush_soon()

    def wait_for(self, call: Callable[[], None], seconds: float) -> None:
        """Have something done on a worker, and wait for it on this thread for at most `seconds`."""
        flight = Flight(None, self._engine.clock.monotonic() + seconds, self._engine.clock)

        def run() -> None:
            try:
                call()
            except StoreUnavailable:
                return
            finally:
                flight.land(Outcome())

        try:
            self._engine.run(STORE_LANE, run, flight, anyhow=True)
        except ProviderUnavailable:  # too much waits there already
            self._try_again()
            return
        flight.wait(seconds)

    def _write(self, who: str, held: Held) -> None:
        """Write what is pending, one thread at a time: a removal must not be overtaken by what came before it."""
        flights, clock = self._engine.flights, self._engine.clock
        while held.pending:
            flight, mine = flights.join(("partition", self, who), clock.monotonic() + _LONGEST_WRITE)
            if not mine:
                flight.wait(_LONGEST_WRITE)
                continue
            try:
                self._write_now(who, held)
            finally:
                flights.end(flight)
                flight.land(Outcome())

    def _write_now(self, who: str, held: Held) -> None:
        partition = self.name(who)
        with self._lock:
            erase, names, changes, tokens = held.erase, held.names, dict(held.changes), dict(held.tokens)
            recent, held.recent, born = held.recent, None, held.born
            changed_on, anew = held.changed_on, 0.0
            if held.anew:
                # Written at once it counts whatever the clocks say; late, it may be older than a removal elsewhere.
                late = who != _NOBODY and self._engine.clock.wall() - changed_on > _LATE
                anew = changed_on if late else math.inf
        try:
            if erase:
                self.stored.erase(partition, changed_on)
                self._note_names(names)
                recent = None
                with self._lock:
                    held.erase, held.names = False, {}
                    self._settle(who, held)
            if not changes and not tokens:
                return
            written = self.stored.save(partition, recent, born, changes, tokens, anew=anew)
            self._note_names(changes)
        except StoreUnavailable:
            self._try_again()
            raise
        except (TypeError, ValueError):
            # What came beside the token can't be written down: it stays in memory.
            with self._lock:
                held.tokens.clear()
                held.changes.clear()
                held.erase = False
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
            self._settle(who, held)
            if written is not None:
                held.born, held.read, held.keys = written.born, True, frozenset(written.entries)
                held.seen_on, held.over = self._engine.clock.wall(), False
                return
            stale, held.keys = held.keys | changes.keys(), frozenset()
        self._forget(who)
        self._put_back({}, stale)

    def _forget(self, who: str) -> None:
        owner = self._owner()
        if owner is not None:
            owner.forgotten(who or None)

    def _put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        owner = self._owner()
        if owner is not None:
            with _quietly():
                owner.put_back(entries, gone)

    def _note_names(self, changes: Mapping[Key, Change]) -> None:
        for (kind, _), change in changes.items():
            entry = change.new or change.old
            if kind == "Account" and entry is not None and entry.get("username") and entry.get("home_account_id"):
                name = self._username(str(entry["username"]))
                self.stored.note_name(name, str(entry["home_account_id"]), forget=change.new is None)

    def _username(self, username: str) -> str:
        return f"{self.label} {username.lower()}"

    def erase(self, subject: str | None, seconds: float) -> None:
        """Remove a subject's partition, after its account was removed here; tried again until that can be done.

        Args:
            subject: Whose.
            seconds: For how long to wait for that.
        """
        who = subject or _NOBODY
        with self._lock:
            held = self._held(who)
            held.names |= {key: change for key, change in held.changes.items() if key[0] == "Account"}
            held.changes.clear()
            held.tokens.clear()
            held.erase, held.anew, held.keys, held.born = True, False, frozenset(), new_name()
            held.changed_on = self._engine.clock.wall()
            self._unwritten.add(who)
        self.wait_for(lambda: self._write(who, held), seconds)

    def load_accounts(self, username: str | None) -> None:
        """Bring accounts into MSAL's cache: those with a user name, or all.

        Raises:
            StoreUnavailable: They can't be read.
        """
        if username is not None:
            self._load_unknown(self.stored.names(self._username(username)))
            return
        flights, clock = self._engine.flights, self._engine.clock
        flight, mine = flights.join(("accounts", self), clock.monotonic() + _LONGEST_WRITE)
        if not mine:
            flight.wait(_LONGEST_WRITE)
            return
        try:
            if clock.monotonic() - self._listed_at >= _LIST_AGAIN:
                found = {who for _, subjects in self.stored.all_names(f"{self.label} ") for who in subjects}
                self._load_unknown(islice(found, self._most))
                self._listed_at = clock.monotonic()
        finally:
            flights.end(flight)
            flight.land(Outcome())

    def _load_unknown(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            with self._lock:
                held = self._partitions.get(subject)
                # One of whom nothing was there a while ago may have signed in since, in another process.
                known = held is not None and bool(held.keys or held.pending)
            if not known:
                self.load(subject)

    def flush(self) -> None:
        """Write all that isn't written yet.

        Raises:
            StoreUnavailable: It can't be written now.
        """
        with self._lock:
            pending = [(who, self._partitions[who]) for who in self._unwritten]
        for who, held in pending:
            self._write(who, held)
        self._make_room()

    @property
    def settled(self) -> bool:
        """Tell whether all is written."""
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
            shelf = reference()
            if shelf is not None:
                with shelf._lock:
                    shelf._flushing = False
                try:
                    shelf.flush()
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
                shelf = reference()
                if shelf is not None:
                    shelf.flush_soon()

            self._timer = self._engine.timers.call_at(self._engine.clock.monotonic() + _TRY_AGAIN, later)


@contextmanager
def _quietly() -> Iterator[None]:
    outer = getattr(_quiet, "on", False)
    _quiet.on = True
    try:
        yield
    finally:
        _quiet.on = outer
