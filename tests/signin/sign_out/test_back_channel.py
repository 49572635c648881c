"""A provider signs users out by itself: whom it means, in every process, and nobody else."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from leaving import Process, World

from resilient_auth.emulator import Fault
from resilient_auth.events import SessionsEnded, SignOutRefused
from resilient_auth.testing import capture_events

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def token(world: World) -> Callable[..., str]:
    """Make a logout token of the application's provider; None takes a claim away."""

    def make(header: dict[str, Any] | None = None, forge: str | None = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": world.issuer(world.realms[0]),
            "aud": "web",
            "iat": now,
            "exp": now + 120,
            "jti": uuid.uuid4().hex,
            "events": {LOGOUT: {}},
        } | changes
        return world.idp.event_token(claims, {"typ": "logout+jwt"} | (header or {}), forge=forge)

    return make


def post(process: Process, token: str, **options: Any) -> httpx.Response:
    given = {"data": {"logout_token": token}} | options
    return httpx.post(
        f"{process.url}/sign-out/back-channel", verify=process.world.trust, trust_env=False, timeout=20.0, **given
    )


def test_a_sign_out_elsewhere_ends_the_session_in_every_process(
    world: World, one: Process, other: Process, eventually: Any
) -> None:
    """The provider sends its token by itself, when the user signs out of another application there."""
    world.idp.register_sign_out("web", backchannel=f"{other.url}/sign-out/back-channel", ca_file=world.ca_file)
    browser, second = world.browser(), world.browser()
    browser.sign_in(one)
    second.sign_in(one)
    before = len(world.idp.deliveries)
    with capture_events() as captured:
        browser.http.get(f"{world.issuer(world.realms[0])}/logout")
        eventually(lambda: len(world.idp.deliveries) > before)
        captured.wait_for(SessionsEnded)
    delivery = world.idp.deliveries[-1]
    assert (delivery.status, delivery.body, delivery.cache_control) == (200, "", "no-store")
    assert not browser.is_in(other)
    eventually(lambda: not browser.is_in(one), 4.0)
    assert second.is_in(one)
    # One session is left, and so are the user's tokens.
    assert second.http.get(f"{one.url}/token").status_code == 200


def test_all_of_a_users_sessions_end_with_their_tokens(
    world: World, one: Process, other: Process, token: Any, eventually: Any
) -> None:
    """By `sub` alone; access tokens that are out are refused, and who signs in again is let in."""
    first, second, bob = (world.browser() for _ in range(3))
    first.sign_in(one)
    second.sign_in(other)
    bob.sign_in(one, "bob@contoso.com")
    subject = first.session(one).who.subject
    assert post(one, token(sub=subject)).status_code == 200
    assert not first.is_in(one)
    eventually(lambda: not second.is_in(other), 4.0)
    assert bob.is_in(one)
    assert [account["username"] for account in one.accounts()] == ["bob@contoso.com"]
    assert len(one.revocations.deny.revoked) == 1
    eventually(lambda: len(other.revocations.deny.revoked) == 1, 4.0)


def test_it_counts_once(world: World, one: Process, other: Process, token: Any, together: Any) -> None:
    """In whichever process it arrives again, and however many times at once."""
    browser = world.browser()
    browser.sign_in(one)
    text = token(sid=browser.sid(one))
    answers = together(6, lambda: post(one, text).status_code)
    assert sorted(answers)[0] == 200
    assert answers.count(200) == 1
    with capture_events() as captured:
        again = post(other, text)
        captured.wait_for(SignOutRefused)
    assert again.status_code == 400
    assert again.json()["error"] == "invalid_request"
    assert again.headers["cache-control"] == "no-store"
    assert captured.of(SignOutRefused)[0].code == "replayed"


BAD: dict[str, Callable[[Any, World, str, str], str]] = {
    "no signature": lambda t, w, sid, sub: t(sid=sid, sub=sub, forge="none"),
    "a MAC with the public key": lambda t, w, sid, sub: t(sid=sid, sub=sub, forge="hs256"),
    "another token's signature": lambda t, w, sid, sub: t(sid=sid, sub=sub, forge="signature"),
    "changed afterwards": lambda t, w, sid, sub: t(sid=sid, sub=sub, forge="payload"),
    "expired": lambda t, w, sid, sub: t(sid=sid, exp=int(time.time()) - 300),
    "old": lambda t, w, sid, sub: t(sid=sid, iat=int(time.time()) - 9000),
    "from the future": lambda t, w, sid, sub: t(sid=sid, iat=int(time.time()) + 900),
    "for another application": lambda t, w, sid, sub: t(sid=sid, aud="shop"),
    "of a stranger": lambda t, w, sid, sub: t(sid=sid, iss="https://evil.example"),
    "no events": lambda t, w, sid, sub: t(sid=sid, events=None),
    "other events": lambda t, w, sid, sub: t(sid=sid, events={"https://x": {}}),
    "a nonce": lambda t, w, sid, sub: t(sid=sid, nonce="n"),
    "nobody": lambda t, w, sid, sub: t(),
    "no jti": lambda t, w, sid, sub: t(sid=sid, jti=None),
    "no exp": lambda t, w, sid, sub: t(sid=sid, exp=None),
    "an access token's type": lambda t, w, sid, sub: t({"typ": "at+jwt"}, sid=sid),
    "a security event": lambda t, w, sid, sub: t({"typ": "secevent+jwt"}, sid=sid),
    "critical": lambda t, w, sid, sub: t({"crit": ["x"], "x": 1}, sid=sid),
    "unknown key": lambda t, w, sid, sub: t({"kid": "unknown"}, sid=sid),
    "a list for sid": lambda t, w, sid, sub: t(sid=[sid]),
    "an object for sub": lambda t, w, sid, sub: t(sub={"x": sub}),
    "huge": lambda t, w, sid, sub: t(sid=sid, x="x" * 60_000),
    "no token at all": lambda t, w, sid, sub: "",
    "text": lambda t, w, sid, sub: "é\x00..",
}


