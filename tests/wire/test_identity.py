"""Identities: equal for what is one application, and for nothing else; the same by arguments and by MSAL's object."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msal.authority import canonicalize

import resilient_auth as ra
from resilient_auth._msal.identity import Identity, Ownership, identity_given, identity_of, marks_of

HOSTS = st.sampled_from(["sso.example", "SSO.example", "other.example", "login.microsoftonline.com", "b.b2clogin.com"])
PORTS = st.sampled_from(["", ":443", ":8443", ":9443"])
PATHS = st.sampled_from(
    [
        "/realms/Prod",
        "/realms/prod",
        "/realms/bank-a",
        "/realms/bank-b",
        "/realms",
        "/T/B2C_1_a",
        "/t/b2c_1_b",
        "/contoso",
    ]
)
QUERIES = st.sampled_from(["", "?p=b2c_1_a", "?p=B2C_1_a", "?p=b2c_1_b"])
TEXTS = st.text(st.sampled_from('a" ,[]{}\\\n'), max_size=6)


def _meaning(host: str, port: str, path: str, query: str) -> tuple[str, ...]:
    """What tells an authority from others, said in another way than the package says it."""
    host = host.lower()
    if host != "sso.example" and host != "other.example":
        path, query = path.lower(), query.lower()
    return host, port.removeprefix(":443") if port == ":443" else port, path, query


@given(st.lists(st.tuples(HOSTS, PORTS, PATHS, QUERIES, st.booleans()), min_size=2, max_size=2))
def test_two_authorities_are_one_only_where_nothing_tells_them_apart(pair: list[tuple[Any, ...]]) -> None:
    """Hosts and schemes have no case, the default port and a last slash say nothing; all else counts."""
    labels, meanings = [], []
    for host, port, path, query, slash in pair:
        given_ = f"HTTPS://{host}{port}{path}{'/' if slash else ''}{query}"
        labels.append(identity_given({"client_id": "app", "authority": given_}).label)
        meanings.append(_meaning(host, port, path, query))
    assert (labels[0] == labels[1]) is (meanings[0] == meanings[1])


@given(st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=2), TEXTS), min_size=2, max_size=2))
def test_no_name_in_a_store_is_anothers_or_begins_it(pair: list[tuple[Any, ...]]) -> None:
    """Whatever is in a client id, a capability or an account: names are equal for equal parts alone."""
    parts = [(f"https://h/{path}", client, tuple(caps), who) for path, client, caps, who in pair]
    labels = [Identity(authority, client, caps).label for authority, client, caps, _ in parts]
    names = [f"{label} {who}" for label, (*_, who) in zip(labels, parts, strict=True)]
    assert (names[0] == names[1]) is (parts[0] == parts[1])
    if labels[0] != labels[1]:
        assert not names[1].startswith(f"{labels[0]} ")


def _app(token_endpoint: str, *, given: str = "", oidc: bool = False, caps: list[str] | None = None) -> Any:
    _, instance, tenant = canonicalize(given or token_endpoint)
    authority = SimpleNamespace(
        instance=instance,
        tenant=canonicalize(token_endpoint)[2],
        token_endpoint=token_endpoint,
        authorization_endpoint="authorize".join(token_endpoint.rsplit("token", 1)),
        is_adfs=tenant == "adfs",
        _oidc_authority_url=given if oidc else None,
    )
    return SimpleNamespace(authority=authority, client_id="app", _client_capabilities=caps)


@pytest.mark.parametrize(
    ("arguments", "token_endpoint"),
    [
        ("https://login.microsoftonline.com/6F1A/", "https://login.microsoftonline.com/6f1a/oauth2/v2.0/token"),
        ("https://c.b2clogin.com/c.com/B2C_1_In", "https://c.b2clogin.com/c.com/b2c_1_in/oauth2/v2.0/token"),
        ("https://c.b2clogin.com/c.com?p=B2C_1_In", "https://c.b2clogin.com/c.com/oauth2/v2.0/token?p=b2c_1_in"),
        ("https://fs.example:8443/adfs", "https://fs.example:8443/adfs/oauth2/token"),
        ("https://[::1]:8443/contoso", "https://[::1]:8443/contoso/oauth2/v2.0/token"),
    ],
)
def test_a_drop_in_and_a_wrapper_are_one_application(arguments: str, token_endpoint: str) -> None:
    """What one of them keeps in a store is found by the other one."""
    built = identity_given({"client_id": "app", "authority": arguments, "client_capabilities": ["CP1"]})
    assert identity_of(_app(token_endpoint, given=arguments, caps=["cp1"])) == built


def test_an_openid_authority_is_what_it_was_given_as() -> None:
    """Its endpoints may be anywhere; and it isn't the authority of the same URL whose document is at `/v2.0`."""
    url = "https://sso.example/realms/Prod"
    built = identity_given({"client_id": "app", "oidc_authority": f"{url}/"})
    assert identity_of(_app("https://elsewhere.example/oauth/token", given=url, oidc=True)) == built
    assert identity_given({"client_id": "app", "authority": url}) != built


