"""Where a user may be led after a sign-in: to a path of this application, and nowhere else."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

__all__ = ["below", "own_path"]

_LONGEST: Final = 1024


def own_path(path: str | None, default: str = "/", prefix: str = "") -> str:
    """Return a path of this application; `default` for anything that may lead elsewhere.

    Browsers read a backslash as a slash, two slashes as the beginning of a host, and drop tabs and line ends.

    Args:
        path: What somebody says.
        default: What is returned for the rest.
        prefix: The path below which the application is mounted: what is beside it is another one's.
    """
    if not path or len(path) > _LONGEST or not path.startswith("/"):
        return default
    # Twice: a server in front may decode once more.
    for read in (path, unquote(path), unquote(unquote(path))):
        if read.startswith(("//", "/\\")) or "\\" in read or not read.isprintable():
            return default
        beginning = read.partition("?")[0]
        if "//" in beginning[:2] or beginning.startswith(("/./", "/../")):
            return default
    return path if path.isascii() and below(path, prefix) else default


def below(path: str, prefix: str) -> bool:
    """Return whether a path is that of a prefix, or below it, also when dots in it are followed; any is below none."""
    if not prefix:
        return True
    for read in (path, unquote(path), unquote(unquote(path))):
        # Browsers leave out blanks at the end, behind two dots too.
        bare = read.partition("?")[0].partition("#")[0].rstrip()
        if bare != prefix and not bare.startswith(f"{prefix}/"):
            return False
        if not {".", ".."}.isdisjoint(bare.split("/")):
            return False
    return True
