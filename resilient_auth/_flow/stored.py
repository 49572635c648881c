"""What an engine keeps in its owner's store: partitions of tokens, documents, and hints from one process to others."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cachetools

from .._policy.endpoint import WireIdentity
from .._policy.failure import LONGEST_RETRY_AFTER
from ..clock import Clock
from ..errors import StoreUnavailable
from .partition import Change, Key, Partition, StoredToken, decode, encode, merge, prune, seconds_worth_keeping

if TYPE_CHECKING:
    from ..store import Lease, Record, Store

__all__ = ["Hint", "Stored"]

_PARTITION = "partition"
_DOCUMENT = "document"
_HINT = "hint"
#: The same name under this kind ends when the hint says so: by the store's clock, the one that all processes share.
_LASTING = "hint-lasting"
_NAMES = "usernames"
_DOCUMENT_LIFE = 30 * 24 * 3600.0
#: Seconds for which a hint outlives the time that it names, so that one process goes first then and not all.
_HINT_REST = 120.0
#: Seconds for which a hint that lasts still holds at least, whatever a wall clock says of its end.
_LOOK_AGAIN = 1.0
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Hint:
    """What another process has just learned of a provider."""

    #: Seconds from now until it may be asked again; 0 or less when that has passed.
    left: float
    #: The error's code, and what it said.
    code: str
    detail: str


class Stored:
    """Read and write the records of one store. Every call may block for as long as the store allows, on a worker.

    Args:
        store: The owner's.
        clock: The engine's.
        grace: Seconds past its expiry for which a token may be of use.

    Raises:
        StoreUnavailable: The store can't be read or written; by any method but those that post and clear hints.
    """

    def __init__(self, store: Store, clock: Clock, grace: float) -> None:
        self.store = store
        self._clock = clock
        self._grace = grace
        self._lock = threading.Lock()
        #: Not written yet.
        self._documents: cachetools.LRUCache[str, Mapping[str, Any]] = cachetools.LRUCache(64)
        #: Which version of each hint was seen last, and the monotonic time at which it was seen first.
        self._hints: cachetools.LRUCache[str, tuple[str, float]] = cachetools.LRUCache(1024)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()

    def partition(self, name: str) -> Partition | None:
        """Read a partition."""
        return _partition(self.store.read(_PARTITION, name), name)

    def look(self, names: Sequence[str], hints: Sequence[str]) -> tuple[list[Partition | None], dict[str, Hint]]:
        """Read partitions, and what other processes have learned under the names of hints, in one round trip.

        Where they have learned something that may still hold, it takes another one.
        """
        wanted = [*((_PARTITION, name) for name in names), *((_HINT, name) for name in hints)]
        records = self.store.read_many(wanted)
        partitions = [_partition(record, name) for record, name in zip(records, names, strict=False)]
        return partitions, self._judged(dict(zip(hints, records[len(names) :], strict=True)))

    def save(
        self,
        name: str,
        known: Partition | None,
        born: str,
        changes: Mapping[Key, Change],
        tokens: Mapping[str, StoredToken],
        *,
        anew: float,
        fence: int = 0,
    ) -> Partition | None:
        """Merge changes into a partition, however many processes do so at once.

        Args:
            name: Which one.
            known: As it was read last, which spares reading it again; without a version where there was none.
            born: As for `merge`; so are `changes`, `tokens`, `anew` and `fence`.

        Returns:
            What is there now; None where nothing was written, since the account was removed meanwhile.
        """
        current = None if known is None or known.version is None else known
        for attempt in range(_TRIES):
            if attempt or known is None:
                current = self.partition(name)
            merged = merge(current, born, changes, tokens, anew=anew, fence=fence)
            if merged is None or merged == current:
                return merged
            written = self._write(name, merged)
            if written is not None:
                self._write_documents()
                return written
        raise StoreUnavailable(self.store.label, "contended", f"others wrote one record {_TRIES} times in a row")

    def erase(self, name: str, removed_on: float) -> None:
        """Put a tombstone in a partition's place, since its account was removed at that time."""
        for _ in range(_TRIES):
            current = self.partition(name)
            if current is not None and current.removed:
                return
            # Where nothing is yet, another process may be about to write.
            version = None if current is None else current.version
            tombstone = Partition("", removed=True, removed_on=removed_on, version=version)
            if self._write(name, tombstone) is not None:
                return

    def _write(self, name: str, partition: Partition) -> Partition | None:
        wall = self._clock.wall()
        partition = prune(partition, wall, self._grace)
        lasts = seconds_worth_keeping(partition, wall, self._grace)
        version = self.store.write(_PARTITION, name, encode(partition, name), ttl=lasts, expected=partition.version)
        return None if version is None else replace(partition, version=version)

    def names(self, name: str) -> list[str]:
        """List the home accounts noted under a user name."""
        record = self.store.read(_NAMES, name)
        return [] if record is None else _subjects(record.value, name)

    def note_name(self, name: str, subject: str, *, forget: bool = False) -> None:
        """Note a home account under a user name, or forget it."""
        for _ in range(_TRIES):
            record = self.store.read(_NAMES, name)
            held = [] if record is None else _subjects(record.value, name)
            if (subject in held) is not forget:
                return
            wanted = [s for s in held if s != subject] if forget else [*held, subject][-64:]
            value = _body(name, {"subjects": wanted})
            expected = None if record is None else record.version
            if self.store.write(_NAMES, name, value, ttl=90 * 24 * 3600.0, expected=expected) is not None:
                return

    def all_names(self, prefix: str) -> list[tuple[str, list[str]]]:
        """List the user names that begin with a prefix, and their home accounts."""
        return [
            (record.name, _subjects(record.value, record.name))
            for record in self.store.scan(_NAMES)
            if record.name.startswith(prefix)
        ]

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
        return None if record is None else _object(record.value, name)

    def put_document(self, asked: str, wire: WireIdentity, body: Mapping[str, Any]) -> None:
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
            self.store.write(_DOCUMENT, key, _body(key, body), ttl=_DOCUMENT_LIFE)
            with self._lock:
                if self._documents.get(key) is body:
                    del self._documents[key]

    def _judged(self, told: Mapping[str, Record | None]) -> dict[str, Hint]:
        """Return what the records that were read say now, by name; those that there are."""
        wall, now = self._clock.wall(), self._clock.monotonic()
        hints: dict[str, Hint] = {}
        by_wall: dict[str, float] = {}
        for name, record in told.items():
            body = None if record is None else _object(record.value, name)
            if record is None or body is None:
                continue
            try:
                posted, seconds = float(body["posted"]), float(body["seconds"])
                code, detail = str(body["code"]), str(body["detail"])
            except (KeyError, TypeError, ValueError):
                continue
            with self._lock:
                version, seen = self._hints.get(name, ("", 0.0))
                if version != record.version:
                    version, seen = self._hints[name] = record.version, now
            # It was written before it was first seen here: it can't hold for longer than it says from then.
            hints[name] = Hint(min(seconds, LONGEST_RETRY_AFTER) - (now - seen), code, detail)
            by_wall[name] = posted + seconds - wall
        doubtful = [name for name, hint in hints.items() if hint.left > 0]
        try:
            lasting = self.store.read_many([(_LASTING, name) for name in doubtful])
        except StoreUnavailable:  # what else was read is good
            return {}
        for name, record in zip(doubtful, lasting, strict=True):
            # Nobody knows how far two machines' wall clocks are apart: they say when to look again, and no more.
            most = hints[name].left
            lasts = record is not None and _object(record.value, name) is not None
            left = min(most, max(by_wall[name], _LOOK_AGAIN)) if lasts else 0.0
            hints[name] = replace(hints[name], left=left)
        return hints

    def post_hint(self, name: str, seconds: float, code: str, detail: str) -> None:
        """Tell other processes to leave a provider alone for `seconds`."""
        seconds = min(seconds, LONGEST_RETRY_AFTER)
        body = _body(name, {"posted": self._clock.wall(), "seconds": seconds, "code": code, "detail": detail})
        with suppress(StoreUnavailable):
            self.store.write(_LASTING, name, _body(name, {}), ttl=seconds)
            self.store.write(_HINT, name, body, ttl=seconds + _HINT_REST)

    def clear_hint(self, name: str) -> None:
        """Tell other processes that a provider works."""
        with suppress(StoreUnavailable):
            self.store.erase(_HINT, name)
            self.store.erase(_LASTING, name)

    def release(self, lease: Lease) -> None:
        """End a lease; one that can't be ended now ends by itself."""
        with suppress(StoreUnavailable):
            self.store.release(lease)


def _partition(record: Record | None, name: str) -> Partition | None:
    return None if record is None else decode(record.value, record.version, name)


def _document_name(asked: str, wire: WireIdentity) -> str | None:
    return None if wire.keeps is None else f"{asked} over {wire.keeps}"


def _body(name: str, body: Mapping[str, Any]) -> bytes:
    """Write a record with what it is of inside, so that it can't stand for another one."""
    return json.dumps({**body, "of": name}).encode()


def _object(value: bytes, name: str) -> dict[str, Any] | None:
    """Read a record; None for what isn't one, or is of something else."""
    try:
        body = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) and body.get("of") == name else None


def _subjects(value: bytes, name: str) -> list[str]:
    subjects = (_object(value, name) or {}).get("subjects")
    return [item for item in subjects if isinstance(item, str)] if isinstance(subjects, list) else []