def test_endpoints_that_dont_tell_one_authority_are_all_named() -> None:
    """A token endpoint on another host, or apart from where users sign in, isn't taken for the whole of an identity."""
    app = _app("https://tokens.example/t/oauth2/v2.0/token", given="https://sso.example/t")
    assert "sso.example" in identity_of(app).authority
    app.authority.authorization_endpoint = "https://sso.example/t/other/authorize"
    assert "other" in identity_of(app).authority


@pytest.mark.parametrize(
    ("authority", "told"),
    [
        ("https://ann:secret@sso.example/t", "no user name"),
        ("https://sso.example:port/t", "port"),
        ("https://sso.example/t https://sso.example/s", "no blanks"),
        (f"https://sso.example/{'t' * 2000}", "characters long"),
    ],
)
@pytest.mark.parametrize("name", ["authority", "oidc_authority"])
def test_what_cant_name_an_application_is_refused(authority: str, told: str, name: str) -> None:
    """The error names the argument and the fix, and shows no password."""
    with pytest.raises(ra.ConfigurationError, match=told) as caught:
        identity_given({"client_id": "app", name: authority})
    assert str(caught.value).startswith(f"{name} ")
    assert "secret" not in str(caught.value)


def test_marks_tell_the_endpoint_and_what_was_declared() -> None:
    """As far as the exchange tells them; garbage in `claims` declares nothing."""
    claims = '{"access_token": {"xms_cc": {"values": ["CP1"]}}}'
    event = {"token_endpoint": "https://SSO.example:443/r/a/token", "data": {"claims": claims}}
    assert marks_of(event) == {"token_endpoint": "https://sso.example/r/a/token", "client_capabilities": "cp1"}
    for data in (None, {}, {"claims": "["}, {"claims": '{"access_token": 5}'}, {"claims": "[" * 100_000}):
        assert marks_of({"token_endpoint": "https://h/t", "data": data})["client_capabilities"] == ""
    assert marks_of({}) == {}


