"""A user's own sign-out: asked for once, done here at once, and at the provider where that can be reached."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from leaving import Process, World, fields_in

from resilient_auth.emulator import Fault
from resilient_auth.events import SessionsEnded, SignOutRefused
from resilient_auth.testing import capture_events


def test_a_user_signs_out_here_and_at_the_provider(world: World, one: Process, other: Process, eventually) -> None:
    """The session is over in every process, the tokens are gone, and the provider is told which session it was."""
    browser = world.browser()
    browser.sign_in(one)
    sid = browser.sid(one)
    kept = browser.cookie
    assert browser.is_in(other, kept)
    with capture_events() as captured:
        answer = browser.sign_out(one)
        captured.wait_for(SessionsEnded)
    where = urlsplit(answer.headers["location"])
    told = {name: value for name, [value] in parse_qs(where.query).items()}
    assert f"{where.scheme}://{where.netloc}{where.path}" == f"{world.issuer(world.realms[0])}/logout"
    hint = jwt.decode(told["id_token_hint"], options={"verify_signature": False})
    assert (told["client_id"], hint["sid"]) == ("web", sid)
    assert told["post_logout_redirect_uri"] == f"{world.base}/sign-out/done"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert one.accounts() == []
    assert not browser.is_in(one, kept)
    eventually(lambda: not browser.is_in(other, kept), 4.0)
    back = browser.http.get(str(answer.headers["location"]))
    assert back.headers["location"] == f"{world.base}/sign-out/done"
    assert "You are signed out." in browser.http.get(back.headers["location"]).text
    assert kept not in str(captured)


def test_what_another_site_sends_signs_nobody_out(world: World, one: Process) -> None:
    """Without what our own page has, or with another session's."""
    browser, another = world.browser(), world.browser()
    browser.sign_in(one)
    another.sign_in(one, "bob@contoso.com")
    theirs = fields_in(another.http.get(f"{one.url}/sign-out").text)["sign_out"]
    url = f"{one.url}/sign-out"
    with capture_events() as captured:
        for headers, form in (
            ({"sec-fetch-site": "cross-site"}, {}),
            ({"sec-fetch-site": "same-site"}, {}),
            ({"origin": "https://evil.example"}, {}),
            ({}, {}),
            ({"sec-fetch-site": "cross-site"}, {"sign_out": theirs}),
            ({"sec-fetch-site": "same-origin"}, {"sign_out": "é"}),
        ):
            answer = browser.http.post(url, data=form, headers=headers)
            assert answer.status_code == 403
            assert "Sign out?" in answer.text
        captured.wait_for(SignOutRefused, count=6)
    assert browser.is_in(one)
    assert browser.http.get(url).status_code == 200
    assert browser.is_in(one)
    # The application's own button needs no more than to be on a page of the application's.
    assert browser.http.post(url, headers={"sec-fetch-site": "same-origin"}).status_code == 303
    assert not browser.is_in(one)


def test_in_an_outage_it_is_done_here_and_said(world: World, one: Process) -> None:
    """Nobody is led to a provider that can't be reached."""
    browser = world.browser()
    browser.sign_in(one)
    world.idp.fail(Fault.refuse())
    one.auth.engine.site.primary.watch._looked = (0.0, False)
    answer = browser.sign_out(one)
    assert answer.status_code == 200
    assert "You are signed out here." in answer.text
    assert "may still be signed in" in answer.text
    assert "location" not in answer.headers
    world.idp.heal()
    assert world.cookie_name not in browser.http.cookies
    assert one.accounts() == []


def test_a_store_that_fails_keeps_nobody_signed_in(world: World, one: Process, other: Process, eventually) -> None:
    """Here it is over at once, and in the other processes when the store works again."""
    browser = world.browser()
    browser.sign_in(one)
    kept = browser.cookie
    form = fields_in(browser.http.get(f"{one.url}/sign-out").text)
    one.auth.engine.site.sessions._recent.after_fork()  # read anew: what is remembered is for a second alone
    assert browser.is_in(one)
    one.store.dead = True
    answer = browser.http.post(f"{one.url}/sign-out", data=form)
    assert answer.status_code in (200, 303)
    assert world.cookie_name not in browser.http.cookies
    one.store.dead = False
    assert not browser.is_in(one, kept)
    eventually(lambda: not browser.is_in(other, kept), 6.0)


