"""A token that an API has refused: where it is held, and how it goes."""

from __future__ import annotations

from .._flow.memory import Slot
from .session import Session

__all__ = ["drop", "slots_with"]


def slots_with(session: Session, secret: str) -> list[Slot]:
    """Find the places of one token."""
    return [slot for slot in session.memory if (held := slot.token) is not None and held.secret == secret]


def drop(session: Session, secret: str) -> None:
    """Forget one token wherever it is held, and leave its successor alone."""
    for slot in slots_with(session, secret):
        held = slot.token
        if held is not None and held.secret == secret:
            session.memory.drop_token(slot, held, "refused by an API")
