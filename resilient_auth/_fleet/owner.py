"""The application object whose users and tokens a store keeps, and what of its cache's changes isn't to be noted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from .user_record import Entry, Key

__all__ = ["Owner", "is_quiet", "quietly"]

#: Set on a thread that puts into MSAL's cache what a store has, or lets it go: no shared cache over it has to note it.
_quiet = threading.local()


class Owner(Protocol):
    """The application object whose users and tokens these are."""

    def put_back(self, entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        """Put entries into MSAL's cache, and take out those with the given keys."""

    def forgotten(self, subject: str | None) -> None:
        """Drop what memory holds of a subject whose account another process has removed."""

    def entries(self, subject: str) -> Mapping[Key, Entry]:
        """List what MSAL's cache holds of a user."""

    def owns(self, kind: str, entry: Entry) -> bool:
        """Return whether an entry of a kind is this application's, and not another one's at the same host."""

    def evict(self, subject: str) -> bool:
        """Let MSAL's cache go of a user, whom the store has; False where it must not."""


def is_quiet() -> bool:
    """Return whether what changes in MSAL's cache on this thread isn't to be noted."""
    return getattr(_quiet, "on", False)


@contextmanager
def quietly() -> Iterator[None]:
    """Have nothing noted of what changes in MSAL's cache on this thread."""
    outer = getattr(_quiet, "on", False)
    _quiet.on = True
    try:
        yield
    finally:
        _quiet.on = outer
