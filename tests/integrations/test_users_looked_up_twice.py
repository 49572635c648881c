"""Who looks up the user more than once in a request, or in several that share a context, gets that request's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django_site
import pytest
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth.downstream.errors import TokenUnavailable
from resilient_auth.integrations.django import SignIn as DjangoSignIn
from resilient_auth.integrations.fastapi import SignIn as StarletteSignIn
from resilient_auth.integrations.flask import SignIn as FlaskSignIn
from resilient_auth.signin import IdentityProvider, Sessions, SignInNeeded, Who
from resilient_auth.testing import ManualClock

assert django_site.settings.configured

BASE = "https://testserver"
COOKIE = "__Host-session"
#: Sends a request with a session's cookie; returns the text and the `Set-Cookie` headers.
Ask = Callable[..., tuple[str, list[str]]]
#: What a view says that takes its page for everybody's.
PUBLIC = {"Cache-Control": "public, max-age=600", "Vary": "Accept-Encoding"}


class Site:
    """What an application has, whichever its framework."""

    def __init__(self, issuer: Issuer, folder: Path) -> None:
        self.clock = ManualClock()
        self.issuer = f"{issuer.idp.url}/tenants/twice"
        self.store = ra.FileStore(folder / "store.db", clock=self.clock)
        self.given: dict[str, Any] = {
            "providers": IdentityProvider.for_openid(self.issuer, client_id="web", verify=issuer.idp.ca_file),
            "base_url": BASE,
            "store": self.store,
            "settings": ra.Settings(clock=self.clock, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0),
        }
        self.auth: Any = None
        self.context: Any = None
        #: What the browser has.
        self.latest = ""
        self.meanwhile: Callable[[Site], None] = lambda _: None
        #: Of the last answer.
        self.headers: Any = None

    def begin(self, name: str) -> str:
        who = Who(provider="openid", issuer=self.issuer, subject=name, name=name)
        return str(self.auth.engine.site.sessions.create(who)[1])

    def take_long(self) -> str:
        """Have time pass in a view, and something happen to the session in it."""
        self.meanwhile(self)
        return "done"

    def another_process(self) -> Sessions:
        return Sessions(self.store, clock=self.clock, application=self.auth.engine.site.application)

    def close(self) -> None:
        if self.context is not None:
            self.context.pop()
        self.auth.close()
        self.store.close()


def of_flask(site: Site) -> Ask:
    from flask import Flask

    app = Flask(__name__)
    site.auth = auth = FlaskSignIn(app, **site.given)

    @app.before_request
    def look() -> None:
        app.config["LAST"] = auth.user.name if auth.user else "stranger"

    @app.get("/me")
    @auth.login_required
    def me() -> str:
        return f"me {auth.user.name if auth.user else ''}"

    @app.get("/")
    def home() -> str:
        return f"hello {auth.user.name if auth.user else 'stranger'}"

    @app.get("/public")
    def public() -> tuple[str, dict[str, str]]:
        return f"for {auth.user.name if auth.user else 'all'}", PUBLIC

    @app.get("/slow")
    @auth.login_required
    def slow() -> str:
        return site.take_long()

    client = app.test_client(use_cookies=False)
    # As a program does when it starts: every request is then served in this one, and has its `g`.
    site.context = app.app_context()
    site.context.push()

    def ask(path: str, cookie: str = "", method: str = "GET", **headers: str) -> tuple[str, list[str]]:
        sent = {"accept": "text/html", "cookie": f"{COOKIE}={cookie}", **headers}
        answer = client.open(path, method=method, base_url=BASE, headers=sent)
        site.headers = answer.headers
        return answer.text, answer.headers.getlist("Set-Cookie")

    return ask


def of_starlette(site: Site) -> Ask:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.testclient import TestClient

    app = Starlette()

    class Looking:
        """A middleware of the application's, which wants to know who it is."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await site.auth.current_user()
            await self.inner(scope, receive, send)

    app.add_middleware(Looking)
    site.auth = auth = StarletteSignIn(app, **site.given)

    @auth.login_required
    async def me(_: Request) -> PlainTextResponse:
        return PlainTextResponse(f"me {auth.user.name if auth.user else ''}")

    async def home(_: Request) -> PlainTextResponse:
        user = await auth.current_user()
        return PlainTextResponse(f"hello {user.name if user else 'stranger'}")

    async def public(_: Request) -> PlainTextResponse:
        user = await auth.current_user()
        return PlainTextResponse(f"for {user.name if user else 'all'}", headers=PUBLIC)

    @auth.login_required
    def slow(_: Request) -> PlainTextResponse:
        return PlainTextResponse(site.take_long())

    app.add_route("/slow", slow)
    app.add_route("/public", public)
    app.add_route("/me", me)
    app.add_route("/", home)
    client = TestClient(app, base_url=BASE, follow_redirects=False)

    def ask(path: str, cookie: str = "", method: str = "GET", **headers: str) -> tuple[str, list[str]]:
        sent = {"accept": "text/html", "cookie": f"{COOKIE}={cookie}", **headers}
        answer = client.request(method, path, headers=sent)
        site.headers = answer.headers
        return answer.text, answer.headers.get_list("set-cookie")

    return ask


