"""Who may call, known before a byte of the body is read; and bodies of the wrong shape, which break nothing."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_requests import AUDIENCE, FRAMEWORKS, TENANT, Ask, event, posed

import resilient_auth as ra
from resilient_auth.callouts import (
    ApiConnector,
    AttributeCollectionSubmit,
    BasicCaller,
    Callout,
    CertificateCaller,
    Continue,
    EmailOtpSend,
    EntraCaller,
    LastKnown,
    MigratePassword,
    PasswordSubmit,
    RestProfile,
    RetryPassword,
    SendByProvider,
    ShowBlockPage,
    ShowValidationError,
    TokenIssuanceStart,
)
from resilient_auth.callouts.caller import Arriving
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Fault
from resilient_auth.emulator.callouts.sending import _encrypted
from resilient_auth.events import CalloutRejected
from resilient_auth.testing import capture_events, check_callout
from resilient_auth.verify import KeyOptions

BASIC = BasicCaller({"old": "the old password", "entra": "a password, in tests"})
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def asked(
    callout: Callout[Any], headers: dict[str, Any], *, peer: str | None = "10.0.0.7"
) -> tuple[int, dict[str, str]]:
    """Send headers alone: whoever reads the body fails the test."""

    def read(most: int, seconds: float) -> bytes:
        pytest.fail("the body was read")

    named = {name.lower(): value for name, value in headers.items()}

    def header(name: str) -> list[str]:
        value = named.get(name.lower(), [])
        return [value] if isinstance(value, str) else list(value)

    reply = callout.answer(Arriving(header, peer), read)
    return reply.status, dict(reply.headers)


def of_entra(caller: Any, **options: Any) -> Callout[TokenIssuanceStart]:
    return Callout(
        TokenIssuanceStart, lambda request: Continue({"a": "b"}), caller=caller, default=Continue(), **options
    )


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    "sent",
    [
        [],
        "",
        "Basic",
        "Basic !!!",
        "Bearer x.y.z",
        basic("entra", "wrong password"),
        basic("old", "a password, in tests"),
        basic("", ""),
        "Basic " + "A" * 100_000,
        [basic("old", "the old password"), basic("old", "the old password")],
    ],
)
def test_who_does_not_know_the_password_is_a_stranger(sent: Any) -> None:
    with capture_events() as told:
        status, headers = asked(of_entra(BASIC), {"Authorization": sent, "Content-Type": "application/json"})
        (rejected,) = told.wait_for(CalloutRejected)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic ")
    assert rejected.code == "unauthenticated"


def test_the_old_and_the_new_password_are_known_while_one_is_replaced() -> None:
    for name, password in BASIC.credentials.items():
        assert posed(of_entra(BASIC), event(), {"Authorization": basic(name, password)}).status == 200
    assert "password" not in repr(BASIC)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"azp": "00000003-0000-0000-c000-000000000000"}, "client"),
        ({"azp": None}, "client"),
        ({"aud": "api://another"}, "audience"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"iss": "https://login.microsoftonline.com/another/v2.0"}, "issuer"),
    ],
)
def test_a_token_that_is_not_entra_s_for_this_api_is_a_strangers(entra: Any, claims: Any, code: str) -> None:
    with capture_events() as told:
        status, headers = asked(of_entra(entra.caller), entra.token(**claims))
        (rejected,) = told.wait_for(CalloutRejected)
    assert (status, rejected.code) == (401, code)
    assert headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_of_version_1_names_its_application_otherwise(entra: Any) -> None:
    """`appid`, and not `azp`."""
    headers = entra.token(azp=None, appid="99045FE1-7639-4a75-9d4a-577b6ca3810f", ver="1.0")
    assert posed(of_entra(entra.caller), event(), headers).status == 200


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer x"}, {"Authorization": basic("a", "b")}])
def test_a_request_without_a_token_is_a_strangers(entra: Any, sent: dict[str, str]) -> None:
    assert asked(of_entra(entra.caller), sent)[0] == 401


def test_who_calls_cannot_be_known_while_the_keys_cannot_be_had(entra: Any) -> None:
    """That is no 401, and it is said in time."""
    verifier = ra.ClaimsVerifier(
        issuer=entra.issuer,
        audience=AUDIENCE,
        verify=entra.idp.ca_file,
        keys=KeyOptions(wait=20.0),
        settings=ra.Settings(clock=SystemClock()),
    )
    broken = entra.idp.fail(Fault.black_hole(), "*")
    try:
        status, headers = asked(of_entra(EntraCaller(verifier), deadline=0.2), entra.headers)
    finally:
        broken.stop()
        verifier.close()
    assert status == 503
    assert headers["Retry-After"]


@pytest.mark.parametrize("kids", [1, 8, 200])
def test_forged_tokens_keep_nobody_out_whose_key_is_held_while_the_keys_cannot_be_had(entra: Any, kids: int) -> None:
    """However many they are, and by however many keys they say that they are signed."""
    head, said, signature = entra.headers["Authorization"].split()[1].split(".")

    def forged(number: int) -> dict[str, str]:
        named = json.loads(base64.urlsafe_b64decode(f"{head}==")) | {"kid": f"forged-{number % kids}"}
        text = base64.urlsafe_b64encode(json.dumps(named).encode()).rstrip(b"=").decode()
        return {"Authorization": f"Bearer {text}.{said}.{signature}"}

    callout = of_entra(entra.caller, concurrency=2, queue=2, deadline=0.4)
    broken = entra.idp.fail(Fault.black_hole(), "*")
    try:
        with ThreadPoolExecutor(40) as threads:
            strangers = [threads.submit(posed, callout, event(), forged(number)) for number in range(40)]
            for number in range(20):
                assert posed(callout, event(), entra.token(uti=f"u-{number}")).status == 200
            assert {one.result().status for one in strangers} <= {401, 503}
        assert posed(callout, event(), entra.token(uti="afterwards")).status == 200
    finally:
        broken.stop()


def test_a_token_of_one_tenant_says_nothing_about_another(entra: Any) -> None:
    with capture_events() as told:
        reply = posed(of_entra(entra.caller), event(tenant="ffffeeee-0000-cccc-1111-dddd2222eeee"), entra.headers)
        (rejected,) = told.wait_for(CalloutRejected)
    assert b'"claims":{}' in reply.body
    assert "another tenant" in rejected.detail
    assert posed(of_entra(entra.caller), event(tenant=TENANT.upper()), entra.headers).status == 200


def certificate(name: str, *, days: int = 1) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.DER)


def test_a_certificate_is_believed_from_the_owners_proxy_alone() -> None:
    known, other, old = certificate("b2c"), certificate("eve"), certificate("old", days=-1)
    prints = [hashlib.sha256(one).hexdigest().upper() for one in (known, old)]
    callout = of_entra(CertificateCaller(thumbprints=prints, trusted_proxies=("10.0.0.0/8", "::1")))

    def sent(der: bytes, **options: Any) -> int:
        text = base64.b64encode(der).decode()
        try:
            return asked(callout, {"X-ARR-ClientCert": text}, **options)[0]
        except pytest.fail.Exception:
            return 200

    pem = x509.load_der_x509_certificate(known).public_bytes(Encoding.PEM).decode().replace("\n", "%0A")
    assert posed(callout, event(), {"X-ARR-ClientCert": pem}, peer="::ffff:10.1.2.3").status == 200
    assert posed(callout, event(), {"X-ARR-ClientCert": base64.b64encode(known).decode()}, peer="::1").status == 200
    assert sent(known, peer="192.0.2.1") == 401
    assert sent(known, peer=None) == 401
    assert sent(known, peer="a socket") == 401
    assert sent(other) == sent(old) == sent(b"") == sent(b"x" * 100) == 401
    text = base64.b64encode(known).decode()
    assert asked(callout, {"X-ARR-ClientCert": [text, text]})[0] == 401


def test_an_owner_s_own_way_that_fails_lets_nobody_in() -> None:
    class Broken:
        def admit(self, arriving: Arriving) -> None:
            raise ZeroDivisionError

    assert asked(of_entra(Broken()), {})[0] == 503


HUGE = json.dumps(event(padding="x" * 100_000)).encode()
NESTED = b'{"a":' * 500 + b"1" + b"}" * 500
GOOD = json.dumps(event()).encode()
BAD: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "a text": b'"x"',
    "nothing": b"null",
    "not UTF-8": b'{"type":"\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "twice": GOOD.replace(b'"source"', b'"type"'),
    "a duplicate deep inside": GOOD.replace(b'"protocol"', b'"correlationId"'),
    "half a pair": GOOD.replace(b"OAUTH2.0", b"\\ud800"),
    "NaN": GOOD.replace(b'"OAUTH2.0"', b"NaN"),
    "a huge number": GOOD.replace(b'"OAUTH2.0"', b"9" * 400),
    "nested": NESTED,
    "huge": HUGE,
    "cut off": GOOD[:-5],
    "no type": GOOD.replace(b'"type"', b'"kind"'),
    "another event": json.dumps(event("attributeCollectionStart")).encode(),
    "an unknown event": json.dumps(event("somethingElse")).encode(),
    "another event's type": GOOD.replace(b"authenticationEvent.tokenIssuanceStart", b"authenticationEvent.otpSend"),
    "another event's data": GOOD.replace(b"onTokenIssuanceStartCalloutData", b"onOtpSendCalloutData"),
    "no data": b'{"type":"microsoft.graph.authenticationEvent.tokenIssuanceStart"}',
    "data is a list": b'{"type":"microsoft.graph.authenticationEvent.tokenIssuanceStart","data":[]}',
    "no correlation id": GOOD.replace(b'"correlationId"', b'"other"'),
    "a number for a text": GOOD.replace(b'"tenantId": "' + TENANT.encode() + b'"', b'"tenantId": 7'),
    "true for a text": GOOD.replace(b'"OAUTH2.0"', b"true"),
    "a text for an object": GOOD.replace(b'"user": {', b'"user": "x", "u": {'),
    "a long correlation id": json.dumps(event())
    .replace('"correlationId": "', '"correlationId": "' + "c" * 300)
    .encode(),
}


@pytest.mark.parametrize("framework", list(FRAMEWORKS))
def test_a_body_of_the_wrong_shape_gets_the_contract_s_own_answer(entra: Any, framework: str) -> None:
    called: list[Any] = []

    def handler(request: TokenIssuanceStart) -> Continue:
        called.append(request)
        return Continue()

    ask: Ask = FRAMEWORKS[framework](
        Callout(TokenIssuanceStart, handler, caller=entra.caller, default=Continue({"by": "default"}), timeout=2.0)
    )
    with capture_events() as told:
        for name, body in BAD.items():
            status, said, headers = ask(body, entra.headers)
            assert check_callout("tokenIssuanceStart", status, headers, json.dumps(said)), name
            assert said["data"]["actions"][0]["claims"] == {"by": "default"}, name
        rejected = told.wait_for(CalloutRejected, count=len(BAD))
    assert {one.code for one in rejected} == {"malformed_request"}
    assert not called
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(GOOD, entra.headers | {"Content-Type": kind})[1]["data"]["actions"][0]["claims"] == {"by": "default"}
    assert ask(GOOD, entra.headers | {"Content-Type": "application/json; charset=utf-8"})[0] == 200
    assert len(called) == 1


@pytest.mark.parametrize(("claims", "called"), [(200, 1), (201, 0)])
def test_a_user_has_so_many_claims_at_most(claims: int, called: int) -> None:
    """More than any flow of B2C's sends are none of its."""
    seen: list[Any] = []
    connector = Callout(ApiConnector, lambda asked: seen.append(asked) or Continue(), caller=BASIC, default=Continue())
    assert posed(connector, {f"extension_{n}": "x" for n in range(claims)}).status == 200
    assert len(seen) == called


