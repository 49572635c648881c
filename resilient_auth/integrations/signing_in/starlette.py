"""Sign-in for FastAPI and Starlette."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, overload

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from ..._engine.steps import run_async
from ...aio import api_client
from ...settings import Settings
from ...signin.admission import Wanted
from ...signin.engine import SignInEngine
from ...signin.messages import Answer, Arrival, Cookie, Route
from ...signin.options import SignInOptions
from ...signin.providers import IdentityProvider
from ...signin.user import SignInNeeded, User, Visit
from ...store import Store
from ...verify.http import gravest
from .arrivals import LARGEST_BODY, Serving, arrival_of, decorating, headers_beside, path_of, set_cookie

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SignIn", "answer_groups", "made"]

_Endpoint = Callable[..., Awaitable[Any]]


class _Serving(Serving):
    """One request as it is served."""

    def __init__(self, connection: HTTPConnection) -> None:
        super().__init__()
        self.connection = connection
        #: What a dependency has answered: an application that is mounted in this one knows nothing of that.
        self.answer: Answer | None = None


class _Answered(HTTPException):
    """End a dependency with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class SignIn:
    """Sign users in, and keep them signed in through an outage of the provider (G13).

    Args:
        app: The application, FastAPI's or Starlette's; a middleware and the routes of sign-in are added to it.
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
        app: Starlette,
        providers: IdentityProvider | Sequence[IdentityProvider],
        *,
        base_url: str,
        store: Store,
        options: SignInOptions | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.engine = SignInEngine(providers, base_url=base_url, store=store, options=options, settings=settings)
        self._optional = self.engine.wanted(required=False)
        self._serving: ContextVar[_Serving | None] = ContextVar("resilient_auth_serving", default=None)
        app.add_middleware(_Middleware, serving=self._serving, engine=self.engine)
        app.add_exception_handler(_Answered, _answered)
        app.add_exception_handler(SignInNeeded, self._needed)
        answer_groups(app)
        # Before a route that takes every path; they are in no OpenAPI document.
        app.router.routes[:0] = [made(route) for route in self.engine.routes]

    @overload
    def login_required(self, view: Callable[..., Any], /) -> _Endpoint: ...
    @overload
    def login_required(
        self, *, scopes: Sequence[str] = (), acrs: str | None = None, guests: bool = False
    ) -> Callable[[Callable[..., Any]], _Endpoint]: ...
    def login_required(
        self,
        view: Callable[..., Any] | None = None,
        *,
        scopes: Sequence[str] = (),
        acrs: str | None = None,
        guests: bool = False,
    ) -> Any:
        """Let only signed-in users into an endpoint. Put it below the route's decorator.

        Args:
            view: The endpoint, where no option is given.
            scopes: Scopes for which `token` gets tokens there, of the provider's set.
            acrs: An authentication context that the user must have met, such as `c1` (Entra): else they are asked to.
            guests: Let guests in too, where the options allow any.

        Returns:
            A decorator, or the guarded endpoint.

        Raises:
            ConfigurationError: What is wanted can't be had.
        """
        wanted = self.engine.wanted(scopes, acrs, guests=guests)

        def decorate(view: Callable[..., Any]) -> _Endpoint:
            @functools.wraps(view)
            async def guarded(*args: Any, **kwargs: Any) -> Any:
                visit = await self._admit(wanted)
                if isinstance(visit, Answer):
                    return _response(visit)
                try:
                    if inspect.iscoroutinefunction(view):
                        return await view(*args, **kwargs)
                    return await run_in_threadpool(view, *args, **kwargs)
                except (SignInNeeded, ExceptionGroup) as error:
                    met = gravest(error)
                    if not isinstance(met, SignInNeeded):
                        raise
                    return await self._sign_in_again(met)

            return guarded

        return decorating(decorate, view)

    def signed_in(
        self, *, scopes: Sequence[str] = (), acrs: str | None = None, guests: bool = False
    ) -> Callable[[], Any]:
        """Make a dependency of FastAPI's that gives the signed-in user: `Annotated[User, Depends(auth.signed_in())]`.

        Args:
            scopes: As for `login_required`.
            acrs: As for `login_required`.
            guests: As for `login_required`.

        Returns:
            The dependency; who isn't signed in is led to the provider, or told so.
        """
        wanted = self.engine.wanted(scopes, acrs, guests=guests)

        async def dependency() -> User:
            visit = await self._admit(wanted)
            if not isinstance(visit, Visit):
                raise _Answered(self._answering(visit or Answer(401)))
            return visit.user

        return dependency

    async def current_user(self) -> User | None:
        """Return who is signed in, in any endpoint of HTTP; None for nobody.

        Raises:
            RuntimeError: This is no request of the application's: a web socket, say.
        """
        visit = await self._visit()
        return None if visit is None else visit.user

    @property
    def user(self) -> User | None:
        """Return who is signed in, where `login_required` or a dependency has looked; None for nobody."""
        serving = self._serving.get()
        return None if serving is None or serving.visit is None else serving.visit.user

    async def token(self, scopes: Sequence[str] | None = None, *, claims: str | None = None) -> str:
        """Return an access token of the user's, held or refreshed; it outlives an outage as all of the package's.

        Args:
            scopes: What for; of the provider's set. Those that the endpoint was guarded with, when not given.
            claims: The claims challenge of an API that has refused the last one (G17).

        Raises:
            SignInNeeded: The user must sign in again; left alone, it leads them there.
            ProviderUnavailable: There is none, and none can be had now.
            TokenDenied: The provider refuses the application the token.
        """
        return await run_async(self.engine.getting(await self._visit(), scopes, claims))

    def api_client(self, base_url: str, scopes: Sequence[str], **options: Any) -> httpx.AsyncClient:
        """Make an asyncio httpx client for an API that is called for whoever is signed in. Make one, and keep it.

        Args:
            base_url: The API's.
            scopes: What for; of the provider's set.
            options: As for `resilient_auth.aio.api_client`.

        Returns:
            A client whose requests carry the current user's token.
        """
        asked = self.engine.tokens.check(scopes)

        async def token(claims: str | None = None) -> str:
            return await self.token(asked, claims=claims)

        def subject() -> str:
            serving = self._serving.get()
            return self.engine.subject_of(None if serving is None else serving.visit)

        return api_client(base_url, token, subject=subject, **options)

    def close(self) -> None:
        """Let go of tokens, timers and connections; the store is its owner's to close."""
        self.engine.close()

    async def _visit(self) -> Visit | None:
        serving = self._served()
        if not serving.looked:
            await self._admit(self._optional)
        return serving.visit

    def _served(self) -> _Serving:
        serving = self._serving.get()
        if serving is None:
            raise RuntimeError("sign-in serves HTTP requests of the application that it was given, and this is none")
        return serving

    async def _admit(self, wanted: Wanted) -> Visit | Answer | None:
        serving = self._served()
        visit = await run_async(self.engine.admitting(_arrival(serving.connection), wanted))
        serving.admitted(visit if isinstance(visit, Visit) else None)
        return visit

    def _answering(self, answer: Answer) -> Answer:
        serving = self._serving.get()
        if serving is not None:
            serving.answer = answer
        return answer

    async def _needed(self, _: Request, error: Exception) -> Response:
        return await self._sign_in_again(error)

    async def _sign_in_again(self, error: Exception) -> Response:
        serving = self._serving.get()
        if serving is None:
            raise error
        visit, arrival = serving.visit, _arrival(serving.connection)
        if visit is None or not isinstance(error, SignInNeeded):
            answer = await run_async(self.engine.admitting(arrival, self.engine.wanted()))
        else:
            answer = await run_async(self.engine.again(arrival, visit, error))
        return _response(answer if isinstance(answer, Answer) else Answer(401))