def of_django(site: Site) -> Ask:
    from django.http import HttpRequest, HttpResponse
    from django.test import Client
    from django.urls import path as route_at

    patterns: list[Any] = []
    site.auth = auth = DjangoSignIn(patterns, **site.given)

    @auth.login_optional
    @auth.login_required
    def me(_: HttpRequest) -> HttpResponse:
        return HttpResponse(f"me {auth.user.name if auth.user else ''}")

    @auth.login_optional
    def home(_: HttpRequest) -> HttpResponse:
        return HttpResponse(f"hello {auth.user.name if auth.user else 'stranger'}")

    @auth.login_optional
    def public(_: HttpRequest) -> HttpResponse:
        return HttpResponse(f"for {auth.user.name if auth.user else 'all'}", headers=PUBLIC)

    @auth.login_required
    def slow(_: HttpRequest) -> HttpResponse:
        return HttpResponse(site.take_long())

    patterns += [route_at("me", me), route_at("public", public), route_at("slow", slow), route_at("", home)]

    def ask(path: str, cookie: str = "", method: str = "GET", **headers: str) -> tuple[str, list[str]]:
        sent = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        with django_site.site(patterns):
            client = Client()
            client.cookies[COOKIE] = cookie
            answer = client.generic(method, path, secure=True, HTTP_ACCEPT="text/html", **sent)
        site.headers = answer.headers
        return answer.content.decode(), [morsel.OutputString() for morsel in answer.cookies.values()]

    return ask


@pytest.fixture
def site(issuer: Issuer, tmp_path: Path) -> Iterator[Site]:
    made = Site(issuer, tmp_path)
    yield made
    made.close()


FRAMEWORKS = [of_flask, of_starlette, of_django]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_new_id_reaches_the_browser(site: Site, framework: Callable[[Site], Ask]) -> None:
    """Whoever looks first has it made; a second look takes it away from nobody."""
    ask = framework(site)
    cookie = site.begin("ada")
    site.clock.advance(901.0)
    text, cookies = ask("/me", cookie)
    assert text == "me ada"
    (given,) = (each.partition(";")[0].partition("=")[2] for each in cookies if each.startswith(COOKIE))
    assert given.partition(".")[0] == cookie.partition(".")[0]
    assert given != cookie
    assert ask("/me", given)[0] == "me ada"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_an_answer_of_ours_says_comes_last(site: Site, framework: Callable[[Site], Ask]) -> None:
    """Who signs out as the id was due to change keeps none."""
    ask = framework(site)
    cookie = site.begin("ada")
    site.clock.advance(901.0)
    _, cookies = ask("/sign-out", cookie, "POST", **{"sec-fetch-site": "same-origin"})
    (said,) = (each for each in cookies if each.startswith(COOKIE))
    assert "max-age=0" in said.lower()


