"""A program of MSAL's whose import was changed: what it gave MSAL, and how its tests stand in for MSAL."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import httpx
import msal as plain_msal
import pytest
import requests

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator
from resilient_auth.settings import Settings

SCOPE = ["https://graph.microsoft.com/.default"]
WRONG_TIMEOUTS: list[tuple[Any, str]] = [
    (float("nan"), "timeout must be a number, not nan"),
    (float("inf"), "timeout must be a number, not inf"),
    (10**400, "timeout must be a number"),
    (-1, "timeout must be at least 0.001 s, not -1"),
    (0, "timeout must be at least 0.001 s, not 0"),
    ("5", "timeout must be a number, not '5'"),
    (True, "timeout must be a number, not True"),
    ([1, 2], "timeout must be a number"),
    ((1,), "timeout must be a number of seconds, or a pair"),
    ((1, 2, 3), "timeout must be a number of seconds, or a pair"),
    ((1, "2"), "timeout must be a number, not '2'"),
]


@pytest.mark.parametrize(("timeout", "told"), WRONG_TIMEOUTS, ids=[repr(t)[:20] for t, _ in WRONG_TIMEOUTS])
def test_a_timeout_that_is_none_is_told_and_opens_nobodys_circuit(
    idp: Emulator, daemon, settings, timeout, told
) -> None:
    """It would fail every request, and be taken for a failure of the provider's, which all applications share."""
    shared = settings()
    with pytest.raises(ra.ConfigurationError, match=told):
        daemon("wrong", timeout=timeout, resilience=shared)
    with pytest.raises(ra.ConfigurationError, match=told):
        ra.ClaimsVerifier(issuer=idp.authority("contoso"), audience="a", verify=idp.ca_file, timeout=timeout)
    with pytest.raises(ra.ConfigurationError, match=told):
        daemon("right", resilience=shared).acquire_token_for_client(SCOPE, timeout=timeout)
    assert daemon("neighbour", resilience=shared).acquire_token_for_client(SCOPE)["access_token"]


@pytest.mark.parametrize("timeout", [5, 2.5, (3, None), (None, 5), (3, 5), None], ids=repr)
def test_a_timeout_as_requests_takes_it_is_taken(daemon, plain_daemon, timeout) -> None:
    """In the constructor, and in a call."""
    for app in (plain_daemon(timeout=timeout), daemon(timeout=timeout)):
        assert app.acquire_token_for_client(SCOPE, timeout=timeout)["access_token"]


@pytest.mark.parametrize("name", ["Ünïcorn", " padded ", "tab\there"])
def test_an_applications_name_is_sent_as_requests_sends_it(daemon, plain_daemon, name) -> None:
    """It goes into a header, as Latin-1."""
    for app in (plain_daemon(app_name=name.strip(), app_version="1"), daemon(app_name=name, app_version="1")):
        assert app.acquire_token_for_client(SCOPE)["access_token"]


@pytest.mark.parametrize("name", [5, "two\nlines", "Ωmega", "\x01", b"\n"], ids=repr)
def test_a_name_that_no_header_can_hold_is_told_at_once(daemon, idp: Emulator, settings, name) -> None:
    """And not after all retries, as a connection that broke."""
    shared = settings()
    with pytest.raises(ra.ConfigurationError, match=r"^the header 'x-app-name' can't be sent.*app_name"):
        daemon("wrong", app_name=name, resilience=shared).acquire_token_for_client(SCOPE)
    assert not [call for call in idp.ledger.calls if call.endpoint == "token"]
    assert all(breaker.state == "closed" for breaker in ra.health().breakers if breaker.authority == idp.url)


@pytest.mark.parametrize("option", ["nonsense", "verify", "proxies", "allow_redirects", "claim_challenge"])
def test_an_option_of_a_call_that_nothing_takes_is_told(idp: Emulator, daemon, option) -> None:
    """MSAL hands it to requests, which refuses what it doesn't know; a slip must not be silent."""
    app = daemon()
    with pytest.raises(ra.ConfigurationError, match=rf"^{option} has no effect on a request"):
        app.acquire_token_for_client(SCOPE, **{option: None})
    assert app.acquire_token_for_client(SCOPE)["access_token"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"http_client": object()}, "http_client must have the methods get and post.*not object"),
        ({"http_client": requests.Session}, "http_client must have the methods.*not Session: make an object of it"),
        ({"http_client": httpx.AsyncClient()}, "http_client must be one that blocks, not an asyncio one"),
        ({"http_cache": 5}, "http_cache must be a mapping, such as a dict, not int"),
        ({"http_cache": []}, "http_cache must be a mapping, such as a dict, not list"),
        (
            {"token_cache": object()},
            r"token_cache must be a TokenCache, such as SerializableTokenCache\(\)",
        ),
        ({"token_cache": "cache.json"}, "token_cache must be a TokenCache.*not str"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_what_could_not_be_used_is_told_at_construction(daemon, options, told) -> None:
    """By its name, and by nothing of ours."""
    with pytest.raises(ra.ConfigurationError, match=told):
        daemon(**options)
    with pytest.raises(ra.ConfigurationError, match=told):
        msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), **options)


