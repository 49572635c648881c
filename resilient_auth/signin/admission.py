"""Who is let into a view: by the session that the browser's cookie names, and by what the view wants of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from .._engine.steps import Steps
from ..errors import StoreUnavailable
from ..events import SessionExtended, emit
from ..token import fingerprint
from .messages import Answer, Arrival, Cookie, dropped
from .pages import Choice, Page
from .providers.redeeming import acrs_of
from .sessions.calls import StoreCall
from .sessions.record import Session
from .sessions.sessions import Found
from .signing_in import SigningIn
from .site import Site
from .user import SignInNeeded, User, Visit

__all__ = ["Admission", "Wanted"]

#: Seconds after a sign-in within which another one would help no more than that one did.
_JUST_NOW: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a view wants.

    Args:
        scopes: Those for which it asks for tokens.
        acrs: An authentication context that the sign-in must have met (Entra).
        guests: Whether guests may see it.
        required: Whether somebody must be signed in at all.
    """

    scopes: tuple[str, ...] = ()
    acrs: str | None = None
    guests: bool = False
    required: bool = True


class Admission:
    """Decide about requests, in steps."""

    def __init__(self, site: Site, signing_in: SigningIn) -> None:
        self._site = site
        self._signing_in = signing_in

    def admitting(self, arrival: Arrival, wanted: Wanted) -> Steps[Visit | Answer | None]:
        """Return the visit of who is let in; what is answered to who isn't; None for nobody, where that will do."""
        decided = yield from self._admitting(arrival, wanted)
        return decided if wanted.required or isinstance(decided, Visit) else None

    def _admitting(self, arrival: Arrival, wanted: Wanted) -> Steps[Visit | Answer | None]:
        site = self._site
        cookie = arrival.cookies.get(site.session_cookie, "")
        found = site.sessions.recall(cookie) if cookie else None
        try:
            if found is None and cookie:
                found = yield StoreCall(lambda: site.sessions.find(cookie))
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        if found is None:
            if not wanted.required:
                return None
            answer = yield from self._invite(arrival, wanted)
            return answer.with_cookies(dropped(site.session_cookie)) if cookie else answer
        if found.standing == "extendable":
            decided = yield from self._beyond(arrival, found, wanted)
        else:
            decided = yield from self._renewed(found)
        if isinstance(decided, Answer):
            return decided
        decided = replace(decided, scopes=wanted.scopes)
        refusal = yield from self._lacking(arrival, decided, wanted)
        return decided if refusal is None else refusal.with_cookies(*decided.cookies)

    def outgoing(self, cookies: Sequence[Cookie]) -> Steps[tuple[Cookie, ...]]:
        """Return those of a visit's cookies that are to be set, now that there is an answer.

        A view takes its time. Meanwhile another request may have been given a later id, or the user have signed in
        anew: what was given first mustn't come last. No browser is signed out by an id that never came.
        """
        sessions, kept = self._site.sessions, list[Cookie]()
        for cookie in cookies:
            found = sessions.recall(cookie.value)
            if found is None:
                with suppress(StoreUnavailable):
                    found = yield StoreCall(partial(sessions.find, cookie.value))
            if found is not None:
                kept.append(cookie)
        return tuple(kept)

    def again(self, arrival: Arrival, visit: Visit, error: SignInNeeded) -> Steps[Answer]:
        """Answer a view that needs its user to sign in again."""
        site = self._site
        party = site.party_of(visit.session.who.provider)
        if site.clock.wall() - visit.session.started < _JUST_NOW:
            text = "You are signed in, but aren't allowed to see this page. Please ask whoever looks after it."
            return site.refused(arrival, "insufficient_claims", text, status=403, party=party)
        if not arrival.is_page:
            return self._unauthorized(arrival)
        begun = self._signing_in.begin(
            arrival, party, site.here(arrival), claims=error.claims, known=visit.session, silent=error.claims is None
        )
        return (yield from begun)

    def _beyond(self, arrival: Arrival, found: Found, wanted: Wanted) -> Steps[Visit | Answer]:
        """Decide about a session that is past its end: it goes on while nobody can sign in, and no longer."""
        site, session = self._site, found.session
        party = site.party_of(session.who.provider)
        sight = yield from party.watch.looking()
        if sight.down:
            try:
                extended, new = yield StoreCall(lambda: site.sessions.extend(found))
            except StoreUnavailable as error:
                return site.store_unavailable(arrival, error)
            if new:
                emit(
                    SessionExtended(
                        at=site.clock.wall(),
                        authority=party.watch.authority,
                        subject=fingerprint(f"{session.who.issuer} {session.who.subject}"),
                        seconds=extended.extended - site.clock.wall(),
                    )
                )
            return Visit(extended, User.of(extended, extended=True))
        if session.extended is not None and not arrival.is_page:
            # What is sent or fetched isn't lost: it is the next page that leads to the provider.
            return Visit(session, User.of(session, extended=True))
        if sight.retry_after or not arrival.is_page:
            return (yield from self._invite(arrival, wanted))
        begun = self._signing_in.begin(arrival, party, site.here(arrival), silent=True, known=session)
        return (yield from begun)

    def _renewed(self, found: Found) -> Steps[Visit]:
        """Note that a request has come, and give the browser another id where it is time; seldom a write."""
        site, sessions, cookies = self._site, self._site.sessions, tuple[Cookie, ...]()
        session = found.session
        if sessions.is_due(found):
            with suppress(StoreUnavailable):
                session, cookie = yield StoreCall(lambda: sessions.renew(found))
                cookies = () if cookie is None else (Cookie(site.session_cookie, cookie),)
        return Visit(session, User.of(session, extended=False), cookies)

    def _lacking(self, arrival: Arrival, visit: Visit, wanted: Wanted) -> Steps[Answer | None]:
        """Return what is answered where a view wants more than there is; None where it doesn't."""
        site, session = self._site, visit.session
        party = site.party_of(session.who.provider)
        if visit.user.is_guest and wanted.required and not wanted.guests:
            return (yield from self._invite(arrival, wanted, session))
        if wanted.acrs is not None and wanted.acrs not in acrs_of(session.who.claims):
            if not arrival.is_page:
                return self._unauthorized(arrival)
            begun = self._signing_in.begin(arrival, party, site.here(arrival), acrs=wanted.acrs, known=session)
            return (yield from begun)
        return None

    def _invite(self, arrival: Arrival, wanted: Wanted, known: Session | None = None) -> Steps[Answer]:
        """Answer who isn't signed in: a page leads to the provider, anything else says so."""
        site = self._site
        if arrival.is_page:
            silent = site.options.silent_first
            begun = self._signing_in.begin(
                arrival, site.primary, site.here(arrival), silent=silent, known=known, guests=wanted.guests
            )
            return (yield from begun)
        sight = yield from site.primary.watch.looking()
        if sight.retry_after:
            return site.unavailable(arrival, site.primary, sight.retry_after, f"{site.prefix}/")
        return self._unauthorized(arrival)

    def _unauthorized(self, arrival: Arrival) -> Answer:
        site = self._site
        home = f"{site.prefix}/"
        return site.show(
            arrival,
            Page(
                kind="sign_in_needed",
                status=401,
                title="Please sign in",
                text="You aren't signed in any more, so this wasn't done. Please sign in, and do it again.",
                code="sign_in_needed",
                choices=(Choice("sign_in", "Sign in", site.sign_in_path(home)),),
            ),
        )
