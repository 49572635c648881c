"""One SQLite file and this process's connection to it: opened with every check, set aside when damaged, shut in forks.

Write-ahead log with `synchronous=FULL`: a write that was acknowledged survives SIGKILL and a power cut, for one fsync;
readers never wait for writers. A rollback journal costs three times as much a write, and holds readers up meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .._process import forks
from .._process.living import LiveObjects
from ..errors import ConfigurationError
from ..events import told_later
from ..store import BackendFailed
from .detached import abandon, close_detached, is_abandoned
from .paths import code_of, exclusive, make_private, private_directory, private_file
from .schema import MalformedError, begin, check, is_new

__all__ = ["Database"]

_T = TypeVar("_T")

_COMPANIONS = ("-wal", "-shm", "-journal")
#: Files that were set aside and are kept for investigation.
_REFUSED = 3
#: Checked in whole when opened, up to so many bytes.
_CHECKED = 16 * 1024 * 1024


class Database:
    """Keep a connection to one file.

    Args:
        path: The file, absolute.
        timeout: Seconds that a call waits for other threads and processes, at most.
        group: Whose members may read and write it, as `FileStore` has it.
    """

    def __init__(self, path: Path, *, timeout: float, group: int | None = None) -> None:
        self.path = path
        self._group = group
        #: Called with the reason when a file was set aside.
        self.on_refusal: Callable[[str], None] = lambda reason: None
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        #: Device and number of the file that the connection is to, and of all that it has open.
        self._file: tuple[int, int] | None = None
        self._opened: frozenset[tuple[int, int]] = frozenset()
        self._read_only = False
        #: The file that the last complaint is about.
        self._suspect: tuple[int, int] | None = None
        self._closed = False
        #: A thread is at work with it, and holds the lock.
        self._working = False
        #: The thread that forks, while it does.
        self._forking: int | None = None
        _databases.add(self)
        forks.renew_in_children(self)

    @property
    def generation(self) -> object:
        """Return which file it is that is at the path."""
        try:
            return self._there()
        except OSError:  # the call that follows says what is wrong
            return None

    def run(self, work: Callable[[sqlite3.Connection], _T], *, writes: bool = False) -> _T:
        """Do some work with the connection, within a transaction if it writes.

        Raises:
            BackendFailed: The file can't be opened, read or written, or is in use for too long.
        """
        forks.notice()
        # That a file was refused is reported when the lock is free: a log handler may need the store.
        with told_later():
            return self._run_locked(work, writes)

    def close(self) -> None:
        """Close the file."""
        forks.notice()
        self._closed = True
        if self._lock.acquire(timeout=self._timeout):
            self._working = True
            try:
                self._disconnect()
            finally:
                self._working = False
                self._lock.release()

    def refuse(self, reason: str) -> None:
        """Set the whole file aside, since its content can't be verified.

        Raises:
            BackendFailed: It couldn't be.
        """

        def set_aside(db: sqlite3.Connection) -> None:
            self._suspect = self._file
            self._set_aside(reason)

        self.run(set_aside)

    def check(self) -> None:
        """Look at everything that the owner must put right.

        Raises:
            ConfigurationError: Others can read or replace the file.
            OSError: It can't be looked at.
        """
        private_directory(self.path.parent, self._group)
        for suffix in ("", ".lock", *_COMPANIONS):
            private_file(self._beside(suffix), self._group)

    # SQLite's connections must not cross a fork, not even to be closed on the other side.

    def before_fork(self) -> None:
        """Close the connection, and let nobody open another one until the fork is over."""
        if self._lock.acquire(timeout=self._timeout):
            self._forking = threading.get_ident()
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._lock.release()

    def after_fork(self) -> None:
        """Begin without a connection in a forked child; see `detached` for one that the parent hasn't closed."""
        db, self._connection = self._connection, None
        if db is not None and (is_abandoned() or not close_detached(db, self._opened)):
            abandon(db)
        self._lock, self._forking, self._working = threading.Lock(), None, False

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if forks.unnoticed():  # its parent's, and not this process's to close
                self.after_fork()
            self._disconnect()

    # What follows is called with the lock held.

    def _run_locked(self, work: Callable[[sqlite3.Connection], _T], writes: bool) -> _T:
        if not self._lock.acquire(timeout=self._timeout):
            raise BackendFailed("busy", "other threads hold it")
        self._working = True
        try:
            for _ in range(4):
                try:
                    return self._attempt(work, writes)
                except _DoubtfulError:
                    continue
                except MalformedError as error:
                    self._set_aside(error.reason)
            raise BackendFailed("corrupt", "the file was damaged repeatedly")
        except sqlite3.Error as error:
            raise BackendFailed(_code(error), getattr(error, "sqlite_errorname", type(error).__name__)) from None
        except OSError as error:
            raise BackendFailed(code_of(error), error.strerror or type(error).__name__) from None
        except ConfigurationError as error:
            raise BackendFailed("insecure", str(error)) from None
        finally:
            self._working = False
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
                        raise MalformedError("malformed") from None
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
        if is_abandoned():
            raise BackendFailed("denied", "this process was forked while another thread of its parent's used a store")
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
            except MalformedError:
                raise BackendFailed("corrupt", "and it can't be set aside now") from None
            self._read_only = True
        self._connection, self._file, self._opened = db, self._suspect, self._all_there()
        if self._file not in self._opened:  # another one was put there meanwhile, and the log may be that one's
            self._disconnect()
            raise _DoubtfulError
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
            db.text_factory = lambda given: given.decode("utf-8", "replace")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            db.execute("PRAGMA mmap_size = 0")
            db.execute("PRAGMA secure_delete = ON")
            if not read_only:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA journal_size_limit = 1048576")
                if is_new(db):
                    with exclusive(self._beside(".lock"), self._timeout, self._group):
                        begin(db)
            check(db, pages=self.path.stat().st_size <= _CHECKED)
        except sqlite3.DatabaseError as error:
            db.close()
            if _code(error) == "corrupt" or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise MalformedError("malformed") from None
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

    def _all_there(self) -> frozenset[tuple[int, int]]:
        """Return what is at the path, and what belongs to it."""
        found = set()
        for suffix in ("", *_COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"{self.path}{suffix}")
                found.add((status.st_dev, status.st_ino))
        return frozenset(found)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix) if suffix else self.path

    def _disconnect(self) -> None:
        db, self._connection, self._read_only = self._connection, None, False
        if db is None:
            return
        try:
            detached = self._there() != self._file
        except OSError:
            detached = True
        if detached:
            close_detached(db, self._opened)
        else:
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


class _DoubtfulError(Exception):
    """The file looks damaged to a connection that has been open for a while, or was replaced as it was opened."""


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


_databases: LiveObjects[Database] = LiveObjects()


@forks.renewed
def _after_fork() -> None:
    if any(database._working for database in _databases.all()):
        abandon()


def _before_fork() -> None:
    for database in _databases.all():
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in _databases.all():
        database.after_fork_in_parent()


forks.around(_before_fork, _after_fork_in_parent)
