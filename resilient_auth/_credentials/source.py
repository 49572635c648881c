"""One place from which a credential's tokens come, and what becomes of a token that an API has refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from .._engine.cache import CacheEntry
from .._msal.plans import Plan
from .._msal.session import Session
from ..token import Token
from .request import CredentialRequest

__all__ = ["Source", "suspect", "where_held"]


class Source(ABC):
    """Plan how a token is had from one place."""

    name: str
    #: Which of `account`, `additionally_allowed_tenants` and `settings` mean something to it.
    takes: Collection[str] = ()
    #: Whose engine it uses, and whose token cache may be swapped by its owner.
    session: Session

    def prepare(self, wanted: CredentialRequest) -> Callable[[], object] | None:
        """Return what must be done before a plan can be made, and may take a moment; None for nothing."""
        return None

    @abstractmethod
    def plan(self, wanted: CredentialRequest) -> Plan:
        """Plan it; nothing is asked of anybody yet."""

    def forget(self, token: str) -> None:
        """Forget this very token wherever it is held, which an API refused, and leave its successor alone."""
        for entry, held in where_held(self.session, token):
            self.session.memory.drop_token(entry, held, "refused_by_api")

    def suspect(self, token: str) -> None:
        """Have this very token replaced, which an API refused; serve it until then."""
        suspect(self.session, token)

    def close(self) -> None:
        """Let go of what was made for this source."""
        self.session.close()

    def after_fork(self) -> None:
        """Start with locks of one's own in a forked child: nothing here, where a session has them all."""
        return


def where_held(session: Session, secret: str) -> list[tuple[CacheEntry, Token]]:
    """Find the places of one token."""
    return [(entry, held) for entry in session.memory if (held := entry.token) is not None and held.secret == secret]


def suspect(session: Session, secret: str) -> None:
    """Have one token replaced wherever it is held; it is served until its successor is there."""
    for entry, held in where_held(session, secret):
        session.memory.suspect(entry, held)
