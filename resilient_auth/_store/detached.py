"""A connection that is closed without a trace for others, since what SQLite knows of its files isn't so.

Of a forked child's, whose parent was forked in C, or couldn't close it before. What a process knows of a file SQLite
takes from all of its connections to it: which locks are held, and the index of the log, in memory that is shared. A
child inherits that knowledge and none of the locks. A connection of its own would go by both: it would take no lock,
since there seems to be one, and go on with an index whose file others have long removed. What it writes then is lost,
or the file is damaged. So the inherited connection must be closed first.

Of one whose file is no longer at its path: another disk was mounted there, or a backup put there. Who closes the last
connection to a file removes its log, and SQLite does so by the path: it would be the other file's.

Both must lock the file first. They can't where their descriptors lead nowhere before they are closed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

__all__ = ["abandon", "close_detached", "is_abandoned"]

#: Descriptors that are looked at where the system doesn't list those that are open.
_MOST_LOOKED_AT: Final = 65_536

_File = tuple[int, int]

#: Connections that couldn't be closed, and the files that these have open.
_abandoned: list[sqlite3.Connection | None] = []
_files: set[_File] = set()


def close_detached(db: sqlite3.Connection, opened: Collection[_File]) -> None:
    """Close a connection, and whatever else this process has its files open by, without a trace for others.

    Args:
        db: The connection; no thread is in the middle of a call to it.
        opened: Device and number of each file that it has open.
    """
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
    except OSError:  # there may be no descriptor left
        abandon(db, opened)
        return
    try:
        for descriptor in _descriptors():
            with suppress(OSError):  # closed meanwhile
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) in opened:
                    os.dup2(nowhere, descriptor, inheritable=False)
    finally:
        os.close(nowhere)
    with suppress(sqlite3.Error):
        db.close()


def abandon(db: sqlite3.Connection | None, opened: Collection[_File]) -> None:
    """Leave a connection as it is: a thread of the parent's was at work with it, and SQLite's own lock may be held.

    Args:
        db: The connection; None where it was about to be opened or closed.
        opened: Device and number of each file that it has open. They can't be opened in this process any more.
    """
    _abandoned.append(db)
    _files.update(opened)


def is_abandoned(file: _File | None) -> bool:
    """Return whether a file can't be opened in this process."""
    return file in _files


def _descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return range(min(os.sysconf("SC_OPEN_MAX"), _MOST_LOOKED_AT))
