"""Logout tokens and security event tokens: which are believed, by whose trust, and why others aren't."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from arriving import AUDIENCE, NOWHERE, TENANT, Signer, b64

import resilient_auth as ra
from resilient_auth._engine.steps import run
from resilient_auth.verify import DenyList
from resilient_auth.verify.security_events.rules import LOGOUT, EventToken, security_event
from resilient_auth.verify.security_events.tokens import EventTokens

ISSUER = f"{NOWHERE}/{TENANT}/v2.0"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
SECURITY = security_event(typed=True, oldest=3600.0)


@pytest.fixture
def logout(clock: Any) -> Callable[..., dict[str, Any]]:
    """Make a logout token's claims; None takes one away."""

    def make(**changes: Any) -> dict[str, Any]:
        now = int(clock.wall())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 120,
            "jti": "one",
            "sub": "ann",
            "sid": "s1",
            "events": {LOGOUT_EVENT: {}},
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    return make


@pytest.fixture
def reads(offline: Any) -> Callable[..., Any]:
    """Return what comes of a token: what it tells, or the code by which it is refused."""
    verifier = offline()

    def read(token: str, kind: Any = LOGOUT, by: Any = None) -> EventToken | str:
        try:
            return run(EventTokens(by or verifier, kind).verifying(token))
        except ra.InvalidToken as error:
            return error.code

    return read


@pytest.mark.parametrize(("typ", "code"), [("logout+jwt", "type"), ("JWT", "token_type"), (None, "token_type")])
def test_none_is_an_id_token(offline: Any, signer: Signer, logout: Any, typ: str | None, code: str) -> None:
    """Though it has all that one has, and comes from the same provider to the same client."""
    site = offline(accepts="id")
    with pytest.raises(ra.InvalidToken) as refused:
        site.verify(signer.token(logout(tid=TENANT), typ=typ))
    assert refused.value.code == code
    assert site.verify(signer.token(logout(tid=TENANT, events=None), typ="JWT")).subject == "ann"


def test_a_good_one_is_believed(reads: Any, signer: Signer, logout: Any) -> None:
    """With `typ` and without: older providers don't name it."""
    for typ in ("logout+jwt", "application/logout+jwt", "JWT", None):
        told = reads(signer.token(logout(), typ=typ))
        assert (told.issuer, told.subject, told.session_id, told.token_id) == (ISSUER, "ann", "s1", "one")
        assert "ann" not in repr(told)
    assert reads(signer.token(logout(sid=None))).session_id is None
    assert reads(signer.token(logout(sub=None, aud=["x", AUDIENCE]))).subject is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": f"{NOWHERE}/other/v2.0"}, "issuer"),
        ({"iss": ISSUER.replace(TENANT[:8], "0" * 8)}, "tenant"),
        ({"iss": None}, "issuer"),
        ({"aud": "api://other"}, "audience"),
        ({"aud": None}, "malformed"),
        ({"aud": []}, "malformed"),
        ({"tid": "another"}, "tenant"),
        ({"iat": None}, "malformed"),
        ({"iat": "1"}, "malformed"),
        ({"exp": None}, "malformed"),
        ({"exp": 1}, "expired"),
        ({"jti": None}, "malformed"),
        ({"jti": "x" * 300}, "malformed"),
        ({"jti": 7}, "malformed"),
        ({"sub": None, "sid": None}, "malformed"),
        ({"sid": ["s1"]}, "malformed"),
        ({"sub": ""}, "malformed"),
        ({"nonce": "n"}, "nonce"),
        ({"events": None}, "malformed"),
        ({"events": {}}, "malformed"),
        ({"events": [LOGOUT_EVENT]}, "malformed"),
        ({"events": {LOGOUT_EVENT: True}}, "malformed"),
        ({"events": {REVOKED: {}}}, "malformed"),
        ({"events": {f"{LOGOUT_EVENT}{n}": {} for n in range(99)} | {LOGOUT_EVENT: {}}}, "malformed"),
    ],
)
def test_each_rule_is_kept(reads: Any, signer: Signer, logout: Any, changes: dict[str, Any], code: str) -> None:
    """A token that breaks one of them is refused."""
    assert reads(signer.token(logout(**changes))) == code


