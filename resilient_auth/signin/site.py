"""What an application's sign-in is made of, and the pages that all of its parts show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urlsplit

from .._policy.checks import require, require_store
from .._policy.endpoint import origin_of
from .._process import session_ends
from .._process.session_ends import SessionEnds
from ..errors import StoreUnavailable
from ..events import SignInRefused, SignInUnavailable, emit
from ..settings import Settings
from ..store import Store
from ..verify.trust import is_https
from .codes import CodeBook
from .flows import Flows
from .messages import Answer, Arrival
from .options import SIGN_IN, SignInOptions
from .pages import Choice, Field, Page, answer_of, whole
from .paths import below, own_path
from .providers import IdentityProvider, Party
from .sessions.sessions import Sessions

__all__ = ["Site", "settings_for"]

#: It has browsers refuse such a cookie from anywhere but this very host, over TLS, for all of its paths.
_HOST_ONLY: Final = "__Host-"


def settings_for(settings: Settings | None, store: Store) -> Settings:
    """Return an application's settings: somebody sits before the page, so waits are shorter than a daemon's."""
    if settings is None:
        return Settings(store=store, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0)
    require(
        settings.store in (None, store),
        "the settings have another store: leave it out, since tokens go where sessions do",
    )
    return settings.but(store=store)


class Site:
    """Hold what sign-in decides by.

    Args:
        providers: Whom users sign in with: the first one, and others while that is down.
        base_url: The application's own address, with the path below which it is mounted.
        store: Where sessions, tokens and keys are.
        options: The owner's.
        settings: The MSAL applications' and the verifiers'.
    """

    def __init__(
        self,
        providers: IdentityProvider | Sequence[IdentityProvider],
        *,
        base_url: str,
        store: Store,
        options: SignInOptions | None = None,
        settings: Settings | None = None,
    ) -> None:
        given = (providers,) if isinstance(providers, IdentityProvider) else tuple(providers)
        require(
            bool(given) and all(isinstance(one, IdentityProvider) for one in given),
            "give an IdentityProvider, such as IdentityProvider.for_entra(...), or several",
        )
        require(len({one.name for one in given}) == len(given), "give each provider a name of its own: name=...")
        require(is_https(base_url), f"base_url must be the application's own https address, not {base_url!r}")
        require_store(store)
        parts = urlsplit(base_url)
        require(not parts.query, f"base_url must have no query: {base_url!r}")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.prefix = parts.path.rstrip("/")
        #: As browsers write it, whichever way the owner has.
        self._shown_origin = origin_of(base_url)
        self.options = options or SignInOptions()
        # Such cookies know neither ports nor paths: applications of one host must not take each other's.
        port = f":{parts.port}" if parts.port not in (None, 443) else ""
        mark = f".{sha256(f'{port}{self.prefix}'.encode()).hexdigest()[:8]}" if port or self.prefix else ""
        named = self.options.cookie_name
        self.session_cookie = f"{_HOST_ONLY}{named or f'session{mark}'}"
        flow_cookies = f"{_HOST_ONLY}{SIGN_IN}_{named}." if named else f"{_HOST_ONLY}{SIGN_IN}{mark}-"
        #: Tells it from others that share its store: by the address, and where they share that too, by the cookies.
        self.application = f"{self.origin}{self.prefix}" + (f" {named}" if named else "")
        self.settings = settings_for(settings, store)
        self.clock = self.settings.clock
        self.store = store
        self.sessions = Sessions(store, self.options.sessions, clock=self.clock, application=self.application)
        self.flows = Flows(
            store,
            self.application,
            self.clock,
            life=self.options.flow_life,
            most=self.options.flows_per_browser,
            prefix=flow_cookies,
        )
        codes = self.options.codes
        self.codes = None if codes is None else CodeBook(codes, store, self.clock, application=self.application)
        self.parties = {provider.name: Party(provider, self.settings) for provider in given}
        self.primary = next(iter(self.parties.values()))
        session_ends.reporters.add(self)

    @property
    def redirect_uri(self) -> str:
        """Return where providers send users back to."""
        return f"{self.origin}{self.prefix}{self.options.callback_path}"

    def party_of(self, provider: str | None) -> Party:
        """Return a provider by its name; the first one for none, or one that isn't there any more."""
        return self.parties.get(provider or "", self.primary)

    def sign_in_path(self, next_path: str, below: str = "", **parameters: str) -> str:
        """Return the address at which a user begins to sign in, and is led to a path of ours afterwards."""
        query = urlencode({**parameters, "next": next_path})
        return f"{self.prefix}{self.options.sign_in_path}{below}?{query}"

    def next_of(self, arrival: Arrival) -> str:
        """Return where a user wants to go, if that is here; never to a page of sign-in itself."""
        home = f"{self.prefix}/"
        path = own_path(arrival.only("next"), home, self.prefix)
        options = self.options
        paths = (options.sign_in_path, options.callback_path, options.sign_out.path)
        return home if any(below(path, f"{self.prefix}{one}") for one in paths) else path

    def here(self, arrival: Arrival) -> str:
        """Return where a request was made, as a browser asks for it again; the home page where that can't be led to."""
        path, home = arrival.path, f"{self.prefix}/"
        # A proxy may have taken away the path below which it has the application.
        return own_path(path if below(path, self.prefix) else f"{self.prefix}{path}", home, self.prefix)

    def is_own(self, arrival: Arrival) -> bool:
        """Return whether a form was sent from a page of this application's, as browsers say it."""
        where = arrival.header("sec-fetch-site")
        if where:
            return where == "same-origin"
        return arrival.header("origin") == self._shown_origin

    def show(self, arrival: Arrival, page: Page) -> Answer:
        """Return a page as an answer, in the owner's words where there are."""
        return answer_of(arrival, replace(page, languages=arrival.header("accept-language")), self.options.render)

    def unavailable(
        self, arrival: Arrival, party: Party, seconds: float | None, next_path: str, *, guests: bool = False
    ) -> Answer:
        """Say that nobody can sign in with a provider now, when to try again, and what else there is.

        Args:
            arrival: The request.
            party: The provider.
            seconds: When to try again, where that is known.
            next_path: Where the user wants to go.
            guests: Whether guests may go there; else they begin at the home page.
        """
        wait = whole(seconds)
        emit(SignInUnavailable(at=self.clock.wall(), authority=party.watch.authority, retry_after=float(wait)))
        choices = [Choice("retry", "Try again", self.sign_in_path(next_path, provider=party.provider.name))]
        for name, other in self.parties.items():
            if other is not party:
                label = f"Sign in with {other.provider.label}"
                choices.append(Choice("other_provider", label, self.sign_in_path(next_path, provider=name)))
        # The others are for when the first one can't be reached; who has chosen one of those is told of them again.
        if self.codes is not None:
            choices.append(Choice("code", "Sign in with a one-time code", self.sign_in_path(next_path, "/code")))
        if self.options.guests:
            fields = (Field("next", value=next_path if guests else f"{self.prefix}/"),)
            action = f"{self.prefix}{self.options.sign_in_path}/guest"
            choices.append(Choice("guest", "Continue as a guest", action, fields))
        return self.show(
            arrival,
            Page(
                kind="unavailable",
                status=503,
                title="Signing in doesn't work right now",
                text="The service that signs you in can't be reached. It isn't your fault, and nothing is wrong with "
                f"your account. Please try again in {_span(wait)}.",
                code="provider_unavailable",
                retry_after=wait,
                choices=tuple(choices),
            ),
        )

    def store_unavailable(self, arrival: Arrival, error: StoreUnavailable) -> Answer:
        """Say that it can't be told right now who is signed in; nobody is signed out by that."""
        full = error.reason == "full"
        wait = whole(60.0 if full else error.retry_after or 5.0)
        text = "Too many people are signed in." if full else "We can't look up who is signed in."
        return self.show(
            arrival,
            Page(
                kind="store_unavailable",
                status=503,
                title="Please wait a moment",
                text=f"{text} You haven't been signed out. Please try again in {_span(wait)}.",
                code="store_unavailable",
                retry_after=wait,
                choices=(Choice("retry", "Try again", self._again(arrival)),),
            ),
        )

    def refused(
        self,
        arrival: Arrival,
        code: str,
        text: str,
        *,
        status: int = 400,
        next_path: str | None = None,
        party: Party | None = None,
        detail: str = "",
    ) -> Answer:
        """Say that a sign-in was refused, and how to begin another one."""
        authority = "" if party is None else party.watch.authority
        emit(SignInRefused(at=self.clock.wall(), authority=authority, code=code, detail=detail))
        again = self.sign_in_path(next_path or f"{self.prefix}/")
        return self.show(
            arrival,
            Page(
                kind="cancelled" if code == "access_denied" else "forbidden" if status == 403 else "refused",
                status=status,
                title="You aren't signed in" if status != 403 else "That isn't allowed",
                text=text,
                code=code,
                choices=(Choice("sign_in", "Sign in", again), Choice("home", "Home page", f"{self.prefix}/")),
            ),
        )

    def session_ends(self) -> tuple[SessionEnds, ...]:
        """Return when the sessions end in an outage: those that this process has read, and all that the store has."""
        ends: dict[tuple[str, bool], list[float]] = {}
        outlook = self.sessions.outlook
        for in_fleet, dark in ((False, outlook.read()), (True, outlook.stored())):
            for provider, left in dark:
                ends.setdefault((self.party_of(provider).watch.authority, in_fleet), []).append(left)
        return tuple(
            SessionEnds(
                in_fleet=in_fleet,
                authority=authority,
                application=f"{self.origin}{self.prefix}",
                count=len(lefts),
                first=min(lefts),
                last=max(lefts),
                extension=self.sessions.options.extension,
            )
            for (authority, in_fleet), lefts in ends.items()
        )

    def take_stock(self) -> bool:
        """Look into the store of the sessions."""
        self.sessions.outlook.take_stock()
        return True

    def close(self) -> None:
        """Let go of tokens, timers and connections; the store is the owner's."""
        session_ends.reporters.discard(self)
        for party in self.parties.values():
            party.close()

    def _again(self, arrival: Arrival) -> str:
        return self.here(arrival) if arrival.method == "GET" else f"{self.prefix}/"


def _span(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{-(-seconds // 60)} minutes"
