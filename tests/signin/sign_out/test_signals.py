"""Security events: whom they mean, what ends, once, everywhere; and that nobody else can be signed out by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from leaving import Process, World

from resilient_auth.errors import ConfigurationError
from resilient_auth.events import SecurityEventReceived, SignOutRefused
from resilient_auth.signin import SignalsReceiver
from resilient_auth.signin.sign_out.ending import Whom
from resilient_auth.signin.signals.meaning import action_of, told_at
from resilient_auth.signin.signals.subjects import UnusableSubject, subject_in, whom
from resilient_auth.testing import capture_events

CAEP = "https://schemas.openid.net/secevent/caep/event-type"
RISC = "https://schemas.openid.net/secevent/risc/event-type"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
ISSUER = "https://idp.example"
BEARER = "a-token-of-the-transmitter"


@pytest.fixture
def event(world: World) -> Callable[..., str]:
    """Make an event token of the application's provider; None takes a claim away."""

    def make(
        subject: Any = None,
        uri: str = f"{CAEP}/session-revoked",
        payload: dict[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        forge: str | None = None,
        **changes: Any,
    ) -> str:
        claims = {
            "iss": world.issuer(world.realms[0]),
            "aud": "https://receiver.example",
            "sub_id": subject,
            "events": {uri: payload or {}},
        } | changes
        return world.idp.event_token(claims, header, forge=forge)

    return make


@pytest.fixture
def push(world: World) -> Callable[..., Any]:
    """Have the emulator push it."""

    def send(process: Process, token: str, **options: Any) -> Any:
        given = {"bearer": BEARER, "ca_file": world.ca_file} | options
        return world.idp.transmit(f"{process.url}/signals", token, **given)

    return send


def iss_sub(world: World, subject: str) -> dict[str, str]:
    return {"format": "iss_sub", "iss": world.issuer(world.realms[0]), "sub": subject}


class TestReceiving:
    def test_a_revoked_users_sessions_and_tokens_end_everywhere(
        self, world: World, one: Process, other: Process, event: Any, push: Any, eventually: Any
    ) -> None:
        """Another user stays; who signs in again is let in; what the provider sends again is answered as before."""
        ann, bob = world.browser(), world.browser()
        ann.sign_in(one)
        bob.sign_in(one, "bob@contoso.com")
        kept, subject = ann.cookie, ann.session(one).who.subject
        text = event(iss_sub(world, subject))
        with capture_events() as captured:
            delivery = push(other, text)
            captured.wait_for(SecurityEventReceived)
        assert (delivery.status, delivery.body) == (202, "")
        assert not ann.is_in(other, kept)
        eventually(lambda: not ann.is_in(one, kept), 4.0)
        eventually(lambda: len(one.revocations.deny.revoked) == 1, 4.0)
        assert bob.is_in(one)
        told = captured.of(SecurityEventReceived)[0]
        assert (told.kind, told.action, told.count) == ("session-revoked", "end", 1)
        assert subject not in str(captured)
        with capture_events() as captured:
            assert push(one, text).status == 202
        assert not captured.of(SecurityEventReceived)

    def test_a_stream_is_verified(self, one: Process, event: Any, push: Any) -> None:
        """The transmitter's own question, whether events arrive."""
        with capture_events() as captured:
            assert push(one, event(uri=VERIFICATION, payload={"state": "s"})).status == 202
            captured.wait_for(SecurityEventReceived)
        assert captured.of(SecurityEventReceived)[0].action == "verified"
        one.receiver._verified = lambda state: state == "mine"
        answer = push(one, event(uri=VERIFICATION, payload={"state": "s"}))
        assert answer.status == 400
        assert '"err": "invalid_state"' in answer.body
        assert push(one, event(uri=VERIFICATION, payload={"state": "mine"})).status == 202

    def test_what_is_wrong_ends_nothing(self, world: World, one: Process, event: Any, push: Any) -> None:
        """Each is answered as RFC 8935 has it, told by an event, and everybody stays signed in."""
        browser = world.browser()
        browser.sign_in(one)
        whose = iss_sub(world, browser.session(one).who.subject)
        good = event(whose)
        bad: list[tuple[str, dict[str, Any], str]] = [
            (event(whose, forge="none"), {}, "invalid_request"),
            (event(whose, forge="hs256"), {}, "invalid_key"),
            (event(whose, forge="signature"), {}, "authentication_failed"),
            (event(whose, forge="payload"), {}, "authentication_failed"),
            (event(whose, iss="https://evil.example"), {}, "invalid_issuer"),
            (event(whose, iss=world.issuer(world.realms[1])), {}, "invalid_issuer"),
            (event(whose, aud="https://another.example"), {}, "invalid_audience"),
            (event(whose, iat=int(time.time()) - 8 * 86_400), {}, "invalid_request"),
            (event(whose, iat=int(time.time()) + 900), {}, "invalid_request"),
            (event(whose, exp=int(time.time()) - 900), {}, "invalid_request"),
            (event(whose, jti=None), {}, "invalid_request"),
            (event(whose, events=None), {}, "invalid_request"),
            (event(whose, events={f"{CAEP}/session-revoked": []}), {}, "invalid_request"),
            (event(whose, header={"typ": "JWT"}), {}, "invalid_request"),
            (event(whose, header={"typ": "logout+jwt"}), {}, "invalid_request"),
            (event(whose, nonce="n"), {}, "invalid_request"),
            (event(None), {}, "invalid_request"),
            (event({"format": "iss_sub"}), {}, "invalid_request"),
            (event({"format": "email", "email": 7}), {}, "invalid_request"),
            (event([whose]), {}, "invalid_request"),
            (good, {"bearer": None}, "authentication_failed"),
            (good, {"bearer": "another-token-of-theirs"}, "authentication_failed"),
            (good, {"content_type": "application/json"}, "invalid_request"),
            (good, {"content_type": "application/x-www-form-urlencoded"}, "invalid_request"),
            (good + "x" * 200_000, {}, "invalid_request"),
            ("", {}, "invalid_request"),
            ("\x00{}[]é", {}, "invalid_request"),
        ]
        with capture_events() as captured:
            for number, (text, options, code) in enumerate(bad):
                answer = push(one, text, **options)
                assert (answer.status, answer.content_type) == (400, "application/json"), number
                assert f'"err": "{code}"' in answer.body, (number, answer.body)
                assert whose["sub"] not in answer.body
            captured.wait_for(SignOutRefused, count=len(bad))
        assert whose["sub"] not in str(list(captured))
        assert browser.is_in(one)
        assert len(one.revocations.deny.revoked) == 0
        assert httpx.get(f"{one.url}/signals", verify=world.trust, trust_env=False).status_code == 405
        assert push(one, good).status == 202
        assert not browser.is_in(one)

    def test_others_are_not_signed_out(self, world: World, one: Process, event: Any, push: Any) -> None:
        """Another provider's user of the same name, another user, a phone, a device, good news."""
        browser = world.browser()
        browser.sign_in(one, realm=world.realms[1])
        who = browser.session(one).who
        for subject, uri, payload in (
            (iss_sub(world, who.subject), None, None),
            ({"format": "iss_sub", "iss": who.issuer, "sub": who.subject}, None, None),
            ({"format": "email", "email": "ann@contoso.com"}, None, None),
            ({"format": "opaque", "id": who.subject}, None, None),
            ({"format": "complex", "session": {"format": "opaque", "id": who.sid}}, None, None),
            ({"format": "phone_number", "phone_number": "+1"}, None, None),
            ({"format": "complex", "device": {"format": "opaque", "id": "d"}}, None, None),
        ):
            answer = push(one, event(subject, uri or f"{CAEP}/session-revoked", payload))
            assert answer.status == 202, answer.body
        assert browser.is_in(one)

    def test_a_session_alone(self, world: World, one: Process, event: Any, push: Any) -> None:
        """The same user's other browser stays."""
        first, second = world.browser(), world.browser()
        first.sign_in(one)
        second.sign_in(one)
        who = first.session(one).who
        session = {"format": "opaque", "id": who.sid}
        user = {"format": "email", "email": "ANN@contoso.com"}
        assert push(one, event({"format": "complex", "session": session, "user": user})).status == 202
        assert not first.is_in(one)
        assert second.is_in(one)
        wrong = {"format": "email", "email": "bob@contoso.com"}
        session = {"format": "opaque", "id": second.sid(one)}
        assert push(one, event({"format": "complex", "session": session, "user": wrong})).status == 202
        assert second.is_in(one)

    def test_changed_claims_end_tokens_alone(self, world: World, one: Process, event: Any, push: Any) -> None:
        """The session goes on, and gets its tokens anew."""
        browser = world.browser()
        browser.sign_in(one)
        whose = iss_sub(world, browser.session(one).who.subject)
        assert push(one, event(whose, f"{CAEP}/token-claims-change", {"claims": {"role": "x"}})).status == 202
        assert one.accounts() == []
        assert len(one.revocations.deny.revoked) == 1
        assert browser.is_in(one)

    def test_a_store_that_fails_at_that_moment(
        self, world: World, one: Process, other: Process, event: Any, push: Any, eventually: Any
    ) -> None:
        """It holds here at once, the transmitter is told to send it again, and every process hears of it."""
        browser = world.browser()
        browser.sign_in(one)
        kept, whose = browser.cookie, iss_sub(world, browser.session(one).who.subject)
        text = event(whose)
        one.store.dead = True
        answer = push(one, text)
        assert answer.status == 503
        assert int(answer.retry_after) >= 1
        assert len(one.revocations.deny.revoked) == 1
        # Where the transmitter tries again, it may come to another process: that holds there at once as well.
        other.store.dead = True
        assert push(other, text).status == 503
        assert len(other.revocations.deny.revoked) == 1
        one.store.dead = other.store.dead = False
        assert not browser.is_in(one, kept)
        assert not browser.is_in(other, kept)
        assert push(other, text).status == 202
        third = world.process()
        assert not browser.is_in(third, kept)
        eventually(lambda: len(third.revocations.deny.revoked) == 1, 4.0)


class TestMeaning:
    @pytest.mark.parametrize(
        ("uri", "payload", "action"),
        [
            (f"{CAEP}/session-revoked", {}, "end"),
            (f"{CAEP}/credential-change", {"change_type": "revoke"}, "end"),
            (f"{CAEP}/credential-change", {"change_type": "create"}, "nothing"),
            (f"{CAEP}/assurance-level-change", {"change_direction": "decrease"}, "end"),
            (f"{CAEP}/assurance-level-change", {"change_direction": "increase"}, "nothing"),
            (f"{CAEP}/device-compliance-change", {"current_status": "not-compliant"}, "end"),
            (f"{CAEP}/device-compliance-change", {"current_status": "compliant"}, "nothing"),
            (f"{CAEP}/risk-level-change", {"current_level": "HIGH"}, "end"),
            (f"{CAEP}/risk-level-change", {"current_level": "LOW"}, "nothing"),
            (f"{CAEP}/session-established", {}, "nothing"),
            (f"{RISC}/account-disabled", {}, "end"),
            (f"{RISC}/account-enabled", {}, "nothing"),
            ("https://unknown.example/event", {}, "nothing"),
        ],
    )
    def test_each_event_has_its_action(self, uri: str, payload: dict[str, Any], action: str) -> None:
        """Bad news end sessions, good ones nothing; an owner may think otherwise."""
        assert action_of(uri, payload, {}) == action
        assert action_of(uri, payload, {uri: "tokens"}) == "tokens"

    def test_it_happened_no_later_than_it_was_told(self) -> None:
        """Milliseconds, texts and futures count for nothing."""
        assert told_at({}, {"event_timestamp": 900}, 1000.0) == 900.0
        assert told_at({"toe": 800}, {}, 1000.0) == 800.0
        for wrong in (1_000_000, "900", True, -5, float("nan"), None):
            assert told_at({}, {"event_timestamp": wrong}, 1000.0) == 1000.0


class TestSubjects:
    @pytest.mark.parametrize(
        ("subject", "found"),
        [
            ({"format": "iss_sub", "iss": ISSUER, "sub": "s"}, {"subject": "s"}),
            ({"subject_type": "iss-sub", "iss": ISSUER, "sub": "s"}, {"subject": "s"}),
            ({"format": "opaque", "id": "s"}, {"subject": "s"}),
            ({"format": "email", "email": " A@B.example"}, {"mail": "a@b.example"}),
            ({"format": "account", "uri": "acct:a@b.example"}, {"mail": "a@b.example"}),
            (
                {
                    "format": "aliases",
                    "identifiers": [
                        {"format": "phone_number", "phone_number": "+1"},
                        {"format": "email", "email": "a@b.example"},
                    ],
                },
                {"mail": "a@b.example"},
            ),
        ],
    )
    def test_each_format_is_understood(self, subject: dict[str, Any], found: dict[str, str]) -> None:
        """RFC 9493's, and complex ones."""
        assert whom(subject, [ISSUER]) == (Whom(issuer=ISSUER, **found),)

    def test_a_tenants_user_is_named_by_who_speaks_for_the_tenant(self) -> None:
        """An object id is any issuer's: whoever speaks for one alone would sign out everybody else's users by it."""
        subject = {"user": {"format": "opaque", "id": "o"}, "tenant": {"format": "opaque", "id": "T"}}
        for issuer in ("https://login.example/t/v2.0", "https://sts.example/t/", "https://t.example/T/v2.0"):
            assert whom(subject, [ISSUER, issuer]) == (Whom(issuer=issuer, oid="o", tenant="T"),)
        for issuer in (ISSUER, "https://login.example/other/v2.0", "https://t.example/", "https://login.example/tt"):
            assert whom(subject, [issuer]) == ()

    @pytest.mark.parametrize(
        "subject",
        [
            {"format": "iss_sub", "iss": "https://other.example", "sub": "s"},
            {"format": "phone_number", "phone_number": "+1"},
            {"format": "did", "url": "did:x"},
            {"format": "complex", "device": {"format": "opaque", "id": "d"}, "user": {"format": "opaque", "id": "s"}},
            {"format": "complex", "tenant": {"format": "opaque", "id": "t"}},
            {"format": "complex", "user": {"format": "uri", "uri": "x"}, "session": {"format": "opaque", "id": "s"}},
        ],
    )
    def test_what_is_narrower_or_elsewhere_means_nobody(self, subject: dict[str, Any]) -> None:
        """Nobody is signed out for a guess."""
        assert whom(subject, [ISSUER]) == ()

    @pytest.mark.parametrize(
        "subject",
        [
            {},
            {"format": 7},
            {"format": "complex"},
            {"format": "complex", "user": "s"},
            {"format": "opaque", "id": ""},
            {"format": "opaque", "id": "x" * 300},
            {"format": "email", "email": "nobody"},
            {"format": "aliases", "identifiers": {}},
            {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": []}]},
        ],
    )
    def test_what_is_none_is_refused(self, subject: dict[str, Any]) -> None:
        with pytest.raises(UnusableSubject):
            whom(subject, [ISSUER])

    def test_older_forms(self) -> None:
        """Within the event, and the token's own `sub`."""
        assert subject_in({}, {"subject": {"format": "opaque"}}) == {"format": "opaque"}
        assert subject_in({"iss": ISSUER, "sub": "s"}, {})["sub"] == "s"
        with pytest.raises(UnusableSubject):
            subject_in({}, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sign_in": None, "revocations": None},
        {"store": "store"},
        {"bearer": "short"},
        {"path": "signals"},
        {"oldest": 1.0},
        {"speaks_for": "https://idp.example"},
        {"actions": {"x": "explode"}},
        {"verifier": object()},
    ],
)
def test_options_that_cannot_be_are_named(one: Process, wrong: dict[str, Any]) -> None:
    """Before anything is mounted."""
    given = {"verifier": one.transmitter, "store": one.store, "sign_in": one.auth} | wrong
    verifier = given.pop("verifier")
    with pytest.raises(ConfigurationError):
        SignalsReceiver(verifier, **given)
