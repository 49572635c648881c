"""Small files that others replace: a mounted certificate, a projected token. Read anew only when they have changed."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass

__all__ = ["Reading", "read_anew"]

#: Nanoseconds for which a file that was just written is read at each look: two writes may have one time stamp.
_FRESH = 2_000_000_000


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """What a file held, and by what it is told whether it is still the same one; None where only reading tells."""

    data: bytes
    stamp: tuple[int, ...] | None


def read_anew(path: str, largest: int, known: Reading | None = None) -> Reading:
    """Return what a file holds: `known` itself where nothing has changed since.

    Links are followed, so that a directory that is swapped under them, as Kubernetes does it, is noticed.

    Args:
        path: The file's.
        largest: Bytes, at most.
        known: What was read last.

    Raises:
        OSError: It isn't there, or can't be read.
        ValueError: It is no regular file, or too large.
    """
    if known is not None and known.stamp is not None and _stamp(os.stat(path)) == known.stamp:
        return known
    # Opening a pipe must not wait for who writes into it.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it isn't a regular file")
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    settled = time.time_ns() - found.st_mtime_ns > _FRESH
    return Reading(data, _stamp(found) if settled else None)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
