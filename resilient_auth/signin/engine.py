"""All of an application's sign-in in one object, which a framework's face drives."""

from __future__ import annotations

from collections.abc import Sequence

from .._engine.steps import Steps
from .._policy.checks import require
from ..settings import Settings
from ..store import Store
from .admission import Admission, Wanted
from .alternates import Alternates
from .messages import Answer, Arrival, Cookie, Route
from .options import SignInOptions
from .providers import IdentityProvider
from .sign_out.sign_out import SignOut
from .signing_in import SigningIn
from .site import Site
from .tokens import Tokens
from .user import SignInNeeded, Visit

__all__ = ["SignInEngine"]


class SignInEngine:
    """Decide about requests, in steps that a driver carries out; see `SignIn` of each framework for the arguments."""

    def __init__(
        self,
        providers: IdentityProvider | Sequence[IdentityProvider],
        *,
        base_url: str,
        store: Store,
        options: SignInOptions | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.site = Site(providers, base_url=base_url, store=store, options=options, settings=settings)
        self.signing_in = SigningIn(self.site)
        self.tokens = Tokens(self.site)
        self._admission = Admission(self.site, self.signing_in)
        self._alternates = Alternates(self.site, self.signing_in)
        self.sign_out = SignOut(self.site)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the paths that sign-in answers, below what the application is mounted under."""
        options = self.site.options
        at = options.sign_in_path
        found = [
            Route(at, ("GET",), self.signing_in.sign_in, "sign_in"),
            Route(options.callback_path, ("GET", "POST"), self.signing_in.callback, "signed_in"),
        ]
        if options.guests:
            found.append(Route(f"{at}/guest", ("POST",), self._alternates.guest, "sign_in_as_guest"))
        if options.codes is not None:
            found.append(Route(f"{at}/code", ("GET", "POST"), self._alternates.ask, "sign_in_by_code"))
            found.append(Route(f"{at}/code/check", ("POST",), self._alternates.check, "sign_in_code"))
        return (*found, *self.sign_out.routes)

    def wanted(
        self, scopes: Sequence[str] = (), acrs: str | None = None, *, guests: bool = False, required: bool = True
    ) -> Wanted:
        """Return what a view wants, checked when it is defined.

        Raises:
            ConfigurationError: It can't be had.
        """
        require(acrs is None or (isinstance(acrs, str) and bool(acrs)), f"acrs must be a text, not {acrs!r}")
        require(not guests or self.site.options.guests, "guests=True has no effect: allow them in SignInOptions")
        return Wanted(self.tokens.check(scopes), acrs, guests, required)

    def admitting(self, arrival: Arrival, wanted: Wanted) -> Steps[Visit | Answer | None]:
        """Decide about a request; see `Admission`."""
        return self._admission.admitting(arrival, wanted)

    def again(self, arrival: Arrival, visit: Visit, error: SignInNeeded) -> Steps[Answer]:
        """Answer a view that has raised `SignInNeeded`."""
        return self._admission.again(arrival, visit, error)

    def outgoing(self, cookies: Sequence[Cookie]) -> Steps[tuple[Cookie, ...]]:
        """Return those of a visit's cookies that are to be set with its answer."""
        return self._admission.outgoing(cookies)

    def getting(self, visit: Visit | None, scopes: Sequence[str] | None, claims: str | None) -> Steps[str]:
        """Return a token of who is signed in; of the scopes that the view has named, if none are given.

        Raises:
            SignInNeeded: Nobody is signed in, or the provider wants to see them.
            TokenDenied: The provider refuses the application the token.
            ProviderUnavailable: There is none, and none can be had now.
        """
        if visit is None:
            raise SignInNeeded(claims)
        asked = visit.scopes if scopes is None else self.tokens.check(scopes)
        return (yield from self.tokens.getting(visit.session, asked, claims))

    def subject_of(self, visit: Visit | None) -> str:
        """Return what tells users apart for an API's client.

        Raises:
            SignInNeeded: Nobody is signed in: what is nobody's must not be taken for the application's own.
        """
        if visit is None:
            raise SignInNeeded
        return f"{visit.session.who.issuer} {visit.session.who.subject}"

    def close(self) -> None:
        """Let go of tokens, timers and connections; the store is the owner's."""
        self.site.close()
