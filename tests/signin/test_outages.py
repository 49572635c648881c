"""An outage of the provider: who is signed in stays in, within the owner's bounds; who isn't is told the truth."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from signin_site import BASE, Site
from site_process import Process

from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError
from resilient_auth.events import SessionExtended, SignInUnavailable
from resilient_auth.signin import IdentityProvider, OneTimeCodes, SessionOptions, SignInOptions
from resilient_auth.testing import capture_events

MINUTE, HOUR = 60.0, 3600.0
#: Whoever is in past their bounds, or out before them, is found within so many seconds.
STEP = 10 * MINUTE


@contextmanager
def processes(emulator: Emulator, folder: Path, now: float) -> Iterator[list[Process]]:
    """Start two, which are killed in the end."""
    bounds = SessionOptions(idle=30 * MINUTE, lifetime=2 * HOUR, extension=2 * HOUR)
    started = [Process(emulator, folder, SignInOptions(sessions=bounds), now) for _ in range(2)]
    try:
        yield started
    finally:
        for each in started:
            each.kill()


class TestSignedIn:
    def test_three_hours_with_a_restart_of_every_process(self, make_site: Callable[..., Site]) -> None:
        """Nobody is signed out before the owner's bounds, nobody stays in after them, nobody is led into the dark."""
        bounds = SessionOptions(idle=30 * MINUTE, lifetime=2 * HOUR, extension=2 * HOUR)
        site = make_site(options=SignInOptions(sessions=bounds))
        browsers = {}
        for name in ("active", "idle", "early", "late"):
            browsers[name] = site.another_browser()
        signed_in = {}

        def sign_in(name: str) -> None:
            site.sign_in(browser=browsers[name], user="ada")
            signed_in[name] = site.clock.wall()

        sign_in("early")
        site.clock.advance(30 * MINUTE - 10.0)
        site.get("/me", browsers["early"])
        for name in ("active", "idle", "late"):
            sign_in(name)
        # So little is asked of the provider that no breaker knows of it: it is seen by a look alone.
        site.emulator.fail(Fault.reset())
        site.clock.advance(1.1)
        began = site.clock.wall()
        seen = dict.fromkeys(browsers, began)
        with capture_events() as events:
            while (now := site.clock.wall()) < began + 3 * HOUR:
                if began + HOUR <= now < began + HOUR + STEP or began + 2 * HOUR <= now < began + 2 * HOUR + STEP:
                    site.restart()
                    for browser in browsers.values():
                        browser.application = site.app
                for name, browser in browsers.items():
                    if name == "idle" and now < began + 100 * MINUTE:
                        continue
                    ends = min(seen[name] + bounds.idle, signed_in[name] + bounds.lifetime)
                    answer = site.get("/me", browser)
                    if now < ends:
                        assert answer.text == "me Ada", (name, now - began)
                        seen[name] = now
                    elif now < ends + bounds.extension:
                        assert answer.text == "me Ada extended", (name, now - began)
                    else:
                        assert answer.status_code == 503, (name, now - began)
                stranger = site.get("/me", site.another_browser())
                assert stranger.status_code == 503
                assert "Location" not in stranger.headers
                site.clock.advance(STEP)
            told = events.wait_for(SessionExtended, count=len(browsers))
        assert len(told) == len(browsers)
        assert all("ada" not in str(event).lower() for event in told)
        # It works again: whoever was extended is caught up with, with no question asked.
        site.emulator.heal()
        site.clock.advance(MINUTE)
        answer = site.get("/me", browsers["active"])
        assert answer.status_code == 303
        assert "prompt=none" in answer.headers["Location"]
        assert "login_hint=ada%40contoso.com" in answer.headers["Location"]
        # The provider's own clock hasn't moved: its tokens must last till the test's time.
        site.emulator.token_lifetime = 24 * HOUR
        try:
            form = site.answer(answer.headers["Location"])
            assert site.post("/signed-in", form, browsers["active"]).headers["Location"] == "/me"
        finally:
            site.emulator.token_lifetime = HOUR
        assert site.get("/me", browsers["active"]).text == "me Ada"

    def test_processes_that_are_all_killed_in_it(self, emulator: Emulator, tmp_path: Path) -> None:
        """Two of them over one file: what each has signed in the other knows, and so do those that come after them."""
        began = time.time()
        ada: dict[str, str] = {}
        with processes(emulator, tmp_path, began) as (one, other):
            _, _, address = one.ask("/me", ada)
            assert one.ask("/signed-in", ada, emulator.sign_in(address, "ada@contoso.com"))[0] == 303
            assert [each.ask("/me", ada)[:2] for each in (one, other)] == [(200, "me Ada")] * 2
        emulator.fail(Fault.refuse())
        with processes(emulator, tmp_path, began + 45 * MINUTE) as both:
            assert [each.ask("/me", ada)[:2] for each in both] == [(200, "me Ada extended")] * 2
            assert [(told[0], told[2]) for told in (each.ask("/me", {}) for each in both)] == [(503, "")] * 2
        with processes(emulator, tmp_path, began + 30 * MINUTE + 2 * HOUR) as both:
            assert [each.ask("/me", dict(ada))[0] for each in both] == [503] * 2

    def test_what_is_sent_after_the_recovery_is_not_lost(self, make_site: Callable[..., Site]) -> None:
        """The next page leads to the provider; a form that was open is taken."""
        site = make_site()
        site.sign_in()
        site.emulator.fail(Fault.reset())
        site.clock.advance(HOUR)
        assert site.get("/me").text == "me Ada extended"
        site.emulator.heal()
        site.clock.advance(MINUTE)
        assert site.post("/me", {"text": "hours of work"}).text == "me Ada extended"
        assert site.get("/me", sec_fetch_mode="cors", accept="application/json").text == "me Ada extended"
        assert site.get("/me").status_code == 303

    def test_who_is_past_the_end_is_asked_again_while_the_provider_works(self, make_site: Callable[..., Site]) -> None:
        """There is no extension without an outage."""
        site = make_site()
        site.sign_in()
        site.clock.advance(HOUR)
        assert site.get("/", accept="text/html").text == "hello stranger"
        assert site.get("/me").status_code == 303
        assert site.post("/me").status_code == 401

    def test_throttling_is_no_outage(self, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
        """Anybody could bring that about, to stay signed in: a sign-in must wait, and nothing is extended."""
        site = make_site()
        site.sign_in()
        site.clock.advance(40 * MINUTE)
        monkeypatch.setattr(site.auth.engine.site.primary.watch.engine, "cooldown_left", lambda _: 60.0)
        answer = site.get("/me")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert site.post("/me").status_code == 503

    def test_an_id_token_that_has_run_out_ends_nothing(self, make_site: Callable[..., Site]) -> None:
        site = make_site()
        site.sign_in()
        for _ in range(12):
            site.clock.advance(20 * MINUTE)
            assert site.get("/me").text == "me Ada"

    def test_this_machines_own_trouble_extends_nothing(
        self, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No file descriptor is left: that says nothing of the provider."""
        from resilient_auth.errors import LocalResourcesExhausted

        site = make_site()
        site.sign_in()
        site.clock.advance(HOUR)
        watch = site.auth.engine.site.primary.watch
        monkeypatch.setattr(watch._transport, "probe", lambda *_, **__: LocalResourcesExhausted("no file descriptor"))
        assert site.get("/me").status_code == 503


class TestNotSignedIn:
    def test_the_page_says_what_is_wrong_and_when_to_try_again(self, make_site: Callable[..., Site]) -> None:
        site = make_site()
        site.emulator.fail(Fault.status(503))
        with capture_events() as events:
            answer = site.get("/me?x=1")
            told = events.wait_for(SignInUnavailable)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "isn't your fault" in unescape(answer.text)
        assert "/sign-in?provider=b2c&next=%2Fme%3Fx%3D1" in unescape(answer.text)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert not re.search(r'(src|href)="https?:', answer.text)
        assert [event.authority for event in told] == [f"https://{site.tenant}.b2clogin.com"]
        assert site.flows() == []

    def test_a_script_is_told_too(self, make_site: Callable[..., Site]) -> None:
        site = make_site()
        site.emulator.fail(Fault.reset())
        answer = site.get("/me", accept="application/json", sec_fetch_mode="cors")
        assert answer.status_code == 503
        assert answer.json["detail"]["code"] == "provider_unavailable"

    def test_of_many_who_come_one_looks(self, make_site: Callable[..., Site], together: Callable[..., Any]) -> None:
        """The provider that struggles isn't asked by each of them."""
        site = make_site()
        site.emulator.fail(Fault.reset())
        before = len(site.emulator.ledger.calls)
        answers = together(8, lambda: site.get("/me", site.another_browser()))
        assert [answer.status_code for answer in answers] == [503] * 8
        assert len(site.emulator.ledger.calls) - before <= 3

    def test_a_provider_that_has_just_died_is_not_led_to(self, make_site: Callable[..., Site]) -> None:
        """A look counts for a second, and no longer."""
        site = make_site()
        site.begin()
        site.emulator.fail(Fault.reset())
        site.clock.advance(1.1)
        assert site.get("/me").status_code == 503

    def test_an_outage_of_one_policys_document_alone_is_none(self, make_site: Callable[..., Site]) -> None:
        """Where tokens can be had, users can sign in."""
        site = make_site()
        site.begin()
        site.emulator.fail(Fault.status(503), endpoint="discovery")
        site.clock.advance(2.0)
        assert site.get("/me").status_code == 303


class TestOtherWays:
    @pytest.fixture
    def sent(self) -> list[tuple[str, str]]:
        return []

    @pytest.fixture
    def dark(self, make_site: Callable[..., Site], sent: list[tuple[str, str]]) -> Site:
        """A site whose provider is down, with every other way in."""
        arrived = self.arrived = threading.Semaphore(0)

        def find(address: str) -> dict[str, str] | None:
            if address != "ada@contoso.com":
                arrived.release()
                return None
            return {"sub": "ada", "name": "Ada", "iss": "https://idp.example"}

        def send(address: str, code: str) -> None:
            sent.append((address, code))
            arrived.release()

        def second(site: Site) -> IdentityProvider:
            return IdentityProvider.for_openid(
                f"https://{site.tenant}.example/realms/x",
                client_id="web",
                client_credential="s",
                name="second",
                label="Contoso Backup",
                **site.wire(),
            )

        codes = OneTimeCodes(find=find, send=send)
        site = make_site(options=SignInOptions(codes=codes, guests=True), others=[second])
        site.emulator.fail(Fault.reset(), match=lambda call: "b2clogin" in call.host)
        return site

    def form(self, site: Site, path: str, **data: str) -> Any:
        return site.post(path, data, origin=BASE)

    def test_the_page_offers_them(self, dark: Site) -> None:
        text = unescape(dark.get("/me").text)
        for offered in ("Contoso Backup", "one-time code", "guest"):
            assert offered in text

    def test_a_second_provider(self, dark: Site) -> None:
        address = dark.begin("/sign-in?provider=second&next=/me")
        assert address.startswith(f"https://{dark.tenant}.example/")
        assert dark.post("/signed-in", dark.answer(address)).headers["Location"] == "/me"
        assert dark.get("/me").text == "me Ada"

    def test_a_code_lets_in_once(self, dark: Site, sent: list[tuple[str, str]]) -> None:
        """In the browser that asked for it."""
        assert self.form(dark, "/sign-in/code", address=" ada@contoso.com ", next="/me").status_code == 200
        assert self.arrived.acquire(timeout=10.0)
        code = sent[0][1]
        thief, own = dark.another_browser(), dark.browser
        assert dark.post("/sign-in/code/check", {"code": code}, thief, origin=BASE).status_code == 400
        answer = self.form(dark, "/sign-in/code/check", code=f"{code[:4]} {code[4:]}")
        assert answer.headers["Location"] == "/me"
        assert dark.get("/me").text == "me Ada"
        dark.browser = own
        assert self.form(dark, "/sign-in/code/check", code=code).status_code == 400
        # It is ended as the provider's sessions of the same user are.
        assert dark.auth.engine.site.sessions.end_where("https://idp.example", subject="ada") == 1

    def test_codes_are_guessed_a_few_times_and_do_not_last(self, dark: Site, sent: list[tuple[str, str]]) -> None:
        for minutes, guesses in ((0, 5), (11, 0)):
            self.form(dark, "/sign-in/code", address="ada@contoso.com")
            assert self.arrived.acquire(timeout=10.0)
            code = sent[-1][1]
            for _ in range(guesses):
                assert self.form(dark, "/sign-in/code/check", code="00000000").status_code == 400
            dark.clock.advance(minutes * MINUTE)
            assert self.form(dark, "/sign-in/code/check", code=code).status_code == 400

    def test_what_comes_by_the_wrong_door_gets_a_clear_page(self, dark: Site) -> None:
        """A code's own state is no sign-in with a provider; and an address may be too long for a cookie."""
        self.form(dark, "/sign-in/code", address="eve@contoso.com")
        assert dark.get("/signed-in?state=one-time+code&code=1").status_code == 400
        self.form(dark, "/sign-in/code", address="eve@contoso.com")
        assert dark.post("/signed-in", {"state": "one-time code", "error": "access_denied"}).status_code == 400
        answer = self.form(dark, "/sign-in/code", address="\U0001f600" * 254, next="/" + "x" * 900)
        assert answer.status_code == 400
        assert "too long" in answer.text

    def test_claims_that_name_nobody_send_no_code(
        self, dark: Site, sent: list[tuple[str, str]], caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
    ) -> None:
        """The owner is told; the user isn't led to an error by a code that is good for nothing."""
        object.__setattr__(dark.options.codes, "find", lambda _: {"name": "Ada"})  # type: ignore[union-attr]
        assert self.form(dark, "/sign-in/code", address="ada@contoso.com").status_code == 200
        eventually(lambda: "with a sub" in caplog.text)
        assert sent == []

    def test_codes_are_few_for_an_address_and_nobody_learns_whom_we_know(
        self, dark: Site, sent: list[tuple[str, str]]
    ) -> None:
        pages = set()
        for _ in range(3):
            pages.add(self.form(dark, "/sign-in/code", address="ada@contoso.com").text)
            assert self.arrived.acquire(timeout=10.0)
        pages.add(self.form(dark, "/sign-in/code", address="eve@contoso.com").text)
        assert self.arrived.acquire(timeout=10.0)
        self.form(dark, "/sign-in/code", address="ada@contoso.com")
        assert not self.arrived.acquire(timeout=0.3)
        assert len(sent) == 3
        assert len(pages) == 1

    def test_a_guest_sees_what_guests_may(self, dark: Site) -> None:
        assert self.form(dark, "/sign-in/guest", next="/").headers["Location"] == "/"
        assert dark.get("/").text == "hello Guest"
        assert dark.get("/me").status_code == 503

    @pytest.mark.parametrize("path", ["/sign-in/guest", "/sign-in/code", "/sign-in/code/check"])
    @pytest.mark.parametrize(
        "headers", [{}, {"origin": "https://evil.example"}, {"origin": BASE, "sec_fetch_site": "cross-site"}]
    )
    def test_another_sites_form_is_refused(self, dark: Site, path: str, headers: dict[str, str]) -> None:
        """Log-in CSRF."""
        assert dark.post(path, {"address": "ada@contoso.com", "code": "1"}, **headers).status_code == 400
        assert dark.cookie() is None

    def test_they_are_no_way_in_while_the_provider_works(self, dark: Site) -> None:
        dark.emulator.heal()
        dark.clock.advance(10.0)
        for path in ("/sign-in/guest", "/sign-in/code"):
            answer = self.form(dark, path, next="/me", address="ada@contoso.com")
            assert answer.headers["Location"] == "/sign-in?next=%2Fme"
        assert dark.get("/sign-in/code").status_code == 303

    def test_a_sender_that_fails_harms_nobody(
        self, dark: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
        eventually: Callable[..., None],
    ) -> None:  # fmt: skip
        """And no log has the address."""

        def fails(address: str, code: str) -> None:
            raise OSError(f"{address} {code}")

        object.__setattr__(dark.options.codes, "send", fails)  # type: ignore[union-attr]
        assert self.form(dark, "/sign-in/code", address="ada@contoso.com").status_code == 200
        eventually(lambda: "wasn't sent" in caplog.text)
        assert "ada@" not in caplog.text

    def test_guests_need_the_owners_word(self, site: Site) -> None:
        with pytest.raises(ConfigurationError, match="guests"):
            site.auth.login_required(guests=True)
        assert site.post("/sign-in/guest", {}, origin=BASE).status_code == 404