def test_what_is_wrong_ends_nothing(world: World, one: Process, token: Any) -> None:
    """The contract's answer each time, an event, and everybody stays signed in."""
    browser = world.browser()
    browser.sign_in(one)
    sid, subject = browser.sid(one), browser.session(one).who.subject
    secrets = {sid, subject}
    with capture_events() as captured:
        for name, make in BAD.items():
            answer = post(one, make(token, world, sid, subject))
            assert answer.status_code == 400, name
            # A key that isn't known may be published any moment: that one alone is worth another try.
            error = "temporarily_unavailable" if name == "unknown key" else "invalid_request"
            assert answer.json()["error"] in (error, "invalid_request"), name
            assert answer.headers["cache-control"] == "no-store"
            assert not any(secret in answer.text for secret in secrets)
        good = token(sid=sid)
        for options in (
            {"data": None, "json": {"logout_token": good}},
            {"data": None, "content": f"logout_token={good}", "headers": {"content-type": "text/plain"}},
            {"data": {"logout_token": [good, good]}},
            {"data": {"logout_token": good, "x": "y" * 200_000}},
            {"data": None, "content": b"\xff\xfe" * 100},
            {"data": None, "params": {"logout_token": good}},
        ):
            assert post(one, good, **options).status_code == 400
        captured.wait_for(SignOutRefused, count=len(BAD))
    assert not any(secret in str(event) for event in captured for secret in secrets)
    assert browser.is_in(one)
    assert httpx.get(f"{one.url}/sign-out/back-channel", verify=world.trust, trust_env=False).status_code == 405
    assert post(one, good).status_code == 200
    assert not browser.is_in(one)


def test_another_provider_signs_out_nobody_of_ours(world: World, one: Process, token: Any) -> None:
    """Each provider's tokens mean its own sessions: the same names elsewhere are others."""
    browser = world.browser()
    browser.sign_in(one)
    who = browser.session(one).who
    foreign = token(iss=world.issuer(world.realms[1]), sid=who.sid, sub=who.subject)
    assert post(one, foreign).status_code == 200
    assert browser.is_in(one)


def test_a_claim_twice_is_refused(world: World, one: Process, token: Any) -> None:
    """Readers would differ over who is meant."""
    browser = world.browser()
    browser.sign_in(one)
    import jwt

    key = world.idp._running.keys.current
    now = int(time.time())
    claims = {"iss": world.issuer(world.realms[0]), "aud": "web", "iat": now, "exp": now + 60, "jti": "x"}
    text = json.dumps(claims | {"events": {LOGOUT: {}}, "sid": "another"})[:-1] + f',"sid":"{browser.sid(one)}"}}'
    signed = jwt.PyJWS().encode(text.encode(), key.private, "RS256", {"kid": key.kid, "typ": "logout+jwt"})
    assert post(one, signed).status_code == 400
    assert browser.is_in(one)


def test_a_store_that_fails_at_that_moment(
    world: World, one: Process, other: Process, token: Any, eventually: Any
) -> None:
    """It holds here at once, the provider is told to try again, and every process hears of it afterwards."""
    browser = world.browser()
    browser.sign_in(one)
    kept, text = browser.cookie, token(sid=browser.sid(one))
    one.store.dead = True
    answer = post(one, text)
    assert answer.status_code == 400
    assert answer.json()["error"] == "temporarily_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    one.store.dead = False
    assert not browser.is_in(one, kept)
    eventually(lambda: not browser.is_in(other, kept), 6.0)
    assert post(one, text).status_code == 200


def test_keys_that_cannot_be_had_are_no_verdict(world: World, one: Process, token: Any) -> None:
    """The provider is asked to send it again."""
    world.idp.fail(Fault.http_503(), "jwks")
    answer = post(one, token(sid="x"))
    assert answer.status_code == 400
    assert answer.json()["error"] == "temporarily_unavailable"


def test_who_signs_in_while_an_old_token_is_under_way_stays(world: World, one: Process, token: Any) -> None:
    """What ended was what had begun by then."""
    browser = world.browser()
    browser.sign_in(one)
    subject = browser.session(one).who.subject
    assert post(one, token(sub=subject, iat=int(time.time()) - 30)).status_code == 200
    assert browser.is_in(one)
