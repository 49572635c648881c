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

import ctypes
import os
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

__all__ = ["abandon", "close_detached", "is_abandoned"]

#: Descriptors that are looked at where the system doesn't list those that are open.
_MOST_LOOKED_AT: Final = 65_536

#: Whether SQLite can't be used in this process.
_abandoned = False


def close_detached(db: sqlite3.Connection, opened: Collection[tuple[int, int]]) -> bool:
    """Close a connection, and whatever else this process has its files open by, without a trace for others.

    Args:
        db: The connection; no thread is in the middle of a call to it.
        opened: Device and number of each file that it has open.

    Returns:
        Whether it is closed; it is kept as it is where there is no descriptor left.
    """
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        _keep(db)
        return False
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
    return True


def abandon(db: sqlite3.Connection | None = None) -> None:
    """Use SQLite no more in this forked child: a thread of its parent's was in it, whose locks nobody gives back.

    Args:
        db: An inherited connection, which is kept as it is.
    """
    global _abandoned
    _abandoned = True
    if db is not None:
        _keep(db)


def _keep(db: sqlite3.Connection) -> None:
    """Have a connection never be closed: not even as the interpreter ends, which would do so to whatever it finds."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def is_abandoned() -> bool:
    """Return whether SQLite can't be used in this process."""
    return _abandoned


def _descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return range(min(os.sysconf("SC_OPEN_MAX"), _MOST_LOOKED_AT))
