"""How a user signs out: here, and then at the provider (OpenID Connect RP-Initiated Logout 1.0).

POST ── from a page of ours? ─▶ session ended, here at once ─▶ provider well? ─ yes ─▶ its end_session_endpoint ─▶ done
  └ no: asked once more                                          └ no ─▶ a page that says so

The provider's page says by a frame of ours which of its sessions has ended (OpenID Connect Front-Channel Logout 1.0),
and the provider itself by a logout token, see `back_channel`. A frame of another site's page brings no cookie along: it
is the session's name at the provider by which it is found.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from ..._engine.steps import Steps
from ...errors import StoreUnavailable
from ...events import SessionsEnded, SignOutRefused, emit
from ...token import fingerprint
from ...verify import AnyOf
from ..messages import Answer, Arrival, Route, dropped, leading_to
from ..pages import Choice, Field, Page
from ..paths import own_path
from ..providers import Party
from ..sessions.calls import StoreCall
from ..sessions.record import Session, Who
from ..site import Site
from .at_provider import hint_of, leading_out, origins_of
from .back_channel import BackChannel
from .ending import Ending, Once, Whom

__all__ = ["SignOut"]

#: The field of a form of ours by which it is known to be ours.
_PROOF: Final = "sign_out"
_LONGEST_ID: Final = 256


class SignOut:
    """Answer the routes of sign-out.

    Args:
        site: The application's sign-in.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        options = site.options.sign_out
        self._path = f"{site.prefix}{options.path}"
        self.ending = Ending(
            site.clock, sessions=site.sessions, applications=self._applications, revocations=options.revocations
        )
        self.once = Once(site.store, site.clock, site.application)
        verifier = AnyOf(*(party.verifier for party in site.parties.values()))
        self._back_channel = BackChannel(verifier, self.ending, self.once, typed=options.typed)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the paths that sign-out answers."""
        at = self._site.options.sign_out.path
        return (
            Route(at, ("GET", "POST"), self.sign_out, "sign_out"),
            Route(f"{at}/done", ("GET",), self.done, "signed_out"),
            Route(f"{at}/front-channel", ("GET",), self.front_channel, "front_channel_logout"),
            Route(f"{at}/back-channel", ("POST",), self._back_channel.handle, "back_channel_logout"),
        )

    def sign_out(self, arrival: Arrival) -> Steps[Answer]:
        """Ask whether the user means it, or sign them out."""
        site = self._site
        cookie = arrival.cookies.get(site.session_cookie, "")
        session: Session | None = None
        if cookie:
            try:
                found = yield StoreCall(lambda: site.sessions.find(cookie))
            except StoreUnavailable as error:
                return site.store_unavailable(arrival, error)
            session = None if found is None else found.session
        if session is None:
            answer = self._signed_out(arrival, "You aren't signed in here.")
            return answer.with_cookies(dropped(site.session_cookie)) if cookie else answer
        if arrival.method != "POST":
            return self._asked(arrival, session, 200)
        if not self._is_meant(arrival, session):
            issuer = session.who.issuer
            emit(SignOutRefused(at=site.clock.wall(), issuer=issuer, code="cross_site"))
            return self._asked(arrival, session, 403)
        party = site.parties.get(session.who.provider)
        # Before the tokens are gone: it is one of them.
        hint = None if party is None else hint_of(party.apps["sign_in"], session.who)
        try:
            yield StoreCall(lambda: self._end(session))
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        answer = yield from self._out(arrival, session.who, party, hint)
        return answer.with_cookies(dropped(site.session_cookie))

    def _out(self, arrival: Arrival, who: Who, party: Party | None, hint: str | None) -> Steps[Answer]:
        """Answer who is signed out here: lead them to the provider, if that works, and is to be told."""
        site = self._site
        next_path = own_path(arrival.only("next"), site.options.sign_out.next_path or "", site.prefix)
        if party is None or not site.options.sign_out.at_provider:
            return self._done(arrival, next_path)
        sight = yield from party.watch.looking()
        address: str | None = None
        if not sight.retry_after:
            address = yield from leading_out(
                party.verifier,
                who,
                hint=hint,
                client_id=party.provider.client_id,
                back=f"{site.origin}{self._path}/done",
                state=next_path,
            )
        if address is None:
            text = (
                f"You are signed out here. {party.provider.label} can't be told right now: you may still be signed in "
                "there. On a computer that others use, close the browser."
            )
            return self._signed_out(arrival, text)
        return leading_to(address)

    def _end(self, session: Session) -> None:
        """End one session; what the store can't be told now it is told later, and here it is over."""
        site, who = self._site, session.who
        with suppress(StoreUnavailable):
            site.sessions.end(session.id)
        self.ending.forget_tokens(session)
        subject = fingerprint(f"{who.issuer} {who.subject}")
        emit(SessionsEnded(at=site.clock.wall(), issuer=who.issuer, code="sign_out", count=1, subject=subject))

    def done(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the route to which the provider leads users back."""
        yield from ()
        state, chosen = arrival.only("state"), self._site.options.sign_out.next_path
        return self._done(arrival, state if state and state == chosen else own_path(state, "", self._site.prefix))

    def front_channel(self, arrival: Arrival) -> Steps[Answer]:
        """Answer a frame on the provider's sign-out page, which names the provider and its session."""
        site = self._site
        issuer, sid = arrival.only("iss"), arrival.only("sid")
        trusted = [party for party in site.parties.values() if issuer and party.verifier._core.trusts(issuer)]  # type: ignore[attr-defined]
        if not issuer or not sid or len(sid) > _LONGEST_ID or not trusted:
            emit(SignOutRefused(at=site.clock.wall(), issuer=issuer[:300] if issuer else "", code="malformed"))
            return _framed(400, ())
        whom = Whom(issuer=issuer, sid=sid)
        try:
            # Whoever knows the session's name may end it; only a signature has tokens refused everywhere.
            yield StoreCall(lambda: self.ending.end(whom, code="front_channel", before=site.clock.wall(), revoke=False))
        except StoreUnavailable:
            return _framed(503, {party.watch.authority for party in trusted})
        return _framed(200, {party.watch.authority for party in trusted})

    def _applications(self, provider: str | None) -> Iterable[Any]:
        for name, party in self._site.parties.items():
            if provider in (None, name):
                yield from party.apps.values()

    def _is_meant(self, arrival: Arrival, session: Session) -> bool:
        given = arrival.only(_PROOF)
        if given is None:
            return self._site.is_own(arrival)
        return hmac.compare_digest(given.encode(), token_of(session).encode())

    def _asked(self, arrival: Arrival, session: Session, status: int) -> Answer:
        party = self._site.parties.get(session.who.provider)
        fields = [Field(_PROOF, value=token_of(session))]
        next_path = own_path(arrival.only("next"), "", self._site.prefix)
        if next_path:
            fields.append(Field("next", value=next_path))
        return self._site.show(
            arrival,
            Page(
                kind="sign_out",
                status=status,
                title="Sign out?",
                text="You will be signed out of this application.",
                code="" if status == 200 else "cross_site",
                choices=(Choice("sign_out", "Sign out", self._path, tuple(fields)), self._home()),
                leads_to=() if party is None else origins_of(party),
            ),
        )

    def _done(self, arrival: Arrival, next_path: str) -> Answer:
        if next_path and next_path.partition("?")[0] != f"{self._path}/done":
            return leading_to(next_path)
        return self._signed_out(arrival, "You are signed out.")

    def _signed_out(self, arrival: Arrival, text: str) -> Answer:
        return self._site.show(
            arrival,
            Page(
                kind="signed_out",
                status=200,
                title="Signed out",
                text=text,
                choices=(self._home(),),
            ),
        )

    def _home(self) -> Choice:
        return Choice("home", "Home page", f"{self._site.prefix}/")


def token_of(session: Session) -> str:
    """Return what a form of ours has that no other site can know: it follows from the session's id."""
    return base64.urlsafe_b64encode(hmac.digest(session.id.encode(), b"sign-out", "sha256")).rstrip(b"=").decode()


def _framed(status: int, by: Iterable[str]) -> Answer:
    """Answer a frame, which no other page than these origins' may have."""
    ancestors = " ".join(sorted(by)) or "'none'"
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Security-Policy", f"default-src 'none'; frame-ancestors {ancestors}"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    )
    return Answer(status, "", headers)
