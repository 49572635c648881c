"""Which errors are the provider's own failures and which are denials, whatever status they come with (G9)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.failure import Purpose, judge
from resilient_auth._policy.provider_errors import Fault, is_gone, kind_of, kind_of_text, name_of, refusal_of
from resilient_auth.errors import ServerFailed, Throttled

HOST = "https://login.example"
WORDS = ["temporarily_unavailable", "server_error"]
DENIALS = ["invalid_grant", "invalid_client", "invalid_request", "interaction_required", "unauthorized_client",
           "access_denied", "invalid_scope", "authorization_pending", "slow_down", "expired_token"]  # fmt: skip
TRANSIENT = [50033, 50087, 70012, 90006, 90012, 90024, 90033, 90090, 90091]
UNMATCHED = [70021, 700211, 700212, 7002121, 700213]
#: Whom they sound like: wrong secrets and scopes, an unretryable failure, a record whose letters have another case.
OTHERS = [7000215, 70011, 65001, 50076, 50126, 90036, 90092, 7002138, 70016, 900331, 9003, 0, 50196]
STATUSES = [200, 400, 401, 403, 404, 422]
JSON_PURPOSES = [Purpose.TOKEN, Purpose.MANAGED_IDENTITY, Purpose.DISCOVERY, Purpose.ALIASES, Purpose.USER_REALM]


def told(error: object, code: int | None, *, as_list: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = {"error": error}
    if code is not None:
        body["error_description"] = f"AADSTS{code}: Something. Trace ID: 1"
        if as_list:
            body["error_codes"] = [code]
    return body


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("error", WORDS)
def test_oauths_own_words_for_failures_are_failures(status: int, error: str) -> None:
    """`temporarily_unavailable` and `server_error` at any status, with whatever code or none."""
    for code in (None, 90036, 12345):
        fault = judge(Purpose.TOKEN, HOST, status, {}, json.dumps(told(error, code)), 0.0)
        assert type(fault) is ServerFailed
        assert not fault.of_request


@pytest.mark.parametrize("as_list", [True, False], ids=["error_codes", "description"])
@pytest.mark.parametrize("code", TRANSIENT)
def test_what_the_reference_calls_transient_is_a_failure(code: int, as_list: bool) -> None:
    """With any of OAuth's words beside it, and told by its number alone."""
    for status in STATUSES:
        body = told("invalid_grant", code, as_list=as_list) | {"secret": "TOP-SECRET"}
        fault = judge(Purpose.TOKEN, HOST, status, {"retry-after": "7"}, json.dumps(body), 0.0)
        assert type(fault) is ServerFailed
        assert str(code) in str(fault)
        assert "TOP-SECRET" not in str(fault)
        assert fault.retry_after == 7.0


@pytest.mark.parametrize("purpose", JSON_PURPOSES)
def test_every_endpoint_that_speaks_json_may_say_so(purpose: Purpose) -> None:
    """A discovery document that is refused so isn't a tenant that doesn't exist."""
    body = json.dumps(told("temporarily_unavailable", 90033))
    assert type(judge(purpose, HOST, 400, {}, body, 0.0)) is ServerFailed


@pytest.mark.parametrize("code", UNMATCHED)
def test_a_federated_credential_on_its_way_is_nobody_elses_failure(code: int) -> None:
    """The application waits for it; the provider works."""
    fault = judge(Purpose.TOKEN, HOST, 401, {}, json.dumps(told("invalid_client", code)), 0.0)
    assert type(fault) is ServerFailed
    assert fault.of_request
    assert "federated credential" in str(fault)


def test_a_tenant_that_asks_too_often_is_throttled() -> None:
    """AADSTS90055 asks for patience as a 429 does."""
    fault = judge(Purpose.TOKEN, HOST, 400, {}, json.dumps(told("invalid_request", 90055)), 0.0)
    assert type(fault) is Throttled


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", [None, *OTHERS])
def test_a_denial_stays_one(status: int, code: int | None) -> None:
    """The provider works and said no."""
    for error in DENIALS:
        assert judge(Purpose.TOKEN, HOST, status, {}, json.dumps(told(error, code)), 0.0) is None


