"""A store out of any medium: what goes in is sealed, what comes out is verified, a medium that fails costs nothing."""

from __future__ import annotations

import contextlib
import hmac
import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..._policy.checks import require, require_number
from ...clock import Clock, Jitter, SystemClock, system_jitter
from ...errors import ConfigurationError, StoreUnavailable
from ...store import ANY, NONE_READABLE, Backend, BackendFailed, Expected, Lease, Record, _NoneReadable
from ..gate import Gate
from .keys import KeySource, SealingKey, framed, load_keys
from .names import first_names_key, later_keys, open_names_key, seal_names_key
from .seal import Sealer, UnsealableError

__all__ = ["SealedStore"]

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
#: Kinds that the store uses itself.
_OWN_KINDS = ("names", "refused")
_LONGEST_NAME = 4096
_LARGEST_VALUE = 4 * 1024 * 1024 - 8192
_LONGEST_TTL = 10 * 366 * 86_400.0
#: Records that couldn't be verified are kept for whoever looks into it: so many, so long.
_REFUSED = 8
_REFUSED_FOR = 7 * 86_400.0
#: Seconds after which the names' key is looked at again: the medium may have been emptied, and who starts then begins
#: with a key of its own.
_RECHECK = 1.0
#: Verdicts on a record that say nothing against it: another process may well open it.
_NOT_OURS = ("unknown_key", "newer_schema")


@dataclass(frozen=True, slots=True)
class _Names:
    """The key under which names are hashed, and until when it counts without another look."""

    key: bytes
    #: Begins all of this owner's keys, behind the kind: who scans must not come upon those of others.
    mark: str
    #: Of the record in which it was found; None where it couldn't be written.
    version: str | None
    generation: object
    good_until: float


