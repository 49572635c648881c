"""How a user signs in: to the provider and back (OpenID Connect Core, section 3.1; PKCE, RFC 7636).

begin ── provider down ──▶ 503, and the owner's other ways to sign in
  └─ well ──▶ cookie with state, nonce and verifier ──▶ provider ──▶ callback ──▶ ID token verified ──▶ session
                                                         └ prompt=none, and it wants to ask ──▶ begin, with pages
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from .._engine.steps import Steps
from .._engine.threads import OnThread
from ..errors import ProviderUnavailable, ResilientAuthError, StoreUnavailable
from ..events import UserSignedIn, emit
from ..token import fingerprint
from ..verify import InvalidToken
from .messages import LONGEST_PARAMETER, MOST_PARAMETERS, Answer, Arrival, Cookie, leading_to
from .providers import Party, Use
from .providers.redeeming import REQUEST_ERRORS, acrs_of, redeemed_by, who_is
from .sessions.calls import StoreCall
from .sessions.record import Session, Who, parsed_cookie
from .site import Site

__all__ = ["SigningIn"]

#: What a provider says when it would have to show a page (OpenID Connect Core, section 3.1.2.6).
_WANTS_A_PAGE: Final = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)
_FAILURES: Final = frozenset({"temporarily_unavailable", "server_error"})
#: B2C's: the user has forgotten the password; the user has cancelled.
_FORGOTTEN, _CANCELLED = "AADB2C90118", "AADB2C90091"
#: Of what a provider sends back, MSAL is given this, and no more.
_GIVEN_ON: Final = ("code", "state", "client_info", "session_state")


class SigningIn:
    """Lead users to a provider and take them in again."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def begin(
        self,
        arrival: Arrival,
        party: Party,
        next_path: str,
        *,
        use: Use = "sign_in",
        claims: str | None = None,
        acrs: str | None = None,
        silent: bool = False,
        known: Session | None = None,
        replaces: str | None = None,
        guests: bool = False,
    ) -> Steps[Answer]:
        """Lead a user to a provider, unless that is down.

        Args:
            arrival: The request.
            party: The provider.
            next_path: Where the user goes then: a path of ours.
            use: What for.
            claims: A claims challenge that the sign-in is to meet.
            acrs: An authentication context that it is to meet (Entra).
            silent: Whether the provider may show no page.
            known: Whose session it follows.
            replaces: That session's id, where it can't be read.
            guests: Whether guests may go there, too.
        """
        site = self._site
        sight = yield from party.watch.looking()
        if sight.retry_after:
            return site.unavailable(arrival, party, sight.retry_after, next_path, guests=guests)
        if use not in party.apps:
            return site.refused(arrival, "unsupported", "There is no such page.", status=404, party=party)
        options: dict[str, Any] = {
            "claims_challenge": _acrs_challenge(acrs) if claims is None and acrs else claims,
            "login_hint": known.who.username or None if known is not None else None,
            "prompt": "none" if silent else None,
        }
        body = {
            "provider": party.provider.name,
            "use": use,
            "next": next_path,
            "silent": silent,
            "acrs": acrs,
            "claims": claims,
            "replaces": replaces if known is None else known.id,
        }

        def start() -> tuple[str, tuple[Cookie, ...] | None]:
            flow = party.apps[use].initiate_auth_code_flow(
                list(party.provider.scopes),
                redirect_uri=site.redirect_uri,
                response_mode=party.provider.response_mode,
                **options,
            )
            address = str(flow.pop("auth_uri"))
            return address, site.flows.begin(arrival, str(flow["state"]), {**body, "flow": flow})

        try:
            address, cookies = yield OnThread(start)
        except ProviderUnavailable as error:
            return site.unavailable(arrival, party, error.retry_after, next_path, guests=guests)
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        if cookies is None:
            if next_path != f"{site.prefix}/":
                shorter = self.begin(
                    arrival,
                    party,
                    f"{site.prefix}/",
                    use=use,
                    claims=claims,
                    acrs=acrs,
                    silent=silent,
                    known=known,
                    replaces=replaces,
                )
                return (yield from shorter)
            return site.refused(arrival, "too_large", "This sign-in asks for too much.", party=party)
        return leading_to(address, *cookies)

    def sign_in(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the route at which users begin to sign in."""
        site = self._site
        wanted = arrival.only("use")
        use: Use = "edit" if wanted == "edit" else "reset" if wanted == "reset" else "sign_in"
        known = yield from self._known(arrival)
        return (
            yield from self.begin(
                arrival,
                site.party_of(arrival.only("provider")),
                site.next_of(arrival),
                use=use,
                silent=site.options.silent_first and use == "sign_in",
                known=known,
            )
        )

    def callback(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the route that providers send users back to."""
        site = self._site
        parameters = arrival.parameters
        fits = len(parameters) <= MOST_PARAMETERS and all(len(value) <= LONGEST_PARAMETER for _, value in parameters)
        state = arrival.only("state")
        if not fits or not state or len(state) > 256:
            return site.refused(arrival, "malformed", _AGAIN)
        label: str = state
        try:
            begun, drop = yield StoreCall(lambda: site.flows.open(arrival, label))
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        # What else was begun here, a one-time code for example, is no sign-in with a provider.
        wanted = "" if begun is None else str(begun.get("flow", {}).get("state", ""))
        if begun is None or not hmac.compare_digest(wanted.encode(), label.encode()):
            answer = site.refused(arrival, "unknown_state", _AGAIN)
            return answer if drop is None else answer.with_cookies(drop)
        answer = yield from self._finish(arrival, begun)
        # Last, since one more sign-in may have set others: this one is over, however it went.
        return answer if drop is None else answer.with_cookies(drop)

    def _finish(self, arrival: Arrival, begun: Mapping[str, Any]) -> Steps[Answer]:
        site, next_path = self._site, str(begun["next"])
        party = site.party_of(begun["provider"])
        use: Use = begun["use"]
        if party.provider.name != begun["provider"] or use not in party.apps:
            return site.refused(arrival, "unknown_state", _AGAIN, next_path=next_path)
        issuer = arrival.only("iss")
        if issuer is not None and not party.verifier._core.trusts(issuer):  # type: ignore[attr-defined]
            # An answer of another provider's, whose code this one mustn't see (RFC 9207, section 2.4).
            return site.refused(arrival, "issuer", _AGAIN, next_path=next_path, party=party)
        if any(key == "error" for key, _ in arrival.parameters):
            return (yield from self._failed(arrival, party, begun))
        given = {name: value for name in _GIVEN_ON if (value := arrival.only(name)) is not None}
        if not given.get("code"):
            return site.refused(arrival, "malformed", _AGAIN, next_path=next_path, party=party)
        try:
            redeemed = yield OnThread(lambda: redeemed_by(party, use, begun["flow"], given))
        except ProviderUnavailable as error:
            return site.unavailable(arrival, party, error.retry_after, next_path)
        except InvalidToken as error:
            return site.refused(arrival, error.code, _AGAIN, next_path=next_path, party=party)
        except (ValueError, RuntimeError) as error:
            # MSAL's: another state or nonce than it began with.
            if isinstance(error, ResilientAuthError):
                raise
            return site.refused(arrival, "nonce", _AGAIN, next_path=next_path, party=party)
        if isinstance(redeemed, str):
            return site.refused(arrival, redeemed, _DENIED, status=403, next_path=next_path, party=party)
        claims, account = redeemed
        if issuer is not None and issuer != claims.issuer:
            # Of several that are trusted, another one's: a tenant's, for example.
            return site.refused(arrival, "issuer", _AGAIN, next_path=next_path, party=party)
        if begun["acrs"] and begun["acrs"] not in acrs_of(claims.raw):
            return site.refused(arrival, "insufficient_claims", _DENIED, status=403, next_path=next_path, party=party)
        who = who_is(party.provider.name, claims, account)
        return (yield from self.admit(arrival, who, next_path, party, replaces=begun["replaces"], use=use))

    def admit(
        self,
        arrival: Arrival,
        who: Who,
        next_path: str,
        party: Party,
        *,
        replaces: str | None = None,
        use: Use = "sign_in",
    ) -> Steps[Answer]:
        """Begin a session for who has just signed in, in place of the browser's former one, and lead them on."""
        site, begun, abandoned = self._site, list[str](), threading.Event()

        def begin() -> str:
            mine, user = parsed_cookie(arrival.cookies.get(site.session_cookie, "")), who
            former = {name for name in (replaces, None if mine is None else mine[0]) if name}
            if use == "edit" and replaces is not None:
                before = site.sessions.get(replaces)
                same = before is not None and before.who.provider == who.provider
                if before is not None and same and before.who.subject == who.subject:
                    # Tokens are the sign-in policy's; a profile was changed, and nothing else.
                    user = replace(who, account=before.who.account)
            # Another session and another id: one that somebody planted before is worth nothing.
            session, cookie = site.sessions.create(user)
            begun.append(session.id)
            for name in [session.id] if abandoned.is_set() else former - {session.id}:
                with suppress(StoreUnavailable):
                    site.sessions.end(name)
            return cookie

        try:
            cookie = yield StoreCall(begin)
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        except BaseException:
            # Whoever waited was cancelled: nobody is told the id, and the session isn't left behind.
            abandoned.set()
            for name in begun:
                site.sessions.end_soon(name)
            raise
        emit(
            UserSignedIn(
                at=site.clock.wall(),
                authority=party.watch.authority,
                provider=who.provider,
                subject=fingerprint(f"{who.issuer} {who.subject}"),
            )
        )
        return leading_to(next_path, Cookie(site.session_cookie, cookie))

    def _failed(self, arrival: Arrival, party: Party, begun: Mapping[str, Any]) -> Steps[Answer]:
        """Answer what a provider has sent in place of a code; any visitor can write what they like there."""
        site, next_path = self._site, str(begun["next"])
        error = arrival.only("error") or ""
        told = arrival.only("error_description") or ""
        replaces = begun["replaces"]
        if begun["silent"] and error in _WANTS_A_PAGE:
            known = yield from self._known(arrival, replaces)
            return (
                yield from self.begin(
                    arrival,
                    party,
                    next_path,
                    use=begun["use"],
                    claims=begun["claims"],
                    acrs=begun["acrs"],
                    known=known,
                    replaces=replaces,
                )
            )
        if _FORGOTTEN in told and "reset" in party.apps:
            return (yield from self.begin(arrival, party, next_path, use="reset", replaces=replaces))
        if error in _FAILURES:
            return site.unavailable(arrival, party, None, next_path)
        if error == "access_denied":
            if _CANCELLED in told and begun["use"] != "sign_in":
                return leading_to(next_path)
            text = "You have cancelled the sign-in."
            return site.refused(arrival, "access_denied", text, status=401, next_path=next_path, party=party)
        code = error if error in _WANTS_A_PAGE or error in REQUEST_ERRORS else "provider_denied"
        return site.refused(arrival, code, _DENIED, status=403, next_path=next_path, party=party, detail=error[:60])

    def _known(self, arrival: Arrival, session_id: str | None = None) -> Steps[Session | None]:
        """Return the browser's session, whose user is likely to sign in again.

        Args:
            arrival: The request.
            session_id: Its name, where that is known: a provider's form is another site's, and brings no cookie of it.
        """
        sessions, cookie = self._site.sessions, arrival.cookies.get(self._site.session_cookie)
        try:
            if session_id is not None:
                named: Session | None = yield StoreCall(lambda: sessions.get(session_id))
                return named
            found = (yield StoreCall(lambda: sessions.find(cookie))) if cookie else None
        except StoreUnavailable:
            return None
        return None if found is None else found.session


_AGAIN: Final = "This sign-in took too long, was used before, or began in another browser. Please sign in again."
_DENIED: Final = "The provider didn't let you in. Please try again, or ask whoever looks after your account."


def _acrs_challenge(acrs: str) -> str:
    """Return the claims challenge for an authentication context (Entra)."""
    return json.dumps({"id_token": {"acrs": {"essential": True, "value": acrs}}})