def another_id(site: Site) -> None:
    """Another request comes, to another process, and is given one, of whose use the former dies."""
    site.clock.advance(61.0)
    sessions = site.another_process()
    for _ in range(2):
        found = sessions.find(site.latest)
        assert found is not None
        site.latest = sessions.renew(found)[1] or site.latest


def another_sign_in(site: Site) -> None:
    """The user signs in again in another tab, which ends the session before."""
    sessions = site.auth.engine.site.sessions
    before, site.latest = site.latest, site.begin("ada")
    sessions.end(before.partition(".")[0])


def another_sign_in_elsewhere(site: Site) -> None:
    """At another process."""
    site.clock.advance(2.0)
    before, site.latest = site.latest, site.begin("ada")
    site.another_process().end(before.partition(".")[0])


@pytest.mark.parametrize("meanwhile", [another_id, another_sign_in, another_sign_in_elsewhere])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_answer_that_took_long_takes_no_later_id_away(
    site: Site, framework: Callable[[Site], Ask], meanwhile: Callable[[Site], None]
) -> None:
    """What was due to change as its request came may be over as it is answered."""
    ask = framework(site)
    site.meanwhile = meanwhile
    site.latest = site.begin("ada")
    site.clock.advance(901.0)
    text, cookies = ask("/slow", site.latest)
    assert text == "done"
    kept = next((each.partition(";")[0].partition("=")[2] for each in cookies), site.latest)
    for _ in range(5):
        assert ask("/", kept)[0] == "hello ada"
        site.clock.advance(30.0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_request_has_its_own_user(site: Site, framework: Callable[[Site], Ask]) -> None:
    ask = framework(site)
    ada, bob = site.begin("ada"), site.begin("bob")
    for cookie, name in ((ada, "ada"), ("", "stranger"), (bob, "bob"), (ada, "ada")):
        assert ask("/", cookie)[0] == f"hello {name}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_cache_hands_an_id_to_others(site: Site, framework: Callable[[Site], Ask]) -> None:
    """Though the view says that its page is everybody's: it knows nothing of a new id that goes out with it."""
    ask = framework(site)
    cookie = site.begin("ada")
    assert ask("/public", cookie)[0] == "for ada"
    assert site.headers["Cache-Control"] == PUBLIC["Cache-Control"]
    assert site.headers["Vary"] == "Accept-Encoding, Cookie"
    site.clock.advance(901.0)
    _, cookies = ask("/public", cookie)
    assert [each.partition("=")[0] for each in cookies] == [COOKIE]
    assert site.headers["Cache-Control"] == "no-store"
    assert site.headers["Vary"] == "Accept-Encoding, Cookie"


def test_a_form_of_files_that_something_has_read_before_is_as_good_as_empty(site: Site) -> None:
    """A middleware of Django's or of the project's may look into it; its body is gone then."""
    from django.test import RequestFactory

    from resilient_auth.integrations.signing_in.django import made

    of_django(site)
    request = RequestFactory().post("/signed-in", {"state": "x"}, secure=True)
    assert request.POST["state"] == "x"
    (route,) = (each for each in site.auth.engine.routes if each.path == "/signed-in")
    assert made(route).callback(request).status_code == 400


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_who_must_sign_in_again_for_one_of_several_tasks_is_led_there(
    site: Site, framework: Callable[[Site], Ask]
) -> None:
    """`asyncio.TaskGroup` raises a group."""

    def fails(_: Site) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [TokenUnavailable("x"), SignInNeeded()])

    ask = framework(site)
    site.meanwhile = fails
    cookie = site.begin("ada")
    site.clock.advance(60.0)
    ask("/slow", cookie)
    assert site.headers["Location"].startswith(site.issuer)
