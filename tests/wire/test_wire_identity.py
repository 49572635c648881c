"""Which wires are alike, in this process and in others, and of which nothing is known."""

from __future__ import annotations

import functools
import gc
import ssl
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter

from resilient_auth._wire.identity import identity_of, identity_of_client, number_of


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    trustme.CA().cert_pem.write_to_path(path := str(tmp_path / "ca.pem"))
    return path


def of_client(client: Any) -> Any:
    return identity_of_client(client, number_of(client))


def test_trust_is_by_what_a_bundle_holds(bundle: str, tmp_path: Path) -> None:
    """The same authorities elsewhere are the same; others at the same place aren't."""
    copied = tmp_path / "copied.pem"
    copied.write_bytes(Path(bundle).read_bytes())
    before = identity_of(bundle, {})
    assert identity_of(copied, {}) == before
    trustme.CA().cert_pem.write_to_path(bundle)
    assert identity_of(bundle, {}) != before
    assert identity_of(copied, {}).fleet == before.fleet


def test_the_environment_counts(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bundle where there is none of the owner's, and its proxies."""
    plain = identity_of(True, {})
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert identity_of(True, {}) == identity_of(bundle, {}) != plain
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
    assert identity_of(True, {}) != plain


def test_wires_that_differ_are_others(bundle: str, tmp_path: Path) -> None:
    """By trust, verification, proxy, or a proxy's user."""
    (tmp_path / "directory").mkdir()
    proxy = {"https": "http://proxy.example:8080"}
    made = [
        identity_of(True, {}),
        identity_of(False, {}),
        identity_of(bundle, {}),
        identity_of(str(tmp_path / "directory"), {}),
        identity_of(str(tmp_path / "missing"), {}),
        identity_of(True, proxy),
        identity_of(True, {"https": "http://ann:s3cret@proxy.example:8080"}),
        identity_of(False, proxy),
        identity_of(ssl.create_default_context(), {}),
        identity_of(ssl.create_default_context(), {}),
        of_client(requests.Session()),
        of_client(object()),
    ]
    assert len(set(made)) == len(made)
    assert [one.verified for one in made[:2]] == [True, False]
    assert all("s3cret" not in f"{one!r} {one.label}" for one in made)


def test_an_own_context_is_itself(bundle: str) -> None:
    """It has no name in another process; whether it verifies, it says."""
    context = ssl.create_default_context(cafile=bundle)
    assert identity_of(context, {}) == identity_of(context, {})
    assert identity_of(context, {}).keeps is None
    assert identity_of(context, {}).verified
    context.check_hostname = False
    assert not identity_of(context, {}).verified


def test_a_session_is_known_by_what_it_says(bundle: str) -> None:
    """In other processes; here each is itself. MSAL's own, with its time-out and its adapters, is such a one."""
    one, other = requests.Session(), requests.Session()
    for session in (one, other):
        session.verify = bundle
        session.mount("https://", HTTPAdapter(max_retries=1))
        session.request = functools.partial(session.request, timeout=5)  # type: ignore[method-assign]
    assert of_client(one) == of_client(one) != of_client(other)
    assert of_client(one).keeps == of_client(other).keeps is not None
    other.verify = False
    assert of_client(other).keeps is None


class _Adapter(HTTPAdapter):
    """An owner's own."""


def _with(change: Any) -> requests.Session:
    session = requests.Session()
    change(session)
    return session


@pytest.mark.parametrize(
    "client",
    [
        object(),
        _with(lambda s: s.mount("https://", _Adapter())),
        _with(lambda s: setattr(s, "request", functools.partial(s.request, verify=False))),
        _with(lambda s: setattr(s, "request", lambda *a, **k: None)),
        _with(lambda s: setattr(s, "send", lambda *a, **k: None)),
        _with(lambda s: setattr(s, "verify", None)),
        type("Own", (requests.Session,), {})(),
    ],
    ids=range(7),
)
def test_of_any_other_client_nothing_is_known(client: Any) -> None:
    """What it trusts can't be told, and so nothing of it is kept or shared."""
    assert of_client(client).fleet is None
    assert of_client(client).keeps is None


def test_the_environment_beats_a_sessions_bundle(bundle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in requests; unless the session isn't to look there."""
    trustme.CA().cert_pem.write_to_path(environments := str(tmp_path / "environments.pem"))
    session = requests.Session()
    session.verify = bundle
    own = of_client(session).fleet
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", environments)
    assert of_client(session).fleet != own
    session.trust_env = False
    untouched = of_client(session).fleet
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert of_client(session).fleet == untouched


def test_a_number_is_never_given_twice() -> None:
    """An object that takes a dead one's place in memory isn't taken for it, whether or not it can be hashed."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    seen = set()
    for _ in range(200):
        client = Unhashable()
        assert number_of(client) == number_of(client)
        seen.add(number_of(client))
        del client
        gc.collect(0)
    assert len(seen) == 200