def answer_groups(app: Starlette) -> None:
    """Have a group of this package's errors, as `asyncio.TaskGroup` raises one, answered as the gravest of them is."""

    async def handle(connection: Any, group: Any) -> Any:
        met = gravest(group)
        handlers = app.exception_handlers
        for kind in () if met is None else type(met).__mro__:
            if kind in handlers and kind is not Exception:  # which is for what no other handler is for
                answer = handlers[kind]
                if inspect.iscoroutinefunction(answer):
                    return await answer(connection, met)
                return await run_in_threadpool(answer, connection, met)
        raise group

    app.exception_handlers.setdefault(ExceptionGroup, handle)


def made(route: Route) -> StarletteRoute:
    """Return a route as Starlette has it."""

    async def view(request: Request) -> Response:
        content = await _body(request) if request.method == "POST" else b""
        return _response(await run_async(route.handle(_arrival(request, content))))

    return StarletteRoute(route.path, view, methods=list(route.methods))


class _Middleware:
    """Know which request is being served, and send its cookies and headers with the answer."""

    def __init__(self, app: ASGIApp, serving: ContextVar[_Serving | None], engine: SignInEngine) -> None:
        self._app = app
        self._serving = serving
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        serving = _Serving(HTTPConnection(scope))
        before = self._serving.set(serving)

        instead = False

        async def sending(message: Message) -> None:
            nonlocal instead
            if message["type"] == "http.response.start":
                answer, serving.answer = serving.answer, None
                if answer is not None and message["status"] == answer.status:
                    instead = True
                    await _response(answer)(scope, receive, protected)
                    return
            if not instead:
                await protected(message)

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start" and serving.looked:
                headers = Headers(raw=list(message.get("headers", ())))
                cookies = await run_async(self._engine.outgoing(serving.cookies(headers.getlist("set-cookie"))))
                if serving.visit is not None or cookies:
                    _protect(message, headers, cookies)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._serving.reset(before)


def _protect(message: MutableMapping[str, Any], headers: Headers, cookies: tuple[Cookie, ...]) -> None:
    """Keep pages with users out of caches and frames, and give the browser what it is to keep."""
    beside = headers_beside(lambda name: ", ".join(headers.getlist(name)), cookies=bool(cookies))
    ours = [(b"set-cookie", set_cookie(cookie).encode()) for cookie in cookies]
    ours += [(name.lower().encode(), value.encode("latin-1")) for name, value in beside]
    replaced = {name for name, _ in ours} - {b"set-cookie"}
    message["headers"] = [(name, value) for name, value in headers.raw if name.lower() not in replaced] + ours


async def _body(request: Request) -> bytes:
    """Read a body; as good as empty where it is too large, or cut off."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_BODY:
            return b""
    return content


def _arrival(connection: HTTPConnection, content: bytes = b"") -> Arrival:
    scope, headers = connection.scope, connection.headers
    query = scope.get("query_string", b"").decode("latin-1")
    path, method = path_of(scope["path"], query), scope.get("method", "GET")
    return arrival_of(method, path, query, connection.cookies, lambda name: headers.get(name, ""), content)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    for name, value in answer.headers:
        response.headers[name] = value
    for cookie in answer.cookies:
        response.headers.append("set-cookie", set_cookie(cookie))
    return response


async def _answered(_: Request, error: Exception) -> Response:
    return _response(error.answer if isinstance(error, _Answered) else Answer(500))
