"""What an engine keeps in its owner's store: partitions of tokens, documents, and hints from one process to others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, Protocol

import cachetools

from .._policy.endpoint import WireIdentity
from .._policy.levels import ProviderRequest
from .._process import forks
from ..clock import Clock
from ..errors import StoreUnavailable, Throttled
from ..store import NONE_READABLE, Record, Store
from .bodies import body_in, body_of
from .hints import HINT, Hint, Hints, throttled
from .user_record import (
    Change,
    Dropped,
    Entry,
    Key,
    SignIn,
    StoredToken,
    UserRecord,
    decode,
    encode,
    merge,
    new_name,
    prune,
    seconds_worth_keeping,
)

__all__ = ["OF_ONE_RECORD", "TENANTS", "UNREADABLE", "USERNAMES", "Records", "UserFound"]

_PARTITION = "user_record"
#: Partitions of an application's own tokens.
_OWN = "application"
_DOCUMENT = "document"
#: Home accounts by user name, and by home account the applications of one client that have a record of it.
USERNAMES, TENANTS = "usernames", "tenants"
_NAME_LIFE = 90 * 24 * 3600.0
#: Seconds after which a user's names are noted anew: in a record that lives on, and under today's key.
_NAME_AGAIN = 24 * 3600.0
_MOST_NAMED = 64
_DOCUMENT_LIFE = 30 * 24 * 3600.0
_TRIES = 20
#: Partitions that are read at a time.
_AT_A_TIME = 128
#: Why a write fails that says nothing of other records: that one can't be opened here, though others may be able to;
#: others write it all the time.
UNREADABLE, _CONTENDED = "unreadable", "contended"
OF_ONE_RECORD = frozenset({UNREADABLE, _CONTENDED})


class UserFound(Protocol):
    """Has a user found whose partition is written; see `AccountNames.note`."""

    def __call__(self, accounts: Sequence[Entry], *, anew: bool, sign_in: SignIn | None) -> bool: ...


class Records:
    """Read and write the records of one store. Every call may block for as long as the store allows, on a worker.

    Args:
        store: The owner's.
        clock: The engine's.
        grace: Seconds past its expiry for which a token may be of use.
        most: Access tokens in one partition, at most.

    Raises:
        StoreUnavailable: The store can't be read or written; by any method but `throttled`.
    """

    def __init__(self, store: Store, clock: Clock, grace: float, most: int = 256) -> None:
        self.store = store
        self._clock = clock
        self._grace = grace
        self._most = most
        self._lock = threading.Lock()
        #: Not written yet.
        self._documents: cachetools.LRUCache[str, Mapping[str, Any]] = cachetools.LRUCache(64)
        self.hints = Hints(store, clock)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child, whose parent may have been in the middle of a change."""
        self._lock, self._documents = threading.Lock(), forks.rebuilt(self._documents)
        self.hints.after_fork()

    def look(
        self, names: Sequence[str], hints: Sequence[str], *, own: bool = False
    ) -> tuple[list[UserRecord | None], dict[str, Hint]]:
        """Read partitions, and what other processes have learned under the names of hints, in one round trip.

        Where they have learned something that may still hold, it takes another one.

        Args:
            names: Of the partitions.
            hints: Of the hints.
            own: Whether the partitions are of the application's own tokens.
        """
        kind = _OWN if own else _PARTITION
        wanted = [*zip(repeat(kind), names, strict=False), *zip(repeat(HINT), hints, strict=False)]
        records = self.store.read_many(wanted)
        partitions = [_partition(record, name) for record, name in zip(records, names, strict=False)]
        return partitions, self.hints.judged(dict(zip(hints, records[len(names) :], strict=True)))

    def partitions(self, names: Sequence[str], *, own: bool = False) -> Iterator[UserRecord | None]:
        """Read the partitions of many users, in as few round trips as the medium allows.

        Args:
            names: Of the partitions.
            own: Whether they are of the application's own tokens, and of no users.
        """
        kind = _OWN if own else _PARTITION
        for begin in range(0, len(names), _AT_A_TIME):
            some = names[begin : begin + _AT_A_TIME]
            for name, record in zip(some, self.store.read_many([(kind, name) for name in some]), strict=True):
                yield _partition(record, name)

    def all_partitions(self, prefix: str) -> Iterator[UserRecord]:
        """Read all partitions whose names begin so, in no order."""
        for kind in (_OWN, _PARTITION):
            for record in self.store.scan(kind):
                found = _partition(record, record.name) if record.name.startswith(prefix) else None
                if found is not None and not found.removed:
                    yield found

    def _found(self, kind: str, name: str) -> tuple[UserRecord | None, str | None]:
        """Read a partition, and the version of what is there though it may be none."""
        record = self.store.read(kind, name)
        return _partition(record, name), None if record is None else record.version

    def save(
        self,
        name: str,
        known: UserRecord | None,
        born: str,
        changes: Mapping[Key, Change],
        tokens: Mapping[str, StoredToken | Dropped],
        *,
        anew: SignIn | None,
        fence: int = 0,
        own: bool = False,
        note: UserFound | None = None,
    ) -> UserRecord | None:
        """Merge changes into a partition, however many processes do so at once.

        Args:
            name: Which one.
            known: As it was read last, which spares reading it again; without a version where there was none.
            born: As for `merge`; so are `changes`, `tokens`, `anew` and `fence`.
            own: Whether it is one of the application's own tokens.
            note: Has its user found.

        Returns:
            What is there now; None where nothing was written, since the account was removed meanwhile.
        """
        kind = _OWN if own else _PARTITION
        current = None if known is None or known.version is None else known
        version = None if current is None else current.version
        in_the_way = False
        for attempt in range(_TRIES):
            owes_nothing = anew is not None and anew.under_way
            looked = attempt > 0 or known is None
            if looked:
                current, version = self._found(kind, name)
            if current is None and version is None and in_the_way and not owes_nothing:
                raise StoreUnavailable(
                    self.store.label,
                    UNREADABLE,
                    "a record can't be opened here, though other processes may be able to: give its key too",
                )
            merged = merge(current, born, changes, tokens, anew=anew, fence=fence)
            if merged is not None and note is not None:
                merged = self._named(current, merged, note, anew)
            nothing = merged is not None and not (merged.entries or merged.tokens)
            if merged is None or merged == current or (nothing and current is None and version is None):
                return merged
            written = self._write(kind, name, merged, version, anew=owes_nothing)
            if written is not None:
                self._write_documents()
                return written
            in_the_way = looked and current is None and version is None
        raise self._contended()

    def _contended(self) -> StoreUnavailable:
        return StoreUnavailable(self.store.label, _CONTENDED, f"others wrote one record {_TRIES} times in a row")

    def _named(
        self, current: UserRecord | None, merged: UserRecord, note: UserFound, sign_in: SignIn | None
    ) -> UserRecord | None:
        """Have the accounts of a partition noted that are new; all after a sign-in, or where that was a while ago.

        A note is sealed with the key of its day: without that, a user who signed in just before a key was retired
        wouldn't be found by name.
        """
        if not merged.entries:
            return merged
        wall = self._clock.wall()
        due = sign_in is not None or abs(wall - merged.named_on) > _NAME_AGAIN
        before = {} if current is None else current.entries
        accounts = [
            entry
            for key, entry in merged.entries.items()
            if key[0] == "Account" and (due or before.get(key, {}).get("username") != entry.get("username"))
        ]
        if (due or accounts) and not note(accounts, anew=due, sign_in=sign_in):
            return None
        return replace(merged, named_on=wall) if due else merged

    def erase(self, name: str, removed_on: float, removal: str) -> str:
        """Put a tombstone in a user's partition's place, since its account was removed at that time.

        Args:
            name: Of the partition.
            removed_on: When, in seconds since the epoch.
            removal: Names the removal.

        Returns:
            What names the removal that is there now.
        """
        for _ in range(_TRIES):
            current, version = self._found(_PARTITION, name)
            if current is not None and current.removed:
                if current.born == removal:
                    return removal
                # A sign-in that knew of one of the two may have come before the other: it must follow both.
                removal, removed_on = new_name(), max(removed_on, current.removed_on)
            # Where nothing is yet, another process may be about to write.
            tombstone = UserRecord(removal, removed=True, removed_on=removed_on)
            if self._write(_PARTITION, name, tombstone, version, anew=True) is not None:
                return removal
        raise self._contended()

    def clear_removals(self, names: Sequence[str], sign_in: SignIn) -> bool:
        """Take tombstones out of partitions' places; False, and none is, where the sign-in may be older than one."""
        found = zip(names, self.partitions(names), strict=True)
        removals = {name: each for name, each in found if each is not None and each.removed}
        if not all(sign_in.follows(each) for each in removals.values()):
            return False
        for name, each in removals.items():
            self.store.erase(_PARTITION, name, expected=each.version)
        return True

    def erase_own(self, prefix: str) -> None:
        """Remove an application's own tokens: all partitions whose names begin so."""
        for record in self.store.scan(_OWN):
            if record.name.startswith(prefix):
                self.store.erase(_OWN, record.name)

    def _write(
        self, kind: str, name: str, user_record: UserRecord, version: str | None, *, anew: bool
    ) -> UserRecord | None:
        wall = self._clock.wall()
        user_record = prune(user_record, wall, self._grace, self._most)
        lasts = seconds_worth_keeping(user_record, wall, self._grace)
        # What a sign-in or a removal brings owes nothing to a record that can't be opened here.
        there = NONE_READABLE if version is None and anew else version
        version = self.store.write(kind, name, encode(user_record, name), ttl=lasts, expected=there)
        return None if version is None else replace(user_record, version=version)

    def noted(self, kind: str, name: str) -> list[str]:
        """List what is noted under a name: home accounts under `USERNAMES`, applications under `TENANTS`."""
        record = self.store.read(kind, name)
        return [] if record is None else _subjects(record.value, name)

    def note(self, kind: str, name: str, subject: str, *, forget: bool = False, anew: bool = False) -> list[str]:
        """Note one of several under a name, or forget it; lists the others.

        Args:
            kind: As for `noted`.
            name: Under which.
            subject: The one.
            forget: Whether to forget it.
            anew: Whether the note is to live on though it is there.
        """
        for _ in range(_TRIES):
            record = self.store.read(kind, name)
            held = [] if record is None else _subjects(record.value, name)
            others = [each for each in held if each != subject]
            if (subject in held) is not forget and (forget or not anew):
                return others
            value = body_of(name, {"subjects": others if forget else [*others, subject][-_MOST_NAMED:]})
            there = NONE_READABLE if record is None else record.version
            if self.store.write(kind, name, value, ttl=_NAME_LIFE, expected=there) is not None:
                return others
        raise self._contended()

    def all_noted(self, kind: str, prefix: str) -> Iterator[str]:
        """List what is noted under the names that begin with a prefix."""
        for record in self.store.scan(kind):
            if record.name.startswith(prefix):
                yield from _subjects(record.value, record.name)

    def document(self, asked: str, wire: WireIdentity) -> dict[str, Any] | None:
        """Read a discovery document or a key set, with the time at which it was obtained.

        Args:
            asked: What it answers.
            wire: Over which this process would ask for it: there is none but what came over a wire like it, verified.
        """
        name = _document_name(asked, wire)
        if name is None:
            return None
        record = self.store.read(_DOCUMENT, name)
        return None if record is None else body_in(record.value, name)

    def publish(self, asked: str, wire: WireIdentity, body: Mapping[str, Any]) -> None:
        """Keep a document that came over a verified wire; where that can't be now, when a partition is written next."""
        name = _document_name(asked, wire)
        if name is None:
            return
        with self._lock:
            self._documents[name] = body
        self._write_documents()

    def _write_documents(self) -> None:
        while True:
            with self._lock:
                if not self._documents:
                    return
                key, body = next(iter(self._documents.items()))
            self.store.write(_DOCUMENT, key, body_of(key, body), ttl=_DOCUMENT_LIFE)
            with self._lock:
                if self._documents.get(key) is body:
                    del self._documents[key]

    def throttled(self, asked: ProviderRequest, seconds: float, detail: str, *, whole: bool) -> None:
        """Tell other processes that a provider has throttled a request, or the whole application."""
        for name in (throttled(asked), throttled(asked, whole=True) if whole else None):
            if name is not None:
                self.hints.post(name, seconds, Throttled.code, detail)


def _partition(record: Record | None, name: str) -> UserRecord | None:
    return None if record is None else decode(record.value, record.version, name)


def _document_name(asked: str, wire: WireIdentity) -> str | None:
    return None if wire.keeps is None else f"{asked} over {wire.keeps}"


def _subjects(value: bytes, name: str) -> list[str]:
    subjects = (body_in(value, name) or {}).get("subjects")
    return [item for item in subjects if isinstance(item, str)] if isinstance(subjects, list) else []
