"""Signing in, in a Flask application: the way there and back, and what comes back that shouldn't."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from signin_site import BASE, SCOPE, Site

from resilient_auth.downstream.errors import TokenUnavailable, no_token
from resilient_auth.emulator import Fault
from resilient_auth.errors import ConfigurationError, TokenDenied
from resilient_auth.events import ExchangeDenied, SignInRefused, UserSignedIn
from resilient_auth.signin import IdentityProvider, Page, SignInNeeded, SignInOptions
from resilient_auth.signin.engine import SignInEngine
from resilient_auth.signin.messages import Arrival
from resilient_auth.testing import capture_events


def asked(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


class TestTheWay:
    def test_a_visitor_is_led_there_and_back_to_the_page(self, site: Site) -> None:
        address = site.begin("/me?tab=2&q=a%20b")
        wanted = asked(address)
        assert wanted["code_challenge_method"] == "S256"
        assert wanted["redirect_uri"] == f"{BASE}/signed-in"
        assert {"state", "nonce", "code_challenge"} <= wanted.keys()
        assert set(wanted["scope"].split()) == {SCOPE, "openid", "profile", "offline_access"}
        with capture_events() as events:
            answer = site.post("/signed-in", site.answer(address))
            told = events.wait_for(UserSignedIn)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/me?tab=2&q=a%20b")
        assert site.get("/me").text == "me Ada"
        assert site.get("/").text == "hello Ada"
        assert len(told) == 1
        assert "ada" not in str(told[0]).lower()
        assert site.flows() == []

    def test_the_answer_may_come_in_the_address_too(self, site: Site) -> None:
        form = site.answer(site.begin())
        answer = site.browser.get("/signed-in", base_url=BASE, query_string=form)
        assert answer.status_code == 303
        assert site.get("/me").text == "me Ada"

    def test_tabs_sign_in_at_the_same_time(self, site: Site) -> None:
        """Each with a state of its own, and led where it wanted to go."""
        tabs = [site.begin(f"/me?tab={number}") for number in range(4)]
        assert len(site.flows()) == 4
        for number in (2, 0, 3, 1):
            answer = site.post("/signed-in", site.answer(tabs[number]))
            assert answer.headers["Location"] == f"/me?tab={number}"
        assert site.flows() == []

    def test_a_browser_keeps_a_few_of_them(self, site: Site) -> None:
        """The oldest give way, and those that can't be read."""
        site.browser.set_cookie("__Host-sign-in-0123456789abcdef", "1.nonsense", domain="app.example", secure=True)
        for number in range(8):
            site.begin(f"/me?tab={number}")
            site.clock.advance(1.0)
        assert len(site.flows()) == 5
        assert "__Host-sign-in-0123456789abcdef" not in site.flows()

    def test_a_token_comes_for_the_user(self, site: Site) -> None:
        site.sign_in()
        answer = site.get("/token")
        assert answer.text.count(".") == 2

    def test_scopes_beyond_the_set_are_refused_when_a_view_is_defined(self, site: Site) -> None:
        """So that no user is asked for consent bit by bit (G6)."""
        with pytest.raises(ConfigurationError, match="incremental_consent"):
            site.auth.login_required(scopes=["api://other/read"])
        with pytest.raises(ConfigurationError, match="incremental_consent"):
            site.auth.api_client("https://api.example", ["api://other/read"])

    def test_b2cs_other_policies(self, site: Site) -> None:
        """The user's tokens stay those of the policy that they signed in by."""
        site.sign_in()
        address = site.begin("/sign-in?use=edit&next=/me")
        assert "/b2c_1_edit/" in address
        assert site.post("/signed-in", site.answer(address)).headers["Location"] == "/me"
        assert site.get("/token").status_code == 200

    def test_a_forgotten_password_leads_to_its_policy(self, site: Site) -> None:
        state = asked(site.begin("/me"))["state"]
        told = {"state": state, "error": "access_denied", "error_description": "AADB2C90118: The user has forgotten"}
        answer = site.post("/signed-in", told)
        assert "/b2c_1_reset/" in answer.headers["Location"]
        assert site.post("/signed-in", site.answer(answer.headers["Location"])).headers["Location"] == "/me"
        assert site.get("/me").text == "me Ada"

    def test_a_quiet_attempt_comes_first_where_the_owner_wants_it(self, make_site: Callable[..., Site]) -> None:
        """And pages only when the provider must ask (G4)."""
        site = make_site(options=SignInOptions(silent_first=True))
        address = site.begin("/me?x=1")
        assert asked(address)["prompt"] == "none"
        answer = site.post("/signed-in", {"state": asked(address)["state"], "error": "login_required"})
        assert "prompt" not in asked(answer.headers["Location"])
        assert site.post("/signed-in", site.answer(answer.headers["Location"])).headers["Location"] == "/me?x=1"

    def test_a_view_may_want_a_stronger_sign_in(self, site: Site) -> None:
        """Once: who comes back without it is told, and not led in circles."""
        site.sign_in()
        address = site.begin("/strong")
        claims = json.loads(asked(address)["claims"])
        assert claims["id_token"]["acrs"] == {"essential": True, "value": "c1"}
        answer = site.post("/signed-in", site.answer(address))
        assert answer.status_code == 403
        assert site.get("/me").text == "me Ada"
        site.emulator.met_contexts = {"c1"}
        answer = site.post("/signed-in", site.answer(site.begin("/strong")))
        assert answer.headers["Location"] == "/strong"
        assert site.get("/strong").text == "strong"

    def test_a_view_that_catches_an_apis_failures_lets_that_pass(self) -> None:
        """An API's client raises it as it is: `except httpx.HTTPError` would show an old page for ever."""
        assert no_token(SignInNeeded("{}"), TokenUnavailable) is None
        assert isinstance(no_token(TokenDenied("invalid_client", ""), TokenUnavailable), TokenUnavailable)

    def test_an_api_may_want_its_user_to_sign_in_again(self, site: Site) -> None:
        """With the claims that it named; not right after a sign-in, which would help no more."""
        site.sign_in()
        assert site.get("/challenged").status_code == 403
        site.clock.advance(60.0)
        assert json.loads(asked(site.begin("/challenged"))["claims"])["access_token"]["nbf"]["essential"] is True

    def test_its_claims_get_there_although_a_refresh_is_denied_before_it_has_answered(
        self, make_site: Callable[..., Site]
    ) -> None:
        """The token is gone by then: asking for one without the claims would be denied too, and forget them (G17)."""
        site = make_site(client_capabilities=["cp1"])
        claims = base64.b64encode(b'{"access_token":{"nbf":{"essential":true,"value":"7"}}}').decode()
        challenge = f'Bearer error="insufficient_claims", claims="{claims}"'

        def api(_: httpx.Request) -> httpx.Response:
            # The request's own token was due: what renews it in the background is told first.
            assert events.wait_for(ExchangeDenied)
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})

        client = site.auth.api_client("https://api.example", [SCOPE], transport=httpx.MockTransport(api))

        @site.app.get("/orders")
        @site.auth.login_required(scopes=[SCOPE])
        def orders() -> str:
            return client.get("/").text

        with client, capture_events() as events:
            site.sign_in()
            assert site.get("/token").status_code == 200
            site.emulator.revoke("ada@contoso.com", refresh_tokens=True)
            for _ in range(2):
                site.clock.advance(25 * 60.0)
                assert site.get("/me").status_code == 200
            assert json.loads(asked(site.begin("/orders"))["claims"])["access_token"]["nbf"]["value"] == "7"

    def test_what_the_provider_adds_takes_nothing_away_of_what_the_api_asked_for(
        self, make_site: Callable[..., Site]
    ) -> None:
        """A policy of its own, which it names when it is asked for the API's claims, comes beside them."""
        site = make_site(client_capabilities=["cp1"])

        @site.app.get("/orders")
        @site.auth.login_required(scopes=[SCOPE])
        def orders() -> str:
            return site.auth.token(claims='{"access_token":{"nbf":{"value":"7"}}}')

        site.sign_in()
        site.clock.advance(60.0)
        denial = {"error": "interaction_required", "claims": '{"access_token":{"capolids":{"values":["p1"]}}}'}
        site.emulator.fail(Fault.status(400, json.dumps(denial)), endpoint="token")
        wanted = json.loads(asked(site.begin("/orders"))["claims"])["access_token"]
        assert (wanted["nbf"]["value"], wanted["capolids"]["values"]) == ("7", ["p1"])


