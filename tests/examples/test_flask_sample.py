"""The sample of a web application keeps its users signed in through an outage, in a real browser too."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from resilient_auth.emulator import Emulator, Fault
from resilient_auth.testing import ManualClock

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "flask_web"
MINUTE, HOUR = 60.0, 3600.0
SESSION, SIGN_IN = "__Host-session", "__Host-sign-in"

FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip
#: What the browser says of a status that it was meant to get, and of a favicon that it wanted during a restart.
EXPECTED_OF_THE_CONSOLE = "Failed to load resource: "


def load(name: str) -> ModuleType:
    """Load a module of the sample under a name of its own: another sample has a run.py too."""
    spec = importlib.util.spec_from_file_location(f"flask_web_{name}", SAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look themselves up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    """Let the sample's modules find each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLE))
        yield


@pytest.fixture(scope="module")
def rehearsal(path: None) -> ModuleType:
    return load("run")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(token_lifetime=600.0, refresh_in=2.0) as running:
        running.add_user("ada@contoso.com")
        running.add_user("bob@contoso.com")
        yield running


@pytest.fixture(autouse=True)
def healthy(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.heal()
    emulator.allow()


class Site:
    """The application in this process, whose time is the test's, and one visitor's browser."""

    _numbers = itertools.count()

    def __init__(self, emulator: Emulator, environment: dict[str, str]) -> None:
        # A provider of its own for each test: breakers belong to the provider's origin.
        authority = f"https://sample{next(self._numbers)}.b2clogin.com/contoso.onmicrosoft.com/b2c_1_sign_in"
        self.emulator = emulator
        self.environment = environment | {"AUTHORITY": authority}
        self.clock = ManualClock()
        self.app = load("web").create_app(self.environment, clock=self.clock)
        self.browser = self.another_browser()

    def another_browser(self) -> Any:
        return self.app.test_client()

    def get(self, path: str, browser: Any = None, **options: Any) -> Any:
        return (browser or self.browser).get(path, base_url=self.environment["BASE_URL"], **options)

    def post(self, path: str, browser: Any = None, **options: Any) -> Any:
        return (browser or self.browser).post(path, base_url=self.environment["BASE_URL"], **options)

    def begin(self, path: str = "/sign-in", browser: Any = None) -> str:
        """Begin a sign-in, and return where it leads."""
        answer = self.get(path, browser)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["Location"])

    def sign_in(self, path: str = "/sign-in", browser: Any = None, user: str = "ada@contoso.com") -> Any:
        form = self.emulator.sign_in(self.begin(path, browser), user)
        return self.post("/signed-in", browser, data=form)

    def secret(self, browser: Any = None, name: str = SESSION) -> str | None:
        cookie = (browser or self.browser).get_cookie(name, domain=urlsplit(self.environment["BASE_URL"]).hostname)
        return None if cookie is None else cookie.value

    def is_signed_in(self, browser: Any = None) -> bool:
        return "Welcome back" in self.get("/", browser).text

    def form_key(self, browser: Any = None) -> str:
        found = re.search('name="form_key" value="([^"]+)"', self.get("/", browser).text)
        assert found is not None
        return found[1]

    def stay(self, seconds: float) -> None:
        """Be active every 20 minutes."""
        for _ in range(round(seconds / (20 * MINUTE))):
            self.clock.advance(20 * MINUTE)
            self.get("/")


