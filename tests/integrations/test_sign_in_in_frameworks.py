"""Users sign in in each framework, over TLS, and in a browser; and stay signed in through an outage."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django_site
import httpx
import pytest
import trustme
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import Depends, FastAPI
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.responses import PlainTextResponse
from werkzeug.serving import WSGIRequestHandler, make_server

import resilient_auth as ra
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.signin import IdentityProvider, SignInOptions, User

assert django_site is not None  # it configures Django

SCOPE = "api://profiles/profile.read"
#: Milliseconds that a browser may take on a busy machine.
PATIENCE = 20_000


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, and that of its authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "web.pem")
    return folder / "web.pem", folder / "ca.pem"


@pytest.fixture(scope="module")
def provider() -> Iterator[Emulator]:
    with Emulator() as emulator:
        emulator.add_user("ada@contoso.com")
        yield emulator


@pytest.fixture
def idp(provider: Emulator, own_environment: None) -> Iterator[Emulator]:
    yield provider
    provider.heal()


def options_of(idp: Emulator, folder: Path, base: str) -> dict[str, Any]:
    realm = IdentityProvider.for_openid(
        f"{idp.url}/realms/contoso", client_id="web", client_credential="s", scopes=[SCOPE], verify=idp.ca_file
    )
    return {
        "providers": realm,
        "base_url": base,
        "store": ra.FileStore(folder / "store.db"),
        "options": SignInOptions(guests=True),
        # A clock of its own has breakers of its own: other tests' outages are theirs.
        "settings": ra.Settings(clock=SystemClock(), wait=5.0, attempt_timeout=4.0, connect_timeout=2.0),
    }


@contextmanager
def flask_site(idp: Emulator, folder: Path, certificate: Path) -> Iterator[str]:
    from resilient_auth.integrations.flask import SignIn, install

    app = Flask("application")
    server = make_server(
        "localhost", 0, app, threaded=True, request_handler=_Quiet, ssl_context=(str(certificate), str(certificate))
    )
    base = f"https://localhost:{server.server_port}"
    given = options_of(idp, folder, base)
    auth = SignIn(app, **given)
    install(app)
    api = auth.api_client(idp.api_url, [SCOPE], verify=idp.ca_file)

    @app.get("/")
    def home() -> str:
        return f"hello {auth.user.name if auth.user else 'stranger'}"

    @app.get("/me")
    @auth.login_required(scopes=[SCOPE])
    def me() -> str:
        return f"me {auth.user.name}" if auth.user else ""

    @app.get("/api")
    @auth.login_required(scopes=[SCOPE])
    async def called() -> str:
        return str(api.get("/api/me").json()["claims"]["preferred_username"])

    with _served(server):
        yield base
    api.close()
    auth.close()
    given["store"].close()


@contextmanager
def django_site_of(idp: Emulator, folder: Path, certificate: Path) -> Iterator[str]:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    from resilient_auth.integrations.django import SignIn

    def application(environ: Any, start: Any) -> Any:
        return handler(environ, start)

    server = make_server(
        "localhost", 0, application, threaded=True, request_handler=_Quiet,
        ssl_context=(str(certificate), str(certificate)),
    )  # fmt: skip
    base = f"https://localhost:{server.server_port}"
    given = options_of(idp, folder, base)
    urlpatterns: list[Any] = []
    auth = SignIn(urlpatterns, **given)
    api = auth.api_client(idp.api_url, [SCOPE], verify=idp.ca_file)

    @auth.login_optional
    def home(_: HttpRequest) -> HttpResponse:
        return HttpResponse(f"hello {auth.user.name if auth.user else 'stranger'}")

    @auth.login_required(scopes=[SCOPE])
    async def me(_: HttpRequest) -> HttpResponse:
        assert (await auth.atoken()).count(".") == 2
        return HttpResponse(f"me {auth.user.name}" if auth.user else "")

    @auth.login_required(scopes=[SCOPE])
    def called(_: HttpRequest) -> HttpResponse:
        return HttpResponse(api.get("/api/me").json()["claims"]["preferred_username"])

    urlpatterns += [path("", home), path("me", me), path("api", called)]
    handler = WSGIHandler()
    with django_site.site(urlpatterns), _served(server):
        yield base
    api.close()
    auth.close()
    given["store"].close()


@contextmanager
def fastapi_site(idp: Emulator, folder: Path, certificate: Path) -> Iterator[str]:
    from resilient_auth.integrations.fastapi import SignIn, install

    app = FastAPI()
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, log_config=None, access_log=False, lifespan="off",
            ssl_certfile=str(certificate), ssl_keyfile=str(certificate),
        )
    )  # fmt: skip
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"https://localhost:{listener.getsockname()[1]}"
    given = options_of(idp, folder, base)
    auth = SignIn(app, **given)
    install(app)
    api = auth.api_client(idp.api_url, [SCOPE], verify=idp.ca_file)

    @app.get("/", response_class=PlainTextResponse)
    async def home() -> str:
        user = await auth.current_user()
        return f"hello {user.name if user else 'stranger'}"

    # Annotations are texts here, and FastAPI doesn't find a function's own names in them.
    signed_in = Depends(auth.signed_in(scopes=[SCOPE]))

    @app.get("/me", response_class=PlainTextResponse)
    async def me(user: User = signed_in) -> str:
        return f"me {user.name}"

    @app.get("/sync", response_class=PlainTextResponse)
    @auth.login_required
    def sync() -> str:
        return f"sync {auth.user.name}" if auth.user else ""

    @app.get("/api", response_class=PlainTextResponse)
    @auth.login_required(scopes=[SCOPE])
    async def called() -> str:
        assert (await auth.token()).count(".") == 2
        return str((await api.get("/api/me")).json()["claims"]["preferred_username"])

    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield base
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        auth.close()
        given["store"].close()


@contextmanager
def _served(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


SITES = {"flask": flask_site, "django": django_site_of, "fastapi": fastapi_site}
#: What no browser is asked for here.
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate"}


@pytest.mark.parametrize("framework", SITES)
def test_each_framework_signs_users_in_and_keeps_them(
    framework: str, idp: Emulator, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    """The same pages, cookies and answers: in a sign-in, at an API, in an outage, and for what is wrong."""
    trust = ssl.create_default_context(cafile=str(certificate[1]))
    with (
        SITES[framework](idp, tmp_path, certificate[0]) as base,
        httpx.Client(base_url=base, verify=trust, trust_env=False, headers=PAGE, timeout=30) as ada,
        httpx.Client(base_url=base, verify=trust, trust_env=False, headers=PAGE, timeout=30) as bob,
    ):
        assert ada.get("/").text == "hello stranger"
        asked = ada.get("/me?tab=1%202")
        assert asked.status_code == 303
        form = idp.sign_in(asked.headers["Location"], "ada@contoso.com")
        refused = bob.post("/signed-in", data=form)
        assert refused.status_code == 400
        assert "another browser" in refused.text
        assert bob.post("/signed-in", content=b"x" * 300_000).status_code == 400
        answer = ada.post("/signed-in", data=form)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/me?tab=1%202")
        (cookie,) = ada.cookies.jar
        assert cookie.name.startswith("__Host-session")
        page = ada.get("/me?tab=1%202")
        assert page.text == "me Ada"
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Frame-Options"] == "DENY"
        assert ada.get("/").text == "hello Ada"
        assert ada.get("/api").text == "ada@contoso.com"
        if framework == "fastapi":
            assert ada.get("/sync").text == "sync Ada"
        assert bob.get("/").text == "hello stranger"
        idp.fail(Fault.reset())
        time.sleep(1.1)
        assert ada.get("/me").text == "me Ada"
        told = bob.get("/me")
        assert told.status_code == 503
        assert int(told.headers["Retry-After"]) >= 1
        assert "Location" not in told.headers
        script = bob.get("/me", headers={"accept": "application/json", "sec-fetch-mode": "cors"})
        assert (script.status_code, script.json()["detail"]["code"]) == (503, "provider_unavailable")
        guest = bob.post("/sign-in/guest", data={"next": "/"}, headers={"origin": base})
        assert guest.headers["Location"] == "/"
        assert bob.get("/").text == "hello Guest"


def test_two_applications_on_one_host_leave_each_others_users_alone(
    idp: Emulator, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    """A browser's cookies know no ports: neither a sign-in nor a sign-out at one changes anything at the other."""
    trust = ssl.create_default_context(cafile=str(certificate[1]))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with (
        flask_site(idp, tmp_path / "first", certificate[0]) as first,
        flask_site(idp, tmp_path / "second", certificate[0]) as second,
        httpx.Client(verify=trust, trust_env=False, headers=PAGE, timeout=30) as ada,
    ):
        begun = [(base, ada.get(f"{base}/me").headers["Location"]) for base in (first, second)]
        for base, address in begun:
            assert ada.post(f"{base}/signed-in", data=idp.sign_in(address, "ada@contoso.com")).status_code == 303
        assert [ada.get(f"{base}/me").text for base in (first, second)] == ["me Ada"] * 2
        ada.post(f"{first}/sign-out", headers={"origin": first, "sec-fetch-site": "same-origin"})
        assert [ada.get(f"{base}/").text for base in (first, second)] == ["hello stranger", "hello Ada"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


def accessible(page: Page) -> None:
    """Nothing that axe finds, at both widths."""
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 720})
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.xdist_group("chromium")
def test_a_person_signs_in_at_the_providers_pages(
    idp: Emulator, tmp_path: Path, certificate: tuple[Path, Path], chromium: Browser
) -> None:
    """In two tabs at once, with cookies as a real browser keeps them; and is told of an outage."""
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    outside: list[str] = []
    problems: list[str] = []
    (tmp_path / "another").mkdir()
    with (
        flask_site(idp, tmp_path, certificate[0]) as base,
        # On the same host, at another port: a browser has one set of cookies for both.
        flask_site(idp, tmp_path / "another", certificate[0]) as neighbour,
    ):
        context.on("request", lambda request: outside.append(request.url))
        first, second = context.new_page(), context.new_page()
        for page in (first, second):
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        for page, tab in ((first, 1), (second, 2)):
            page.goto(f"{base}/me?tab={tab}")
            assert page.url.startswith(idp.url)
        for page, tab in ((first, 1), (second, 2)):
            page.get_by_role("button", name="ada@contoso.com").click()
            expect(page.locator("body")).to_have_text("me Ada")
            assert page.url == f"{base}/me?tab={tab}"
        # The provider is on this host too.
        (cookie,) = (one for one in context.cookies(base) if one["name"].startswith("__Host-s"))
        assert cookie["name"].startswith("__Host-session.")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        second.goto(f"{neighbour}/me")
        second.get_by_role("button", name="ada@contoso.com").click()
        expect(second.locator("body")).to_have_text("me Ada")
        assert second.url == f"{neighbour}/me"
        first.reload()
        expect(first.locator("body")).to_have_text("me Ada")
        idp.fail(Fault.reset())
        first.goto(f"{base}/")
        expect(first.locator("body")).to_have_text("hello Ada")
        stranger = chromium.new_context(ignore_https_errors=True)
        stranger.set_default_timeout(PATIENCE)
        page = stranger.new_page()
        page.on("request", lambda request: outside.append(request.url))
        time.sleep(1.1)
        page.goto(f"{base}/me")
        expect(page.get_by_role("heading")).to_have_text("Signing in doesn't work right now")
        accessible(page)
        page.get_by_role("button", name="Continue as a guest").click()
        expect(page.locator("body")).to_have_text("hello Guest")
        # A favicon that isn't there, a status that was meant.
        assert [problem for problem in problems if not problem.startswith("Failed to load resource")] == []
        assert all(url.startswith((base, neighbour, idp.url)) for url in outside)
        stranger.close()
    context.close()
