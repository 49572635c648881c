"""What a store's SQLite file looks like inside, and whether one does: every other is refused, or another's."""

from __future__ import annotations

import sqlite3

from ..store import BackendFailed

__all__ = ["MalformedError", "begin", "check", "is_new"]

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


class MalformedError(Exception):
    """The file isn't what this wrote; `reason` is the code in `StoreRejected`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_new(db: sqlite3.Connection) -> bool:
    """Return whether there is nothing in a file yet."""
    if db.execute("PRAGMA user_version").fetchone() != (0,):
        return False
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))


def begin(db: sqlite3.Connection) -> None:
    """Choose the journal, and make the tables in a file that has none."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    if is_new(db):
        for table in _TABLES:
            db.execute(table)
        db.execute("INSERT INTO fence VALUES (0)")
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
    db.execute("COMMIT")


def check(db: sqlite3.Connection, *, pages: bool) -> None:
    """Check that a file is a store's, and every page of it if asked.

    Raises:
        MalformedError: It isn't what this wrote.
        BackendFailed: Another application or a newer release wrote it.
    """
    if pages and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise MalformedError("malformed")
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    tables = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    if application != _APPLICATION:
        if tables and not any((table,) in tables for table in _TABLES):
            raise BackendFailed("foreign", "it is another application's database")
        raise MalformedError("foreign")
    if schema != _SCHEMA:
        if schema % _SCHEMA == 0 and schema > _SCHEMA:
            raise BackendFailed("newer_schema", "a newer release wrote it")
        raise MalformedError("malformed")
    # Triggers and views, too, would run with this process's rights.
    if tables != [(table,) for table in _TABLES] or db.execute("SELECT count(*) FROM fence").fetchone() != (1,):
        raise MalformedError("malformed")