@pytest.fixture
def site(
    emulator: Emulator, rehearsal: ModuleType, tmp_path: Path, own_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    environment = rehearsal.environment(emulator, tmp_path)
    for name in ("HTTPS_PROXY", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, environment[name])
    made = Site(emulator, environment)
    with made.app.extensions["closing"]:
        yield made


def test_activity_renews_a_session_until_its_lifetime_is_over(site: Site) -> None:
    """That the ID token lived for ten minutes doesn't matter (G13)."""
    site.sign_in()
    site.stay(7.5 * HOUR)
    assert site.is_signed_in()
    site.stay(40 * MINUTE)
    assert not site.is_signed_in()
    assert site.get("/profile").headers["Location"] == "/sign-in?next=/profile"


def test_probes_are_answered_whoever_asks(site: Site) -> None:
    """Nobody is signed in there, and in an outage the process is alive."""
    site.emulator.fail(Fault.http_503())
    answer = site.get("/health/live")
    assert (answer.status_code, answer.json) == (200, {"live": True})
    assert "Set-Cookie" not in answer.headers


def test_operators_alone_see_the_status_page_and_the_metrics(site: Site) -> None:
    """With its own, stricter policy; and no user is named there."""
    site.sign_in()
    site.get("/profile")
    paths = ("/status", "/status/now", "/status/events", "/metrics")
    for given in (None, ("ops", "wrong")):
        assert [site.get(path, auth=given).status_code for path in paths] == [401] * 4
    page, now, _, metrics = (site.get(path, auth=("ops", site.environment["OPERATOR_PASSWORD"])) for path in paths)
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "ada@" not in page.text + now.text
    assert "resilient_auth_tokens" in metrics.text


def test_a_session_without_activity_ends(site: Site) -> None:
    site.sign_in()
    site.clock.advance(31 * MINUTE)
    assert not site.is_signed_in()


def test_an_outage_extends_a_session_up_to_the_absolute_limit(site: Site) -> None:
    """Nobody could sign in again: neither a lunch nor the end of the lifetime signs a user out."""
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.clock.advance(3 * HOUR)
    assert site.is_signed_in()
    site.stay(20.6 * HOUR)
    assert site.is_signed_in()
    site.stay(40 * MINUTE)
    assert not site.is_signed_in()


def test_an_outage_doesnt_extend_a_session_that_nobody_uses_for_hours(site: Site) -> None:
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.clock.advance(4 * HOUR + 1)
    assert not site.is_signed_in()


def test_an_extended_session_ends_when_users_can_sign_in_again(site: Site) -> None:
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.stay(9 * HOUR)
    assert site.is_signed_in()
    site.emulator.heal()
    site.clock.advance(MINUTE)
    assert not site.is_signed_in()


def test_who_cant_sign_in_is_told_so_and_when_to_try_again(site: Site) -> None:
    """Before they are sent to a page that never comes; when it is over, the same link works."""
    site.emulator.fail(Fault.refuse())
    answer = site.get("/sign-in?next=/profile")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "Nothing is wrong with your account" in answer.text
    assert 'href="/sign-in?next=/profile"' in answer.text
    assert "Traceback" not in answer.text
    site.emulator.heal()
    site.clock.advance(6.0)
    assert site.sign_in("/sign-in?next=/profile").headers["Location"] == "/profile"


def test_an_outage_between_the_providers_page_and_ours_gets_the_same_answer(site: Site) -> None:
    """The code is on its way, and can't be redeemed."""
    form = site.emulator.sign_in(site.begin(), "ada@contoso.com")
    site.emulator.fail(Fault.http_503(), endpoint="token")
    answer = site.post("/signed-in", data=form)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "sign in right now" in answer.text
    assert not site.is_signed_in()


@pytest.mark.parametrize("wrong", ["state", "cookie", "nonce", "verifier", "replay", "late"])
def test_an_answer_that_doesnt_belong_to_this_browsers_sign_in_is_refused(site: Site, wrong: str) -> None:
    """State, PKCE and nonce bind it, and it counts once and for ten minutes."""
    begun = site.begin()
    query = {name: values[0] for name, values in parse_qs(urlsplit(begun).query).items()}
    assert (query["code_challenge_method"], query["response_mode"]) == ("S256", "form_post")
    uri = begun
    if wrong == "nonce":
        uri = begun.replace(query["nonce"], "another")
    if wrong == "verifier":
        uri = begun.replace(query["code_challenge"], "another")
    form = site.emulator.sign_in(uri, "ada@contoso.com")
    if wrong == "state":
        form["state"] = "another"
    browser = site.another_browser() if wrong == "cookie" else site.browser
    if wrong == "replay":
        kept = site.secret(name=SIGN_IN)
        assert site.post("/signed-in", data=form).status_code == 303
        browser = site.another_browser()
        browser.set_cookie(SIGN_IN, kept, domain="localhost")
    if wrong == "late":
        cookies = importlib.import_module("cryptography.fernet").Fernet(site.environment["COOKIE_KEY"])
        text = cookies.decrypt(site.secret(name=SIGN_IN))
        issued = cookies.extract_timestamp(site.secret(name=SIGN_IN))
        site.browser.set_cookie(SIGN_IN, cookies.encrypt_at_time(text, issued - 601).decode(), domain="localhost")
    answer = site.post("/signed-in", browser, data=form)
    assert answer.status_code == (403 if wrong in ("verifier", "replay") else 400), answer.text
    assert "Traceback" not in answer.text
    assert site.secret(browser) is None


def test_a_denial_at_the_providers_page_is_told_without_its_words(site: Site) -> None:
    """They come from the address of the request, and so from anybody."""
    state = parse_qs(urlsplit(site.begin()).query)["state"][0]
    form = {"error": "access_denied", "error_description": "call 555 0199 and tell your password", "state": state}
    answer = site.post("/signed-in", data=form)
    assert answer.status_code == 403
    assert "555 0199" not in answer.text


@pytest.mark.parametrize("end", ["\r\n", "\n", "\x85", "\u2028", "\x1b[2K"])
def test_a_visitor_writes_no_line_of_their_own_into_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """Whoever begins a sign-in may answer for the provider, with any error that they like, as long as they like."""
    state = parse_qs(urlsplit(site.begin()).query)["state"][0]
    form = {"error": f"x{end}CRITICAL web: all is well{'!' * 10_000}", "state": state}
    assert site.post("/signed-in", data=form).status_code == 403
    told = [record.getMessage() for record in caplog.records if record.name == "web"]
    assert len(told) == 1
    assert told[0].isprintable()
    assert len(told[0]) < 200


def test_who_is_not_signed_in_has_nobody_asked_for_a_token(site: Site) -> None:
    """No page waits for the provider's token endpoint, or meets a challenge, on a mere visitor's behalf."""
    before = len(site.emulator.ledger.token_calls())
    for rule in site.app.url_map.iter_rules():
        if "filename" in rule.arguments:
            continue
        for browser in (site.browser, site.another_browser()):
            if "POST" in (rule.methods or ()):
                answer = site.post(rule.rule, browser, data={"code": "guessed", "state": "guessed", "claims": "{}"})
            else:
                answer = site.get(rule.rule, browser, query_string={"claims": "{}"})
            assert answer.status_code in (200, 303, 400), rule.rule
    assert len(site.emulator.ledger.token_calls()) == before


def test_each_sign_in_makes_a_new_secret(site: Site) -> None:
    """One that somebody planted in the browser, or an earlier one, is worth nothing afterwards."""
    site.browser.set_cookie(SESSION, "planted", domain="localhost")
    site.sign_in()
    first = site.secret()
    assert first != "planted"
    site.sign_in()
    assert site.secret() != first
    other = site.another_browser()
    other.set_cookie(SESSION, first, domain="localhost")
    assert site.is_signed_in()
    assert not site.is_signed_in(other)


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "profile", "/\t/x"])
def test_a_sign_in_leads_to_no_other_site(site: Site, elsewhere: str) -> None:
    answer = site.get("/sign-in", query_string={"next": elsewhere})
    form = site.emulator.sign_in(answer.headers["Location"], "ada@contoso.com")
    assert site.post("/signed-in", data=form).headers["Location"] == "/"