def test_an_assertion_that_nobody_would_await_is_told(daemon) -> None:
    """What MSAL would send is the text of a coroutine."""

    async def assertion() -> str:
        return "a.b.c"

    with pytest.raises(ra.ConfigurationError, match="client_assertion must be a string or a plain function"):
        daemon(client_credential={"client_assertion": assertion})
    with pytest.raises(ra.ConfigurationError, match="client_credential must be a function that blocks"):
        daemon(client_credential=assertion)


@pytest.mark.parametrize("client_id", [5, [], b"id", {"id": 1}], ids=repr)
def test_a_client_id_that_is_no_text_is_told(daemon, client_id) -> None:
    """MSAL fails in the middle of an exchange."""
    with pytest.raises(ra.ConfigurationError, match="client_id must be the application's id, a string, not"):
        daemon(client_id)


def test_a_cache_that_is_swapped_for_something_else_is_told(daemon) -> None:
    """At the next call."""
    app = daemon()
    app.token_cache = {}
    with pytest.raises(ra.ConfigurationError, match=r"token_cache must be a TokenCache.*not dict"):
        app.acquire_token_for_client(SCOPE)


@pytest.mark.parametrize("name", ["ClientApplication", "ConfidentialClientApplication", "PublicClientApplication"])
def test_signatures_are_msals_with_one_keyword_more(name: str) -> None:
    """So editors, containers that inject arguments, and mocks with a specification know what may be given."""
    ours = inspect.signature(getattr(msal, name))
    theirs = inspect.signature(getattr(plain_msal, name))
    assert [one for one in ours.parameters.values() if one.name != "resilience"] == list(theirs.parameters.values())
    assert ours.parameters["resilience"].kind is inspect.Parameter.KEYWORD_ONLY
    made = mock.create_autospec(getattr(msal, name))("id", client_credential=None, resilience=Settings())
    assert isinstance(made, plain_msal.ClientApplication)

    class Own(getattr(msal, name)):  # type: ignore[misc]
        def __init__(self, tenant: str) -> None:
            super().__init__("id")

    assert list(inspect.signature(Own).parameters) == ["tenant"]


MOCKED = {"access_token": "mocked", "expires_in": 3600, "token_type": "Bearer"}


@pytest.mark.parametrize("spec", [False, True])
@pytest.mark.parametrize(
    "where", ["msal.ConfidentialClientApplication", "msal.application.ConfidentialClientApplication"]
)
def test_a_method_of_msals_that_a_test_has_patched_answers(daemon, where: str, spec: bool) -> None:
    """By the name that it had before the import was changed."""
    app = daemon()
    with mock.patch(f"{where}.acquire_token_for_client", autospec=spec, return_value=dict(MOCKED)) as patched:
        assert app.acquire_token_for_client(SCOPE)["access_token"] == "mocked"
    assert patched.call_count == 1


def test_our_names_are_patched_as_msals_are(daemon) -> None:
    """Class, method and object."""
    with mock.patch("resilient_auth.msal.ConfidentialClientApplication") as kind:
        assert msal.ConfidentialClientApplication is kind
    app = daemon()
    with mock.patch.object(app, "acquire_token_for_client", return_value=MOCKED):
        assert app.acquire_token_for_client(SCOPE) is MOCKED
    with mock.patch("resilient_auth.msal.ConfidentialClientApplication.acquire_token_for_client", return_value=MOCKED):
        assert app.acquire_token_for_client(SCOPE) is MOCKED
    assert app.acquire_token_for_client(SCOPE)["access_token"] != "mocked"


def test_who_stands_in_for_requests_gives_a_session(idp: Emulator, daemon) -> None:
    """Our own client isn't one of requests, so what patches that sees nothing; a session stays the wire."""
    session = requests.Session()
    session.verify = idp.ca_file
    with mock.patch.object(requests.Session, "send", autospec=True, side_effect=requests.Session.send) as sent:
        assert daemon("ours").acquire_token_for_client(SCOPE)["access_token"]
        assert not sent.call_count
        assert daemon("given", http_client=session).acquire_token_for_client(SCOPE)["access_token"]
        assert sent.call_count
    session.close()
