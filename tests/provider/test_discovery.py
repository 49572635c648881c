"""Which documents may be kept."""

from __future__ import annotations

import json

import msal.authority
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.failure import Purpose
from resilient_auth._provider.discovery import ALIASES, aliases_of, fault_in

GOOD = {"authorization_endpoint": "https://x/a", "token_endpoint": "https://x/t", "issuer": "https://x"}


def test_a_good_document_has_no_fault():
    """What MSAL needs is there and safe."""
    assert fault_in(Purpose.DISCOVERY, json.dumps(GOOD)) is None
    device = GOOD | {"device_authorization_endpoint": "https://x/d"}
    assert fault_in(Purpose.DISCOVERY, json.dumps(device)) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "isn't JSON"),
        ("<html>", "isn't JSON"),
        ("[" * 100_000, "isn't JSON"),
        ("[]", "isn't a JSON object"),
        ("null", "isn't a JSON object"),
        ("{}", "authorization_endpoint"),
        (json.dumps(GOOD | {"token_endpoint": "http://x/t"}), "token_endpoint"),
        (json.dumps(GOOD | {"token_endpoint": 5}), "token_endpoint"),
        (json.dumps(GOOD | {"token_endpoint": "https://[x/t"}), "token_endpoint"),
        (json.dumps(GOOD | {"token_endpoint": "https:///t"}), "token_endpoint"),
        (json.dumps(GOOD | {"device_authorization_endpoint": "ftp://x"}), "device_authorization_endpoint"),
    ],
    ids=range(11),
)
def test_a_bad_document_is_told(text, told):
    """Whatever is wrong is named."""
    fault = fault_in(Purpose.DISCOVERY, text)
    assert fault is not None
    assert told in fault


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    ).map(json.dumps)
)
def test_any_text_is_judged_without_an_exception(text):
    """Nothing that a provider sends crashes the check."""
    for purpose in (Purpose.DISCOVERY, Purpose.ALIASES):
        fault_in(purpose, text)


def test_the_known_aliases_are_of_the_right_shape_and_msals():
    """What we know without asking is what the endpoint says, for hosts that MSAL knows."""
    assert fault_in(Purpose.ALIASES, ALIASES) is None
    known = {alias for cloud in json.loads(ALIASES)["metadata"] for alias in cloud["aliases"]}
    assert known <= set(msal.authority.WELL_KNOWN_AUTHORITY_HOSTS) | {
        "login-us.microsoftonline.com",
        "sts.windows.net",
        "login.chinacloudapi.cn",
        "login.usgovcloudapi.net",
        "login.windows.net",
    }
    assert "login.windows.net" in aliases_of("login.microsoftonline.com")
    assert aliases_of("localhost") == ()
