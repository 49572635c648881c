"""The key under which names are hashed, kept in the medium itself, sealed by every key of the store.

It outlives the rotation of those, so that a record keeps its place. A store begins with one that is derived from its
first key: processes that find a medium empty at the same time agree without asking each other.

    magic "RAN" · schema 1 byte │ one sealed copy for each key, 72 bytes each │ checksum 8 bytes

The order of copies is that in which the keys came. A process that begins a medium with several can't know it: then the
first copy is there twice, and a process that seals with what seemed the former key adds another copy of that; from then
on the order of the two counts as unknown.

The checksum tells a torn or edited medium, which may be set aside, from one whose key isn't at hand, which must not.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from ...errors import StoreUnavailable
from ...store import Backend, BackendFailed
from ..gate import Gate
from .keys import SealingKey, framed
from .seal import LONGEST_TTL, NOT_OURS, SCHEMA, Sealer, UnsealableError

__all__ = ["Names", "NamesKey", "digest", "later_keys"]

_MAGIC = b"RAN"
_KIND = "names"
_LENGTH = 32
_COPY = _LENGTH + Sealer.OVERHEAD
_CHECKSUM = 8
#: Copies that are kept, those of retired keys included.
_COPIES = 16
#: Seconds after which it is looked at again: the medium may have been emptied, and who starts then begins with a key of
#: its own.
_RECHECK = 1.0


@dataclass(frozen=True, slots=True)
class Names:
    """The key, and until when it counts without another look."""

    key: bytes
    #: Begins all of this owner's keys, behind the kind: who scans must not come upon those of others.
    mark: str
    #: Of the record in which it was found; None where that couldn't be written, or not with all keys.
    version: str | None
    generation: object
    good_until: float


@dataclass(slots=True, eq=False, repr=False)
class NamesKey:
    """Find a store's key in its medium, or begin one there; look again from time to time.

    Args:
        backend: The medium.
        gate: Lets calls through to it.
        sealer: Gives what seals and opens.
        now: Gives the monotonic time.
        at: The medium's key under which the record is.
        alone: Whether the whole medium is this store's.
    """

    backend: Backend
    gate: Gate
    sealer: Callable[[], Sealer]
    _: KW_ONLY
    now: Callable[[], float]
    at: str
    alone: bool
    _found: Names | None = None

    def current(self, *, reads: bool = True) -> Names:
        """Return the key.

        Args:
            reads: Whether it is for a read, which a medium that fails can't answer in any case.

        Raises:
            StoreUnavailable: The medium fails.
        """
        held, due = self.held()
        if held is not None and not due:
            return held
        held = self._found
        try:
            found = self.gate.read(self.find)
        except StoreUnavailable:
            # What was good before the medium failed is good enough for a write, which may still work.
            if reads or held is None or held.generation != self._generation():
                raise
            self._found = held = replace(held, good_until=self.now() + _RECHECK)
            return held
        # Where the medium was emptied, or its file set aside, those that work with it go on as they did.
        key, version = found or self._begin(None if held is None else held.key)
        mark = digest(key)[:16]
        self._found = names = Names(key, mark, version, self._generation(), self.now() + _RECHECK)
        return names

    def held(self) -> tuple[Names | None, bool]:
        """Return the key, None where the file is another one by now, and whether it is time to look at it again."""
        held = self._found
        if held is None or held.generation != self._generation():
            return None, True
        return held, not 0 < held.good_until - self.now() <= _RECHECK  # later still: the clock was set back

    def confirmed(self, there: tuple[bytes, str] | None) -> bool:
        """Return whether what is in the medium now is the record that was found; if so, the key counts on."""
        held = self._found
        if held is None or there is None or there[1] != held.version:
            return False
        self._found = replace(held, good_until=self.now() + _RECHECK)
        return True

    def _generation(self) -> object:
        """Return which of its files a medium is at, where it has such."""
        return getattr(self.backend, "generation", None)

    def find(self) -> tuple[bytes, str | None] | None:
        """Return the key and its record's version; None where there is none, or none that can be verified.

        A record that lacks a copy for one of the keys, and can't be written now, has no version: it is looked at again
        until it can, or nobody could open it with that key alone.

        What can't be verified is set aside, but never another store's whole file.

        Raises:
            BackendFailed: The medium fails, or the record is another store's.
        """
        sealer = self.sealer()
        found = self.backend.get(self.at)
        if found is None:
            return None
        record, version = found
        try:
            key, complete = _opened(sealer, self.at, record)
        except UnsealableError as error:
            if error.reason in NOT_OURS:
                code = "wrong_key" if error.reason == "unknown_key" else error.reason
                raise BackendFailed(code, "it was written with a key, or by a release, that isn't here") from None
            refuse = getattr(self.backend, "refuse", None)
            if not self.alone or refuse is None:
                self.gate.reject("names", error.reason)
                self.backend.delete(self.at, expected=version)
            elif error.reason == "foreign":
                # It is sound, and may well be in use: stores at odds about one file must not throw it away in turns.
                raise BackendFailed("foreign", "the file is that of another owner, purpose or path") from None
            else:
                refuse(error.reason)
            return None
        if complete:
            return key, version
        added: str | None = None
        with contextlib.suppress(StoreUnavailable):  # a disk that is full can still be read from
            record = _sealed(sealer, self.at, key, record)
            added = self.gate.write(self.backend.put, self.at, record, ttl=LONGEST_TTL, expected=version)
        return key, added

    def _begin(self, known: bytes | None) -> tuple[bytes, str | None]:
        sealer = self.sealer()
        key = known or _first(sealer)
        record = _sealed(sealer, self.at, key)
        with contextlib.suppress(StoreUnavailable):
            version = self.gate.write(self.backend.put, self.at, record, ttl=LONGEST_TTL, expected=None)
            if version is None:
                return self.gate.read(self.find) or (key, None)
            return key, version
        return key, None


def _first(sealer: Sealer) -> bytes:
    """Return the key that a store begins with."""
    return sealer.keys[0].derive("names", *sealer.bound_to[:2], length=_LENGTH)


def _sealed(sealer: Sealer, key: str, names_key: bytes, before: bytes = b"") -> bytes:
    """Write the record that holds it, with a copy for each key that has none `before`."""
    copies = _copies(before) if before else []
    sealed_by = {copy[4:12] for copy in copies}
    # The one that seals comes last: so the order of copies is that in which keys came, as far as it can be known.
    missing = [one for one in (*sealer.keys[1:], sealer.keys[0]) if one.id not in sealed_by]
    if not copies and len(missing) > 1:
        missing.insert(0, missing[0])
    elif _is_disputed(sealer, [copy[4:12] for copy in copies]):
        missing.append(sealer.keys[0])
    copies += [sealer.seal(_KIND, key, names_key, by=one) for one in missing]
    record = _MAGIC + bytes((SCHEMA,)) + b"".join(copies[-_COPIES:])
    return record + _checksum(record)


def _opened(sealer: Sealer, key: str, record: bytes) -> tuple[bytes, bool]:
    """Return the key of names, and whether every sealing key has a copy in an order that can be.

    Raises:
        UnsealableError: As for any value; `foreign` where it is whole and was sealed for another purpose or place.
    """
    if record[:3] != _MAGIC or len(record) < 4 + _CHECKSUM or record[-_CHECKSUM:] != _checksum(record[:-_CHECKSUM]):
        raise UnsealableError("malformed")
    if record[3] > SCHEMA:
        raise UnsealableError("newer_schema")
    copies = _copies(record)
    ours: list[SealingKey] = [one for one in sealer.keys if any(copy[4:12] == one.id for copy in copies)]
    for copy in copies:
        if any(copy[4:12] == one.id for one in ours):
            try:
                complete = len(ours) == len(sealer.keys) and not _is_disputed(sealer, [copy[4:12] for copy in copies])
                return sealer.open(_KIND, key, copy), complete
            except UnsealableError as error:
                raise UnsealableError("foreign" if error.reason == "edited" else error.reason) from None
    raise UnsealableError("unknown_key")


def later_keys(sealer: Sealer, record: bytes) -> frozenset[bytes] | None:
    """Return the ids of the keys that came after the one that seals here; None where the record doesn't say."""
    try:
        ids = [copy[4:12] for copy in _copies(record)]
    except UnsealableError:
        return None
    mine = sealer.keys[0].id
    return frozenset(one for one in ids if _came_later(ids, one, mine)) if mine in ids else None


def _came_later(ids: Sequence[bytes], one: bytes, than: bytes) -> bool:
    return than not in ids[ids.index(one) :]


def _is_disputed(sealer: Sealer, ids: Sequence[bytes]) -> bool:
    """Return whether it was never known which key came first, and this process seals with the other one."""
    mine, held = sealer.keys[0].id, {one.id for one in sealer.keys}
    return list(ids[:2]) == [mine, mine] and len(ids) > 2 and ids[2] in held and _came_later(ids, ids[2], mine)


def _copies(record: bytes) -> list[bytes]:
    body = record[4:-_CHECKSUM]
    if len(body) % _COPY:
        raise UnsealableError("malformed")
    return [body[at : at + _COPY] for at in range(0, len(body), _COPY)]


def digest(key: bytes, *parts: str) -> str:
    """Return what a name is hashed to."""
    return hmac.digest(key, framed(parts), "sha256")[:20].hex()


def _checksum(record: bytes) -> bytes:
    return hashlib.sha256(record).digest()[:_CHECKSUM]