class TestOtherProviders:
    @pytest.mark.parametrize("kind", ["entra", "many tenants", "external id", "openid"])
    def test_users_sign_in_with_each_of_them(self, make_site: Callable[..., Site], kind: str) -> None:
        def make(site: Site) -> IdentityProvider:
            options: dict[str, Any] = {
                "client_id": "web", "client_credential": "s", "scopes": [SCOPE], "name": "other", **site.wire(),
            }  # fmt: skip
            if kind == "entra":
                return IdentityProvider.for_entra("contoso.com", **options)
            if kind == "many tenants":
                return IdentityProvider.for_entra("organizations", **options)
            if kind == "external id":
                return IdentityProvider.for_external_id(site.tenant, **options)
            return IdentityProvider.for_openid(f"https://{site.tenant}.example/realms/x", **options)

        site = make_site(others=[make])
        answer = site.sign_in("/sign-in?provider=other&next=/me")
        assert (answer.status_code, answer.text) == (303, "")
        assert site.get("/me").text == "me Ada"
        assert site.get("/token").status_code == 200

    @pytest.mark.parametrize("more", [{}, {"error": "login_required"}])
    def test_another_providers_answer_is_refused(self, make_site: Callable[..., Site], more: dict[str, str]) -> None:
        """A mix-up: the answer says itself whose it is, and no other provider sees its code (RFC 9207)."""
        site = make_site(options=SignInOptions(silent_first=True))
        form = site.answer(site.begin()) | {"iss": "https://evil.example"} | more
        before = len(site.emulator.ledger.token_calls())
        answer = site.post("/signed-in", form)
        assert answer.status_code == 400
        assert site.cookie() is None
        assert len(site.emulator.ledger.token_calls()) == before


