"""Whatever is changed in a request, an authenticated caller gets an answer of the contract's, and anybody else 401."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from provider_requests import FRAMEWORKS, Ask, event, posed
from test_strangers_and_bad_input import BASIC, KEY, basic, seal

from resilient_auth.callouts import (
    ApiConnector,
    AttributeCollectionStart,
    AttributeCollectionSubmit,
    Callout,
    Continue,
    EmailOtpSend,
    LastKnown,
    MigratePassword,
    PasswordSubmit,
    RestProfile,
    RetryPassword,
    ShowValidationError,
    TokenIssuanceStart,
)
from resilient_auth.emulator.callouts.contracts import CONTRACTS
from resilient_auth.testing import check_callout

KIND = {"Content-Type": "application/json"}
MESSAGE = {"en": "Later.", "de": "Später."}


def echoed(request: Any) -> Any:
    """Answer with whatever was asked, as careless handlers do."""
    if isinstance(request, PasswordSubmit):
        return MigratePassword()
    if isinstance(request, EmailOtpSend):
        return Continue()
    if isinstance(request, (ApiConnector, RestProfile)):
        return Continue(dict(request.claims))
    return Continue({name: getattr(request, name) for name in ("user_id", "client_id", "correlation_id", "ip")})


FORM = {
    "userSignUpInfo": {
        "attributes": {"city": {"@odata.type": "s", "value": "Graz", "attributeType": "builtIn"}},
        "identities": [{"signInType": "emailAddress", "issuer": "contoso", "issuerAssignedId": "ada@contoso.com"}],
    }
}
CONNECTOR = {
    "email": "ada@contoso.com",
    "objectId": "u-1",
    "client_id": "a",
    "step": "PostAttributeCollection",
    "ui_locales": "de-AT",
    "identities": [{"signInType": "federated", "issuer": "facebook.com", "issuerAssignedId": "1"}],
}
ASKED: dict[type[Any], dict[str, Any]] = {
    TokenIssuanceStart: event(),
    AttributeCollectionStart: event("attributeCollectionStart", user=None, **FORM),
    AttributeCollectionSubmit: event("attributeCollectionSubmit", user=None, **FORM),
    EmailOtpSend: event("emailOtpSend", otpContext={"identifier": "ada@contoso.com", "oneTimeCode": "12345678"}),
    PasswordSubmit: event("passwordSubmit", encryptedPasswordContext=seal()),
    ApiConnector: CONNECTOR,
    RestProfile: CONNECTOR | {"correlationId": "c", "tenantId": "t"},
}
DEFAULTS: dict[type[Any], Any] = {
    AttributeCollectionSubmit: ShowValidationError(MESSAGE),
    PasswordSubmit: RetryPassword(),
    EmailOtpSend: Continue(),
    ApiConnector: LastKnown(otherwise=ShowValidationError(MESSAGE)),
    RestProfile: LastKnown(otherwise=ShowValidationError(MESSAGE, code="LATER")),
    TokenIssuanceStart: LastKnown(otherwise=Continue()),
}
CALLOUTS = {
    asks: Callout(
        asks,
        echoed,
        caller=BASIC,
        default=DEFAULTS.get(asks, Continue()),
        decryption_keys=KEY,
        deadline=0.9,
        timeout=2.0,
        largest_body=64 * 1024,
    )
    for asks in ASKED
}


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from paths(one, (*above, name))


PLACES = [(asks, place) for asks, body in ASKED.items() for place in paths(body)]
TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
CHANGES = ("replace", "remove", "rename", "add", "wrap", "nest")


def changed(body: Any, place: tuple[Any, ...], how: str, value: Any) -> Any:
    """Return a body with one place of it changed."""
    body = copy.deepcopy(body)
    if not place:
        return value if how in ("replace", "remove") else [body] if how == "wrap" else body
    at = body
    for name in place[:-1]:
        at = at[name]
    last = place[-1]
    if how == "remove":
        del at[last]
    elif how == "rename" and isinstance(at, dict):
        at[str(last).upper()] = at.pop(last)
    elif how == "add" and isinstance(at[last], dict):
        at[last][value if isinstance(value, str) else "more"] = value
    elif how == "wrap":
        at[last] = [at[last]]
    elif how == "nest":
        at[last] = {str(last): at[last]}
    else:
        at[last] = value
    return body


def answered(asks: type[Any], sent: bytes) -> None:
    reply = posed(CALLOUTS[asks], sent)
    check_callout(asks.event, reply.status, KIND, reply.body)
    stranger = posed(CALLOUTS[asks], sent, {"Authorization": basic("entra", "another password")})
    assert stranger.status == 401


@settings(max_examples=300, deadline=None)
@given(at=st.sampled_from(PLACES), how=st.sampled_from(CHANGES), value=JSON)
@example(at=(TokenIssuanceStart, ("data", "tenantId")), how="replace", value="\ud800")
@example(at=(ApiConnector, ("email",)), how="replace", value=float("nan"))
@example(at=(ApiConnector, ("ui_locales",)), how="replace", value="\u0000")
def test_an_event_with_anything_changed_in_it_is_answered(at: Any, how: str, value: Any) -> None:
    asks, place = at
    answered(asks, json.dumps(changed(ASKED[asks], place, how, value)).encode())


@settings(max_examples=200, deadline=None)
@given(asks=st.sampled_from(list(ASKED)), data=st.data())
def test_an_event_with_bytes_changed_in_it_is_answered(asks: Any, data: Any) -> None:
    sent = bytearray(json.dumps(ASKED[asks]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(sent)))
        ends = min(len(sent), begin + data.draw(st.integers(0, 8)))
        sent[begin:ends] = data.draw(st.binary(max_size=8))
    answered(asks, bytes(sent))


@settings(max_examples=40, deadline=None)
@given(opened=st.dictionaries(st.sampled_from(["user-password", "nonce", "username", "more"]), JSON))
def test_whatever_is_encrypted_is_answered(opened: Any) -> None:
    answered(PasswordSubmit, json.dumps(event("passwordSubmit", encryptedPasswordContext=seal(**opened))).encode())


@pytest.mark.parametrize("framework", list(FRAMEWORKS))
def test_in_every_framework_too(framework: str) -> None:
    """Nothing of the framework's own answers before it."""
    authorized = {"Authorization": basic("entra", "a password, in tests")}
    for asks, body in ASKED.items():
        ask: Ask = FRAMEWORKS[framework](CALLOUTS[asks])
        for sent in (b"", b"{", b"\xff" * 10, b"x" * 200_000, json.dumps(body).encode()):
            status, said, headers = ask(sent, authorized)
            check_callout(asks.event, status, headers, json.dumps(said))
            assert ask(sent)[0] == 401