def test_a_description_that_quotes_a_code_is_still_a_denial() -> None:
    """What an application sent comes back in it: only the code at its beginning is the provider's."""
    body = {"error": "invalid_scope", "error_description": "AADSTS70011: the scope 'AADSTS90033: server_error' is bad"}
    assert kind_of(body) is None
    assert kind_of_text(f"Authentication failed: {body['error_description'].replace('server_error', 'x')}") is None


@given(
    status=st.sampled_from(STATUSES),
    error=st.sampled_from([*WORDS, *DENIALS]) | st.text(min_size=1, max_size=30),
    code=st.none() | st.sampled_from([*TRANSIENT, *UNMATCHED, 90055, *OTHERS]) | st.integers(10**4, 10**8),
    more=st.lists(st.integers(10**4, 10**8) | st.sampled_from(TRANSIENT), max_size=3),
    as_list=st.booleans(),
)
def test_no_denial_is_a_failure_and_no_failure_a_denial(
    status: int, error: str, code: int | None, more: list[int], as_list: bool
) -> None:
    """The verdict follows OAuth's word and the first code, and nothing else: not the status, not further codes."""
    body = told(error, code, as_list=as_list)
    if "error_codes" in body:
        body["error_codes"] += more
    fault = judge(Purpose.TOKEN, HOST, status, {}, json.dumps(body), 0.0)
    fails = error in WORDS or code in TRANSIENT or code in UNMATCHED or code == 90055
    assert (fault is not None) is fails
    if fault is not None:
        assert isinstance(fault, (ServerFailed, Throttled))
        assert fault.of_request is (code in UNMATCHED)


@given(
    st.dictionaries(
        st.sampled_from(["error", "error_codes", "error_description", "suberror", "claims"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_no_error_is_too_odd(body: dict[str, Any]) -> None:
    """Whatever a provider puts there is read, or isn't."""
    assert kind_of(body) in (None, *Fault)
    assert is_gone(body) in (True, False)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Authentication failed: AADSTS90033: A transient error has occurred.", Fault.TRANSIENT),
        ("server_error: try later", Fault.TRANSIENT),
        ("AADSTS700213: No matching federated identity record", Fault.UNMATCHED),
        ("AADSTS90055: too many", Fault.THROTTLED),
        ("AADSTS7000215: Invalid client secret", None),
        ("my_server_error_handler", None),
        ("", None),
    ],
)
def test_a_message_is_judged_by_the_same_table(text: str, kind: Fault | None) -> None:
    """Somebody else's credential tells failures and denials in one breath."""
    assert kind_of_text(text) is kind


@pytest.mark.parametrize(
    ("denial", "gone"),
    [
        ({"error": "invalid_grant", "suberror": "bad_token"}, True),
        ({"error": "invalid_grant", "suberror": "token_expired"}, True),
        ({"error": "invalid_grant", "error_codes": [50173]}, True),
        ({"error": "invalid_grant", "error_description": "AADSTS50057: The user account is disabled."}, True),
        ({"error": "invalid_grant", "error_description": "AADSTS50034: no such account"}, True),
        ({"error": "unauthorized_client", "error_codes": [700016]}, False),
        ({"error": "invalid_client", "error_codes": [7000112]}, True),
        ({"error": "interaction_required", "claims": '{"access_token": {}}'}, True),
        ({"error": "invalid_grant"}, False),
        ({"error": "invalid_client", "error_codes": [7000215]}, False),
        ({"error": "invalid_client", "error_codes": [7000222]}, False),
        ({"error": "invalid_grant", "suberror": "consent_required", "error_codes": [65001]}, False),
        ({"error": "invalid_grant", "suberror": ["bad_token"]}, False),
        ({"error": "invalid_grant", "claims": ""}, False),
    ],
)
def test_a_denial_says_whether_what_is_held_is_gone(denial: dict[str, Any], gone: bool) -> None:
    """An account, a token or an application that is no more; a wrong secret isn't."""
    assert is_gone(denial) is gone


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["error", "error_codes", "error_description", "suberror", "claims"]), _JSON, min_size=1
    )
)
def test_whatever_an_error_says_it_is_read(body: dict[str, Any]) -> None:
    """Azure's own services give an object where OAuth has a word."""
    assert kind_of(body) is None or isinstance(body["error"], str)
    assert isinstance(name_of(body), str)
    refusal_of(body)
    is_gone(body)
