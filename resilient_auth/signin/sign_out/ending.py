"""What a sign-out takes away: sessions, the user's tokens, and what other processes would still accept.

Each of it takes effect in this process at once, whatever the store does; what can't be written is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ...clock import Clock
from ...errors import ProviderUnavailable, StoreUnavailable
from ...events import SessionsEnded, emit
from ...store import Store
from ...token import fingerprint
from ...verify import Revocations
from ..sessions.record import Session, names_of, wanted_names
from ..sessions.sessions import Sessions

__all__ = ["Ending", "Once", "Whom"]

_SEEN_KIND: Final = "event-seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whom:
    """Say who is signed out: all that is given must hold.

    Args:
        issuer: The provider's `iss`.
        sid: Its session.
        subject: The user's `sub` there.
        oid: The user's object id, with `tenant`.
        tenant: The user's tenant.
        mail: The user's address, in lower case.
    """

    issuer: str
    sid: str | None = field(default=None, repr=False)
    subject: str | None = field(default=None, repr=False)
    oid: str | None = field(default=None, repr=False)
    tenant: str | None = None
    mail: str | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the lists on which the sessions are."""
        return wanted_names(self.issuer, self.sid, self.subject, self.oid, self.tenant, self.mail)

    @property
    def hash(self) -> str:
        """Return what stands for them in events."""
        return fingerprint(" ".join(self.names))

    def revoked(self) -> Iterator[tuple[str, str, str]]:
        """Return by what their tokens are known: those of one session, where one is meant, else the user's."""
        if self.sid:
            yield "sid", self.issuer, self.sid
            return
        if self.subject:
            yield "sub", self.issuer, self.subject
        if self.oid and self.tenant:
            yield "oid", self.tenant, self.oid
        if self.mail:
            yield "mail", self.issuer, self.mail

    def owns(self, account: dict[str, Any]) -> bool:
        """Return whether an account of MSAL's is theirs, as far as it says."""
        if self.sid:
            return False
        local, home = account.get("local_account_id"), str(account.get("home_account_id"))
        if self.oid and self.tenant:
            return bool(local == self.oid) and home.endswith(f".{self.tenant}")
        return self.subject is not None and self.subject in (local, home)


class Ending:
    """End sessions and tokens, as somebody has said who may.

    Args:
        clock: Gives the time.
        sessions: The application's; None for one that has none.
        applications: Returns MSAL's applications by the provider's name; all of them for None.
        revocations: What the fleet's verifiers go by.
        further: Applications of MSAL's of any provider's, which grow in number.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        sessions: Sessions | None = None,
        applications: Callable[[str | None], Iterable[Any]] = lambda _: (),
        revocations: Revocations | None = None,
        further: list[Any] | None = None,
    ) -> None:
        self.clock = clock
        self._sessions = sessions
        self._ours = applications
        self._further: list[Any] = [] if further is None else further
        self._revocations = revocations
        if sessions is not None:
            sessions.on_end = self.forget_tokens

    def also(self, revocations: Revocations | None, applications: Iterable[Any]) -> Ending:
        """Return one that ends the same, and what these hold; whoever else ends something ends that too."""
        self._further.extend(one for one in applications if one not in self._further)
        return Ending(
            self.clock,
            sessions=self._sessions,
            applications=self._ours,
            revocations=revocations or self._revocations,
            further=self._further,
        )

    def end(self, whom: Whom, *, code: str, before: float, tokens_alone: bool = False, revoke: bool = True) -> int:
        """End what began by a time, and return how many sessions that was.

        Args:
            whom: Whose.
            code: Why.
            before: Seconds since the epoch.
            tokens_alone: Leave sessions be.
            revoke: Whether who said so has proved it, and access tokens are to be refused as well.

        Raises:
            StoreUnavailable: It holds in this process, and will in the others when the store works again.
        """
        count, failure = 0, None
        if self._sessions is not None and not tokens_alone:
            try:
                count = self._sessions.end_on(whom.names, before, proved=revoke)
            except StoreUnavailable as error:
                failure = error
        if revoke and self._revocations is not None:
            try:
                self._revocations.revoke(whom.revoked(), before)
            except StoreUnavailable as error:
                failure = error
        try:
            # Here none was ended, at which its tokens would go.
            for session in self._sessions.listed(whom.names) if self._sessions is not None and tokens_alone else ():
                self.forget_tokens(session, anyway=True)
        except StoreUnavailable as error:
            failure = error
        if tokens_alone or not self._any_left(whom.names):
            for app in self._applications(None):
                self._drop(app, whom.owns)
        emit(SessionsEnded(at=self.clock.wall(), issuer=whom.issuer, code=code, count=count, subject=whom.hash))
        if failure is not None:
            raise failure
        return count

    def forget_tokens(self, session: Session, *, anyway: bool = False) -> None:
        """Drop the tokens of a session's user, unless another session of theirs goes on.

        Args:
            session: The session, which says whose they are: this process may have heard nothing of them.
            anyway: Whether another session may go on.
        """
        account = session.who.account
        if account is None or (not anyway and self._any_left(names_of(session.who)[:1])):
            return
        for app in self._applications(session.who.provider):
            with suppress(StoreUnavailable, ProviderUnavailable):
                app.remove_account(dict(account))

    def _applications(self, provider: str | None) -> Iterator[Any]:
        yield from self._ours(provider)
        yield from self._further

    def _any_left(self, names: tuple[str, ...]) -> bool:
        if self._sessions is None:
            return False
        try:
            return self._sessions.any_listed(*names)
        except StoreUnavailable:
            return False  # whoever goes on gets tokens anew

    @staticmethod
    def _drop(app: Any, theirs: Callable[[dict[str, Any]], bool]) -> None:
        # What the store can't be told now is told later; a provider that is down needn't hear of it.
        with suppress(StoreUnavailable, ProviderUnavailable):
            for account in app.get_accounts():
                if theirs(account):
                    app.remove_account(account)


class Once:
    """Remember in the store what was acted upon, so that it counts once in all processes.

    Args:
        store: Where.
        clock: Gives the time.
        scope: Tells applications apart that share a store.
    """

    def __init__(self, store: Store, clock: Clock, scope: str) -> None:
        self._store = store
        self._clock = clock
        self._scope = scope

    def was_seen(self, issuer: str, token_id: str) -> bool:
        """Return whether a token was acted upon.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        return self._store.read(_SEEN_KIND, self._name(issuer, token_id)) is not None

    def first(self, issuer: str, token_id: str, until: float) -> bool:
        """Note that a token was acted upon; return whether nobody else did so meanwhile.

        Raises:
            StoreUnavailable: It can't be noted.
        """
        ttl = max(1.0, until - self._clock.wall())
        name = self._name(issuer, token_id)
        return self._store.write(_SEEN_KIND, name, b"1", ttl=ttl, expected=None) is not None

    def _name(self, issuer: str, token_id: str) -> str:
        return fingerprint(f"{self._scope}\n{issuer}\n{token_id}")