def test_a_user_is_led_nowhere_else(world: World, one: Process) -> None:
    """Neither by what a link says nor by what comes back."""
    browser = world.browser()
    for place in ("//evil.example", "https://evil.example", "/\\evil.example", "/%2F/evil.example", "/sign-out/done"):
        answer = browser.http.get(f"{one.url}/sign-out/done", params={"state": place})
        assert answer.status_code == 200
        assert "location" not in answer.headers
    answer = browser.http.get(f"{one.url}/sign-out/done", params={"state": "/goodbye"})
    assert answer.headers["location"] == "/goodbye"
    browser.sign_in(one)
    answer = browser.sign_out(one, next="/goodbye")
    assert "state=%2Fgoodbye" in answer.headers["location"]
    browser.sign_in(one)
    assert "state=" not in browser.sign_out(one, next="//evil.example").headers["location"]


def test_another_browser_of_the_same_user_stays(world: World, one: Process) -> None:
    """With its tokens: they are the user's, and go with the last session."""
    first, second = world.browser(), world.browser()
    first.sign_in(one)
    second.sign_in(one)
    first.sign_out(one)
    assert second.is_in(one)
    assert second.http.get(f"{one.url}/token").status_code == 200
    second.sign_out(one)
    assert one.accounts() == []


def test_nobody_signed_in_is_told_so(world: World, one: Process) -> None:
    """Whatever is sent."""
    browser = world.browser()
    for answer in (browser.http.get(f"{one.url}/sign-out"), browser.http.post(f"{one.url}/sign-out")):
        assert answer.status_code == 200
        assert "You aren't signed in here." in answer.text or "aren&#x27;t signed in" in answer.text


class TestFrontChannel:
    def test_the_providers_page_ends_its_session(self, world: World, one: Process, other: Process, eventually) -> None:
        """By its name alone, without a cookie; another browser of the same user stays."""
        browser, second = world.browser(), world.browser()
        browser.sign_in(one)
        second.sign_in(one)
        told = {"iss": world.issuer(world.realms[0]), "sid": browser.sid(one)}
        frame = world.browser().http.get(f"{other.url}/sign-out/front-channel", params=told)
        assert frame.status_code == 200
        assert frame.headers["content-security-policy"].endswith(f"frame-ancestors {world.idp.url}")
        assert "x-frame-options" not in frame.headers
        assert frame.headers["cache-control"] == "no-store"
        eventually(lambda: not browser.is_in(one), 4.0)
        assert second.is_in(one)

    @pytest.mark.parametrize("wrong", ["issuer", "other", "sid", "no sid", "no iss", "twice", "huge"])
    def test_nobody_else_is_signed_out(self, world: World, one: Process, wrong: str) -> None:
        """Neither by another provider's name for it nor by half of what is needed."""
        browser = world.browser()
        browser.sign_in(one)
        issuer, sid = world.issuer(world.realms[0]), browser.sid(one)
        given = {
            "issuer": [("iss", "https://evil.example"), ("sid", sid)],
            "other": [("iss", world.issuer(world.realms[1])), ("sid", sid)],
            "sid": [("iss", issuer), ("sid", "another")],
            "no sid": [("iss", issuer)],
            "no iss": [("sid", sid)],
            "twice": [("iss", issuer), ("sid", sid), ("sid", "x")],
            "huge": [("iss", issuer), ("sid", "s" * 9000)],
        }[wrong]
        frame = browser.http.get(f"{one.url}/sign-out/front-channel", params=given)
        assert frame.status_code == (200 if wrong in ("other", "sid") else 400)
        if frame.status_code == 400:
            assert frame.headers["content-security-policy"].endswith("frame-ancestors 'none'")
        assert browser.is_in(one)
