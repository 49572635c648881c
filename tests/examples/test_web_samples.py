"""The samples of web applications keep their users signed in through an outage, in a real browser too."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import TokenAcquired
from resilient_auth.testing import capture_events

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FRAMEWORKS = ("flask", "django", "fastapi")
MINUTE, HOUR = 60.0, 3600.0
#: Milliseconds that a browser may take on a busy machine.
PATIENCE = 30_000

FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip
#: What the browser says of a status that it was meant to get, and of a favicon that it wanted during a restart.
EXPECTED_OF_THE_CONSOLE = "Failed to load resource: "


@pytest.fixture(scope="module")
def rehearsal() -> Iterator[ModuleType]:
    """Let the samples' modules find each other, and give what their run.py share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield importlib.import_module("web_rehearsal")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(token_lifetime=6 * HOUR, refresh_in=1.0) as running:
        running.add_user("ada@contoso.com")
        running.add_user("bob@contoso.com")
        running.met_contexts = {"c1"}
        yield running


@pytest.fixture(autouse=True)
def healthy(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.heal()
    emulator.allow()


class Site:
    """The Flask application in this process, whose time is the test's, and one visitor's browser."""

    def __init__(self, emulator: Emulator, environment: dict[str, str], clock: Any) -> None:
        self.emulator = emulator
        self.environment = environment
        self.base = environment["BASE_URL"]
        # A clock of its own has breakers of its own: other tests' outages are theirs.
        self.clock = clock
        settings = ra.Settings(clock=self.clock, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0)
        spec = importlib.util.spec_from_file_location("flask_web_web", EXAMPLES / "flask_web" / "web.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.app = module.create_app(environment, settings=settings)
        self.browser = self.another_browser()

    def another_browser(self) -> Any:
        return self.app.test_client()

    def get(self, path: str, browser: Any = None, **headers: str) -> Any:
        return (browser or self.browser).get(path, base_url=self.base, headers={"accept": "text/html", **headers})

    def post(self, path: str, browser: Any = None, data: Any = None, **headers: str) -> Any:
        sent = {"accept": "text/html", **headers}
        return (browser or self.browser).post(path, base_url=self.base, data=data, headers=sent)

    def begin(self, path: str = "/profile", browser: Any = None) -> str:
        """Ask for a page, and return where it leads."""
        answer = self.get(path, browser)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["Location"])

    def sign_in(self, path: str = "/sign-in", browser: Any = None, user: str = "ada") -> Any:
        form = self.emulator.sign_in(self.begin(path, browser), f"{user}@contoso.com")
        return self.post("/signed-in", browser, form)

    @property
    def cookie(self) -> str:
        """The name of the session's cookie, which is this application's alone."""
        return str(self.app.extensions["sign_in"].engine.site.session_cookie)

    def secret(self, browser: Any = None) -> str | None:
        cookie = (browser or self.browser).get_cookie(self.cookie, domain="localhost")
        return None if cookie is None else str(cookie.value)

    def is_signed_in(self, browser: Any = None) -> bool:
        return "Welcome back" in self.get("/", browser).text

    def stay(self, seconds: float) -> None:
        """Be active every 20 minutes."""
        for _ in range(round(seconds / (20 * MINUTE))):
            self.clock.skip(20 * MINUTE)
            self.get("/")


@pytest.fixture
def site(
    emulator: Emulator,
    rehearsal: ModuleType,
    clock: Any,
    tmp_path: Path,
    own_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    environment = rehearsal.environment(emulator, tmp_path)
    for name in ("HTTPS_PROXY", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, environment[name])
    made = Site(emulator, environment, clock)
    with made.app.extensions["closing"]:
        yield made


def test_a_session_outlives_its_end_while_nobody_can_sign_in_and_no_longer(site: Site) -> None:
    """It says so on the page; what needs a fresh sign-in waits; after the recovery the provider is asked (G13)."""
    site.sign_in()
    site.sign_in("/account")
    assert site.get("/account").status_code == 200
    site.stay(7 * HOUR)
    assert "Your session would have ended" not in site.get("/").text
    site.emulator.fail(Fault.refuse())
    site.clock.skip(31 * MINUTE)
    page = site.get("/").text
    assert "Welcome back, Ada" in page
    assert "Your session would have ended" in page
    assert site.get("/account").status_code == 503
    assert "You stay signed in" in site.get("/account").text
    site.clock.skip(4 * HOUR)
    assert not site.is_signed_in()


def test_an_extended_session_catches_up_when_users_can_sign_in_again(site: Site) -> None:
    """Without a question: the next page leads to the provider and back."""
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.clock.skip(1 * HOUR)
    assert site.is_signed_in()
    site.emulator.heal()
    site.clock.skip(MINUTE)
    there = site.begin("/profile")
    assert parse_qs(urlsplit(there).query)["prompt"] == ["none"]
    answer = site.post("/signed-in", data=site.emulator.sign_in(there, "ada@contoso.com"))
    assert answer.headers["Location"] == "/profile"
    assert "As of" in site.get("/profile").text


def test_a_session_without_activity_ends(site: Site) -> None:
    site.sign_in()
    site.clock.skip(31 * MINUTE)
    assert not site.is_signed_in()


def test_who_cant_sign_in_is_told_so_and_when_to_try_again(site: Site) -> None:
    """In the application's own looks, and with what can be done without; when it is over, the same link works."""
    site.emulator.fail(Fault.refuse())
    answer = site.get("/profile")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "nothing is wrong with your account" in answer.text
    assert "call 555" in answer.text
    assert "static/style.css" in answer.text
    again = re.search(r'href="(/sign-in\?[^"]+)"', answer.text)
    assert again is not None
    site.emulator.heal()
    site.clock.skip(6.0)
    assert site.sign_in(again[1].replace("&amp;", "&")).headers["Location"] == "/profile"


def test_nobody_sees_what_the_api_told_of_another(site: Site) -> None:
    """Neither while it works nor from what is kept; and one that is missing is said to be."""
    site.sign_in()
    assert "ada@contoso.com" in site.get("/profile").text
    bob = site.another_browser()
    site.sign_in(browser=bob, user="bob")
    site.emulator.fail(Fault.http_503(), endpoint="api")
    answer = site.get("/profile", bob)
    assert (answer.status_code, "Retry-After" in answer.headers, "ada" in answer.text) == (503, True, False)
    answer = site.get("/profile")
    assert (answer.status_code, "This is how it was at" in answer.text) == (200, True)


def test_each_sign_in_makes_a_new_session(site: Site) -> None:
    """One that somebody planted in the browser, or an earlier one, is worth nothing afterwards."""
    site.browser.set_cookie(site.cookie, "planted", domain="localhost")
    site.sign_in()
    first = site.secret()
    assert first != "planted"
    site.sign_in()
    assert site.secret() != first
    other = site.another_browser()
    other.set_cookie(site.cookie, first, domain="localhost")
    assert site.is_signed_in()
    assert not site.is_signed_in(other)


def test_a_sign_out_ends_the_session_and_not_only_the_cookie(site: Site) -> None:
    """A copy of the cookie is worth nothing; other sites end none; the user's other browser goes on."""
    site.sign_in()
    assert site.post("/sign-out", **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert site.is_signed_in()
    elsewhere = site.another_browser()
    site.sign_in(browser=elsewhere)
    copy = site.another_browser()
    copy.set_cookie(site.cookie, site.secret(), domain="localhost")
    answer = site.post("/sign-out", **{"sec-fetch-site": "same-origin"})
    assert answer.headers["Location"].startswith("https://login.microsoftonline.com/")
    assert site.secret() is None
    assert not site.is_signed_in(copy)
    assert site.get("/profile", elsewhere).status_code == 200


def test_a_claims_challenge_of_the_api_is_met(site: Site) -> None:
    """By the refresh token where that will do; else by a sign-in with these claims, and back to the page (G17)."""
    site.sign_in()
    site.emulator.revoke("ada@contoso.com")
    answer = site.get("/profile")
    assert (answer.status_code, "As of" in answer.text) == (200, True)
    with capture_events() as events:
        site.clock.skip(MINUTE)
        assert site.get("/profile").status_code == 200
        # The refresh that was due is over: with no token left the API would be asked nothing, and challenge nobody.
        events.wait_for(TokenAcquired)
    site.emulator.revoke("ada@contoso.com", refresh_tokens=True)
    begun = site.begin()
    query = parse_qs(urlsplit(begun).query)
    assert '"nbf"' in query["claims"][0]
    assert query["login_hint"] == ["ada@contoso.com"]
    answer = site.post("/signed-in", data=site.emulator.sign_in(begun, "ada@contoso.com"))
    assert answer.headers["Location"] == "/profile"
    assert site.get("/profile").status_code == 200


def test_who_is_not_signed_in_has_nobody_asked_for_a_token(site: Site) -> None:
    """No page waits for the provider's token endpoint, or meets a challenge, on a mere visitor's behalf."""
    before = len(site.emulator.ledger.token_calls())
    sent = {"code": "guessed", "state": "guessed", "claims": "{}"}
    for rule in site.app.url_map.iter_rules():
        if "filename" in rule.arguments:
            continue
        for browser in (site.browser, site.another_browser()):
            posted = "POST" in (rule.methods or ())
            answer = site.post(rule.rule, browser, sent) if posted else site.get(f"{rule.rule}?claims={{}}", browser)
            assert answer.status_code in (200, 303, 400, 401), rule.rule
    assert len(site.emulator.ledger.token_calls()) == before


def test_what_is_kept_opens_nothing(site: Site) -> None:
    """Neither a cookie, a name nor a token is in the files, which are their owner's alone."""
    site.sign_in()
    site.get("/profile")
    files = [file for file in Path(site.environment["DATA"]).iterdir() if file.name.startswith("users.db")]
    assert files
    kept = b"".join(file.read_bytes() for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert not any(secret in kept for secret in (str(site.secret()).encode(), b"ada@contoso", b"eyJ"))


class Web:
    """A sample as a process, which can be started anew."""

    def __init__(self, rehearsal: ModuleType, emulator: Emulator, framework: str, folder: Path) -> None:
        self.environment: dict[str, str] = rehearsal.environment(emulator, folder)
        self.environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        self.base = self.environment["BASE_URL"]
        self.program = rehearsal.start(EXAMPLES / f"{framework}_web" / "web.py", self.environment)

    def client(self, **options: Any) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(Path(self.environment["DATA"]) / "ca.pem"))
        return httpx.Client(base_url=self.base, verify=trust, trust_env=False, timeout=15, **options)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def web(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    rehearsal: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Web]:
    running = Web(rehearsal, emulator, request.param, tmp_path_factory.mktemp("web"))
    yield running
    running.program.kill()


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_every_answer_is_protected(web: Web) -> None:
    """No scripts, no frames, no sniffing; no other host's name is accepted; and probes are answered whoever asks."""
    with web.client(headers={"accept": "text/html"}) as client:
        for path, status in (("/", 200), ("/nothing", 404), ("/static/style.css", 200), ("/static/nothing", 404)):
            answer = client.get(path)
            assert answer.status_code == status
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert "Set-Cookie" not in answer.headers
            assert "Traceback" not in answer.text
        assert "There is no such page." in client.get("/nothing").text
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
        answer = client.get("/health/live")
        assert (answer.status_code, answer.json()) == (200, {"live": True})


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_operators_alone_see_the_status_page_and_the_metrics(web: Web) -> None:
    """With its own, stricter policy."""
    password = web.environment["OPERATOR_PASSWORD"]
    with web.client() as client:
        paths = ("/status", "/status/now", "/metrics")
        for given in (None, ("ops", "wrong")):
            assert [client.get(path, auth=given).status_code for path in (*paths, "/status/events")] == [401] * 4
        page, _, metrics = (client.get(path, auth=("ops", password)) for path in paths)
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "resilient_auth_" in metrics.text


@pytest.fixture(scope="module")
def chromium(emulator: Emulator) -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            # root has no sandbox, nor need of one against pages of our own.
            chromium_sandbox=os.geteuid() != 0,
            # Whatever it asks for, the emulator answers; but for the application.
            proxy={"server": emulator.proxy_url, "bypass": "localhost"},
        )
        yield browser
        browser.close()


Visit = Callable[[str], Page]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def visit(base: str) -> Page:
        context = chromium.new_context(ignore_https_errors=True, base_url=base, locale="en")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [one for one in complaints if not one.startswith(EXPECTED_OF_THE_CONSOLE)] == []


_AXE = Axe().axe_script
#: A telephone and a desk, in light and in dark: each page is seen in two of them that have all in them, in turn.
LOOKS = (
    (((390, 844), "light"), ((1280, 800), "dark")),
    (((390, 844), "dark"), ((1280, 800), "light")),
)
_turn = itertools.cycle(LOOKS)


def assert_accessible(page: Page) -> None:
    """Look with axe, on a telephone and on a desk, in light and in dark; and nothing is wider than the screen."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE)
    for (width, height), scheme in next(_turn):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate("axe.run({resultTypes: ['violations']})")
        assert found["violations"] == []
        assert found["passes"]


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
@pytest.mark.parametrize("web", ["django", "fastapi"], indirect=True)
def test_a_person_stays_signed_in_through_an_outage(visit: Visit, emulator: Emulator, web: Web) -> None:
    """At the provider's real pages; told of what is wrong by pages that another test reads one by one."""
    ada, bob = visit(web.base), visit(web.base)
    ada.goto("/")
    ada.get_by_role("link", name="Sign in").click()
    ada.get_by_role("button", name="ada@contoso.com").click()
    expect(ada.get_by_role("heading", name="Welcome back, Ada")).to_be_visible()
    (cookie,) = ada.context.cookies(web.base)
    flags = {name: cookie[name] for name in ("secure", "httpOnly", "sameSite", "path", "expires")}
    assert flags == {"secure": True, "httpOnly": True, "sameSite": "Lax", "path": "/", "expires": -1}
    assert cookie["name"].startswith("__Host-session")
    ada.get_by_role("link", name="Account").click()
    # It wants more than that sign-in has proven.
    ada.get_by_role("button", name="ada@contoso.com").click()
    expect(ada.get_by_role("heading", name="Your account")).to_be_visible()
    assert_accessible(ada)
    ada.get_by_role("link", name="Profile").click()
    expect(ada.get_by_text("ada@contoso.com")).to_be_visible()
    expect(ada.get_by_role("status")).to_have_count(0)

    bob.goto("/profile")
    bob.get_by_role("button", name="bob@contoso.com").click()
    expect(bob.get_by_role("heading", name="Your profile")).to_be_visible()
    bob.get_by_role("button", name="Sign out").click()
    expect(bob.get_by_text("You are signed out.")).to_be_visible()
    assert bob.url.startswith(f"{web.base}/sign-out/done")

    emulator.fail(Fault.refuse())
    for _ in range(60):
        ada.goto("/profile")
        expect(ada.get_by_role("heading", name="Your profile")).to_be_visible()
        if ada.get_by_role("status").count():
            break
        ada.wait_for_timeout(200)
    expect(ada.get_by_role("status")).to_contain_text("You stay signed in.")
    assert_accessible(ada)
    ada.get_by_role("button", name="Sign out").click()
    expect(ada.get_by_text("may still be signed in there")).to_be_visible()
    ada.goto("/profile")
    expect(ada.get_by_role("heading", name="Signing in doesn't work right now")).to_be_visible()
    assert_accessible(ada)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


@contextmanager
def served(site: Site) -> Iterator[None]:
    """Have a browser reach an application of this process."""
    certificate = site.environment["CERTIFICATE_FILE"]
    server = make_server(
        "localhost", urlsplit(site.base).port or 0, site.app, threaded=True, request_handler=_Quiet,
        ssl_context=(certificate, certificate),
    )  # fmt: skip
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_a_person_can_read_every_page(visit: Visit, site: Site) -> None:
    with served(site):
        page = visit(site.base)
        page.goto("/")
        assert_accessible(page)
        page.goto("/profile")
        page.get_by_role("button", name="ada@contoso.com").click()
        expect(page.get_by_role("heading", name="Your profile")).to_be_visible()
        assert_accessible(page)
        site.emulator.fail(Fault.http_503(), endpoint="api")
        page.reload()
        expect(page.get_by_text("be refreshed right now")).to_be_visible()
        assert_accessible(page)
        site.emulator.heal()
        page.goto("/account")
        page.get_by_role("button", name="ada@contoso.com").click()
        expect(page.get_by_role("heading", name="Your account")).to_be_visible()
        assert_accessible(page)
        page.goto("/")
        assert_accessible(page)
        page.goto("/sign-out")
        expect(page.get_by_role("heading", name="Sign out?")).to_be_visible()
        assert_accessible(page)
        site.emulator.fail(Fault.refuse())
        site.clock.skip(1 * HOUR)
        page.goto("/account")
        expect(page.get_by_role("heading", name="be shown right now")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("You stay signed in for now.")
        assert_accessible(page)
        page.goto("/")
        expect(page.get_by_text("until you can sign in again")).to_be_visible()
        assert_accessible(page)
        page.goto("/nothing")
        assert_accessible(page)
        page.goto("/")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("may still be signed in there")).to_be_visible()
        assert_accessible(page)
        page.goto("/account")
        expect(page.get_by_role("heading", name="Signing in doesn't work right now")).to_be_visible()
        assert_accessible(page)


@pytest.mark.slow
def test_each_sample_keeps_its_users_signed_in_through_an_outage() -> None:
    """As its README says: with nothing but the samples and the emulator. All at once, since they mostly wait."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

    def run(framework: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(EXAMPLES / f"{framework}_web" / "run.py")],
            env=environment, capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip

    with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:
        for ended in pool.map(run, FRAMEWORKS):
            told = ended.stdout + ended.stderr
            assert ended.returncode == 0, told
            assert """bob saw "503 Signing in doesn't work right now" 1 times""" in told
            assert "eyJ" not in told
            assert "a secret of the emulator" not in told
            assert "Traceback" not in told
