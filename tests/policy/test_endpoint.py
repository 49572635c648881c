"""Whom a URL belongs to: tenants, policies and realms of one origin are told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.endpoint import PLAIN, Endpoint, WireIdentity, host_of

GUID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("token", "others", "realm"),
    [
        ("/contoso/oauth2/v2.0/token", ["/contoso/v2.0/.well-known/openid-configuration"], "contoso"),
        (f"/{GUID}/oauth2/token", [f"/{GUID}/discovery/keys", f"/{GUID}/oauth2/devicecode"], GUID),
        ("/contoso/b2c_1_mfa/oauth2/v2.0/token", ["/contoso/b2c_1_mfa/discovery/v2.0/keys"], "contoso/b2c_1_mfa"),
        ("/contoso/oauth2/v2.0/token?p=b2c_1_mfa", ["/contoso/discovery/v2.0/keys?p=b2c_1_mfa"], "contoso?p=b2c_1_mfa"),
        ("/realms/a/protocol/openid-connect/token", ["/realms/a/.well-known/openid-configuration"], "realms/a"),
        ("/adfs/oauth2/token", ["/adfs/.well-known/openid-configuration", "/adfs/discovery/keys"], "adfs"),
        ("/oauth2/default/v1/token", ["/oauth2/default/v1/keys"], "oauth2/default"),
        ("/token", ["/.well-known/openid-configuration", "/"], ""),
    ],
    ids=range(8),
)
def test_a_realm_is_what_stands_before_the_endpoint(token: str, others: list[str], realm: str) -> None:
    """However a provider names its endpoints, those of one tenant, policy or realm are one's."""
    for path in (token, *others):
        assert Endpoint.of(f"https://IDP.example:8443{path}", PLAIN) == Endpoint("https://idp.example:8443", realm)


def test_names_that_differ_are_others() -> None:
    """Case counts in a path, and so does a port."""
    paths = ["/realms/prod/token", "/realms/Prod/token", "/realms/prod/a/token", "/prod/token", "/token"]
    urls = [f"https://idp.example{port}{path}" for port in ("", ":8443") for path in paths]
    assert len({Endpoint.of(url, PLAIN) for url in urls}) == len(urls)


@given(st.from_regex(r"[a-z0-9-]{8,12}", fullmatch=True), st.from_regex(r"[a-z0-9-]{8,12}", fullmatch=True))
def test_two_tenants_never_have_one_name(one: str, other: str) -> None:
    """What tells two paths apart tells two endpoints apart."""
    endpoints = [Endpoint.of(f"https://idp.example/{name}/oauth2/v2.0/token", PLAIN) for name in (one, other)]
    assert (endpoints[0] == endpoints[1]) is (one == other)


def test_a_wire_is_part_of_it_and_never_shown() -> None:
    """An error names the origin, as it ever did."""
    one = Endpoint("https://idp.example", "a", WireIdentity("one"))
    other = Endpoint("https://idp.example", "a", WireIdentity("other"))
    assert one != other
    assert one.site == Endpoint("https://idp.example", "", WireIdentity("one"))
    assert str(one) == str(other) == "https://idp.example"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://IDP.example/x", "idp.example"),
        ("https://idp.example.:443/x", "idp.example"),
        ("https://user:pass@idp.example:8443", "idp.example:8443"),
        ("https://[::1]:8443/", "[::1]:8443"),
        ("https://[::1:8443]/", "[::1:8443]"),
        ("https:///x", None),
        ("https://idp.example:port/", None),
        ("https://[::1/", None),
        ("", None),
    ],
)
def test_a_host_has_a_port_where_that_isnt_https_own(url: str, host: str | None) -> None:
    """And an address in brackets stays in them: its last part is no port."""
    assert host_of(url) == host