ENTRA = {"environment": "login.microsoftonline.com", "client_id": "app", "realm": "t1"}


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        ({}, True),
        ({"token_endpoint": "https://login.microsoftonline.com/t1/oauth2/v2.0/token", "client_capabilities": ""}, True),
        (
            {"token_endpoint": "https://eastus.login.microsoft.com/t1/oauth2/v2.0/token", "client_capabilities": ""},
            True,
        ),
        ({"token_endpoint": "https://login.windows.net/t1/oauth2/v2.0/token", "client_capabilities": ""}, True),
        ({"environment": "login.windows.net"}, True),
        ({"realm": "t2"}, False),
        ({"client_id": "other"}, False),
        ({"environment": "login.microsoftonline.us"}, False),
        (
            {"token_endpoint": "https://login.microsoftonline.com/t1/oauth2/v2.0/token", "client_capabilities": "cp1"},
            False,
        ),
        ({"token_endpoint": "https://login.microsoftonline.com/t1/oauth2/token", "client_capabilities": ""}, False),
        ({"token_endpoint": "https://login.microsoftonline.com:8443/t1/oauth2/v2.0/token"}, False),
        ({"token_endpoint": "https://eastus.login.microsoft.com.evil.example/t1/oauth2/v2.0/token"}, False),
        ({"home_account_id": None, "target": "offline_access openid profile User.Read"}, False),
    ],
)  # fmt: skip
def test_an_access_token_of_entras_is_told_by_msals_keys(entry: dict[str, Any], ours: bool) -> None:
    """Regions and other names of the host are one authority; tenants, clients and clouds are not."""
    app = _app("https://login.microsoftonline.com/t1/oauth2/v2.0/token")
    owned = Ownership.of(identity_of(app), app.authority)
    assert owned.is_told_apart
    assert (
        owned.covers("AccessToken", ENTRA | {"home_account_id": "ann.t1", "target": "a"} | entry, unmarked=True) is ours
    )


def test_a_refresh_token_is_good_in_every_tenant_of_its_cloud_and_nowhere_else() -> None:
    """Siblings need it, as in MSAL; another port, realm or policy of the same host must never see it."""
    endpoint = "https://localhost:{}/{}".format
    app = _app(endpoint(1, "t1/oauth2/v2.0/token"))
    owned = Ownership.of(identity_of(app), app.authority)
    entry = {"environment": "localhost", "client_id": "app", "home_account_id": "ann"}
    for path, port, ours in (
        ("t2/oauth2/v2.0/token", 1, True),
        ("t1/oauth2/v2.0/token", 2, False),
        ("t1/policy/oauth2/v2.0/token", 1, False),
        ("t1/oauth2/v2.0/token?p=policy", 1, False),
        ("realms/t1/token", 1, False),
    ):
        assert owned.covers("RefreshToken", entry | {"token_endpoint": endpoint(port, path)}, unmarked=False) is ours
        assert owned.covers("Account", entry | {"token_endpoint": endpoint(port, path)}, unmarked=False) is ours
    foreign = entry | {"client_id": "another", "token_endpoint": endpoint(1, "t1/oauth2/v2.0/token")}
    assert not owned.covers("RefreshToken", foreign, unmarked=True)
    assert owned.covers("RefreshToken", foreign | {"family_id": "1"}, unmarked=True)
    openid = Ownership.of(Identity("https://localhost:1/t1", "app", openid=True), app.authority)
    another = entry | {"token_endpoint": endpoint(1, "t2/oauth2/v2.0/token")}
    assert not openid.covers("RefreshToken", another, unmarked=True)


def test_before_discovery_an_authority_is_told_by_its_address() -> None:
    """In an outage the accounts of a cache are still told apart."""
    entry = {"environment": "sso.example", "home_account_id": "ann"}
    owned = Ownership.before_discovery(
        identity_given({"client_id": "app", "oidc_authority": "https://sso.example/r/a"})
    )
    for path, ours in (("r/a/token", True), ("r/ab/token", False), ("r/A/token", False), ("r/a/token?p=x", False)):
        assert (
            owned.covers("Account", entry | {"token_endpoint": f"https://sso.example/{path}"}, unmarked=False) is ours
        )
    owned = Ownership.before_discovery(identity_given({"client_id": "app", "authority": "https://sso.example:1/t"}))
    for port, ours in (("", False), (":1", True), (":2", False)):
        endpoint = f"https://sso.example{port}/guid/oauth2/v2.0/token"
        assert owned.covers("Account", entry | {"token_endpoint": endpoint}, unmarked=False) is ours