def test_time_is_bounded_both_ways(reads: Any, signer: Signer, logout: Any, clock: Any) -> None:
    """However late `exp` is: what it does is remembered for no longer. And none comes from the future."""
    now = int(clock.wall())
    assert reads(signer.token(logout(iat=now - 4000, exp=now + 10**6))) == "expired"
    assert reads(signer.token(logout(iat=now + 600, exp=now + 900))) == "not_yet_valid"
    assert reads(signer.token(logout(nbf=now + 600, exp=now + 900))) == "not_yet_valid"
    told = reads(signer.token(logout(exp=now + 10**6)))
    assert told.until <= now + 3600 + 300


def test_other_kinds_of_tokens_are_refused(reads: Any, signer: Signer, logout: Any) -> None:
    """An event token is no logout token by its type; where its own is asked for, `JWT` won't do."""
    assert reads(signer.token(logout(), typ="secevent+jwt")) == "type"
    assert reads(signer.token(logout(), typ="at+jwt")) == "type"
    event = logout(events={REVOKED: {}}, exp=None)
    assert reads(signer.token(event, typ="secevent+jwt"), SECURITY).events == {REVOKED: {}}
    assert reads(signer.token(event), SECURITY) == "type"
    assert reads(signer.token(event, typ=None), SECURITY) == "type"
    lax = security_event(typed=False, oldest=3600.0)
    assert reads(signer.token(event), lax).token_id == "one"


def test_forgeries_are_refused(reads: Any, signer: Signer, stranger: Signer, logout: Any) -> None:
    """No signature, a MAC with the public key, another's key, another's signature, a claim twice."""
    claims = logout()
    good = signer.token(claims, typ="logout+jwt")
    assert reads(f"{b64({'alg': 'none', 'kid': 'own'})}.{b64(claims)}.") == "malformed"
    unsigned = f"{b64({'alg': 'none', 'kid': 'own'})}.{b64(claims)}.AA"
    assert reads(unsigned) == "algorithm"
    signed = f"{b64({'alg': 'HS256', 'kid': 'own'})}.{b64(claims)}"
    mac = hmac.digest(json.dumps(signer.jwk).encode(), signed.encode(), "sha256")
    assert reads(f"{signed}.{b64(mac)}") == "algorithm"
    assert reads(stranger.token(claims)) == "signature"
    assert reads(f"{good.rpartition('.')[0]}.{signer.token(logout(jti='two')).rpartition('.')[2]}") == "signature"
    assert reads(signer.token(claims, kid=None)) == "unknown_key"
    twice = json.dumps(claims)[:-1] + ',"sub":"bob"}'
    assert reads(signer.token(twice)) == "malformed"
    for text in ("", "x", "a.b.c", "a" * 40_000, "é.é.é", "a.b.c.d.e"):
        assert reads(text) in ("missing", "malformed", "too_large", "encrypted")


def test_the_deny_list_holds_for_its_key(offline: Any, reads: Any, signer: Signer, logout: Any) -> None:
    """A key that leaked signs nobody out."""
    verifier = offline(deny=DenyList(kids=["own"]))
    assert reads(signer.token(logout()), by=verifier) == "denied"
    verifier.close()
    with pytest.raises(ra.Closed):
        reads(signer.token(logout()), by=verifier)


def test_of_several_the_one_that_it_is_for_verifies_it(offline: Any, reads: Any, signer: Signer, logout: Any) -> None:
    """By issuer and audience; one that is nobody's is refused."""
    several = ra.AnyOf(offline(audience="api://other"), offline())
    assert reads(signer.token(logout()), by=several).subject == "ann"
    assert reads(signer.token(logout(aud="api://third")), by=several) == "audience"
    assert reads(signer.token(logout(iss="https://x.example")), by=several) == "issuer"


def test_keys_that_cannot_be_had_are_no_verdict(at_idp: Any, idp: Any, logout: Any) -> None:
    """It isn't refused, so that whoever sent it tries again."""
    from resilient_auth.emulator import Fault

    token = idp.sign(logout(iss=f"{idp.url}/{TENANT}/v2.0"))
    idp.fail(Fault.http_503(), "jwks")
    verifier = at_idp()
    with pytest.raises(ra.VerificationUnavailable):
        run(EventTokens(verifier, LOGOUT).verifying(token))
