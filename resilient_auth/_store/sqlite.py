"""A backend in one SQLite file: crash-safe, shared by threads and processes, with every comparison in a transaction.

Write-ahead log with `synchronous=FULL`: a write that was acknowledged survives SIGKILL and a power cut, for one fsync;
readers never wait for writers. A rollback journal costs three times as much a write, and holds readers up meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .._process import forks
from .._process.living import LiveObjects
from ..clock import Clock
from ..errors import ConfigurationError
from ..events import told_later
from ..store import ANY, BackendFailed, Expected
from .paths import code_of, exclusive, make_private, private_directory, private_file
from .processes import boot_offset, gone, identity

__all__ = ["SqliteBackend"]

_T = TypeVar("_T")

_APPLICATION = 0x52415331
#: One byte, four times: a flipped one isn't taken for a newer release.
_SCHEMA = 0x01010101
_TABLES = (
    "CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL, version TEXT NOT NULL, ends REAL NOT NULL)",
    "CREATE INDEX records_by_end ON records (ends)",
    "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, process TEXT NOT NULL, ends REAL NOT NULL, "
    "seconds REAL NOT NULL)",
    "CREATE TABLE fence (value INTEGER NOT NULL)",
)
_COMPANIONS = ("-wal", "-shm", "-journal")
_PAGE = 500
#: Records whose time is over are removed by later writes, so many at a time, and not at once: a clock that was set
#: wrong for some minutes must not cost anything.
_SWEPT = 20
_SWEPT_AFTER = 600.0
#: Files that were set aside and are kept, for whoever looks into it.
_REFUSED = 3
#: A lease begins and ends at whole multiples of 1/this of a second: floats hold those exactly for two centuries, and
#: its end less its length is its beginning at every uptime.
_TICKS = 2**20
#: Checked in whole when opened, up to so many bytes.
_CHECKED = 16 * 1024 * 1024


class SqliteBackend:
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
        self.path = path
        self._group = group
        #: Called with the reason when a file was set aside.
        self.on_refusal: Callable[[str], None] = lambda reason: None
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        #: Device and number of the file that the connection is to.
        self._file: tuple[int, int] | None = None
        self._read_only = False
        #: The file that the last complaint is about.
        self._suspect: tuple[int, int] | None = None
        self._closed = False
        #: The thread that forks, while it does.
        self._forking: int | None = None
        _backends.add(self)

    @property
    def generation(self) -> object:
        """Return which file it is that is at the path."""
        try:
            return self._there()
        except OSError:  # the call that follows tells what is wrong
            return None

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Read a value and its version."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Read values and their versions."""
        # The columns' types are whatever who edits the file makes of them.
        query = f"SELECT key, value, version FROM records WHERE key IN ({', '.join('?' * len(keys))}) AND ends > ?"  # noqa: S608
        rows = self._run(lambda db: db.execute(query, (*keys, self._clock.wall())).fetchall())
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

        return self._run(write, writes=True)

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value."""

        def remove(db: sqlite3.Connection) -> bool:
            now = self._clock.wall()
            if not _holds(db, key, expected, now):
                return False
            return db.execute("DELETE FROM records WHERE key = ? AND ends > ?", (key, now)).rowcount > 0

        return self._run(remove, writes=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys."""
        query = "SELECT key FROM records WHERE key > ? AND key < ? AND ends > ? ORDER BY key LIMIT ?"
        last = prefix

        def page(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(query, (last, f"{prefix}\x7f", self._clock.wall(), _PAGE))
            return [key for (key,) in rows if isinstance(key, str)]

        while found := self._run(page):
            yield from found
            last = found[-1]

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        """Give a lock, also where its holder's process is over."""

        def take(db: sqlite3.Connection) -> int | None:
            now = self._since_boot()
            begins, ends = math.floor(now * _TICKS) / _TICKS, math.ceil((now + seconds) * _TICKS) / _TICKS
            held = "SELECT process FROM leases WHERE name = ? AND holder != ? AND ends > ? AND ends - seconds <= ?"
            # An end that is further away than the lease is long was written before the machine was started again.
            row = db.execute(held, (name, holder, now, now)).fetchone()
            if row is not None and not gone(str(row[0])):
                return None
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (name, holder, identity(), ends, ends - begins),
            )
            over = "SELECT name FROM leases WHERE ends < ? OR ends - seconds > ? LIMIT ?"
            db.execute(f"DELETE FROM leases WHERE name IN ({over})", (now, now, _SWEPT))  # noqa: S608
            # Milliseconds keep it growing where the file was set aside and the count began anew.
            db.execute("UPDATE fence SET value = max(value + 1, ?)", (int(self._clock.wall() * 1000),))
            return int(db.execute("SELECT value FROM fence").fetchone()[0])

        return self._run(take, writes=True)

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        """Have a lock last longer."""

        def extend(db: sqlite3.Connection) -> bool:
            now = self._since_boot()
            begins, ends = math.floor(now * _TICKS) / _TICKS, math.ceil((now + seconds) * _TICKS) / _TICKS
            query = "UPDATE leases SET ends = ?, seconds = ? WHERE name = ? AND holder = ? AND ends > ?"
            return db.execute(query, (ends, ends - begins, name, holder, now)).rowcount > 0

        return self._run(extend, writes=True)

    def unlock(self, name: str, holder: str) -> None:
        """End a lock."""
        query = "DELETE FROM leases WHERE name = ? AND holder = ?"
        self._run(lambda db: db.execute(query, (name, holder)), writes=True)

    def close(self) -> None:
        """Close the file."""
        forks.notice()
        self._closed = True
        if self._lock.acquire(timeout=self._timeout):
            try:
                self._disconnect()
            finally:
                self._lock.release()

    def refuse(self, reason: str) -> None:
        """Set the whole file aside, since its content can't be verified.

        Raises:
            BackendFailed: It couldn't be.
        """

        def set_aside(db: sqlite3.Connection) -> None:
            self._suspect = self._file
            self._set_aside(reason)

        self._run(set_aside)

    def check(self) -> None:
        """Look at everything that the owner must put right.

        Raises:
            ConfigurationError: Others can read or replace the file.
            OSError: It can't be looked at.
        """
        private_directory(self.path.parent, self._group)
        for suffix in ("", ".lock", *_COMPANIONS):
            private_file(self._beside(suffix), self._group)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if forks.unnoticed():  # its parent's, and not this process's to close
                self._after_fork_in_child()
            self._disconnect()

    def _since_boot(self) -> float:
        """Return the time in which leases are measured: the same for every process of this machine."""
        return self._clock.monotonic() - boot_offset()

    # What follows is called with the lock held.

    def _run(self, work: Callable[[sqlite3.Connection], _T], *, writes: bool = False) -> _T:
        forks.notice()
        # A file that is refused is told of when the lock is free: a log handler may need the store.
        with told_later():
            return self._run_locked(work, writes)

    def _run_locked(self, work: Callable[[sqlite3.Connection], _T], writes: bool) -> _T:
        if not self._lock.acquire(timeout=self._timeout):
            raise BackendFailed("busy", "other threads hold it")
        try:
            for _ in range(4):
                try:
                    return self._attempt(work, writes)
                except _DoubtfulError:
                    continue
                except _MalformedError as error:
                    self._set_aside(error.reason)
            raise BackendFailed("corrupt", "the file was damaged repeatedly")
        except sqlite3.Error as error:
            raise BackendFailed(_code(error), getattr(error, "sqlite_errorname", type(error).__name__)) from None
        except OSError as error:
            raise BackendFailed(code_of(error), error.strerror or type(error).__name__) from None
        except ConfigurationError as error:
            raise BackendFailed("insecure", str(error)) from None
        finally:
            self._lock.release()

    def _attempt(self, work: Callable[[sqlite3.Connection], _T], writes: bool) -> _T:
        before = self._connection
        db = self._connect(writes)
        try:
            if not writes:
                return work(db)
            db.execute("BEGIN IMMEDIATE")
            answer = work(db)
            # What decided to change nothing has nothing to wait for the disk for; SQLite sees that by itself.
            db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                code, read_only = _code(error), self._read_only
                if code not in ("busy", "full"):
                    self._disconnect()
                if code == "corrupt" or self._pretends(error):
                    # Only what a new connection says counts: a disk may have been mounted anew under an old one. And
                    # a file that is read without locks may change under the reader, and is none the worse for it.
                    if db is before:
                        raise _DoubtfulError from None
                    if not read_only:
                        self._suspect = self._file
                        raise _MalformedError("malformed") from None
            raise
        return answer

    def _connect(self, writes: bool) -> sqlite3.Connection:
        if self._closed:
            raise BackendFailed("closed", "close() was called")
        if self._connection is not None:
            stale = self._read_only and (writes or self._has_log())
            if not stale and self._there() == self._file:
                return self._connection
            self._disconnect()
        self.check()
        if self._there() is None:
            with exclusive(self._beside(".lock"), self._timeout, self._group):
                make_private(self.path, self._group)
        self._suspect = self._there()
        try:
            db = self._open()
        except sqlite3.OperationalError as error:
            # The log's index can't be made on a disk that is full or read-only. Without a log, none is needed to read.
            if writes or _code(error) in ("busy", "corrupt") or self._has_log():
                raise
            try:
                db = self._open(read_only=True)
            except _MalformedError:
                raise BackendFailed("corrupt", "and it can't be set aside now") from None
            self._read_only = True
        self._connection = db
        self._file = self._there()
        return db

    def _open(self, *, read_only: bool = False) -> sqlite3.Connection:
        mode = "mode=ro&immutable=1" if read_only else "mode=rw"
        db = sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.text_factory = _text
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            db.execute("PRAGMA secure_delete = ON")
            if not read_only:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA journal_size_limit = 1048576")
                if _is_new(db):
                    with exclusive(self._beside(".lock"), self._timeout, self._group):
                        _begin(db)
            if self.path.stat().st_size <= _CHECKED:
                _check_pages(db)
            _check_schema(db)
        except sqlite3.DatabaseError as error:
            db.close()
            if _code(error) == "corrupt" or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise _MalformedError("malformed") from None
            raise
        except BaseException:
            db.close()
            raise
        return db

    def _has_log(self) -> bool:
        try:
            return self._beside("-wal").stat().st_size > 0
        except FileNotFoundError:
            return False

    def _pretends(self, error: sqlite3.Error) -> bool:
        """Return whether a file that could be written to says of itself that it can't: its header was edited."""
        plain = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY
        return plain and os.access(self.path, os.W_OK)

    def _there(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix) if suffix else self.path

    def _disconnect(self) -> None:
        db, self._connection, self._read_only = self._connection, None, False
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _set_aside(self, reason: str) -> None:
        judged = self._suspect
        self._disconnect()
        with exclusive(self._beside(".lock"), self._timeout, self._group):
            if judged is None or self._there() != judged:
                return  # another process was faster, and what is there now is new
            number = self._next_refused()
            # Its log goes along: that is part of it.
            for suffix in (*_COMPANIONS, ""):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._beside(suffix), self._beside(f".refused-{number}{suffix}"))
            self._beside(f".refused-{number}-shm").unlink(missing_ok=True)
            make_private(self.path, self._group)
        self.on_refusal(reason)

    def _next_refused(self) -> int:
        ages: dict[int, float] = {}
        for number in range(1, _REFUSED + 1):
            try:
                ages[number] = os.lstat(self._beside(f".refused-{number}")).st_mtime
            except FileNotFoundError:
                return number
        return min(ages, key=ages.__getitem__)

    # SQLite's connections must not cross a fork, not even to be closed on the other side.

    def _before_fork(self) -> None:
        if self._lock.acquire(timeout=self._timeout):
            self._forking = threading.get_ident()
            self._disconnect()

    def _after_fork_in_parent(self) -> None:
        if self._forking == threading.get_ident():
            self._forking = None
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None
        self._lock, self._forking = threading.Lock(), None