@pytest.mark.parametrize("framework", list(FRAMEWORKS))
def test_a_stranger_gets_401_in_every_framework(entra: Any, framework: str) -> None:
    ask: Ask = FRAMEWORKS[framework](of_entra(entra.caller))
    status, said, headers = ask(GOOD)
    assert (status, said) == (401, {"error": "missing"})
    assert headers["www-authenticate"].startswith("Bearer")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ALL: list[tuple[type[Any], Any]] = [
    (TokenIssuanceStart, Continue()),
    (AttributeCollectionSubmit, Continue()),
    (EmailOtpSend, Continue()),
    (PasswordSubmit, RetryPassword()),
    (ApiConnector, Continue()),
    (RestProfile, Continue()),
]
CALLOUTS = [
    Callout(
        asks,
        lambda request, default=default: default,
        caller=BASIC,
        default=default,
        decryption_keys=KEY,
        deadline=0.9,
        timeout=2.0,
    )
    for asks, default in ALL
]


@settings(max_examples=25, deadline=None)
@given(
    path=st.lists(st.sampled_from(["type", "data", "authenticationContext", "user", "client"]), max_size=3), value=JSON
)
def test_whatever_comes_is_answered_in_the_contract_s_shape(path: list[str], value: Any) -> None:
    for callout in CALLOUTS:
        body: Any = event(callout.asks.event)
        at = body
        for name in path[:-1]:
            at = at.setdefault(name, {}) if isinstance(at, dict) else {}
        if path and isinstance(at, dict):
            at[path[-1]] = value
        else:
            body = value
        reply = posed(callout, body)
        check_callout(callout.asks.event, reply.status, {"Content-Type": "application/json"}, reply.body)


