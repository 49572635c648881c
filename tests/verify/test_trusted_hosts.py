"""Hosts that a discovery document may name: no two are taken for one, and an owner's spelling is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._policy.endpoint import origin_from
from resilient_auth.verify import KeyOptions
from resilient_auth.verify.keys.documents import UnusableDocument, facts_in
from resilient_auth.verify.trust import host_of, named_host, of_issuers

HOSTS = st.sampled_from(["keys.example", "a.keys.example", "127.0.0.1"]) | st.ip_addresses(v=6).map(
    lambda address: f"[{address.compressed}]"
)
PORTS = st.none() | st.integers(1, 65_535)


def address_of(host: str, port: int | None) -> str:
    return f"https://{host}" if port is None else f"https://{host}:{port}"


@given(first=st.tuples(HOSTS, PORTS), second=st.tuples(HOSTS, PORTS))
def test_no_two_hosts_are_one(first: tuple[str, int | None], second: tuple[str, int | None]) -> None:
    """Neither here nor where tokens are sent: `[::1]:8443` isn't `[::1:8443]`."""
    same = (first[0], first[1] or 443) == (second[0], second[1] or 443)
    assert (host_of(address_of(*first)) == host_of(address_of(*second))) is same
    assert (origin_from("https", *first) == origin_from("https", *second)) is same
    assert host_of(f"https://{host_of(address_of(*first))}") == host_of(address_of(*first))


@pytest.mark.parametrize(
    ("issuer", "keys", "fine"),
    [
        ("https://[::1]:8443", "https://[::1]:8443/keys", True),
        ("https://[::1]:8443", "https://[::1:8443]/keys", False),
        ("https://[::1:8443]", "https://[::1]:8443/keys", False),
        ("https://[::1]", "https://[::1]:443/keys", True),
        ("https://[::1]", "https://[::2]/keys", False),
    ],
)
def test_keys_lie_on_the_documents_own_host(issuer: str, keys: str, fine: bool) -> None:
    """An IPv6 address with a port is another one than an address that ends like that port."""
    (trust,) = of_issuers(issuer, None)
    document = f'{{"issuer": "{issuer}", "jwks_uri": "{keys}"}}'
    hosts = frozenset({host_of(trust.discovery)})
    if fine:
        assert facts_in(document, trust, hosts).jwks_uri == keys
    else:
        with pytest.raises(UnusableDocument, match="jwks_uri"):
            facts_in(document, trust, hosts)


@pytest.mark.parametrize(
    ("named", "host"),
    [
        ("keys.example", "keys.example"), ("Keys.Example", "keys.example"), ("keys.example:443", "keys.example"),
        ("keys.example:8443", "keys.example:8443"), ("[::1]", "[::1]"), ("[::1]:8443", "[::1]:8443"),
    ],
)  # fmt: skip
def test_an_owner_may_spell_a_host_otherwise(named: str, host: str) -> None:
    """It is compared as addresses are."""
    assert named_host(named) == host
    KeyOptions(hosts=(named,))


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "::1",
        "::1:8443",
        "[::1",
        "a/b",
        "https://a",
        "a b",
        "u@a",
        "a?b",
        "a#b",
        "*.a",
        ":8443",
        "a:b",
        "a:99999",
        "ä",
        1,
    ],
)
def test_a_host_that_is_never_met_is_told(wrong: str) -> None:
    """At construction, with how one is written."""
    with pytest.raises(ra.ConfigurationError, match=r"hosts must be.*\[::1\]:8443"):
        KeyOptions(hosts=(wrong,))
