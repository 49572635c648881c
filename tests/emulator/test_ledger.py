from __future__ import annotations

import dataclasses
import time

import pytest

from resilient_auth.emulator import Fault, IssuedToken, Ledger


def test_every_call_is_told_in_full(idp, ask, client, token_url):
    """A call says who asked for what, over which connection, and what came of it."""
    client.headers["x-test-client"] = "one"
    token = ask().json()["access_token"]
    [call] = idp.ledger.token_calls()
    assert (call.grant_type, call.client_id, call.client, call.status) == ("client_credentials", "daemon", "one", 200)
    assert call.scope == "https://graph.microsoft.com/.default"
    assert call.method == "POST"
    assert call.path == "/contoso/oauth2/v2.0/token"
    assert call.token_id == idp.ledger.lookup(token).jti
    assert abs(call.at - time.time()) < 5
    assert abs(call.monotonic - time.monotonic()) < 5
    ask()
    assert idp.ledger.calls[1].connection == call.connection


def test_msals_app_name_tells_clients_apart(idp, daemon):
    """`app_name`, which MSAL sends by itself, is enough to know a client."""
    daemon(app_name="billing").acquire_token_for_client(["https://graph.microsoft.com/.default"])
    assert [call.client for call in idp.ledger.token_calls()] == ["billing"]


def test_it_keeps_no_secrets(idp, client, ask, token_url):
    """Neither secrets nor codes nor tokens are in anything that the ledger shows."""
    answer = ask(client_secret="hush-hush").json()
    form = {"grant_type": "password", "client_id": "d", "username": "ann@contoso.com", "password": "pw-hush"}
    idp.add_user("ann@contoso.com", "pw-hush")
    user = client.post(token_url, data=form | {"scope": "openid offline_access api://a/b"}).json()
    client.get(f"{idp.api_url}/api/x?code=hush", headers={"Authorization": f"Bearer {answer['access_token']}"})
    shown = f"{idp.ledger.calls}{idp.ledger.tokens}{idp.state()}{idp._running.directory.users}"
    for secret in ("hush", answer["access_token"], user["access_token"], user["refresh_token"], user["id_token"]):
        assert secret not in shown
    assert {token.kind for token in idp.ledger.tokens} == {"access", "refresh", "id"}


def test_a_call_is_there_while_it_hangs(idp, client, ask):
    """A black-holed request is counted although it's never answered."""
    idp.fail(Fault.black_hole())
    client.timeout = 0.2
    with pytest.raises(Exception, match="timed out"):
        ask()
    [call] = idp.ledger.token_calls()
    assert (call.fault, call.status, call.token_id) == ("black_hole", None, None)


def test_clear_forgets_calls_and_not_validity(idp, ask):
    """After `clear` the books are empty, and tokens are as valid as before."""
    token = ask().json()["access_token"]
    idp.ledger.clear()
    assert idp.ledger.calls == idp.ledger.tokens == ()
    assert idp.ledger.is_valid(token)
    ask()
    assert len(idp.ledger.tokens) == 1


def test_validity_is_issue_time_and_revocation(idp, ask):
    """A token is valid if it was issued here, hasn't expired at the time asked for, and isn't revoked."""
    token = ask().json()["access_token"]
    issued = idp.ledger.lookup(token)
    assert idp.ledger.is_valid(token, at=issued.expires_at - 1)
    assert not idp.ledger.is_valid(token, at=issued.expires_at)
    assert not idp.ledger.is_valid(token + "x")
    idp.revoke(issued.subject)
    assert not idp.ledger.is_valid(token)
    assert idp.ledger.is_valid(ask().json()["access_token"])


def test_entries_are_frozen(idp, ask):
    """Nobody can rewrite what happened."""
    ask()
    for entry in (idp.ledger.calls[0], idp.ledger.tokens[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.client_id = "other"


def test_it_is_bounded(monkeypatch):
    """Beyond its limit the ledger forgets the oldest entries."""
    monkeypatch.setattr("resilient_auth.emulator.ledger._TOKEN_LIMIT", 3)
    ledger = Ledger()
    for number in range(5):
        ledger.issue(IssuedToken(str(number), str(number), "s", "c", "t", (), 0, 1, "access"))
    assert [token.jti for token in ledger.tokens] == ["2", "3", "4"]