class _DoubtfulError(Exception):
    """The file looks damaged to a connection that has been open for a while."""


class _MalformedError(Exception):
    """The file isn't what this wrote; `reason` is the code that `StoreRejected` tells."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _is_new(db: sqlite3.Connection) -> bool:
    if db.execute("PRAGMA user_version").fetchone() != (0,):
        return False
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))


def _begin(db: sqlite3.Connection) -> None:
    """Choose the journal, and make the tables in a file that has none."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    if _is_new(db):
        for table in _TABLES:
            db.execute(table)
        db.execute("INSERT INTO fence VALUES (0)")
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
    db.execute("COMMIT")


def _check_pages(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise _MalformedError("malformed")


def _check_schema(db: sqlite3.Connection) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    tables = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    if application != _APPLICATION:
        if tables and not any((table,) in tables for table in _TABLES):
            raise BackendFailed("foreign", "it is another application's database")
        raise _MalformedError("foreign")
    if schema != _SCHEMA:
        if schema % _SCHEMA == 0 and schema > _SCHEMA:
            raise BackendFailed("newer_schema", "a newer release wrote it")
        raise _MalformedError("malformed")
    # Triggers and views, too, would run with this process's rights.
    if tables != [(table,) for table in _TABLES] or db.execute("SELECT count(*) FROM fence").fetchone() != (1,):
        raise _MalformedError("malformed")


def _holds(db: sqlite3.Connection, key: str, expected: Expected, now: float) -> bool:
    if expected is ANY:
        return True
    row = db.execute("SELECT version FROM records WHERE key = ? AND ends > ?", (key, now)).fetchone()
    return expected == (None if row is None else str(row[0]))


def _text(given: bytes) -> str:
    return given.decode("utf-8", "replace")


def _code(error: sqlite3.Error) -> str:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "busy",
        sqlite3.SQLITE_LOCKED: "busy",
        sqlite3.SQLITE_FULL: "full",
        sqlite3.SQLITE_READONLY: "read_only",
        sqlite3.SQLITE_CANTOPEN: "denied",
        sqlite3.SQLITE_PERM: "denied",
        sqlite3.SQLITE_IOERR: "io_error",
        sqlite3.SQLITE_CORRUPT: "corrupt",
        sqlite3.SQLITE_NOTADB: "corrupt",
    }.get(primary, "failed")


_backends: LiveObjects[SqliteBackend] = LiveObjects()
#: Connections of a parent that couldn't be closed before a fork.
_abandoned: list[sqlite3.Connection] = []


def _all_before_fork() -> None:
    for backend in _backends.all():
        backend._before_fork()


def _all_after_fork_in_parent() -> None:
    for backend in _backends.all():
        backend._after_fork_in_parent()


@forks.renewed
def _all_after_fork_in_child() -> None:
    for backend in _backends.all():
        backend._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_all_before_fork, after_in_parent=_all_after_fork_in_parent)
