"""Sign-in for Django."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, overload

import httpx
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import FileResponse, HttpRequest, HttpResponse, RawPostDataException
from django.urls import path as route_at

from ..._engine.steps import Invoke, Steps, run, run_async
from ..._policy.checks import require
from ...aio import api_client as async_api_client
from ...downstream import api_client
from ...settings import Settings
from ...signin.admission import Wanted
from ...signin.engine import SignInEngine
from ...signin.messages import Answer, Arrival, Cookie, Route
from ...signin.options import SignInOptions
from ...signin.providers import IdentityProvider
from ...signin.user import SignInNeeded, User, Visit
from ...store import Store
from ...verify.http import Decorator, gravest
from .arrivals import LARGEST_BODY, arrival_of, decorating, headers_beside

__all__ = ["SignIn", "made"]

_V = TypeVar("_V", bound=Callable[..., Any])


class SignIn:
    """Sign users in, and keep them signed in through an outage of the provider (G13).

    Make one in a module of the project's, and add its `urlpatterns` to those of the project's own.

    Args:
        urlpatterns: The project's list of URL patterns, to which the routes are added; or None, and add
            `auth.urlpatterns` yourself.
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
        urlpatterns: list[Any] | None,
        providers: IdentityProvider | Sequence[IdentityProvider],
        *,
        base_url: str,
        store: Store,
        options: SignInOptions | None = None,
        settings: Settings | None = None,
    ) -> None:
        require(
            urlpatterns is None or isinstance(urlpatterns, list),
            f"give the list urlpatterns of urls.py, or None, not {type(urlpatterns).__name__}",
        )
        self.engine = SignInEngine(providers, base_url=base_url, store=store, options=options, settings=settings)
        #: Who the request is of that is being served here.
        self._current: ContextVar[Visit | None] = ContextVar("resilient_auth_visit", default=None)
        self.urlpatterns = [made(route) for route in self.engine.routes]
        if urlpatterns is not None:
            # Before a pattern that takes every path.
            urlpatterns[:0] = self.urlpatterns

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
        """Let only signed-in users into a view, whether it blocks or is awaited.

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
        return decorating(self._guarding(self.engine.wanted(scopes, acrs, guests=guests)), view)

    def login_optional(self, view: _V) -> _V:
        """Let everybody into a view, in which `user` is who is signed in, or None.

        Args:
            view: The view.

        Returns:
            The view.
        """
        return self._guarding(self.engine.wanted(required=False))(view)

    @property
    def user(self) -> User | None:
        """Return who is signed in, in a view with one of the decorators and in what it streams; None for nobody."""
        visit = self._current.get()
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
        return run(self.engine.getting(self._current.get(), scopes, claims))

    async def atoken(self, scopes: Sequence[str] | None = None, *, claims: str | None = None) -> str:
        """Return an access token of the user's, to be awaited; see `token`."""
        return await run_async(self.engine.getting(self._current.get(), scopes, claims))

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
            base_url, lambda claims=None: self.token(asked, claims=claims), subject=self._subject, **options
        )

    def async_api_client(self, base_url: str, scopes: Sequence[str], **options: Any) -> httpx.AsyncClient:
        """Make an asyncio httpx client for an API that is called for whoever is signed in; see `api_client`."""
        asked = self.engine.tokens.check(scopes)

        async def token(claims: str | None = None) -> str:
            return await self.atoken(asked, claims=claims)

        return async_api_client(base_url, token, subject=self._subject, **options)

    def close(self) -> None:
        """Let go of tokens, timers and connections; the store is its owner's to close."""
        self.engine.close()

    def _subject(self) -> str:
        return self.engine.subject_of(self._current.get())

    def _guarding(self, wanted: Wanted) -> Decorator:
        def decorate(view: Any) -> Any:
            if iscoroutinefunction(view):

                @functools.wraps(view)
                async def awaited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                    return await run_async(self._served(request, wanted, partial(view, request, *args, **kwargs)))

                return awaited

            @functools.wraps(view)
            def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return run(self._served(request, wanted, partial(view, request, *args, **kwargs)))

            return guarded

        return decorate

    def _served(self, request: HttpRequest, wanted: Wanted, view: Callable[[], Any]) -> Steps[Any]:
        """Answer a request of a guarded view's, which blocks or is awaited as the driver does."""
        arrival = _arrival(request)
        visit = yield from self.engine.admitting(arrival, wanted)
        if isinstance(visit, Answer):
            return _response(visit)
        with self._serving(visit):
            try:
                response = self._streamed((yield Invoke(view)), visit)
                cookies = yield from self.engine.outgoing(() if visit is None else visit.cookies)
                return response if visit is None else _protected(response, cookies)
            except (SignInNeeded, ExceptionGroup) as error:
                met = gravest(error)
                if visit is None or not isinstance(met, SignInNeeded):
                    raise
                return _response((yield from self.engine.again(arrival, visit, met)))

    def _streamed(self, response: Any, visit: Visit | None) -> Any:
        """Have it known whose request it is while a body is streamed, after the view has returned."""
        if getattr(response, "streaming", False) and not isinstance(response, FileResponse):
            carried = self._awaited_parts if response.is_async else self._parts
            response.streaming_content = carried(response.streaming_content, visit)
        return response

    def _parts(self, content: Iterable[bytes], visit: Visit | None) -> Iterator[bytes]:
        parts = iter(content)
        while True:
            with self._serving(visit):
                part = next(parts, None)
            if part is None:
                return
            yield part

    async def _awaited_parts(self, content: AsyncIterable[bytes], visit: Visit | None) -> AsyncIterator[bytes]:
        parts = aiter(content)
        while True:
            with self._serving(visit):
                part = await anext(parts, None)
            if part is None:
                return
            yield part

    @contextmanager
    def _serving(self, visit: Visit | None) -> Iterator[None]:
        before = self._current.set(visit)
        try:
            yield
        finally:
            self._current.reset(before)