class TestBadAnswers:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda form: {}, "malformed"),
            (lambda form: {**form, "state": ""}, "malformed"),
            (lambda form: {**form, "state": "x" * 300}, "malformed"),
            (lambda form: {**form, "state": "another"}, "unknown_state"),
            (lambda form: {"state": form["state"]}, "malformed"),
            (lambda form: {**form, "code": ""}, "malformed"),
            (lambda form: {**form, "code": "x" * 40_000}, "malformed"),
            (lambda form: {**form, "code": "another"}, "invalid_grant"),
            (lambda form: {**form, **{f"p{n}": "x" for n in range(60)}}, "malformed"),
            (lambda form: {**form, **{f"p{n}": "x" for n in range(500)}}, "malformed"),
            (lambda form: {**form, "junk": "x" * 300_000}, "malformed"),
            (lambda form: {**form, "state": [form["state"], form["state"]]}, "malformed"),
            (lambda form: {**form, "code": [form["code"], "other"]}, "malformed"),
            (lambda form: {"state": form["state"], "error": "weird\r\n<script>"}, "provider_denied"),
            (lambda form: {"state": form["state"], "error": "access_denied"}, "access_denied"),
            (lambda form: {"state": form["state"], "error": ["a", "b"]}, "provider_denied"),
            (lambda form: {"state": form["state"], "error": "invalid_scope", "code": form["code"]}, "invalid_scope"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_they_get_a_clear_page(self, site: Site, change: Callable[[dict[str, str]], Any], code: str) -> None:
        """No 500, an event, nobody signed in; and a sign-in after that works."""
        form = site.answer(site.begin())
        with capture_events() as events:
            answer = site.post("/signed-in", change(form))
            refused = events.wait_for(SignInRefused)
        assert answer.status_code in (400, 401, 403)
        assert "Sign in" in answer.text
        assert "<script>" not in answer.text
        assert [event.code for event in refused] == [code]
        assert site.cookie() is None
        assert site.sign_in().status_code == 303

    def test_one_answer_counts_once(self, site: Site) -> None:
        """Sent again, it signs nobody in, and nobody out."""
        form = site.answer(site.begin())
        site.post("/signed-in", form)
        before = site.cookie()
        assert site.post("/signed-in", form).status_code == 400
        assert site.cookie() == before
        assert site.get("/me").text == "me Ada"

    def test_an_answer_in_another_browser_is_refused(self, site: Site) -> None:
        """Somebody's own sign-in, planted in a victim's browser."""
        form = site.answer(site.begin())
        victim = site.another_browser()
        assert site.post("/signed-in", form, victim).status_code == 400
        assert site.cookie(browser=victim) is None

    def test_an_answer_that_comes_late_is_refused(self, site: Site) -> None:
        form = site.answer(site.begin())
        site.clock.advance(601.0)
        assert site.post("/signed-in", form).status_code == 400

    def test_a_swapped_flow_is_refused(self, site: Site) -> None:
        """A sealed cookie opens under its own name alone."""
        first, second = site.begin("/me?1"), site.begin("/me?2")
        names = site.flows()
        values = [site.cookie(name) for name in names]
        for name, value in zip(names, reversed(values), strict=True):
            site.browser.set_cookie(name, value or "", domain="app.example", secure=True)
        for address in (first, second):
            assert site.post("/signed-in", site.answer(address)).status_code == 400

    @pytest.mark.parametrize(
        "value", ["", "x", "0.AAAA", "99999999999.AAAA", "20783.AAAA", "x" * 4000, "20783." + "é" * 9]
    )
    def test_foreign_cookies_harm_nobody(self, site: Site, value: str) -> None:
        """Of other applications on this host, and of older keys."""
        for name in ("__Host-session", "__Host-sign-in-x", "session", "csrftoken"):
            site.browser.set_cookie(name, value, domain="app.example", secure=True)
        assert site.get("/").text == "hello stranger"
        assert site.sign_in().status_code == 303
        assert site.get("/me").text == "me Ada"

    def test_a_forged_id_token_signs_nobody_in(
        self, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its signature is verified, though it came from the token endpoint."""
        site = make_site()
        form = site.answer(site.begin())
        app = site.auth.engine.site.primary.apps["sign_in"]
        real = app.acquire_token_by_auth_code_flow

        def forged(flow: Any, answer: Any) -> Any:
            result = dict(real(flow, answer))
            head, body, signature = result["id_token"].split(".")
            result["id_token"] = f"{head}.{body}.{signature[::-1]}"
            return result

        monkeypatch.setattr(app, "acquire_token_by_auth_code_flow", forged, raising=False)
        assert site.post("/signed-in", form).status_code == 400
        assert site.cookie() is None
        assert app.get_accounts() == []


class TestWhereto:
    @pytest.mark.parametrize(
        "path",
        [
            "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "javascript:alert(1)",
            "/%2f/evil.example", "/%5cevil.example", "/%252f/evil.example", "/\t/evil.example", "/\n/evil.example",
            "/%09/evil.example", "/a\r\nSet-Cookie: x=y", "/%0d%0aSet-Cookie:x=y", "", "evil", "/" + "x" * 2000,
            "/sign-in", "/signed-in?state=x", "/é", "/sign-out/done",
        ],
    )  # fmt: skip
    def test_it_is_a_path_of_the_application_or_its_home(self, site: Site, path: str) -> None:
        answer = site.browser.get(
            "/sign-in", base_url=BASE, query_string={"next": path}, headers={"accept": "text/html"}
        )
        done = site.post("/signed-in", site.answer(answer.headers["Location"]))
        assert done.headers["Location"] == "/"

    @pytest.mark.parametrize("path", ["/sign-instructions", "/signed-in-stuff", "/sign-outlook?x=1"])
    def test_a_page_of_the_applications_may_begin_like_one_of_ours(self, site: Site, path: str) -> None:
        answer = site.browser.get("/sign-in", base_url=BASE, query_string={"next": path})
        done = site.post("/signed-in", site.answer(answer.headers["Location"]))
        assert done.headers["Location"] == path

    def test_given_twice_it_is_the_home(self, site: Site) -> None:
        answer = site.get("/sign-in?next=/me&next=//evil.example")
        assert site.post("/signed-in", site.answer(answer.headers["Location"])).headers["Location"] == "/"


class TestCookiesAndHeaders:
    def test_the_sessions_cookie(self, site: Site) -> None:
        answer = site.sign_in()
        (cookie,) = (one for one in answer.headers.getlist("Set-Cookie") if one.startswith("__Host-session="))
        assert set(cookie.split("; ")[1:]) == {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}

    def test_a_flows_cookie_is_short_lived_and_comes_with_the_providers_form(self, site: Site) -> None:
        answer = site.get("/me")
        (cookie,) = answer.headers.getlist("Set-Cookie")
        assert set(cookie.split("; ")[1:]) == {"Path=/", "Max-Age=600", "Secure", "HttpOnly", "SameSite=None"}
        assert len(cookie) < 4096

    def test_a_page_with_a_user_is_in_no_cache_and_no_frame(self, site: Site) -> None:
        site.sign_in()
        headers = site.get("/me").headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Vary"] == "Cookie"

    def test_a_sign_in_gives_another_id_whatever_there_was(self, site: Site) -> None:
        """Fixation: what somebody planted before is worth nothing; what the user had is over."""
        site.sign_in()
        first = site.cookie()
        site.sign_in("/sign-in?next=/me")
        assert site.cookie() not in (None, first)
        thief = site.another_browser()
        thief.set_cookie("__Host-session", first or "", domain="app.example", secure=True)
        assert site.get("/", thief).text == "hello stranger"

    def test_the_id_changes_while_it_is_used(self, site: Site) -> None:
        site.sign_in()
        first = site.cookie()
        site.clock.advance(901.0)
        assert site.get("/me").text == "me Ada"
        assert site.cookie() not in (None, first)
        assert site.get("/me").text == "me Ada"

    def test_what_is_secret_is_in_no_log(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("DEBUG"):
            address = site.begin()
            form = site.answer(address)
            site.post("/signed-in", form)
            site.clock.advance(901.0)
            site.get("/me")
        cookie = site.cookie() or ""
        for secret in (cookie, *cookie.split("."), form["code"], asked(address)["state"], "ada@contoso.com"):
            assert secret not in caplog.text

    def test_the_store_holds_nothing_in_the_clear(self, site: Site) -> None:
        site.sign_in()
        kept = b"".join(path.read_bytes() for path in site.folder.iterdir() if path.name.startswith("store.db"))
        for secret in ("ada@contoso.com", (site.cookie() or "").partition(".")[2]):
            assert secret.encode() not in kept

    def test_applications_of_one_host_leave_each_others_cookies_alone(self, site: Site) -> None:
        """At other ports and below other paths, which such cookies don't know; or by names that the owner has given."""
        settings = site.auth.engine.site.settings
        bases = (BASE, f"{BASE}/shop", f"{BASE}/bank", f"{BASE}:8443", f"{BASE}:9443", f"{BASE}:9443/shop")
        given = [*((base, None) for base in bases), (BASE, "shop"), (BASE, "shop-x")]
        sites = [
            SignInEngine(
                site.provider(),
                base_url=base,
                store=site.store,
                settings=settings,
                options=SignInOptions(cookie_name=name),
            ).site
            for base, name in given
        ]
        assert len({each.session_cookie for each in sites}) == len(given)
        assert (sites[0].session_cookie, sites[-1].session_cookie) == ("__Host-session", "__Host-shop-x")
        kept: dict[str, str] = {}
        for each in sites:
            cookies = each.flows.begin(Arrival("GET", "/", cookies=kept), "a state", {})
            assert cookies is not None
            assert [cookie.value != "" for cookie in cookies] == [True]
            kept[cookies[0].name] = cookies[0].value
        assert len(kept) == len(given)


class TestScripts:
    def test_who_fetches_is_told_and_not_led_elsewhere(self, site: Site) -> None:
        answer = site.get("/me", accept="application/json", sec_fetch_mode="cors")
        assert answer.status_code == 401
        assert answer.json["detail"]["code"] == "sign_in_needed"
        assert site.flows() == []

    def test_a_form_of_who_is_not_signed_in_is_told(self, site: Site) -> None:
        """Its page says that nothing was done."""
        answer = site.post("/me", {"text": "hours of work"})
        assert answer.status_code == 401
        assert "wasn't done" in unescape(answer.text)


class TestPages:
    def test_an_owner_writes_them_in_other_words(self, make_site: Callable[..., Site]) -> None:
        seen: list[Page] = []

        def render(page: Page) -> str | None:
            seen.append(page)
            return f"<h1>Nein: {page.kind}</h1>" if page.languages.startswith("de") else None

        site = make_site(options=SignInOptions(render=render))
        german = site.post("/signed-in", {}, accept_language="de-AT")
        assert german.text == "<h1>Nein: refused</h1>"
        assert "default-src 'self'" in german.headers["Content-Security-Policy"]
        assert "Please sign in again" in site.post("/signed-in", {}).text
        assert {page.code for page in seen} == {"malformed"}

    def test_an_owners_mistake_costs_nobody_the_page(self, make_site: Callable[..., Site]) -> None:
        def render(page: Page) -> str:
            raise ValueError(page.text)

        site = make_site(options=SignInOptions(render=render))
        assert "Please sign in again" in site.post("/signed-in", {}).text


class TestFailures:
    def test_a_provider_that_fails_while_a_code_is_redeemed(self, make_site: Callable[..., Site]) -> None:
        """The page says when to try again; the code isn't sent twice."""
        site = make_site()
        form = site.answer(site.begin())
        site.emulator.fail(Fault.status(503), endpoint="token")
        before = len(site.emulator.ledger.token_calls())
        answer = site.post("/signed-in", form)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert len(site.emulator.ledger.token_calls()) == before + 1
        assert site.cookie() is None

    def test_a_provider_that_says_that_it_fails(self, site: Site) -> None:
        state = asked(site.begin())["state"]
        answer = site.post("/signed-in", {"state": state, "error": "temporarily_unavailable"})
        assert answer.status_code == 503

    def test_a_store_that_fails_signs_nobody_out(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """The page says so, the cookie stays, and so does the session."""
        from resilient_auth.errors import StoreUnavailable

        site.sign_in()
        before = site.cookie()
        site.clock.advance(2.0)

        def fails(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("file", "busy")

        with monkeypatch.context() as patch:
            patch.setattr(site.store, "read", fails)
            answer = site.get("/me")
            assert answer.status_code == 503
            assert "haven't been signed out" in unescape(answer.text)
        assert site.cookie() == before
        assert site.get("/me").text == "me Ada"


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"base_url": "http://app.example"}, "base_url"),
            ({"base_url": "https://app.example?x=1"}, "query"),
            ({"store": None}, "store"),
            ({"providers": ()}, "IdentityProvider"),
            ({"providers": "entra"}, "IdentityProvider"),
        ],
    )
    def test_what_cannot_work_is_said_at_once(self, site: Site, given: dict[str, Any], says: str) -> None:
        from resilient_auth.integrations.flask import SignIn

        arguments: dict[str, Any] = {"providers": site.provider(), "base_url": BASE, "store": site.store}
        with pytest.raises(ConfigurationError, match=says):
            SignIn(None, **{**arguments, **given})

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"scopes": "api://x/y"}, "scopes"),
            ({"name": "a b"}, "name"),
            ({"name": "guest"}, "name"),
            ({"name": "one-time-code"}, "name"),
            ({"response_mode": "fragment"}, "response_mode"),
            ({"colour": "red"}, "colour"),
            ({"client_id": ""}, "client_id"),
        ],
    )
    def test_so_is_what_is_wrong_with_a_provider(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=says):
            IdentityProvider.for_entra("contoso", **{"client_id": "web", **options})

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"sign_in_path": "sign-in"}, "sign_in_path"),
            ({"callback_path": "/sign-in"}, "differ"),
            ({"flow_life": 1.0}, "flow_life"),
            ({"flows_per_browser": 50}, "flows_per_browser"),
            ({"guests": "yes"}, "guests"),
            ({"render": "page.html"}, "render"),
            *(({"cookie_name": name}, "cookie_name") for name in ("", "a b", "a.b", "__Host-a", "sign-in-a", "é", 7)),
        ],
    )
    def test_and_with_an_option(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=says):
            SignInOptions(**options)