def test_sign_out_wants_a_key_that_other_sites_dont_know(site: Site) -> None:
    site.sign_in()
    assert site.post("/sign-out").status_code == 400
    assert site.post("/sign-out", data={"form_key": "guessed"}).status_code == 400
    assert site.is_signed_in()
    # A browser leaves the cookie out of what another site posts. The answer must end nothing either.
    answer = site.post("/sign-out", site.another_browser())
    assert answer.headers["Location"] == "/"
    assert "Set-Cookie" not in answer.headers


def test_sign_out_ends_the_session_and_not_only_the_cookie(site: Site) -> None:
    """A copy of the cookie is worth nothing; the user's other sessions go on, and their tokens with them."""
    site.sign_in()
    elsewhere = site.another_browser()
    site.sign_in(browser=elsewhere)
    copy = site.another_browser()
    copy.set_cookie(SESSION, site.secret(), domain="localhost")
    answer = site.post("/sign-out", data={"form_key": site.form_key()})
    assert answer.headers["Location"].startswith(f"{site.environment['AUTHORITY']}/oauth2/v2.0/logout?")
    assert site.secret() is None
    assert not site.is_signed_in(copy)
    assert site.get("/profile", elsewhere).status_code == 200


def test_sign_out_works_while_the_provider_is_gone(site: Site) -> None:
    site.sign_in()
    site.emulator.fail(Fault.refuse())
    site.clock.advance(MINUTE)
    answer = site.post("/sign-out", data={"form_key": site.form_key()})
    assert answer.headers["Location"] == "/signed-out?here_only=1"
    assert "may still be signed in" in site.get("/signed-out?here_only=1").text
    assert not site.is_signed_in()