def made(route: Route) -> Any:
    """Return a route as Django has it."""

    def view(request: HttpRequest) -> HttpResponse:
        if request.method not in route.methods:
            return HttpResponse(status=405, headers={"Allow": ", ".join(route.methods)})
        return _response(run(route.handle(_arrival(request, body=True))))

    # Django's own token can't be in a provider's form, and no program sends one: sign-in binds the form to the browser
    # by a cookie of its own, and what a program sends is signed.
    view.csrf_exempt = True  # type: ignore[attr-defined]
    return route_at(route.path[1:], view, name=f"resilient_auth_{route.name}")


def _arrival(request: HttpRequest, *, body: bool = False) -> Arrival:
    content = b""
    if body and request.method == "POST":
        try:
            length = int(request.headers.get("Content-Length") or 0)
            content = request.body if length <= LARGEST_BODY else b""
        except (ValueError, RequestDataTooBig, RawPostDataException, SuspiciousOperation, OSError):
            content = b""  # too large, cut off, or read as a form of files before: as good as empty
    path, query = request.get_full_path(), request.META.get("QUERY_STRING", "")
    headers = request.headers
    return arrival_of(
        request.method or "GET", path, query, request.COOKIES, lambda name: headers.get(name, ""), content
    )


def _response(answer: Answer) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status)
    del response["Content-Type"]
    for name, value in answer.headers:
        response[name] = value
    return _with(response, answer.cookies)


def _protected(response: Any, cookies: tuple[Cookie, ...]) -> Any:
    """Keep pages with users out of caches and frames, and give the browser what it is to keep."""
    for name, value in headers_beside(response.get, cookies=bool(cookies)):
        response[name] = value
    return _with(response, cookies)


def _with(response: Any, cookies: tuple[Cookie, ...]) -> Any:
    for cookie in cookies:
        response.set_cookie(
            cookie.name, cookie.value, max_age=cookie.max_age, secure=True, httponly=True, samesite=cookie.same_site
        )
    return response
