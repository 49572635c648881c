"""Which process holds a lease, named so that another one on this machine can see whether it lives."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

__all__ = ["boot_offset", "gone", "identity", "users"]


def identity() -> str:
    """Name this process: its namespaces, number and start; empty where the system doesn't say."""
    return _identity(os.getpid())


@functools.lru_cache(maxsize=4)  # a fork begins another one
def _identity(pid: int) -> str:
    namespace, started = _namespace(pid), _started(pid)
    return f"{namespace} {pid} {started}" if namespace and started else ""


def gone(holder: str) -> bool:
    """Return whether a named process is known to be over. In doubt it isn't: its lease ends by itself."""
    parts = holder.split()
    if len(parts) != 3 or not parts[1].isdecimal() or parts[0] != _namespace(os.getpid()):
        return False
    pid = int(parts[1])
    if not _is_there(pid):
        return True
    # Where another user's processes can't be seen (`hidepid`), one that is there may be the holder.
    started = _started(pid)
    return started is not None and started != parts[2]


def users(path: Path, *, most: int = 5) -> list[int]:
    """Return the numbers of processes that have a file open, as far as this process may see that."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        wanted = os.stat(path)
        for process in (name for name in os.listdir("/proc") if name.isdecimal()):
            with contextlib.suppress(OSError):  # another user's, or over meanwhile
                handles = f"/proc/{process}/fd"
                if any(_is_file(f"{handles}/{handle}", wanted) for handle in os.listdir(handles)):
                    found.append(int(process))
            if len(found) >= most:
                break
    return found


def _is_file(path: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), wanted)
    return False


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@functools.lru_cache(maxsize=4)
def _namespace(pid: int) -> str:
    """Return where process numbers and starts mean the same: this boot's, this container's."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        time = f"/{os.readlink('/proc/self/ns/time')}" if _boot_offset(pid) else ""
        return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}{time}".replace(" ", "")
    return ""


def boot_offset() -> float:
    """Return the seconds by which this process's clock is ahead of the machine's: 0 but in a time namespace."""
    return _boot_offset(os.getpid())


@functools.lru_cache(maxsize=4)
def _boot_offset(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError), open("/proc/self/timens_offsets") as file:
        # The file's offsets are for children; a process that has just made a namespace for them isn't in it.
        if os.readlink("/proc/self/ns/time") == os.readlink("/proc/self/ns/time_for_children"):
            for line in file:
                name, seconds, nanoseconds = line.split()
                if name == "boottime":
                    return int(seconds) + int(nanoseconds) / 1e9
    return 0.0


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; empty where only its name is left, None where unseen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything.
            state, *fields = file.read().rpartition(b")")[2].split()
        return "" if state in (b"Z", b"X") else fields[18].decode()
    except (OSError, ValueError, IndexError):
        return None
