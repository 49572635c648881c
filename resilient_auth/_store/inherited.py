"""A connection that a forked child finds, since its parent was forked in C, or couldn't close it before.

SQLite takes what it knows of a file from the connections that the process has to it: which locks are held, and the
index of the log, in memory that is shared. A child inherits that knowledge and none of the locks. A connection of its
own would go by both: it would take no lock, since there seems to be one, and go on with an index whose file others have
long removed. What it writes then is lost, or the file is damaged. So the inherited connection must be closed first; but
that, too, would go by what isn't so, and might remove a log that others need. It can't where it can lock nothing: its
descriptors lead nowhere before it is closed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

__all__ = ["is_held", "let_go"]

#: Descriptors that are looked at where the system doesn't list those that are open.
_MOST_LOOKED_AT: Final = 65_536

_File = tuple[int, int] | None

#: Connections that a thread of the parent's was using: they can't be closed. And the files that these have open.
_kept: list[sqlite3.Connection] = []
_held: set[_File] = set()


def let_go(db: sqlite3.Connection, opened: Collection[_File], *, in_use: bool) -> None:
    """Close an inherited connection, without a trace for others.

    Args:
        db: The connection.
        opened: Device and number of each file that it has open.
        in_use: Whether a thread of the parent's may have been in the middle of a call: SQLite's own locks are held
            then. The connection is kept, and none of its files can be opened in this process any more.
    """
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
    except OSError:  # there may be no descriptor left
        in_use = True
    if in_use:
        _kept.append(db)
        _held.update(opened)
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


def is_held(file: _File) -> bool:
    """Return whether a file can't be opened in this process."""
    return file in _held


def _descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return range(min(os.sysconf("SC_OPEN_MAX"), _MOST_LOOKED_AT))
