"""Which files and directories a secret may lie in: this user's own, and open to nobody else."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..store import BackendFailed

__all__ = ["code_of", "exclusive", "make_private", "private_directory", "private_file"]

_POSIX = hasattr(os, "geteuid")
_CODES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}


def code_of(error: OSError) -> str:
    """Return the stable code of what the system said."""
    return _CODES.get(error.errno or 0, "io_error")


def private_directory(path: Path, group: int | None = None) -> None:
    """Check that nobody else can put files into a directory; make it, for this user alone, where it is missing.

    Args:
        path: The directory's.
        group: Whose members may do so as well; who has it then owns the directory, whichever user that is.

    Raises:
        ConfigurationError: Others can write to it, or it belongs to one of them.
        OSError: It can't be made, or looked at.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        if group is not None and _POSIX:
            os.chown(path, -1, group)
            os.chmod(path, 0o2770)  # noqa: S103 - the group is the owner's choice
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{path} isn't a directory")
    if not _POSIX:
        return
    trusted = status.st_gid == group
    if trusted and not status.st_mode & stat.S_ISGID:
        raise ConfigurationError(
            f"files in the directory {path} don't take its group {group}, which trusted_group names: chmod g+s {path}"
        )
    if status.st_uid not in (os.geteuid(), 0) and not trusted:
        raise ConfigurationError(
            f"the directory {path} belongs to user {status.st_uid}, who could replace what is in it"
            f"{_on_volumes(status)}"
        )
    if status.st_mode & (0o002 if trusted else 0o022):
        raise ConfigurationError(
            f"others can write to the directory {path} (mode {stat.S_IMODE(status.st_mode):o}): chmod go-w {path}, "
            "or give a path in a directory that doesn't exist yet, which is made for this user alone"
            f"{_on_volumes(status)}"
        )


def _on_volumes(status: os.stat_result) -> str:
    """Return what else may be done where it is the group that is let in, as kubelet does on each start of a pod."""
    if not status.st_mode & 0o020 or status.st_mode & 0o002:
        return ""
    return f". On a Kubernetes volume with fsGroup {status.st_gid}, give trusted_group={status.st_gid}"


def private_file(path: Path, group: int | None = None) -> os.stat_result | None:
    """Check that a file is this user's own and closed to others; None where there is none.

    It isn't opened: closing any handle on a file takes this process's other locks on it away.

    Args:
        path: The file's.
        group: Whose members may read and write it as well.

    Raises:
        ConfigurationError: It is a link, another user's, or open to others.
        OSError: It can't be looked at.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{path} is a symbolic link, which isn't followed: give the path that it leads to")
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path} isn't a regular file")
    if _POSIX:
        trusted = status.st_gid == group
        if status.st_uid != os.geteuid() and not trusted:
            raise ConfigurationError(
                f"{path} belongs to user {status.st_uid}, not to this process's user {os.geteuid()}: remove it, or "
                f"give another path{_on_volumes(status)}"
            )
        if status.st_mode & (0o007 if trusted else 0o077):
            raise ConfigurationError(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):o}): chmod 600 {path}, and consider "
                f"its contents disclosed{_on_volumes(status)}"
            )
        if status.st_nlink != 1:
            raise ConfigurationError(f"{path} has a second name (hard link): remove it, or give another path")
    return status


def make_private(path: Path, group: int | None = None) -> None:
    """Make an empty file with mode 0600 from its first moment on, unless there is a file.

    Args:
        path: The file's.
        group: Whose members may read and write it; it then gets mode 0660.

    Raises:
        OSError: It can't be made.
    """
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            if _POSIX:
                if group is not None:
                    os.fchown(handle, -1, group)
                # A umask may have taken the owner's own rights.
                os.fchmod(handle, 0o600 if group is None else 0o660)
        finally:
            os.close(handle)


@contextlib.contextmanager
def exclusive(path: Path, seconds: float, group: int | None = None) -> Iterator[None]:
    """Hold a lock file against other processes, which ends with this process at the latest.

    Raises:
        BackendFailed: Another process held it all the time.
        OSError: It can't be made.
    """
    make_private(path, group)
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        _lock(handle, seconds)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, seconds: float) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: nobody can rename a file there that another process has open
        return
    flock: Any = fcntl.flock
    ends = time.monotonic() + seconds
    while True:
        try:
            flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise BackendFailed("busy", "another process is setting it up") from None
            time.sleep(0.01)
        else:
            return
