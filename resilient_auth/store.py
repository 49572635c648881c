"""What the engine wants of a store, and what a store of your own must give: pure types, no I/O, no cryptography.

`Store` is what the engine uses: records under a kind and a name, compare-and-set writes, leases. `FileStore`,
`RedisStore` and `SealedStore` are such. Whoever has another medium implements `Backend`, which keeps bytes under keys
and knows nothing of tokens, and gives it to `SealedStore(backend, key=...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

__all__ = ["ANY", "NONE_READABLE", "Backend", "BackendFailed", "Expected", "Lease", "Record", "Store"]


class _Whatever(Enum):
    ANY = "any"
    NONE_READABLE = "none readable"

    def __repr__(self) -> str:
        return self.name


ANY: Final = _Whatever.ANY
"""Write whatever is there."""

NONE_READABLE: Final = _Whatever.NONE_READABLE
"""Write where nothing is, or what can't be opened here: for what owes nothing to what was there, such as a sign-in."""

Expected: TypeAlias = str | Literal[_Whatever.ANY] | None
"""The version that must be there; None where nothing may be; `ANY` where it doesn't matter."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value as it was read.

    Args:
        kind: The family that it belongs to, such as `token`.
        name: Its name within that.
        value: What was written.
        version: Changes with each write; compare it for equality, and give it to the next write as `expected`.
    """

    kind: str
    name: str
    value: bytes = field(repr=False)
    version: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do something alone until `ends_at`.

    Args:
        name: What it is for.
        holder: Names this very lease; no two are equal.
        fence: Greater than that of every earlier lease of this name: refuse work that comes with a lower one.
        ends_at: When it ends, on the store's monotonic clock; the medium may end it a little later, never sooner.
    """

    name: str
    holder: str
    fence: int
    ends_at: float


@runtime_checkable
class Store(Protocol):
    """Records that outlive a process and may be shared by many.

    Threads, processes and forked children may share one. Every call is bounded in time, and raises `StoreUnavailable`
    when the medium fails, at once while it is known to. A record that can't be verified is a miss, and one that nobody
    else can verify either doesn't stand in the way of a new one.
    """

    @property
    def label(self) -> str:
        """Name the medium in events and health; holds no secret."""

    def read(self, kind: str, name: str) -> Record | None:
        """Read a record; None where there is none that is alive and can be verified."""

    def read_many(self, wanted: Sequence[tuple[str, str]]) -> list[Record | None]:
        """Read records by kind and name, in one round trip where the medium can; each as `read` would."""

    def write(
        self,
        kind: str,
        name: str,
        value: bytes,
        *,
        ttl: float,
        expected: Expected | Literal[_Whatever.NONE_READABLE] = ANY,
    ) -> str | None:
        """Write a record that lives for `ttl` seconds.

        A record that another process may well be able to open, one with a newer key or release, is replaced where
        `expected` is `ANY` or `NONE_READABLE`, and counts as there where it is None.

        Returns:
            Its new version; None, and nothing is written, where `expected` isn't what is there.
        """

    def erase(self, kind: str, name: str, *, expected: Expected = ANY) -> bool:
        """Remove a record; tell whether there was one of the expected version."""

    def scan(self, kind: str) -> Iterator[Record]:
        """Read every record of a kind, in no order; those written meanwhile may be missed."""

    def lease(self, name: str, seconds: float) -> Lease | None:
        """Take a lease; None while somebody else holds it."""

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Have a lease last for `seconds` from now; None where it ended already."""

    def release(self, lease: Lease) -> None:
        """End a lease, if it is still held."""

    def close(self) -> None:
        """Let go of files and connections; every later call raises `StoreUnavailable`."""


class BackendFailed(Exception):
    """What a `Backend` raises when its medium fails: a stable code, and a detail that holds no secret.

    Args:
        code: Such as `timeout`, `connection_failed`, `full`, `read_only`, `busy`, `denied`.
        detail: For a person who looks into it.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.detail)


class Backend(Protocol):
    """A medium: bytes under keys. It needs no cryptography and sees none of what is stored.

    Keys are up to 100 characters of `a-z`, `0-9`, `-`, `_` and `.`; values are up to 4 MiB. Threads, processes and
    forked children may call it at once. Every call must end within a bound of its own, and raise `BackendFailed` when
    the medium fails; any other exception counts as a failure too, and its text is told to nobody.

    A medium that can read several values in one round trip says so by a method `get_many(keys)`, which returns for each
    key what `get` would.
    `resilient_auth.testing.check_backend` tells whether all of that holds.
    """

    @property
    def label(self) -> str:
        """Name the medium in events and health; holds no secret."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Read a value and its version; None where there is none, or its time is over."""

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        """Write a value that lives for `ttl` seconds, in one atomic step with the comparison.

        Returns:
            Its version, never one that this key had before; None, and nothing is written, where `expected` isn't what
            is there.
        """

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value, in one atomic step with the comparison; tell whether it was there."""

    def keys(self, prefix: str) -> Iterator[str]:
        """List the keys that start so; twice or in any order, if need be. Each step is bounded in time."""

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        """Give `holder` the lock of this name for `seconds`, unless another one has it.

        Returns:
            A number greater than any that this name was locked with before; None where another holder has it.
        """

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        """Have the lock last for `seconds` from now; False where `holder` doesn't have it any more."""

    def unlock(self, name: str, holder: str) -> None:
        """End the lock, if `holder` has it."""

    def close(self) -> None:
        """Let go of what it holds."""
