"""A token in a cookie, another header, a query or a subprotocol, where the owner says so; and public paths anywhere."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any

import django_site
import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI, WebSocket
from flask import Flask, g
from served import asgi, wsgi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from token_issuer import Issuer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations import django as for_django
from resilient_auth.integrations import fastapi as for_fastapi
from resilient_auth.integrations import flask as for_flask
from resilient_auth.verify import Claims, InvalidToken, TokenCookie, TokenHeader, TokenQuery, TokenSubprotocol
from resilient_auth.verify.http import Arrived, Guard
from resilient_auth.verify.http.places import token_of

ANYWHERE = (TokenHeader(), TokenCookie("token"), TokenHeader("X-Token"), TokenQuery("t"), TokenSubprotocol())


def arrived(method: str = "GET", query: str = "", **headers: str | tuple[str, ...]) -> Arrived:
    """A request with these headers; underscores stand for hyphens."""

    def header(name: str) -> tuple[str, ...]:
        values = headers.get(name.lower().replace("-", "_"), ())
        return (values,) if isinstance(values, str) else values

    return Arrived(method, query, header)


FOUND = {
    "authorization": arrived(authorization="Bearer a.b.c"),
    "cookie": arrived(cookie="x=1; token=a.b.c; y=2"),
    "quoted cookie": arrived(cookie='token="a.b.c"'),
    "two cookie headers": arrived(cookie=("x=1", "token=a.b.c")),
    "cookie beside another scheme": arrived(authorization="Basic dTpw", cookie="token=a.b.c"),
    "header": arrived(x_token="a.b.c"),
    "header with scheme": arrived(x_token="bearer a.b.c"),
    "query": arrived(query="x=1&t=a.b.c"),
    "subprotocol": arrived("", sec_websocket_protocol="chat, bearer, a.b.c"),
    "two subprotocol headers": arrived("", sec_websocket_protocol=("bearer", "a.b.c")),
}


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str) -> None:
    """In the first of the places that has one."""
    assert token_of(FOUND[name], ANYWHERE) == "a.b.c"


REFUSED = {
    "nowhere": (arrived(), "missing"),
    "empty": (arrived(cookie="token=", x_token=" "), "missing"),
    "other names": (arrived(cookie="tokens=a.b.c; Token=a", query="tt=a.b.c", x_tokens="a"), "missing"),
    "subprotocol without a web socket": (arrived(sec_websocket_protocol="bearer, a.b.c"), "missing"),
    "bad first place": (arrived(authorization="Bearer", cookie="token=a.b.c"), "malformed_header"),
    "two cookies": (arrived(cookie="token=a.b.c; token=d.e.f"), "duplicated_header"),
    "two headers": (arrived(x_token=("a.b.c", "a.b.c")), "duplicated_header"),
    "joined headers": (arrived(x_token="a.b.c, d.e.f"), "malformed_header"),
    "two in the query": (arrived(query="t=a.b.c&t=a.b.c"), "duplicated_header"),
    "odd query": (arrived(query="t=%00"), "malformed_header"),
    "long query": (arrived(query="&".join(f"a{n}=1" for n in range(500))), "malformed_header"),
    "no token after": (arrived("", sec_websocket_protocol="bearer"), "malformed_header"),
    "two after": (arrived("", sec_websocket_protocol="bearer, a.b.c, chat"), "malformed_header"),
    "twice": (arrived("", sec_websocket_protocol="bearer, bearer, a.b.c"), "malformed_header"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused(name: str) -> None:
    """Without a look at the next place, where the first one has something."""
    request, code = REFUSED[name]
    with pytest.raises(InvalidToken) as refused:
        token_of(request, ANYWHERE)
    assert refused.value.code == code
    assert "a.b.c" not in str(refused.value)


COOKIE = TokenCookie("token", origins=("https://front.example",))
OWN = {
    "a page of this host": arrived("POST", cookie="token=a", host="shop.example", origin="https://SHOP.example"),
    "a page of another port": arrived("POST", cookie="token=a", host="x:8443", origin="https://x:8443"),
    "a named origin": arrived("POST", cookie="token=a", host="shop.example", origin="https://front.example"),
    "no page at all": arrived("POST", cookie="token=a", host="shop.example"),
    "an old browser": arrived("POST", cookie="token=a", host="shop.example", sec_fetch_site="same-origin"),
    "a link elsewhere": arrived("GET", cookie="token=a", host="shop.example", sec_fetch_site="cross-site"),
    "its own web socket": arrived("", cookie="token=a", host="shop.example", origin="https://shop.example"),
}
FOREIGN = {
    "another page": arrived("POST", cookie="token=a", host="shop.example", origin="https://evil.example"),
    "a page that begins alike": arrived("POST", cookie="token=a", host="shop.example", origin="https://shop.example.x"),
    "a page in a sandbox": arrived("DELETE", cookie="token=a", host="shop.example", origin="null"),
    "a page that doesn't say": arrived("PUT", cookie="token=a", host="shop.example", sec_fetch_site="cross-site"),
    "a neighbour": arrived("POST", cookie="token=a", host="shop.example", sec_fetch_site="same-site"),
    "two origins": arrived("POST", cookie="token=a", host="x", origin=("https://x", "https://evil")),
    "another page's web socket": arrived("", cookie="token=a", host="shop.example", origin="https://evil.example"),
}


@pytest.mark.parametrize("name", [*OWN, *FOREIGN])
def test_a_cookie_counts_on_ones_own_pages_alone(name: str) -> None:
    """Wherever something may change: a browser sends it for any page."""
    if name in OWN:
        assert token_of(OWN[name], [COOKIE]) == "a"
        return
    with pytest.raises(InvalidToken, match="another site") as refused:
        token_of(FOREIGN[name], [COOKIE])
    assert (refused.value.status, refused.value.code) == (403, "cross_site")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TokenCookie("a b"), "cookie's name"),
        (lambda: TokenHeader(""), "header's name"),
        (lambda: TokenQuery(5), "query parameter's name"),  # type: ignore[arg-type]
        (lambda: TokenSubprotocol("a,b"), "subprotocol's name"),
        (lambda: TokenCookie("a", origins="https://x.example"), "origins"),
        (lambda: TokenCookie("a", origins=("x.example",)), "origins"),
        (lambda: TokenCookie("a", origins=("https://x.example/",)), "origins"),
    ],
)
def test_a_wrong_place_is_said_at_once(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


@pytest.mark.parametrize("wrong", ["cookie", [], [TokenCookie]], ids=str)
def test_what_is_no_place_is_said_at_once(issuer: Issuer, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_in"):
        Guard(issuer.verifier(), token_in=wrong)


def flask_site(issuer: Issuer) -> Any:
    app = Flask("orders")
    app.route("/me", methods=["GET", "POST"])(
        for_flask.authenticated(issuer.verifier(), token_in=ANYWHERE)(lambda: {"name": g.claims.username})
    )
    return wsgi(app)


def fastapi_site(issuer: Issuer) -> Any:
    app = FastAPI()
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    who = Annotated[Claims, Depends(for_fastapi.Authenticated(verifier, token_in=ANYWHERE))]

    @app.api_route("/me", methods=["GET", "POST"])
    async def me(claims: who) -> dict[str, Any]:
        return {"name": claims.username}

    @app.websocket("/live")
    async def live(socket: WebSocket, claims: who) -> None:
        await socket.accept(subprotocol="bearer" if socket.headers.get("sec-websocket-protocol") else None)
        await socket.send_text(str(claims.username))
        await socket.close()

    return asgi(app)


class _Django(ExitStack):
    """A Django site whose middleware looks for tokens, and lets public paths through."""

    def __init__(self, issuer: Issuer, serve: Callable[[], Any], make: Any, **options: Any) -> None:
        super().__init__()

        def me(request: Any) -> JsonResponse:
            return JsonResponse({"name": request.claims.username if hasattr(request, "claims") else None})

        urls = [path("me", me), path("health", me), path("health/deep", me)]
        module: Any = self.enter_context(django_site.site(urls, MIDDLEWARE=["the_site.guard"]))
        module.guard = for_django.claims_middleware(issuer.verifier(make), **options)
        self.url = self.enter_context(serve())

    def __enter__(self) -> str:  # type: ignore[override]
        return str(self.url)


def django_place(issuer: Issuer) -> Any:
    return _Django(issuer, lambda: wsgi(WSGIHandler()), ra.ClaimsVerifier, token_in=ANYWHERE)


@pytest.mark.parametrize("make", [flask_site, fastapi_site, django_place])
def test_each_framework_looks_there(issuer: Issuer, make: Callable[[Issuer], Any]) -> None:
    """Over a socket; and a page of another site gets nothing done by a cookie."""
    token = issuer.user_token()
    with make(issuer) as url, httpx.Client(base_url=url, trust_env=False, headers={"Connection": "close"}) as client:
        for options in (
            {"headers": {"Authorization": f"Bearer {token}"}},
            {"headers": {"Cookie": f"a=b; token={token}"}},
            {"headers": {"X-Token": token}},
            {"params": {"t": token}},
        ):
            answer = client.get("/me", **options)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()) == (200, {"name": "ada@contoso.com"})
        assert client.get("/me", params={"access_token": token}).status_code == 401
        cookie = {"Cookie": f"token={token}"}
        assert client.post("/me", headers=cookie | {"Origin": url}).status_code == 200
        foreign = client.post("/me", headers=cookie | {"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["detail"]["code"]) == (403, "cross_site")


def test_a_web_socket_has_it_in_a_subprotocol(issuer: Issuer) -> None:
    """Or in the query; a cookie counts on pages of one's own alone."""
    token = issuer.user_token()
    with fastapi_site(issuer) as url:
        there = url.replace("http", "ws") + "/live"
        with connect(there, subprotocols=["bearer", token]) as socket:  # type: ignore[list-item]
            assert (socket.recv(), socket.subprotocol) == ("ada@contoso.com", "bearer")
        with connect(f"{there}?t={token}") as socket:
            assert socket.recv() == "ada@contoso.com"
        cookie = {"Cookie": f"token={token}"}
        with connect(there, additional_headers=cookie, origin=url) as socket:  # type: ignore[arg-type]
            assert socket.recv() == "ada@contoso.com"
        with pytest.raises(InvalidStatus) as refused:
            connect(there, additional_headers=cookie, origin="https://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403


def shown(verifier: Any, **options: Any) -> Any:
    app = FastAPI()
    app.get("/", dependencies=[Depends(for_fastapi.Authenticated(verifier, **options))])(lambda: None)
    return app.openapi()["components"]["securitySchemes"]["bearer"]


def test_the_openapi_document_shows_the_place(issuer: Issuer) -> None:
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    assert shown(verifier, token_in=TokenCookie("token")) == {"type": "apiKey", "in": "cookie", "name": "token"}
    assert shown(verifier, token_in=TokenQuery("t")) == {"type": "apiKey", "in": "query", "name": "t"}
    assert shown(verifier, token_in=[TokenHeader("X-Token")]) == {"type": "apiKey", "in": "header", "name": "X-Token"}
    assert shown(verifier, token_in=TokenSubprotocol())["type"] == "http"


async def _health(request: Any) -> PlainTextResponse:
    return PlainTextResponse("well")


def _guarded(issuer: Issuer, *routes: Any, public: tuple[str, ...] = ("/health",)) -> Starlette:
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    guard = Middleware(for_fastapi.ClaimsMiddleware, verifier=verifier, public=public)
    return Starlette(routes=[Route("/health", _health), Route("/me", _health), *routes], middleware=[guard])


def _in_fastapi(issuer: Issuer) -> FastAPI:
    inner = FastAPI(routes=_guarded(issuer).routes, middleware=_guarded(issuer).user_middleware)
    app = FastAPI()
    app.mount("/v1", inner)
    return app


#: How a site is served, and the path before its own.
MOUNTED: dict[str, tuple[Callable[[Issuer], Any], str]] = {
    "plain": (lambda issuer: asgi(_guarded(issuer)), ""),
    "root path": (lambda issuer: asgi(_guarded(issuer), root_path="/api"), ""),
    "in fastapi": (lambda issuer: asgi(_in_fastapi(issuer)), "/v1"),
    "mounted": (lambda issuer: asgi(Starlette(routes=[Mount("/v1", _guarded(issuer))])), "/v1"),
    "mounted, root path": (
        lambda issuer: asgi(Starlette(routes=[Mount("/v1", _guarded(issuer))]), root_path="/api"), "/v1"
    ),
    "django": (
        lambda issuer: _Django(issuer, lambda: wsgi(WSGIHandler()), ra.ClaimsVerifier, public=("/health",)), ""
    ),
    "django, script name": (
        lambda issuer: _Django(
            issuer, lambda: wsgi(WSGIHandler(), mounted="/v1"), ra.ClaimsVerifier, public=("/health",)
        ),
        "/v1",
    ),
    "django, root path": (
        lambda issuer: _Django(
            issuer, lambda: asgi(ASGIHandler(), root_path="/api"), ra.aio.ClaimsVerifier, public=("/health",)
        ),
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOUNTED)
def test_a_public_path_is_one_wherever_the_application_is_mounted(issuer: Issuer, name: str) -> None:
    """As its own routes name it; nothing else becomes public by that."""
    make, before = MOUNTED[name]
    with make(issuer) as url, httpx.Client(base_url=url, trust_env=False, headers={"Connection": "close"}) as client:
        assert client.get(f"{before}/health").status_code == 200
        for closed in ("/me", "/health/", "/health/deep", "/healthy", "/health%2Fdeep", "//health", "/api/me"):
            assert client.get(f"{before}{closed}").status_code in (401, 404), closed
        assert client.get(f"{before}/me").status_code == 401


def test_a_path_below_a_mount_is_not_taken_for_one_above(issuer: Issuer) -> None:
    """What is public inside is a path of the inside: `/a/b` there is `/a/a/b` outside."""
    inner = _guarded(issuer, Route("/b", _health), public=("/a/b",))
    with asgi(Starlette(routes=[Mount("/a", inner)])) as url:
        assert httpx.get(f"{url}/a/b", trust_env=False).status_code == 401
