"""A user's tokens go with their last session, whichever process hears of its end; another browser's session stays."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from leaving import Browser, Process, World

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
CAEP = "https://schemas.openid.net/secevent/caep/event-type"


def by_the_user(world: World, process: Process, browser: Browser) -> int:
    return browser.sign_out(process).status_code


def by_back_channel(world: World, process: Process, browser: Browser) -> int:
    now = int(time.time())
    claims = {"iss": world.issuer(world.realms[0]), "aud": "web", "iat": now, "exp": now + 60, "jti": uuid.uuid4().hex}
    told = claims | {"events": {LOGOUT: {}}, "sub": browser.session(process).who.subject}
    token = world.idp.event_token(told, {"typ": "logout+jwt"})
    url = f"{process.url}/sign-out/back-channel"
    return httpx.post(url, data={"logout_token": token}, verify=world.trust, trust_env=False).status_code


def by_front_channel(world: World, process: Process, browser: Browser) -> int:
    told = {"iss": world.issuer(world.realms[0]), "sid": browser.sid(process)}
    return browser.http.get(f"{process.url}/sign-out/front-channel", params=told).status_code


def _by_event(event: str) -> Callable[[World, Process, Browser], int]:
    def by_event(world: World, process: Process, browser: Browser) -> int:
        issuer = world.issuer(world.realms[0])
        subject = {"format": "iss_sub", "iss": issuer, "sub": browser.session(process).who.subject}
        claims = {
            "iss": issuer,
            "aud": "https://receiver.example",
            "sub_id": subject,
            "events": {f"{CAEP}/{event}": {}},
        }
        sent = {"bearer": "a-token-of-the-transmitter", "ca_file": world.ca_file}
        return int(world.idp.transmit(f"{process.url}/signals", world.idp.event_token(claims), **sent).status)

    return by_event


by_revocation, by_changed_claims = _by_event("session-revoked"), _by_event("token-claims-change")


@pytest.mark.parametrize("how", [by_the_user, by_back_channel, by_front_channel, by_revocation, by_changed_claims])
def test_at_a_process_that_has_heard_nothing_of_the_user(world: World, one: Process, other: Process, how: Any) -> None:
    """Who else is there it has looked up a moment ago: it learns of nobody by that for a while."""
    assert other.accounts() == []
    bob, ann = world.browser(), world.browser()
    bob.sign_in(one, "bob@contoso.com")
    ann.sign_in(one)
    assert how(world, other, ann) in (200, 202, 303)
    assert [account["username"] for account in world.process().accounts()] == ["bob@contoso.com"]


def test_the_provider_is_told_of_this_browsers_session(world: World, one: Process, eventually: Any) -> None:
    """Not by the ID token of another browser's, which came later: it would end that one, and leave this."""
    world.idp.register_sign_out("web", backchannel=f"{one.url}/sign-out/back-channel", ca_file=world.ca_file)
    first, second = world.browser(), world.browser()
    first.sign_in(one)
    sid = first.sid(one)
    second.sign_in(one)
    address = str(first.sign_out(one).headers["location"])
    hints = parse_qs(urlsplit(address).query).get("id_token_hint", [])
    assert [jwt.decode(each, options={"verify_signature": False})["sid"] for each in hints] in ([], [sid])
    before = len(world.idp.deliveries)
    first.http.get(address)
    eventually(lambda: len(world.idp.deliveries) > before)
    assert second.is_in(one)
