"""Which documents may be kept."""

from __future__ import annotations

import json

import msal.authority
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.failure import Purpose
from resilient_auth._wire.discovery import ALIASES, Hosts, aliases_of, fault_in, hosts_for

GOOD = {"authorization_endpoint": "https://x/a", "token_endpoint": "https://x/t", "issuer": "https://x"}
X = Hosts(frozenset({"x"}))


def test_a_good_document_has_no_fault():
    """What MSAL needs is there and safe."""
    assert fault_in(Purpose.DISCOVERY, json.dumps(GOOD), X) is None
    device = GOOD | {"device_authorization_endpoint": "https://x/d"}
    assert fault_in(Purpose.DISCOVERY, json.dumps(device), X) is None


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
    fault = fault_in(Purpose.DISCOVERY, text, X)
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
        fault_in(purpose, text, X)


def test_the_known_aliases_are_of_the_right_shape_and_msals():
    """What we know without asking is what the endpoint says, for hosts that MSAL knows."""
    assert fault_in(Purpose.ALIASES, ALIASES, X) is None
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


MICROSOFT = "https://login.microsoftonline.com/contoso/v2.0/.well-known/openid-configuration"
GUID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("found_at", "named"),
    [
        ("https://idp.example/realms/a/.well-known/openid-configuration", "https://idp.example/token"),
        ("https://idp.example:8443/.well-known/openid-configuration", "https://IDP.example:8443/token"),
        ("https://idp.example:443/.well-known/openid-configuration", "https://idp.example/token"),
        (MICROSOFT, "https://login.microsoftonline.us/contoso/oauth2/v2.0/token"),
        (MICROSOFT, "https://westeurope.login.microsoft.com/contoso/oauth2/v2.0/token"),
        ("https://contoso.ciamlogin.com/contoso/.well-known/x", f"https://{GUID}.ciamlogin.com/{GUID}/oauth2/token"),
        ("https://accounts.google.com/.well-known/openid-configuration", "https://oauth2.googleapis.com/token"),
        (
            "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x/.well-known/openid-configuration",
            "https://shop.auth.eu-west-1.amazoncognito.com/oauth2/token",
        ),
        ("https://idp.example/.well-known/openid-configuration", "https://own.example:9/token"),
    ],
    ids=range(9),
)
def test_a_document_may_name_the_hosts_that_belong_to_it(found_at, named):
    """Its own, those of a provider that is known to use several, and those that the owner names."""
    hosts = hosts_for(Purpose.DISCOVERY, found_at, {}, ("own.example:9",))
    assert (
        fault_in(Purpose.DISCOVERY, json.dumps({"authorization_endpoint": named, "token_endpoint": named}), hosts)
        is None
    )


@pytest.mark.parametrize(
    ("found_at", "named"),
    [
        ("https://idp.example/.well-known/openid-configuration", "https://evil.example/token"),
        ("https://idp.example/.well-known/openid-configuration", "https://idp.example.evil.example/token"),
        ("https://idp.example/.well-known/openid-configuration", "https://idp.example@evil.example/token"),
        ("https://idp.example/.well-known/openid-configuration", "https://sub.idp.example/token"),
        ("https://idp.example/.well-known/openid-configuration", "https://idp.example:8443/token"),
        ("https://idp.example/.well-known/openid-configuration", "https://login.microsoftonline.com/t/oauth2/token"),
        (MICROSOFT, "https://login.microsoftonline.com.evil.example/token"),
        (MICROSOFT, "https://evil.login.microsoft.com.example/token"),
        (MICROSOFT, "https://a.b.login.microsoft.com/token"),
        (MICROSOFT, "https://login.microsoftonline.com:8443/token"),
        ("https://a.b2clogin.com/a/p/.well-known/openid-configuration", "https://b.b2clogin.com/a/p/token"),
        ("https://accounts.google.com/.well-known/openid-configuration", "https://evil.googleapis.com/token"),
        (
            "https://cognito-idp.eu-west-1.amazonaws.com/x/.well-known/openid-configuration",
            "https://shop.auth.us-east-1.amazoncognito.com/oauth2/token",
        ),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("member", ["authorization_endpoint", "token_endpoint", "device_authorization_endpoint"])
def test_a_document_that_leads_elsewhere_isnt_used(found_at, named, member):
    """No secret is posted, and nobody sent to sign in, where the authority isn't; the message names the fix."""
    own = found_at.partition(".well-known")[0] + "token"
    body = {"authorization_endpoint": own, "token_endpoint": own, member: named}
    fault = fault_in(Purpose.DISCOVERY, json.dumps(body), hosts_for(Purpose.DISCOVERY, found_at, {}, ()))
    assert fault is not None
    assert member in fault
    assert "discovery_hosts" in fault


@pytest.mark.parametrize(
    ("issuer", "good"),
    [
        ("https://idp.example/realms/a", True),
        ("https://us.idp.example/", True),
        (f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", True),
        ("https://evil.example/realms/a", False),
        ("https://idp.example.evil.example", False),
        (5, False),
        ("", False),
    ],
)
def test_an_issuer_elsewhere_is_another_providers(issuer, good):
    """A document says whose it is (OpenID Connect Discovery, section 4.3); MSAL's exceptions hold."""
    found_at = "https://idp.example/realms/a/.well-known/openid-configuration"
    token = "https://idp.example/token"
    body = json.dumps({"authorization_endpoint": token, "token_endpoint": token, "issuer": issuer})
    fault = fault_in(Purpose.DISCOVERY, body, hosts_for(Purpose.DISCOVERY, found_at, {}, ()))
    assert (fault is None) is good


def test_adfs_is_called_what_its_administrator_calls_it():
    """Its issuer may be another name; its endpoints may not be elsewhere."""
    found_at, body = (
        "https://adfs.example/adfs/.well-known/openid-configuration",
        {"issuer": "http://sts.contoso/trust"},
    )
    hosts = hosts_for(Purpose.DISCOVERY, found_at, {}, ())
    for where, good in (("adfs.example", True), ("evil.example", False)):
        endpoints = dict.fromkeys(("authorization_endpoint", "token_endpoint"), f"https://{where}/adfs/oauth2/token")
        assert (fault_in(Purpose.DISCOVERY, json.dumps(body | endpoints), hosts) is None) is good


def test_aliases_lead_to_the_authority_that_was_asked_about():
    """The document that says where a tenant's document is can't lead elsewhere either."""
    url = "https://login.microsoftonline.com/common/discovery/instance"
    asked = {"authorization_endpoint": "https://idp.example/t/oauth2/v2.0/authorize"}
    hosts = hosts_for(Purpose.ALIASES, url, asked, ())
    for where, good in (("idp.example:8443", True), ("login.windows.net", True), ("evil.example", False)):
        body = json.dumps({"tenant_discovery_endpoint": f"https://{where}/t/v2.0/.well-known/openid-configuration"})
        assert (fault_in(Purpose.ALIASES, body, hosts) is None) is good


def test_msals_hosts_are_known():
    """Whatever host MSAL takes for Microsoft's may stand in a document of Microsoft's."""
    hosts = hosts_for(Purpose.DISCOVERY, MICROSOFT, {}, ())
    assert all(hosts.allow(f"https://{host}/x") for host in msal.authority.WELL_KNOWN_AUTHORITY_HOSTS)
    assert all(hosts.allow_issuer(f"https://x.{host}/") for host in msal.authority.WELL_KNOWN_B2C_HOSTS)
