"""Sign-in for Flask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import httpx
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from ..._engine.steps import run
from ...downstream import api_client
from ...settings import Settings
from ...signin.admission import Wanted
from ...signin.engine import SignInEngine
from ...signin.messages import Answer, Arrival, Route
from ...signin.options import SignInOptions
from ...signin.providers import IdentityProvider
from ...signin.user import SignInNeeded, User, Visit
from ...store import Store
from ...verify.http import Decorator, gravest
from .arrivals import LARGEST_BODY, Serving, arrival_of, decorating, headers_beside, path_of, set_cookie

__all__ = ["SignIn", "add_route"]

_V = TypeVar("_V", bound=Callable[..., Any])


class SignIn:
    """Sign users in, and keep them signed in through an outage of the provider (G13).

    Args:
        app: The application; or give it to `init_app` later.
        providers: Whom users sign in with: one, or several of which the others are offered while the first is down.
        base_url: The application's own https address, with the path below which it is mounted.
        store: Where sessions and tokens are kept, sealed: `FileStore` for one machine, `RedisStore` for several.
        options: The bounds of sessions, and what a visitor may do while nobody can sign in.
        settings: Of the provider's wire: time-outs, breakers.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        app: Flask | None,
        providers: IdentityProvider | Sequence[IdentityProvider],
        *,
        base_url: str,
        store: Store,
        options: SignInOptions | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.engine = SignInEngine(providers, base_url=base_url, store=store, options=options, settings=settings)
        self._optional = self.engine.wanted(required=False)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the routes of sign-in to an application.

        Args:
            app: The application.
        """
        for route in self.engine.routes:
            add_route(app, route)
        app.after_request(self._protected)

    @overload
    def login_required(self, view: _V, /) -> _V: ...
    @overload
    def login_required(
        self, *, scopes: Sequence[str] = (), acrs: str | None = None, guests: bool = False
    ) -> Decorator: ...
    def login_required(
        self,
        view: Callable[..., Any] | None = None,
        *,
        scopes: Sequence[str] = (),
        acrs: str | None = None,
        guests: bool = False,
    ) -> Any:
        """Let only signed-in users into a view. Put it below the route's decorator.

        Args:
            view: The view, where no option is given.
            scopes: Scopes for which `token` gets tokens there, of the provider's set.
            acrs: An authentication context that the user must have met, such as `c1` (Entra): else they are asked to.
            guests: Let guests in too, where the options allow any.

        Returns:
            A decorator, or the guarded view.

        Raises:
            ConfigurationError: What is wanted can't be had.
        """
        wanted = self.engine.wanted(scopes, acrs, guests=guests)

        def decorate(view: Any) -> Any:
            @functools.wraps(view)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                arrival = _arrival()
                visit = self._admit(arrival, wanted)
                if not isinstance(visit, Visit):
                    return _response(visit)
                try:
                    return current_app.ensure_sync(view)(*args, **kwargs)
                except (SignInNeeded, ExceptionGroup) as error:
                    met = gravest(error)
                    if not isinstance(met, SignInNeeded):
                        raise
                    return _response(run(self.engine.again(arrival, visit, met)))

            return guarded

        return decorating(decorate, view)

    @property
    def user(self) -> User | None:
        """Return who is signed in; None for nobody."""
        visit = self._visit()
        return None if visit is None else visit.user

    def token(self, scopes: Sequence[str] | None = None, *, claims: str | None = None) -> str:
        """Return an access token of the user's, held or refreshed; it outlives an outage as all of the package's.

        Args:
            scopes: What for; of the provider's set. Those that the view was guarded with, when not given.
            claims: The claims challenge of an API that has refused the last one (G17).

        Raises:
            SignInNeeded: The user must sign in again; left alone, it leads them there.
            ProviderUnavailable: There is none, and none can be had now.
            TokenDenied: The provider refuses the application the token.
        """
        return run(self.engine.getting(self._visit(), scopes, claims))

    def api_client(self, base_url: str, scopes: Sequence[str], **options: Any) -> httpx.Client:
        """Make an httpx client for an API that is called for whoever is signed in. Make one, and keep it.

        Args:
            base_url: The API's.
            scopes: What for; of the provider's set.
            options: As for `resilient_auth.api_client`.

        Returns:
            A client whose requests carry the current user's token.
        """
        asked = self.engine.tokens.check(scopes)
        return api_client(
            base_url,
            lambda claims=None: self.token(asked, claims=claims),
            subject=lambda: self.engine.subject_of(self._visit()),
            **options,
        )

    def close(self) -> None:
        """Let go of tokens, timers and connections; the store is its owner's to close."""
        self.engine.close()

    def _visit(self) -> Visit | None:
        serving = self._serving()
        if not serving.looked:
            self._admit(_arrival(), self._optional)
        return serving.visit

    def _serving(self) -> Serving:
        # Not in `g`, which is the application context's: where one was pushed before, that is all requests' together.
        serving: Serving = request.environ.setdefault(f"resilient_auth.serving.{id(self)}", Serving())
        return serving

    def _admit(self, arrival: Arrival, wanted: Wanted) -> Visit | Answer | None:
        visit = run(self.engine.admitting(arrival, wanted))
        self._serving().admitted(visit if isinstance(visit, Visit) else None)
        return visit

    def _protected(self, response: Response) -> Response:
        """Keep pages with users out of caches and frames, and give the browser what it is to keep."""
        serving, headers = self._serving(), response.headers
        cookies = run(self.engine.outgoing(serving.cookies(headers.getlist("Set-Cookie"))))
        if serving.visit is not None or cookies:
            for name, value in headers_beside(lambda name: ", ".join(headers.getlist(name)), cookies=bool(cookies)):
                headers[name] = value
        for cookie in cookies:
            headers.add("Set-Cookie", set_cookie(cookie))
        return response


def add_route(app: Flask, route: Route) -> None:
    """Have an application answer a route."""

    def view() -> Response:
        return _response(run(route.handle(_arrival(body=True))))

    name = f"resilient_auth_{route.name}"
    app.add_url_rule(route.path, name, view, methods=[*route.methods], strict_slashes=True)


def _arrival(*, body: bool = False) -> Arrival:
    content = b""
    if body and request.method == "POST":
        request.max_content_length = LARGEST_BODY
        try:
            content = request.get_data()
        except HTTPException:  # too large, or cut off: as good as empty
            content = b""
    query = request.query_string.decode("latin-1")
    path = path_of(request.script_root + request.path, query)
    cookies, headers = request.cookies.to_dict(), request.headers
    return arrival_of(request.method, path, query, cookies, lambda name: headers.get(name, ""), content)


def _response(answer: Answer | None) -> Response:
    answer = answer or Answer(401)
    response = Response(answer.body, answer.status, list(answer.headers))
    for cookie in answer.cookies:
        response.headers.add("Set-Cookie", set_cookie(cookie))
    return response
