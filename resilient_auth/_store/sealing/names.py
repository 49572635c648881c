"""The key under which names are hashed, kept in the medium itself, sealed by every key of the store.

It outlives the rotation of those, so that a record keeps its place. A store begins with one that is derived from its
first key: processes that find a medium empty at the same time agree without asking each other.

    magic "RAN" · schema 1 byte │ one sealed copy for each key, 72 bytes each │ checksum 8 bytes

The order of copies is that in which the keys came. Who begins a medium with several can't tell it: then the first copy
is there twice, and a process that seals with what seemed the former key adds another copy of that; from then on the
order of the two counts as unknown.

The checksum tells a torn or edited medium, which may be set aside, from one whose key isn't at hand, which must not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .keys import SealingKey
from .seal import SCHEMA, Sealer, UnsealableError

__all__ = ["first_names_key", "later_keys", "open_names_key", "seal_names_key"]

_MAGIC = b"RAN"
_KIND = "names"
_LENGTH = 32
_COPY = _LENGTH + Sealer.OVERHEAD
_CHECKSUM = 8
#: Copies that are kept, those of retired keys included.
_COPIES = 16


def first_names_key(sealer: Sealer, purpose: str, owner: str) -> bytes:
    """Return the key that a store begins with."""
    return sealer.keys[0].derive("names", purpose, owner, length=_LENGTH)


def seal_names_key(sealer: Sealer, key: str, names_key: bytes, before: bytes = b"") -> bytes:
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


def open_names_key(sealer: Sealer, key: str, record: bytes) -> tuple[bytes, bool]:
    """Read it, and tell whether every key has a copy in an order that can be.

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
    """Return the ids of the keys that came after the one that seals here; None where the record doesn't tell."""
    try:
        ids = [copy[4:12] for copy in _copies(record)]
    except UnsealableError:
        return None
    mine = sealer.keys[0].id
    return frozenset(one for one in ids if _came_later(ids, one, mine)) if mine in ids else None


def _came_later(ids: Sequence[bytes], one: bytes, than: bytes) -> bool:
    return than not in ids[ids.index(one) :]


def _is_disputed(sealer: Sealer, ids: Sequence[bytes]) -> bool:
    """Return whether who began couldn't tell which key came first, and this process seals with the other one."""
    mine, held = sealer.keys[0].id, {one.id for one in sealer.keys}
    return list(ids[:2]) == [mine, mine] and len(ids) > 2 and ids[2] in held and _came_later(ids, ids[2], mine)


def _copies(record: bytes) -> list[bytes]:
    body = record[4:-_CHECKSUM]
    if len(body) % _COPY:
        raise UnsealableError("malformed")
    return [body[at : at + _COPY] for at in range(0, len(body), _COPY)]


def _checksum(record: bytes) -> bytes:
    return hashlib.sha256(record).digest()[:_CHECKSUM]
