"""One application's place in the store: what others have written is followed, what changes here is written back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice

from .._engine.engine import Engine
from .._engine.single_flight import Outcome
from ..errors import StoreUnavailable
from ..token import Token, TokenRequest
from .hints import Hint
from .owner import Owner, is_quiet, quietly
from .pending_writes import Place
from .records import Records
from .user_record import (
    Change,
    Dropped,
    Entry,
    Key,
    StoredToken,
    UserRecord,
    is_from_the_future,
    is_over,
    stored_token,
    token_key,
)
from .write_back import LONGEST_WRITE, NOBODY, WriteBack

__all__ = ["SharedCache"]

#: Seconds for which a list of all accounts is good.
_LIST_AGAIN = 60.0


class SharedCache(WriteBack):
    """Keep an application's users and tokens in a store as well; see `WriteBack` for the arguments."""

    def __init__(self, engine: Engine, stored: Records, label: str, cloud: str | None, owner: Owner) -> None:
        #: Of the application whose users' refresh tokens this one's application spends as well.
        self._users: SharedCache | None = None
        super().__init__(engine, stored, label, cloud, owner)

    def renew_locks(self) -> None:
        """Begin with locks of its own, and nothing under way."""
        super().renew_locks()
        #: Set on a thread that will save by itself: to `later`, to `anew` by a sign-in, or to `imported` with the times
        #: at which the users' entries were obtained.
        self._here = threading.local()
        self._listed_at = -1e9

    def share_users(self, shared_cache: SharedCache) -> None:
        """Have the users' refresh tokens in common with another application, whose they are."""
        self._users = shared_cache

    def users_name(self, subject: str | None) -> str:
        """Name the partition in which a user's refresh token is: exchanges that spend it mustn't overlap."""
        return self.name(subject) if self._users is None else self._users.users_name(subject)

    def owns(self, kind: str, entry: Entry) -> bool:
        """Return whether an entry of a kind is this application's."""
        owner = self._owner()
        return owner is not None and owner.owns(kind, entry)

    def knows(self, subject: str | None) -> bool:
        """Return whether the store has said what it holds for a subject, and could say it when it was asked last."""
        with self._lock:
            held = self._partitions.get(subject or NOBODY)
            return held is not None and held.read

    def note(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """Note a change of MSAL's cache. Called with the cache's lock held: nothing is written here."""
        if is_quiet():
            return
        mode = getattr(self._here, "mode", None)
        subject = (old or new or {}).get("home_account_id") or NOBODY
        if subject == NOBODY:
            return  # the application's own tokens are kept with their requests
        if new is None and old is not None and is_over(key, old, self._engine.clock.wall()):
            return  # the record's next write leaves it out
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
        else:
            self._here.changed.add(subject)

    @contextmanager
    def _on_this_thread(self, mode: str) -> Iterator[Collection[Place]]:
        """Set how changes are noted on this thread; gives whose they are."""
        outer = getattr(self._here, "mode", None), getattr(self._here, "changed", None)
        self._here.mode, self._here.changed = mode, set[Place]()
        try:
            yield self._here.changed
        finally:
            self._here.mode, self._here.changed = outer

    @contextmanager
    def saving_later(self) -> Iterator[None]:
        """Let changes on this thread wait for the `save` that follows."""
        with self._on_this_thread("later"), nullcontext() if self._users is None else self._users.saving_later():
            yield

    def signing_in(self) -> AbstractContextManager[Collection[Place]]:
        """Let changes on this thread wait for the `flush` that follows, and begin anew what was removed before.

        So it is with `importing`; they give whose changes there were.
        """
        return self._on_this_thread("anew")

    @contextmanager
    def importing(self, since: Mapping[str, float]) -> Iterator[Collection[Place]]:
        """Let changes on this thread wait for the `flush` that follows, and give way to later removals.

        Args:
            since: By home account, when its latest entry was obtained, in seconds since the epoch.
        """
        self._here.since = since
        try:
            with self._on_this_thread("imported") as changed:
                yield changed
        finally:
            del self._here.since

    def discarding(self) -> AbstractContextManager[None]:
        """Let changes on this thread be nobody's: entries that MSAL will never look up again."""
        return quietly()

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

    def peek(self, requests: Sequence[TokenRequest]) -> Iterator[tuple[TokenRequest, UserRecord]]:
        """Read the partitions in which tokens would be, and take nothing of them; those that there are.

        Raises:
            StoreUnavailable: They can't be read.
        """
        for own in (True, False):
            some = [each for each in requests if (each.subject is None) is own]
            names = [self._record(_place(each.subject, each)) for each in some]
            for request, found in zip(some, self.stored.partitions(names, own=own), strict=True):
                if found is not None and not found.removed:
                    yield request, found

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
            follow = gone and held.sign_in is None
            if removed and user_record is not None:
                held.known = user_record.born
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

    def refresh_tokens(self, subject: str | None) -> frozenset[str]:
        """List the refresh tokens that the store had of a user when it was read last."""
        if self._users is not None:
            return self._users.refresh_tokens(subject)
        with self._lock:
            held = self._partitions.get(subject or NOBODY)
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
            try:
                self._write(who, held)
            finally:
                if held.sign_in is not None and subject is not None:
                    self._are_late([held])
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

    def load_accounts(self, username: str | None) -> None:
        """Bring accounts into MSAL's cache: those with a user name, or all.

        Raises:
            StoreUnavailable: They can't be read.
        """
        if username is not None:
            self._load_unknown(self._names.subjects(username))
            return
        flights, clock = self._engine.flights, self._engine.clock
        flight, mine = flights.join(("accounts", self), clock.monotonic() + LONGEST_WRITE)
        if not mine:
            self._finish(flight, LONGEST_WRITE)
            return
        outcome = Outcome()
        try:
            if not 0 <= clock.monotonic() - self._listed_at < _LIST_AGAIN:  # or the clock was set back
                self._load_unknown(islice(self._names.all_subjects(), self._most))
                self._listed_at = clock.monotonic()
        except StoreUnavailable as error:
            outcome = Outcome(error=error)
            raise
        finally:
            flights.land(flight, outcome)

    def _load_unknown(self, subjects: Iterable[str]) -> None:
        with self._lock:
            # One of whom nothing was there a while ago may have signed in since, in another process.
            unknown = [who for who in subjects if not self._is_held(who)]
        for who, user_record in zip(unknown, self.stored.partitions([*map(self._record, unknown)]), strict=True):
            self._take(who, user_record)

    def _is_held(self, who: str) -> bool:
        held = self._partitions.get(who)
        return held is not None and bool(held.keys or held.pending)


def _place(subject: str | None, request: TokenRequest | None) -> Place:
    """Return whose partition it is: the application's own tokens are apart by their scopes, however many there are."""
    if subject is None and request is not None:
        return request.scopes
    return subject or NOBODY