def test_the_page_of_an_api_that_fails_shows_what_it_told_last(site: Site) -> None:
    """With nothing to show yet, it says so, with the status that machines understand."""
    site.sign_in()
    site.emulator.fail(Fault.http_503(), endpoint="api")
    answer = site.get("/profile")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    site.emulator.heal("api")
    site.sign_in()
    assert "As of" in site.get("/profile").text
    site.emulator.fail(Fault.reset(), endpoint="api")
    answer = site.get("/profile")
    assert answer.status_code == 200
    assert "This is how it was at" in answer.text
    assert "ada@contoso.com" in answer.text


def test_a_claims_challenge_is_met_without_the_user_where_it_can_be(site: Site) -> None:
    """The refresh token still works (G17)."""
    site.sign_in()
    site.emulator.revoke("ada@contoso.com")
    answer = site.get("/profile")
    assert (answer.status_code, "As of" in answer.text) == (200, True)


def test_a_claims_challenge_that_needs_the_user_leads_to_a_sign_in_with_these_claims(site: Site) -> None:
    """And back to the page. One that is asked for again at once ends in a message, not in a loop."""
    site.sign_in()
    site.clock.advance(MINUTE)
    site.emulator.revoke("ada@contoso.com", refresh_tokens=True)
    answer = site.get("/profile")
    assert answer.headers["Location"] == "/sign-in?next=/profile"
    begun = site.begin("/sign-in?next=/profile")
    query = parse_qs(urlsplit(begun).query)
    assert '"nbf"' in query["claims"][0]
    assert query["login_hint"] == ["ada@contoso.com"]
    answer = site.post("/signed-in", data=site.emulator.sign_in(begun, "ada@contoso.com"))
    assert site.get(answer.headers["Location"]).status_code == 200
    site.emulator.revoke("ada@contoso.com", refresh_tokens=True)
    assert site.get("/profile").status_code == 403


def test_every_answer_is_protected(site: Site) -> None:
    """No scripts, no frames, no sniffing, no referrers, no copies; and no other host's name is accepted."""
    for path, status in (("/", 200), ("/nothing", 404), ("/sign-out", 405), ("/static/style.css", 200)):
        answer = site.get(path)
        answer.close()
        assert answer.status_code == status
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert (answer.headers["Cache-Control"] == "no-store") == (not path.startswith("/static"))
    assert site.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_what_is_kept_of_a_session_opens_nothing(site: Site) -> None:
    """Neither the cookie's secret nor a token is in the file, which is its owner's alone."""
    site.sign_in()
    site.get("/profile")
    file = Path(site.environment["DATA"]) / "sessions.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = "\n".join(sqlite3.connect(file).iterdump())
    assert "ada@contoso.com" in text
    assert str(site.secret()) not in text
    assert "eyJ" not in text


