"""Brokers, the sign-in service of a desktop: MSAL asks it, and ours give what MSAL gives."""

from __future__ import annotations

import base64
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator

SCOPE = ["https://graph.microsoft.com/User.Read"]
ANN = {"preferred_username": "ann@contoso.com", "oid": "u", "tid": "t", "sub": "s"}
INFO = base64.urlsafe_b64encode(json.dumps({"uid": "u", "utid": "t"}).encode()).decode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A broker in the place of the one that no test machine has; what it was asked."""
    calls: list[str] = []

    def answering(name: str) -> Callable[..., dict[str, Any]]:
        def answer(*_: object, **__: object) -> dict[str, Any]:
            calls.append(name)
            return {
                "access_token": f"token {len(calls)}",
                "expires_in": 3600,
                "client_info": INFO,
                "id_token_claims": ANN,
                "token_type": "bearer",
                "_account_id": "a",
                "_msalruntime_telemetry": {},
            }

        return answer

    names = ("_signin_silently", "_signin_interactively", "_acquire_token_silently")
    broker = types.ModuleType("msal.broker")
    broker.__dict__.update({name: answering(name) for name in names})
    broker.__dict__["_signout_silently"] = lambda *_: calls.append("_signout_silently")
    monkeypatch.setitem(sys.modules, "msal.broker", broker)
    monkeypatch.setattr(plain_msal, "broker", broker, raising=False)
    runtime = types.ModuleType("pymsalruntime")
    runtime.__dict__["Response_Status"] = types.SimpleNamespace(Status_AccountUnusable=1, Status_InteractionRequired=2)
    monkeypatch.setitem(sys.modules, "pymsalruntime", runtime)
    return calls


@pytest.fixture(params=["MSAL's", "drop-in", "wrapped"])
def build(request: pytest.FixtureRequest, proxied: dict[str, Any], settings: Any) -> Iterator[Callable[..., Any]]:
    built: list[Any] = []

    def make(**more: Any) -> Any:
        given = proxied | {"enable_broker_on_linux": True, "enable_broker_on_windows": True} | more
        if request.param == "drop-in":
            app = msal.PublicClientApplication("desktop", **given, resilience=settings())
        else:
            app = plain_msal.PublicClientApplication("desktop", **given)
            built.append(app.http_client)
        if request.param == "wrapped":
            app = ra.wrap(app, resilience=settings())
        if request.param != "MSAL's":
            built.append(app)
        return app

    yield make
    for each in built:
        each.close()


def signed_in(app: Any) -> dict[str, Any]:
    app.acquire_token_interactive(SCOPE, parent_window_handle=app.CONSOLE_WINDOW_HANDLE)
    (account,) = app.get_accounts()
    found: dict[str, Any] = account
    return found


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(
    "options",
    [{}, {"client_capabilities": ["CP1"]}, {"verify": False}],
    ids=["plain", "with capabilities", "unverified"],
)
def test_a_brokers_token_is_held(idp: Emulator, asked, build, options):
    """The broker is asked at the sign-in, when it must be, and never in between."""
    app = build(**options)
    account = signed_in(app)
    for _ in range(3):
        held = app.acquire_token_silent(SCOPE, account)
        assert (held["access_token"], held["token_source"]) == ("token 1", "cache")
    forced = app.acquire_token_silent(SCOPE, account, force_refresh=True)
    assert (forced["access_token"], forced["token_source"]) == ("token 2", "broker")
    challenged = app.acquire_token_silent(SCOPE, account, claims_challenge='{"access_token": {}}')
    assert challenged["access_token"] == "token 3"
    assert app.acquire_token_silent(SCOPE, account)["access_token"] == "token 3"
    assert asked == ["_signin_silently", "_acquire_token_silently", "_acquire_token_silently"]


def test_who_signs_out_is_signed_out_of_the_broker(idp: Emulator, asked, build):
    """And of the cache."""
    app = build()
    account = signed_in(app)
    app.remove_account(account)
    assert asked[-1] == "_signout_silently"
    assert app.get_accounts() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a broker can do it")
def test_proof_of_possession_is_refused_where_msal_refuses_it(idp: Emulator, asked, build):
    """With MSAL's own error, and no token without it."""
    app = build()
    account = signed_in(app)
    scheme = msal.PopAuthScheme(http_method="GET", url="https://api.example/x", nonce="n")
    with pytest.raises(ValueError, match="POP"):
        app.acquire_token_interactive(SCOPE, parent_window_handle=app.CONSOLE_WINDOW_HANDLE, auth_scheme=scheme)
    with pytest.raises(ValueError, match="auth_scheme"):
        app.acquire_token_silent(SCOPE, account, auth_scheme=scheme)