def seal(**claims: Any) -> str:
    return _encrypted({"user-password": "hunter2-hunter2", "nonce": "n-1", **claims}, PEM)


def test_an_encrypted_password_that_cannot_be_opened_is_no_right_one() -> None:
    """Nor is it in what is told."""
    right: list[str] = []

    def handler(request: PasswordSubmit) -> Any:
        right.append(request.password)
        return MigratePassword()

    callout = Callout(
        PasswordSubmit, handler, caller=BASIC, default=RetryPassword(), decryption_keys=KEY, timeout=2.0, deadline=1.5
    )
    good = seal()
    header, key, nonce, text, tag = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","enc":"A256GCM"}').rstrip(b"=").decode()
    small = base64.urlsafe_b64encode(b'{"alg":"RSA-OAEP-256","enc":"A128GCM"}').rstrip(b"=").decode()
    wrong = [
        "",
        "x",
        ".".join((header, key, nonce, text)),
        ".".join((header, key, nonce, text, tag[:-2])),
        ".".join((header, key, nonce, text[:-4] + "AAAA", tag)),
        ".".join((none, key, nonce, text, tag)),
        ".".join((small, key, nonce, text, tag)),
        ".".join((header, key[:-4] + "AAAA", nonce, text, tag)),
        seal(**{"user-password": 7}),
        seal(**{"user-password": ""}),
        seal(nonce=None),
        "é" * 10,
        "A" * 20_000,
    ]
    with capture_events() as told:
        for sealed in wrong:
            reply = posed(callout, event("passwordSubmit", encryptedPasswordContext=sealed))
            assert b"passwordSubmit.Retry" in reply.body
        rejected = told.wait_for(CalloutRejected, count=len(wrong))
    assert not right
    assert "hunter2" not in str([str(one) for one in rejected])
    reply = posed(callout, event("passwordSubmit", encryptedPasswordContext=good))
    assert json.loads(reply.body)["data"]["nonce"] == "n-1"
    assert right == ["hunter2-hunter2"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: of_entra(BASIC, deadline=1.0), "leaves nothing of the provider's 1 s"),
        (lambda: of_entra(BASIC, timeout=20.0), "timeout must be from 0.2 to 2 s"),
        (lambda: of_entra(BASIC, when_store_fails="maybe"), "when_store_fails"),
        (lambda: of_entra(BASIC, timeout=2.0, repeat_window=2.0), "over before the provider asks again"),
        (
            lambda: Callout(ApiConnector, print, caller=BASIC, default=Continue(), repeat_window=20.0),  # type: ignore[arg-type]
            "over before the provider asks again",
        ),
        (lambda: of_entra(None), "caller must be such as EntraCaller"),
        (
            lambda: Callout(PasswordSubmit, print, caller=BASIC, default=MigratePassword()),
            "RetryPassword, ShowBlockPage",
        ),
        (
            lambda: Callout(TokenIssuanceStart, print, caller=BASIC, default=ShowBlockPage("No.")),
            "must be one of Continue",
        ),
        (
            lambda: Callout(EmailOtpSend, print, caller=BASIC, default=LastKnown(otherwise=SendByProvider())),
            "no claims for LastKnown",
        ),
        (lambda: BasicCaller({"b2c": "short"}), "12 characters"),
        (lambda: BasicCaller({}), "passwords by name"),
        (lambda: BasicCaller({"b2c": "\udcff" * 12}), "isn't text"),
        (lambda: CertificateCaller(thumbprints=["x"], trusted_proxies=["10.0.0.1"]), "64 hexadecimal digits"),
        (lambda: CertificateCaller(thumbprints=["z" * 64], trusted_proxies=["10.0.0.1"]), "64 hexadecimal digits"),
        # SHA-1's.
        (lambda: CertificateCaller(thumbprints=["ab" * 20], trusted_proxies=["10.0.0.1"]), "64 hexadecimal digits"),
        (lambda: CertificateCaller(thumbprints=[], trusted_proxies=["10.0.0.1"]), "64 hexadecimal digits"),
        (lambda: CertificateCaller(thumbprints=["a" * 64], trusted_proxies=[]), "trusted_proxies"),
        (lambda: EntraCaller(print), "must be a ClaimsVerifier"),
        (lambda: of_entra(BASIC, decryption_keys="no key"), "can't be read"),
        (lambda: ShowBlockPage(""), "1 to 1000 characters"),
    ],
)
def test_what_is_configured_wrongly_says_so_at_once(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ra.ConfigurationError, match=says):
        make()


@pytest.mark.parametrize(
    ("asks", "default", "says"),
    [
        (TokenIssuanceStart, Continue({"x": "y" * 4000}), "a token takes 3072"),
        (TokenIssuanceStart, Continue({"x": "\ud800"}), "can't be written"),
        (ApiConnector, Continue({"x": "y" * 70_000}), "no provider takes more"),
        (
            AttributeCollectionSubmit,
            # In English it would fit.
            ShowValidationError("No.", {f"a-{number}": {"en": "No.", "zh": "\u6f22" * 1000} for number in range(25)}),
            "no provider takes more",
        ),
    ],
)
def test_a_default_that_cannot_be_sent_is_refused_at_once(asks: Any, default: Any, says: str) -> None:
    with pytest.raises(ra.ResilientAuthError, match=says):
        Callout(asks, print, caller=BASIC, default=default)
