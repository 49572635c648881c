"""What is sent a second time: which bodies can be, and with which cookies."""

from __future__ import annotations

from typing import Any

__all__ = ["merged_cookies", "replayable"]


def replayable(stream: Any, library: Any) -> bool:
    """Return whether a request's body is there to be sent again.

    Bytes are; so is a form whose files can be wound back. A generator isn't, nor is a file given as the body: httpx
    doesn't wind it back, so what went out again would be empty.

    Args:
        stream: The request's.
        library: httpx or httpx2.
    """
    if isinstance(stream, library.ByteStream):
        return True
    fields = getattr(stream, "fields", None)
    return isinstance(fields, list) and all(_rewinds(getattr(field, "file", b"")) for field in fields)


def _rewinds(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    seekable = getattr(file, "seekable", None)
    try:
        return seekable is not None and bool(seekable())
    except ValueError:  # it was closed meanwhile
        return False


def merged_cookies(sent: str | None, new: str) -> str:
    """Return a `Cookie` header with what an answer has set, in place of what was sent under the same names."""
    pairs = [*(sent.split("; ") if sent else ()), *new.split("; ")]
    return "; ".join({pair.partition("=")[0]: pair for pair in pairs}.values())