@pytest.fixture(scope="module")
def chromium(emulator: Emulator) -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
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


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def web(emulator: Emulator, rehearsal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application as a process, which can be started anew."""

    class Web:
        environment = rehearsal.environment(emulator, tmp_path_factory.mktemp("web"))

        def __init__(self) -> None:
            self.program = rehearsal.start(self.environment)

        def restart(self) -> None:
            self.program.terminate()
            assert self.program.status() == 0
            self.program.kill()
            self.program = rehearsal.start(self.environment)

    running = Web()
    yield running
    running.program.kill()


@pytest.fixture
def visit(chromium: Browser, web: Any) -> Iterator[Visit]:
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def visit(**options: Any) -> Page:
        context = chromium.new_context(
            ignore_https_errors=True, base_url=web.environment["BASE_URL"], locale="en", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [one for one in complaints if not one.startswith(EXPECTED_OF_THE_CONSOLE)] == []


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def sign_in(page: Page, user: str) -> None:
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name=user).click()


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_signs_in_and_out_at_the_providers_real_pages(visit: Visit, scheme: str) -> None:
    """Its cookies are what they should be, its console is silent, and every page is accessible."""
    page = visit(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.goto("/")
    assert_accessible(page)
    sign_in(page, "ada@contoso.com")
    expect(page.get_by_role("heading", name="Welcome back, Ada")).to_be_visible()
    (cookie,) = page.context.cookies()
    flags = {name: cookie[name] for name in ("name", "secure", "httpOnly", "sameSite", "path", "expires")}
    assert flags == {
        "name": SESSION, "secure": True, "httpOnly": True, "sameSite": "Lax", "path": "/", "expires": -1
    }  # fmt: skip
    assert_accessible(page)
    page.get_by_role("link", name="See your profile").click()
    expect(page.get_by_text("ada@contoso.com")).to_be_visible()
    assert_accessible(page)
    # The page is no wider than the telephone.
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    assert_accessible(page)
    page.goto("/profile")
    expect(page.get_by_role("heading", name="Pick an account")).to_be_visible()


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_a_browser_stays_signed_in_through_an_outage_and_a_restart(visit: Visit, emulator: Emulator, web: Any) -> None:
    """Its user is told of the problem; who isn't signed in gets a page of ours; afterwards all is well."""
    ada, bob = visit(), visit()
    ada.goto("/")
    sign_in(ada, "ada@contoso.com")
    ada.get_by_role("link", name="See your profile").click()
    expect(ada.get_by_role("status")).to_have_count(0)
    bob.goto("/")

    emulator.fail(Fault.refuse())
    web.restart()
    bob.get_by_role("link", name="Sign in").click()
    expect(bob.get_by_role("heading", name="sign in right now")).to_be_visible()
    expect(bob.get_by_text("Please try again in 5 seconds.")).to_be_visible()
    assert_accessible(bob)
    ada.reload()
    expect(ada.get_by_role("heading", name="Your profile")).to_be_visible()
    expect(ada.get_by_role("status")).to_contain_text("You stay signed in.")
    assert_accessible(ada)

    emulator.fail(Fault.http_503(), endpoint="api")
    ada.reload()
    expect(ada.get_by_text("be refreshed right now")).to_be_visible()
    assert_accessible(ada)
    ada.get_by_role("button", name="Sign out").click()
    expect(ada.get_by_text("may still be signed in")).to_be_visible()
    ada.goto("/profile")
    expect(ada.get_by_role("heading", name="sign in right now")).to_be_visible()

    emulator.heal()
    user = bob.get_by_role("button", name="bob@contoso.com")
    for _ in range(30):
        bob.get_by_role("link", name="Try again").click()
        if user.count():
            break
        bob.wait_for_timeout(500)
    user.click()
    expect(bob.get_by_role("heading", name="Welcome back, Bob")).to_be_visible()


@pytest.mark.slow
def test_the_sample_keeps_its_user_signed_in_through_an_outage() -> None:
    """As its README says: with nothing but this sample and the emulator."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, str(SAMPLE / "run.py")],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert re.search("bob saw '503 You can.t sign in right now' 1 times", told)
    assert "eyJ" not in told
    assert "a secret of the emulator" not in told
