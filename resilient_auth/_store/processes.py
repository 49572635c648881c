"""Which process holds a lease, told so that another one on this machine can see whether it lives."""

from __future__ import annotations

import contextlib
import functools
import os

__all__ = ["gone", "identity"]


def identity() -> str:
    """Name this process: its namespace, number and start; empty where the system doesn't tell."""
    return _identity(os.getpid())


@functools.lru_cache(maxsize=4)  # a fork begins another one
def _identity(pid: int) -> str:
    namespace, started = _namespace(), _started(pid)
    return f"{namespace} {pid} {started}" if namespace and started else ""


def gone(holder: str) -> bool:
    """Tell whether a named process is known to be over. In doubt it isn't: its lease ends by itself."""
    parts = holder.split()
    if len(parts) != 3 or not parts[1].isdecimal() or parts[0] != _namespace():
        return False
    return _started(int(parts[1])) != parts[2]


@functools.lru_cache(maxsize=1)
def _namespace() -> str:
    """Tell where process numbers mean the same: this boot's, this container's."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}".replace(" ", "")
    return ""


def _started(pid: int) -> str:
    """Tell when a process started, in ticks since boot; empty where there is none, or only what is left of it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything.
            state, *fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in (b"Z", b"X") else fields[18].decode()
