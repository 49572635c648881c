"""A backend in one SQLite file: crash-safe, shared by threads and processes, with every comparison in a transaction."""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..clock import Clock
from ..store import ANY, Expected
from .database import Database
from .processes import boot_offset, gone, identity

__all__ = ["SqliteBackend"]

_PAGE = 500
#: Records whose time is over are removed by later writes, so many at a time, and not at once: a clock that was set
#: wrong for some minutes must not cost anything.
_SWEPT = 20
_SWEPT_AFTER = 600.0
#: A lease begins and ends at whole multiples of 1/this of a second: floats hold those exactly for two centuries, and
#: its end less its length is its beginning at every uptime.
_TICKS = 2**20


class SqliteBackend(Database):
    """Keep values in one file.

    Args:
        path: The file, absolute.
        timeout: Seconds that a call waits for other threads and processes, at most.
        clock: Gives the time: the wall clock's for lives of values, the monotonic one, which all processes of a machine
            share, for locks.
        group: Whose members may read and write it, as `FileStore` has it.
    """

    label = "file"

    def __init__(self, path: Path, *, timeout: float, clock: Clock, group: int | None = None) -> None:
        super().__init__(path, timeout=timeout, group=group)
        self._clock = clock

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Read a value and its version."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Read values and their versions."""
        # The columns' types are whatever who edits the file makes of them.
        query = f"SELECT key, value, version FROM records WHERE key IN ({', '.join('?' * len(keys))}) AND ends > ?"  # noqa: S608
        rows = self.run(lambda db: db.execute(query, (*keys, self._clock.wall())).fetchall())
        found = {key: ((value if isinstance(value, bytes) else b""), str(version)) for key, value, version in rows}
        return [found.get(key) for key in keys]

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        """Write a value."""
        version = secrets.token_hex(8)

        def write(db: sqlite3.Connection) -> str | None:
            now = self._clock.wall()
            if not _holds(db, key, expected, now):
                return None
            db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", (key, value, version, now + ttl))
            over = "SELECT key FROM records WHERE ends < ? LIMIT ?"
            db.execute(f"DELETE FROM records WHERE key IN ({over})", (now - _SWEPT_AFTER, _SWEPT))  # noqa: S608
            return version

        return self.run(write, writes=True)

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value."""

        def remove(db: sqlite3.Connection) -> bool:
            now = self._clock.wall()
            if not _holds(db, key, expected, now):
                return False
            return db.execute("DELETE FROM records WHERE key = ? AND ends > ?", (key, now)).rowcount > 0

        return self.run(remove, writes=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys."""
        query = "SELECT key FROM records WHERE key > ? AND key < ? AND ends > ? ORDER BY key LIMIT ?"
        last = prefix

        def page(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(query, (last, f"{prefix}\x7f", self._clock.wall(), _PAGE))
            return [key for (key,) in rows if isinstance(key, str)]

        while found := self.run(page):
            yield from found
            last = found[-1]

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        """Give a lock, also where its holder's process is over."""

        def take(db: sqlite3.Connection) -> int | None:
            now, ends, length = self._lasting(seconds)
            held = "SELECT process FROM leases WHERE name = ? AND holder != ? AND ends > ? AND ends - seconds <= ?"
            # An end that is further away than the lease is long was written before the machine was started again.
            row = db.execute(held, (name, holder, now, now)).fetchone()
            if row is not None and not gone(str(row[0])):
                return None
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (name, holder, identity(), ends, length))
            over = "SELECT name FROM leases WHERE ends < ? OR ends - seconds > ? LIMIT ?"
            db.execute(f"DELETE FROM leases WHERE name IN ({over})", (now, now, _SWEPT))  # noqa: S608
            # Milliseconds keep it growing where the file was set aside and the count began anew.
            db.execute("UPDATE fence SET value = max(value + 1, ?)", (int(self._clock.wall() * 1000),))
            return int(db.execute("SELECT value FROM fence").fetchone()[0])

        return self.run(take, writes=True)

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        """Have a lock last longer."""

        def extend(db: sqlite3.Connection) -> bool:
            now, ends, length = self._lasting(seconds)
            query = "UPDATE leases SET ends = ?, seconds = ? WHERE name = ? AND holder = ? AND ends > ?"
            return db.execute(query, (ends, length, name, holder, now)).rowcount > 0

        return self.run(extend, writes=True)

    def unlock(self, name: str, holder: str) -> None:
        """End a lock."""
        query = "DELETE FROM leases WHERE name = ? AND holder = ?"
        self.run(lambda db: db.execute(query, (name, holder)), writes=True)

    def _lasting(self, seconds: float) -> tuple[float, float, float]:
        """Return the time, a lease's end and its length, in the time that all processes of this machine share."""
        now = self._clock.monotonic() - boot_offset()
        begins, ends = math.floor(now * _TICKS) / _TICKS, math.ceil((now + seconds) * _TICKS) / _TICKS
        return now, ends, ends - begins


def _holds(db: sqlite3.Connection, key: str, expected: Expected, now: float) -> bool:
    if expected is ANY:
        return True
    row = db.execute("SELECT version FROM records WHERE key = ? AND ends > ?", (key, now)).fetchone()
    return expected == (None if row is None else str(row[0]))