ANSWERS = [
    '{"version":"1.0.0","action":"Continue"}',
    '{"data":{"@odata.type":"microsoft.graph.onTokenIssuanceStartResponseData","actions":[{"@odata.type":'
    '"microsoft.graph.tokenIssuanceStart.provideClaimsForToken","claims":{"a":"b"}}]}}',
    '{"data":{"@odata.type":"microsoft.graph.onPasswordSubmitResponseData","nonce":"n","actions":[{"@odata.type":'
    '"microsoft.graph.passwordSubmit.Block","message":"No."}]}}',
]
ANSWERED = [(answer, place) for answer in ANSWERS for place in paths(json.loads(answer))]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(CONTRACTS), status=st.sampled_from([200, 400, 409]), at=st.sampled_from(ANSWERED), value=JSON
)
@example(kind="restProfile", status=200, at=(ANSWERS[0], ("a",)), value=float("inf"))
@example(kind="tokenIssuanceStart", status=200, at=ANSWERED[-1], value="\ud800")
def test_the_check_of_answers_says_no_and_never_fails(kind: str, status: int, at: Any, value: Any) -> None:
    """Whatever an API answers; and what it takes for an answer is JSON to everybody."""
    answer, place = at
    for sent in (json.dumps(changed(json.loads(answer), place, "replace", value)), json.dumps({"a": value})):
        for body in (sent, sent.encode(), sent.encode("utf-16"), json.dumps(json.loads(sent), ensure_ascii=False)):
            try:
                check_callout(kind, status, KIND, body, nonce="n")
            except AssertionError:
                continue
            text = body if isinstance(body, str) else body.decode()
            read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
            assert json.dumps(read, ensure_ascii=False).encode()


@pytest.mark.parametrize("body", ["[" * 30_000, '{"a":' * 20_000, b"\xff", "9" * 10_000, '{"a":"\ud800"}'])
def test_an_answer_that_no_reader_takes_is_none(body: Any) -> None:
    for kind in CONTRACTS:
        with pytest.raises(AssertionError):
            check_callout(kind, 200, KIND, body)
