"""A new process finds what an earlier one had, with the provider gone (G3)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msal
import pytest
import requests
from fleet_world import SCOPE, USER_SCOPE, BreakableBackend

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault, WrongAnswer

ONE_ATTEMPT = ra.RetryOptions(attempts=1)


def _posts(idp: Emulator) -> int:
    return len(idp.ledger.token_calls())


@pytest.mark.parametrize("fault", [Fault.refuse(), Fault.black_hole()], ids=["refused", "black hole"])
def test_a_new_process_serves_a_stored_token_while_the_provider_is_gone(
    idp: Emulator, life: Callable[..., Any], fault: Any
) -> None:
    """The application is built, and its token is in hand, within 300 ms."""
    first = life().acquire_token_for_client(SCOPE)
    idp.fail(fault)
    begun = time.perf_counter()
    again = life().acquire_token_for_client(SCOPE)
    assert time.perf_counter() - begun < 0.3
    assert again["access_token"] == first["access_token"]
    assert again["token_source"] == "cache"


def test_signed_in_users_stay_signed_in_over_a_restart(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """Accounts are found by name and without, and their tokens are served (G13)."""
    sign_in(life())
    idp.fail(Fault.refuse())
    app = life()
    account = app.get_accounts("Ann@contoso.com")[0]
    assert app.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
    assert [a["username"] for a in life().get_accounts()] == ["ann@contoso.com"]
    assert life().get_accounts("bob@contoso.com") == []


def test_who_signed_in_on_their_own_thread_is_in_the_store_too(
    idp: Emulator, life: Callable[..., Any], backend: BreakableBackend
) -> None:
    """A command that ends as soon as its user has signed in with a code on another device needn't be waited for."""
    idp.device_code_interval = 0
    app = life("desktop")
    put = backend.put

    def slow(key: str, *args: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return put(key, *args, **options)

    backend.put = slow  # type: ignore[method-assign]
    flow = app.initiate_device_flow(USER_SCOPE)
    idp.approve_device(flow["user_code"], "ann@contoso.com")
    assert "access_token" in app.acquire_token_by_device_flow(flow)
    app._ra_session.shared_cache.after_fork()  # it is killed: what isn't written never is
    idp.fail(Fault.refuse())
    account = life("desktop").get_accounts("ann@contoso.com")[0]
    assert life("desktop").acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"


def test_a_stored_refresh_token_gets_new_tokens(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """After a restart a user needn't sign in for scopes that weren't asked for before."""
    account = sign_in(life())
    result = life().acquire_token_silent(["https://graph.microsoft.com/Mail.Read"], account)
    assert result["token_source"] == "identity_provider"


def test_an_open_breaker_doesnt_keep_a_stored_token_away(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """A process that has seen the provider fail still finds what is stored for others."""
    ann = sign_in(life())
    app = life(retry=ONE_ATTEMPT)
    idp.fail(Fault.refuse())
    for number in range(8):
        with pytest.raises(requests.RequestException):
            app.acquire_token_for_client([f"https://api-{number}.example/.default"])
    assert app.acquire_token_silent(USER_SCOPE, ann)["token_source"] == "cache"


def test_removal_holds_in_every_process(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
) -> None:
    """Who signs out in one process isn't signed in in a new one, and not in an old one after the next refresh."""
    here, there = life(), life()
    account = sign_in(here)
    assert there.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
    here.remove_account(account)
    assert life().get_accounts() == []
    assert life().acquire_token_silent(USER_SCOPE, account) is None
    clock.skip(4000)
    assert there.acquire_token_silent(USER_SCOPE, account) is None
    assert there.get_accounts() == []


def test_a_removed_user_can_sign_in_again(life: Callable[..., Any], sign_in: Callable[..., Any]) -> None:
    """What a removal leaves behind doesn't lock anybody out."""
    app = life()
    app.remove_account(sign_in(app))
    account = sign_in(app)
    assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"


def test_tokens_removed_for_a_client_dont_come_back(idp: Emulator, life: Callable[..., Any]) -> None:
    """The application's own tokens are removed from the store too."""
    app = life()
    app.acquire_token_for_client(SCOPE)
    app.remove_tokens_for_client()
    before = _posts(idp)
    assert life().acquire_token_for_client(SCOPE)["token_source"] == "identity_provider"
    assert _posts(idp) == before + 1


def test_a_refused_token_doesnt_come_back_from_the_store(idp: Emulator, life: Callable[..., Any]) -> None:
    """A claims challenge drops the stored token as well (G17)."""
    app = life()
    refused = app.acquire_token_for_client(SCOPE)["access_token"]
    claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
    new = app.acquire_token_for_client(SCOPE, claims_challenge=claims)["access_token"]
    assert new != refused
    assert life().acquire_token_for_client(SCOPE)["access_token"] == new


def test_on_behalf_of_tokens_are_their_assertions(idp: Emulator, life: Callable[..., Any]) -> None:
    """A stored on-behalf-of token is served for the very assertion that it was had for."""
    first = life("middle").acquire_token_on_behalf_of("assertion-of-ann", SCOPE)
    idp.fail(Fault.refuse())
    again = life("middle").acquire_token_on_behalf_of("assertion-of-ann", SCOPE)
    assert again["access_token"] == first["access_token"]
    with pytest.raises(requests.RequestException):
        life("middle", retry=ONE_ATTEMPT).acquire_token_on_behalf_of("assertion-of-bob", SCOPE)


def test_applications_dont_see_each_others_tokens(idp: Emulator, life: Callable[..., Any]) -> None:
    """Another client at the same store gets its own."""
    one = life("daemon").acquire_token_for_client(SCOPE)["access_token"]
    other = life("another").acquire_token_for_client(SCOPE)
    assert other["token_source"] == "identity_provider"
    assert other["access_token"] != one


def test_a_dead_store_is_no_store(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend
) -> None:
    """The application goes on from memory and from the provider."""
    backend.failing = True
    app = life()
    assert app.acquire_token_for_client(SCOPE)["token_source"] == "identity_provider"
    assert app.acquire_token_for_client(SCOPE)["token_source"] == "cache"
    account = sign_in(app)
    assert app.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["token_source"] == "identity_provider"


def test_what_a_dead_store_missed_is_written_when_it_is_back(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any,
    eventually: Callable[..., None],
) -> None:  # fmt: skip
    """Nothing that was acknowledged stays in one process's memory alone."""
    backend.failing = True
    app = life()
    account = sign_in(app)
    backend.failing = False
    for _ in range(5):
        clock.skip(6)
        time.sleep(0.1)
    idp.fail(Fault.refuse())
    result = life().acquire_token_silent(USER_SCOPE, account)
    assert result["token_source"] == "cache"
    assert app.get_accounts()


def test_whether_an_account_is_signed_in_isnt_guessed(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend
) -> None:
    """With the store gone, an account that isn't in memory is an error to try again, and no sign-out."""
    account = sign_in(life())
    backend.failing = True
    with pytest.raises(requests.RequestException, match="it is unknown whether"):
        life().acquire_token_silent(USER_SCOPE, account)


def test_users_of_an_msal_cache_stay_signed_in(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """A cache that MSAL has kept until now is brought in once, and is in the store from then on."""
    former = msal.SerializableTokenCache()
    app = msal.ConfidentialClientApplication(
        "daemon", client_credential="s3cret-of-the-daemon", authority=idp.authority("contoso"),
        instance_discovery=False, verify=idp.ca_file, token_cache=former,
    )  # fmt: skip
    flow = app.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/back", response_mode="form_post")
    app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com"))
    app.acquire_token_for_client(SCOPE)
    assert ra.import_msal_cache(life(), former.serialize()) == 1
    idp.fail(Fault.refuse())
    app = life(retry=ONE_ATTEMPT)
    assert app.acquire_token_silent(USER_SCOPE, app.get_accounts()[0])["token_source"] == "cache"
    with pytest.raises(ra.ConfigurationError, match="isn't JSON"):
        ra.import_msal_cache(app, "nonsense")


def test_a_user_signs_out_in_an_outage(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend
) -> None:
    """An application that was built with no discovery document to be had lists accounts, and removes them for good."""
    sign_in(life())
    for key in [key for key in backend._values if key.startswith("document")]:
        backend.delete(key)
    idp.fail(Fault.refuse())
    app = life(retry=ONE_ATTEMPT)
    (account,) = app.get_accounts("ann@contoso.com")
    app.remove_account(account)
    assert app.get_accounts() == []
    assert life(retry=ONE_ATTEMPT).get_accounts() == []


def test_a_back_off_is_everybodys(idp: Emulator, life: Callable[..., Any], clock: Any) -> None:
    """While one process waits before it asks again, no other one asks in its place (G9, G10)."""
    idp.fail(WrongAnswer(503), "token")
    patient = {"retry": ra.RetryOptions(first_delay=25.0, longest_delay=60.0), "wait": 60.0}
    first, second = life(**patient), life(**patient)

    def ask() -> None:
        with contextlib.suppress(requests.RequestException, ra.Closed):
            first.acquire_token_for_client(SCOPE)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while not idp.ledger.token_calls():
        time.sleep(0.005)
    time.sleep(0.1)
    clock.skip(14)  # the lease as it was taken would be over
    with ra.wait_at_most(1.0), pytest.raises(requests.RequestException):
        second.acquire_token_for_client(SCOPE)
    assert len(idp.ledger.token_calls()) == 1
    first.close()
    asking.join()
