"""Applications in several lives and several processes' stead, over one store, at one provider that fails on command."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleet_world import USER_SCOPE, BreakableBackend

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._wire import documents
from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    pass


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def backend(clock: Any) -> BreakableBackend:
    return BreakableBackend(clock)


@pytest.fixture
def life(idp: Emulator, backend: BreakableBackend, clock: Any) -> Iterator[Callable[..., Any]]:
    """Build an application as a new process would: with memory of nothing, and the store that outlived the last one."""
    key, built = os.urandom(32), []

    def build(client_id: str = "daemon", *, store: Any = None, wrap: bool = False, **options: Any) -> Any:
        # What one process shares among its applications, another one hasn't got.
        documents.last_good = documents.Documents()
        store = ra.SealedStore(backend, key=key, clock=clock) if store is None else store
        settings = ra.Settings(**({"clock": clock, "store": store} | options))
        where = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": idp.ca_file}
        kind = msal.PublicClientApplication if client_id == "desktop" else msal.ConfidentialClientApplication
        credential = {} if client_id == "desktop" else {"client_credential": "s3cret-of-the-daemon"}
        built.append(kind(client_id, resilience=settings, **credential, **where))
        return built[-1]

    yield build
    for app in built:
        app.close()


@pytest.fixture
def sign_in(idp: Emulator, backend: BreakableBackend) -> Callable[..., dict[str, Any]]:
    """Sign a user in by authorization code and PKCE."""

    def run(app: Any, username: str = "ann@contoso.com", scopes: list[str] = USER_SCOPE) -> dict[str, Any]:
        flow = app.initiate_auth_code_flow(scopes, redirect_uri="http://localhost/back", response_mode="form_post")
        result: dict[str, Any] = app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], username))
        assert "access_token" in result
        account = app.get_accounts(username)[0]
        # The first silent call finds the sign-in's token, and has it written down.
        assert app.acquire_token_silent(scopes, account)["token_source"] == "cache"
        shared_cache = app._ra_session.shared_cache
        while not (shared_cache.settled or backend.failing):
            time.sleep(0.001)
        return account

    return run
