"""A store out of any medium: what goes in is sealed, what comes out is verified, a medium that fails costs nothing."""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from ..._policy.checks import require, require_clock, require_number
from ...clock import Clock, Jitter, SystemClock, system_jitter
from ...errors import ConfigurationError, StoreUnavailable
from ...store import ANY, NONE_READABLE, Backend, Expected, Lease, Record, _Whatever
from ..gate import Gate
from .keys import KeySource, SealingKey, load_keys
from .names import Names, NamesKey, digest, later_keys
from .seal import LONGEST_TTL, NOT_OURS, Sealer, UnsealableError

__all__ = ["SealedStore"]

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
#: Kinds that the store uses itself.
_OWN_KINDS = ("names", "refused")
_LONGEST_NAME = 4096
_LARGEST_VALUE = 4 * 1024 * 1024 - 8192
#: Records that couldn't be verified are kept for investigation: so many, so long.
_REFUSED = 8
_REFUSED_FOR = 7 * 86_400.0


class SealedStore:
    """Keep sealed records in a medium of your own (G3).

    Values are sealed with AES-256-GCM, and names are hashed, before the medium sees them. What can't be verified when
    it is read is treated as absent, reported as `StoreRejected` and set aside; what was sealed with a key that isn't
    given here, or by a newer release, is left where it is; a retired key's gives way to a new record. While the medium
    fails, calls raise `StoreUnavailable` at once.

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
        require_clock(clock)
        clock = clock or SystemClock()
        self._backend = backend
        self._now = clock.monotonic
        self._load = load
        self._bound_to = (purpose, owner or "", place or "")
        self._loaded: Sealer | None = None
        self._refused = itertools.count()
        self._gate = Gate(backend.label, clock=clock, jitter=jitter)
        self._names = NamesKey(
            backend,
            self._gate,
            self._sealer,
            now=clock.monotonic,
            at=f"names.{digest(b'', *self._bound_to[:2])}" if place is None else "names.keys",
            alone=place is not None,
        )

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
        together = getattr(self._backend, "get_many", None)
        found: list[tuple[bytes, str] | None] | None = None
        keys: list[str] = []
        names, due = self._names.held()
        if names is not None and due and together is not None:
            # The look at the names' key that is due costs no round trip of its own where it hasn't changed.
            keys = [_key(names, *each) for each in wanted]
            there, *found = self._gate.read(together, [self._names.at, *keys])
            if not self._names.confirmed(there):
                found = None
        if found is None:
            if names is None or due:
                names = self._names.current()
            keys = [_key(names, *each) for each in wanted]
            if together is not None and len(keys) > 1:
                found = self._gate.read(together, keys)
            else:
                found = [self._gate.read(self._backend.get, key) for key in keys]
        records: list[Record | None] = []
        absent: list[str] = []
        for (kind, _), key, there in zip(wanted, keys, found, strict=True):
            if there is None:
                absent.append(key)
            records.append(None if there is None else self._opened(kind, key, *there))
        self._gate.opened(*absent)
        return records

    def write(
        self,
        kind: str,
        name: str,
        value: bytes,
        *,
        ttl: float,
        expected: Expected | Literal[_Whatever.NONE_READABLE] = ANY,
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
        lasts = min(ttl, LONGEST_TTL)
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
        """Remove a record; return whether there was one of the expected version.

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
        keys = self._gate.read(self._backend.keys, f"{kind}.{self._names.current().mark}.")
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
        return _key(self._names.current(reads=False), kind, name)

    def _opened(self, kind: str, key: str, sealed: bytes, version: str) -> Record | None:
        try:
            payload = self._sealer().open(kind, key, sealed)
        except UnsealableError as error:
            stays = error.reason in NOT_OURS
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
            gives_way = whatever or error.reason not in NOT_OURS
            if error.reason == "unknown_key" and not gives_way:
                names = self._gate.read(self._backend.get, self._names.at)
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
            self._loaded = Sealer(self._load(), self._bound_to)
        return self._loaded


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
    if not (isinstance(kind, str) and _KIND.fullmatch(kind) is not None and kind not in _OWN_KINDS):
        raise ConfigurationError(f"kind must be up to 32 of a-z, 0-9, - and _, beginning with a letter, not {kind!r}")


def _key(names: Names, kind: str, name: str) -> str:
    """Return the medium's key for a name; the names themselves travel sealed."""
    return f"{kind}.{names.mark}.{digest(names.key, kind, name)}"