class SealedStore:
    """Keep sealed records in a medium of your own (G3).

    Values are sealed with AES-256-GCM, and names are hashed, before the medium sees them. What can't be verified when
    it is read counts as absent, is told as `StoreRejected` and set aside; what was sealed with a key that isn't given
    here, or by a newer release, is left where it is; a retired key's gives way to a new record. While the medium fails,
    calls raise `StoreUnavailable` at once.

    Args:
        backend: The medium.
        key: What seals and opens: 16 random bytes or more, the same in base64 or hex as text, a `pathlib.Path` to a
            key file of mode 0600, `EnvironmentKey(name)`, `MountedKey(path)`, a function that gives bytes or text and
            is called once, here; or a list of those for rotation: the first seals, all of them open.
        owner: Whose records these are. Stores with other owners on the same medium don't see them.
        purpose: What they are for; works as `owner` does.
        clock: Where the time comes from; for tests.
        jitter: Where randomness of breaks comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong: a key is missing, short or guessable, say.
        StoreUnavailable: A function that should have given a key failed.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        key: KeySource,
        owner: str | None = None,
        purpose: str = "tokens",
        clock: Clock | None = None,
        jitter: Jitter = system_jitter,
    ) -> None:
        for name in ("get", "put", "delete", "keys", "lock", "relock", "unlock", "close"):
            require(callable(getattr(backend, name, None)), f"backend must have a method {name}: see store.Backend")
        keys = load_keys(key, label=backend.label)
        self._begin(backend, load=lambda: keys, owner=owner, purpose=purpose, clock=clock, jitter=jitter)

    def _begin(
        self,
        backend: Backend,
        *,
        load: Callable[[], tuple[SealingKey, ...]],
        owner: str | None,
        purpose: str,
        clock: Clock | None,
        jitter: Jitter,
        place: str | None = None,
    ) -> None:
        """Set everything up.

        Args:
            load: Gives the keys when they are first needed; a failure of it is one of the medium.
            place: Given where the whole medium belongs to this store alone: where that is.
        """
        require(owner is None or (isinstance(owner, str) and bool(owner)), f"owner must be a string, not {owner!r}")
        require(isinstance(purpose, str) and bool(purpose), f"purpose must be a string, not {purpose!r}")
        clock = clock or SystemClock()
        self._backend = backend
        self._now = clock.monotonic
        self._owned = (purpose, owner or "")
        self._place = place
        self._load = load
        self._loaded: Sealer | None = None
        self._names_at = f"names.{_digest(b'', *self._owned)}" if place is None else "names.keys"
        self._names: _Names | None = None
        self._refused = itertools.count()
        self._gate = Gate(backend.label, clock=clock, jitter=jitter)

    @property
    def label(self) -> str:
        """Name the medium, as events and health do."""
        return self._gate.label

    def read(self, kind: str, name: str) -> Record | None:
        """Read a record; None where there is none that is alive and can be verified.

        Raises:
            StoreUnavailable: The medium fails.
        """
        return self.read_many([(kind, name)])[0]

    def read_many(self, wanted: Sequence[tuple[str, str]]) -> list[Record | None]:
        """Read records by kind and name, in one round trip where the medium can; each as `read` would.

        Raises:
            StoreUnavailable: The medium fails.
        """
        _check(wanted)
        if not wanted:
            return []
        names, together = self._names, getattr(self._backend, "get_many", None)
        found: list[tuple[bytes, str] | None] | None = None
        keys: list[str] = []
        if names is not None and together is not None and self._is_stale(names):
            # The look at the names' key that is due costs no round trip of its own where it hasn't changed.
            keys = [_key(names, *each) for each in wanted]
            there, *found = self._gate.read(together, [self._names_at, *keys])
            if there is None or there[1] != names.version:
                found = None
            else:
                self._names = replace(names, good_until=self._now() + _RECHECK)
        if found is None:
            names = self._names_key()
            keys = [_key(names, *each) for each in wanted]
            if together is not None and len(keys) > 1:
                found = self._gate.read(together, keys)
            else:
                found = [self._gate.read(self._backend.get, key) for key in keys]
        return [self._judged(kind, *each) for (kind, _), *each in zip(wanted, keys, found, strict=True)]

    def write(
        self,
        kind: str,
        name: str,
        value: bytes,
        *,
        ttl: float,
        expected: Expected | Literal[_NoneReadable.NONE_READABLE] = ANY,
    ) -> str | None:
        """Write a record.

        Args:
            kind: The family that it belongs to: up to 32 of `a-z`, `0-9`, `-` and `_`.
            name: Its name within that.
            value: Up to nearly 4 MiB.
            ttl: Seconds that it lives.
            expected: The version that must be there; None where nothing may be that anybody can open: what was sealed
                with a retired key, or can't be verified, gives way. `NONE_READABLE` where only this store need be
                unable to open it.

        Returns:
            Its new version; None, and nothing is written, where `expected` isn't what is there.

        Raises:
            StoreUnavailable: The medium fails, or the value is too large for it.
        """
        require(isinstance(value, (bytes, bytearray)), f"value must be bytes, not {type(value).__name__}")
        require_number("ttl", ttl, low=0.001)
        key = self._key(kind, name)
        if len(value) > _LARGEST_VALUE:
            raise StoreUnavailable(self.label, "too_large", f"{len(value)} bytes in one record of kind {kind}")
        plain_name = name.encode()
        sealed = self._sealer().seal(kind, key, len(plain_name).to_bytes(2, "big") + plain_name + value)
        lasts = min(ttl, _LONGEST_TTL)
        there: Expected = None if expected is NONE_READABLE else expected
        version = self._gate.write(self._backend.put, key, sealed, ttl=lasts, expected=there)
        if version is None and there is None:
            there = self._version_of_unreadable(kind, key, whatever=expected is NONE_READABLE)
            if there is not None:
                version = self._gate.write(self._backend.put, key, sealed, ttl=lasts, expected=there)
        if version is not None:
            self._gate.opened(key)
        return version

    def erase(self, kind: str, name: str, *, expected: Expected = ANY) -> bool:
        """Remove a record; tell whether there was one of the expected version.

        Raises:
            StoreUnavailable: The medium fails.
        """
        key = self._key(kind, name)
        erased = self._gate.write(self._backend.delete, key, expected=expected)
        if erased:
            self._gate.opened(key)
        return erased

    def scan(self, kind: str) -> Iterator[Record]:
        """Read every record of a kind, in no order; those written meanwhile may be missed.

        Raises:
            StoreUnavailable: The medium fails.
        """
        _check_kind(kind)
        return self._scan(kind)

    def lease(self, name: str, seconds: float) -> Lease | None:
        """Take a lease.

        Args:
            name: What it is for.
            seconds: How long it lasts, unless it is renewed or released.

        Returns:
            The lease; None while somebody else holds it.

        Raises:
            StoreUnavailable: The medium fails.
        """
        require_number("seconds", seconds, low=0.01, high=86_400.0)
        lock, holder = self._key("lease", name), secrets.token_hex(16)
        ends_at = self._now() + seconds
        fence = self._gate.write(self._backend.lock, lock, holder, seconds)
        return None if fence is None else Lease(name, holder, fence, ends_at)

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Have a lease last for `seconds` from now; None where it ended already.

        Raises:
            StoreUnavailable: The medium fails.
        """
        require_number("seconds", seconds, low=0.01, high=86_400.0)
        ends_at = self._now() + seconds
        key = self._key("lease", lease.name)
        if not self._gate.write(self._backend.relock, key, lease.holder, seconds):
            return None
        return Lease(lease.name, lease.holder, lease.fence, ends_at)

    def release(self, lease: Lease) -> None:
        """End a lease, if it is still held.

        Raises:
            StoreUnavailable: The medium fails; the lease ends by itself.
        """
        self._gate.write(self._backend.unlock, self._key("lease", lease.name), lease.holder)

    def close(self) -> None:
        """Let go of files and connections; every later call raises `StoreUnavailable`."""
        if self._gate.close():
            self._backend.close()

    def __enter__(self) -> SealedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a store can't be pickled, since it holds keys: make one in each process")

    def _scan(self, kind: str) -> Iterator[Record]:
        keys = self._gate.read(self._backend.keys, f"{kind}.{self._names_key().mark}.")
        seen: set[str] = set()
        while (key := self._gate.read(next, keys, None)) is not None:
            if key in seen:
                continue
            seen.add(key)
            found = self._gate.read(self._backend.get, key)
            record = None if found is None else self._opened(kind, key, *found)
            if record is not None:
                yield record

    def _key(self, kind: str, name: str) -> str:
        """Return the medium's key for a name that is to be written."""
        _check([(kind, name)])
        return _key(self._names_key(reads=False), kind, name)

    def _judged(self, kind: str, key: str, found: tuple[bytes, str] | None) -> Record | None:
        if found is None:
            self._gate.opened(key)
            return None
        return self._opened(kind, key, *found)

    def _opened(self, kind: str, key: str, sealed: bytes, version: str) -> Record | None:
        try:
            payload = self._sealer().open(kind, key, sealed)
        except UnsealableError as error:
            stays = error.reason in _NOT_OURS
            self._gate.reject(kind, error.reason, stays=key if stays else None)
            if not stays:
                self._set_aside(key, sealed, version)
            return None
        self._gate.opened(key)
        end = 2 + int.from_bytes(payload[:2], "big")
        return Record(kind, payload[2:end].decode(), payload[end:], version)

    def _version_of_unreadable(self, kind: str, key: str, *, whatever: bool) -> str | None:
        """Return the version of what is in a new record's way, if it may be replaced.

        Args:
            kind: Its kind.
            key: Where it is.
            whatever: Whether it may be one that another process can open.
        """
        found = self._gate.read(self._backend.get, key)
        if found is None:
            return None
        sealed, version = found
        try:
            self._sealer().open(kind, key, sealed)
        except UnsealableError as error:
            gives_way = whatever or error.reason not in _NOT_OURS
            if error.reason == "unknown_key" and not gives_way:
                names = self._gate.read(self._backend.get, self._names_at)
                later = None if names is None else later_keys(self._sealer(), names[0])
                gives_way = later is not None and Sealer.sealed_by(sealed) not in later
            return version if gives_way else None
        return None

    def _set_aside(self, key: str, sealed: bytes, version: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            entry = f"refused.{next(self._refused) % _REFUSED}"
            self._gate.write(self._backend.put, entry, sealed, ttl=_REFUSED_FOR)
            # Only if it is still the one that was read: a good one may have been written meanwhile.
            self._gate.write(self._backend.delete, key, expected=version)

    def _sealer(self) -> Sealer:
        if self._loaded is None:
            self._loaded = Sealer(self._load(), (*self._owned, self._place or ""))
        return self._loaded

    def _names_key(self, *, reads: bool = True) -> _Names:
        names = self._names
        if names is not None and names.generation == self._generation() and self._now() < names.good_until:
            return names
        try:
            found = self._gate.read(self._find_names_key)
        except StoreUnavailable:
            # What was good before the medium failed is good enough for a write, which may still work.
            if reads or names is None or names.generation != self._generation():
                raise
            self._names = names = replace(names, good_until=self._now() + _RECHECK)
            return names
        if found is None:
            # The medium was emptied, or its file set aside: those that work with it go on as they did.
            names_key, version = self._write_names_key(None if names is None else names.key)
        else:
            names_key, version = found
        mark = _digest(names_key)[:16]
        self._names = names = _Names(names_key, mark, version, self._generation(), self._now() + _RECHECK)
        return names

    def _is_stale(self, names: _Names) -> bool:
        return names.generation == self._generation() and self._now() >= names.good_until

    def _generation(self) -> object:
        """Return which of its files a medium is at, where it has such."""
        return getattr(self._backend, "generation", None)

    def _find_names_key(self) -> tuple[bytes, str] | None:
        """Find it, and its record's version; set what can't be verified aside, but never another store's whole file."""
        sealer = self._sealer()
        found = self._backend.get(self._names_at)
        if found is None:
            return None
        record, version = found
        try:
            names_key, complete = open_names_key(sealer, self._names_at, record)
        except UnsealableError as error:
            if error.reason in _NOT_OURS:
                code = "wrong_key" if error.reason == "unknown_key" else error.reason
                raise BackendFailed(code, "it was written with a key, or by a release, that isn't here") from None
            refuse = getattr(self._backend, "refuse", None)
            if self._place is None or refuse is None:
                self._gate.reject("names", error.reason)
                self._backend.delete(self._names_at, expected=version)
            elif error.reason == "foreign":
                # It is sound, and may well be in use: stores at odds about one file must not throw it away in turns.
                raise BackendFailed("foreign", "the file is that of another owner, purpose or path") from None
            else:
                refuse(error.reason)
            return None
        if not complete:
            with contextlib.suppress(BackendFailed):  # a disk that is full can still be read from
                record = seal_names_key(sealer, self._names_at, names_key, record)
                version = self._backend.put(self._names_at, record, ttl=_LONGEST_TTL, expected=version) or version
        return names_key, version

    def _write_names_key(self, known: bytes | None) -> tuple[bytes, str | None]:
        sealer = self._sealer()
        names_key = known or first_names_key(sealer, *self._owned)
        record = seal_names_key(sealer, self._names_at, names_key)
        with contextlib.suppress(StoreUnavailable):
            version = self._gate.write(self._backend.put, self._names_at, record, ttl=_LONGEST_TTL, expected=None)
            if version is None:
                return self._gate.read(self._find_names_key) or (names_key, None)
            return names_key, version
        return names_key, None


def _check(wanted: Iterable[tuple[str, str]]) -> None:
    """Refuse kinds and names that can't be."""
    checked: object = None
    for kind, name in wanted:
        if kind is None or kind is not checked:
            _check_kind(kind)
            checked = kind
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            require(isinstance(name, str) and bool(name), f"name must be a string, not {type(name).__name__}")
            raise ConfigurationError(f"name is {len(name)} characters long: {_LONGEST_NAME} at most")


def _check_kind(kind: str) -> None:
    fits = isinstance(kind, str) and _KIND.fullmatch(kind) is not None and kind not in _OWN_KINDS
    require(fits, f"kind must be up to 32 of a-z, 0-9, - and _, beginning with a letter, not {kind!r}")


def _key(names: _Names, kind: str, name: str) -> str:
    """Return the medium's key for a name; the names themselves travel sealed."""
    return f"{kind}.{names.mark}.{_digest(names.key, kind, name)}"


def _digest(key: bytes, *parts: str) -> str:
    return hmac.digest(key, framed(parts), "sha256")[:20].hex()
