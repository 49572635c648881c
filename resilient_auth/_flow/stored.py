"""What an engine keeps in its owner's store: partitions of tokens, documents, and hints from one process to others."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cachetools

from .._policy.endpoint import WireIdentity
from .._policy.failure import LONGEST_RETRY_AFTER
from ..clock import Clock
from ..errors import StoreUnavailable
from .partition import Change, Key, Partition, StoredToken, decode, encode, merge, prune, seconds_worth_keeping

if TYPE_CHECKING:
    from ..store import Lease, Store

__all__ = ["Hint", "Stored"]

_PARTITION = "partition"
_DOCUMENT = "document"
_HINT = "hint"
_NAMES = "usernames"
_DOCUMENT_LIFE = 30 * 24 * 3600.0
#: Seconds for which a hint outlives the time that it names, so that one process goes first then and not all.
_HINT_REST = 120.0
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
        StoreUnavailable: The store can't be read or written; by any method but the hints'.
    """

    def __init__(self, store: Store, clock: Clock, grace: float) -> None:
        self.store = store
        self._clock = clock
        self._grace = grace
        self._lock = threading.Lock()
        #: Not written yet.
        self._documents: cachetools.LRUCache[str, Mapping[str, Any]] = cachetools.LRUCache(64)
        #: When each hint was written, by another machine's clock, and when it is over, by ours.
        self._hints: cachetools.LRUCache[str, tuple[float, float]] = cachetools.LRUCache(1024)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()

    def partition(self, name: str) -> Partition | None:
        """Read a partition."""
        record = self.store.read(_PARTITION, name)
        return None if record is None else decode(record.value, record.version, name)

    def save(
        self,
        name: str,
        known: Partition | None,
        born: str,
        changes: Mapping[Key, Change],
        tokens: Mapping[str, StoredToken],
        *,
        anew: float,
    ) -> Partition | None:
        """Merge changes into a partition, however many processes do so at once.

        Args:
            name: Which one.
            known: As it was read last, which spares reading it again.
            born: As for `merge`; so are `changes`, `tokens` and `anew`.

        Returns:
            What is there now; None where nothing was written, since the account was removed meanwhile.
        """
        current = known
        for attempt in range(_TRIES):
            if attempt or current is None:
                current = self.partition(name)
            merged = merge(current, born, changes, tokens, anew=anew)
            if merged is None or merged == current:
                return merged
            written = self._write(name, merged)
            if written is not None:
                self._write_documents()
                return written
            current = None
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

    def hint(self, name: str) -> Hint | None:
        """Read what other processes have learned; None where that isn't anything, or the store can't say."""
        try:
            record = self.store.read(_HINT, name)
        except StoreUnavailable:
            return None
        body = None if record is None else _object(record.value, name)
        if body is None:
            return None
        try:
            posted, until = float(body["posted"]), float(body["until"])
            code, detail = str(body["code"]), str(body["detail"])
        except (KeyError, TypeError, ValueError):
            return None
        # Another machine's clock may be ahead: it can't ask for more than it asked for, from when we first saw this.
        now = self._clock.monotonic()
        with self._lock:
            seen, ends = self._hints.get(name, (None, 0.0))
            if seen != posted:
                ends = now + until - posted
                self._hints[name] = (posted, ends)
        return Hint(min(until - self._clock.wall(), ends - now, LONGEST_RETRY_AFTER), code, detail)

    def post_hint(self, name: str, seconds: float, code: str, detail: str) -> None:
        """Tell other processes to leave a provider alone for `seconds`."""
        wall = self._clock.wall()
        seconds = min(seconds, LONGEST_RETRY_AFTER)
        body = {"posted": wall, "until": wall + seconds, "code": code, "detail": detail}
        try:
            self.store.write(_HINT, name, _body(name, body), ttl=seconds + _HINT_REST)
        except StoreUnavailable:
            return

    def clear_hint(self, name: str) -> None:
        """Tell other processes that a provider works."""
        try:
            self.store.erase(_HINT, name)
        except StoreUnavailable:
            return

    def release(self, lease: Lease) -> None:
        """End a lease; one that can't be ended now ends by itself."""
        try:
            self.store.release(lease)
        except StoreUnavailable:
            return


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
