"""A token that an API has refused: where it is held, and how it goes, or is replaced."""

from __future__ import annotations

from .._engine.cache import CacheEntry
from .._msal.session import Session

__all__ = ["drop", "slots_with", "suspect"]


def slots_with(session: Session, secret: str) -> list[CacheEntry]:
    """Find the places of one token."""
    return [entry for entry in session.memory if (held := entry.token) is not None and held.secret == secret]


def drop(session: Session, secret: str) -> None:
    """Forget one token wherever it is held, and leave its successor alone."""
    for entry in slots_with(session, secret):
        held = entry.token
        if held is not None and held.secret == secret:
            session.memory.drop_token(entry, held, "refused_by_api")


def suspect(session: Session, secret: str) -> None:
    """Have one token replaced wherever it is held; it is served until its successor is there."""
    for entry in slots_with(session, secret):
        held = entry.token
        if held is not None and held.secret == secret:
            session.memory.suspect(entry, held)
