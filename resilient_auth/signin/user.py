"""Who is signed in, as an application sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import ResilientAuthError
from .messages import Cookie
from .sessions.record import GUEST, Session

__all__ = ["GUEST", "ONE_TIME_CODE", "SignInNeeded", "User", "Visit"]

#: What stands in the place of a provider for who came in by a code.
ONE_TIME_CODE = "one-time-code"


class SignInNeeded(ResilientAuthError):
    """The user must sign in again before there is such a token: the provider works, and wants to see them.

    Raised in a view, it is answered by a sign-in. From a client of an API it comes as it is, and isn't one of httpx's
    errors too: who catches those lets it pass.

    Args:
        claims: What the sign-in is to prove, where the provider or an API said so.
    """

    code = "sign_in_needed"
    status = 401
    user_message = "Please sign in again."
    for_the_framework: ClassVar[bool] = True

    def __init__(self, claims: str | None = None) -> None:
        super().__init__("the user must sign in again for this token")
        self.claims = claims

    def __reduce__(self) -> tuple[object, ...]:
        return SignInNeeded, (self.claims,)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who is signed in.

    Attributes:
        name: What they are called.
        username: What they sign in with; it may change and be reassigned: show it, and decide nothing by it.
        subject: `sub`, which with `issuer` names them for ever.
        issuer: The provider's `iss`.
        object_id: `oid` (Entra).
        tenant_id: `tid` (Entra).
        provider: The name of the provider; `guest` and `one-time-code` for who came in without one.
        claims: The ID token's claims.
        signed_in_at: When they signed in, in seconds since the epoch.
        extended: Whether the session is past its end, and goes on since the provider is down.
    """

    name: str = field(repr=False)
    username: str = field(repr=False)
    subject: str = field(repr=False)
    issuer: str
    object_id: str | None = field(repr=False)
    tenant_id: str | None
    provider: str
    claims: Mapping[str, Any] = field(repr=False)
    signed_in_at: float
    extended: bool

    @property
    def is_guest(self) -> bool:
        """Return whether it is somebody who hasn't signed in at all."""
        return self.provider == GUEST

    @classmethod
    def of(cls, session: Session, *, extended: bool) -> User:
        """Return the user of a session."""
        who = session.who
        return cls(
            name=who.name,
            username=who.username,
            subject=who.subject,
            issuer=who.issuer,
            object_id=who.oid,
            tenant_id=who.tenant,
            provider=who.provider,
            claims=who.claims,
            signed_in_at=session.started,
            extended=extended,
        )


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in: the session, the user, and the cookies that go out with the answer."""

    session: Session
    user: User
    cookies: tuple[Cookie, ...] = ()
    #: Those that the view has named.
    scopes: tuple[str, ...] = ()
