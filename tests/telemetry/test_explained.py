"""What a result says of where it came from and where the time went, with `Settings(explain=True)`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import SCOPE

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault


def test_each_result_is_explained(daemon: Callable[..., Any], settings: Any) -> None:
    """The provider's, and then memory's, each time anew."""
    app = daemon(resilience=settings(explain=True))
    first = app.acquire_token_for_client(SCOPE)["resilience"]
    assert first["source"] == "provider"
    assert first["attempts"] == 1
    assert first["http_ms"] > 0
    assert first["queue_ms"] >= 0
    assert first["age"] >= 0
    assert first["provider"] is None
    for _ in range(2):
        held = app.acquire_token_for_client(SCOPE)["resilience"]
        assert (held["source"], held["attempts"], held["http_ms"]) == ("memory", 0, 0.0)
        assert held["remaining"] > 3000


def test_the_stores_share_of_the_time_is_told(daemon: Callable[..., Any], settings: Any, tmp_path: Path) -> None:
    """Where a store was looked at first; and that the token was found there."""
    key = os.urandom(32)
    for number, source in enumerate(("provider", "store")):
        store = ra.FileStore(tmp_path / "store", key=key)
        told = daemon(resilience=settings(explain=True, store=store, wait=20.0 + number)).acquire_token_for_client(
            SCOPE
        )
        assert told["resilience"]["source"] == source
        assert told["resilience"]["store_ms"] > 0
        store.close()


def test_a_failing_refresh_is_told_at_its_first_failed_attempt(
    idp: Emulator, daemon: Callable[..., Any], settings: Any, clock: Any, eventually: Callable[..., None]
) -> None:
    """Not when its exchange ends: the caller and health know, and later it is still the root that is told."""
    app = daemon(resilience=settings(explain=True))
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.status(503))
    clock.skip(2000)
    assert app.acquire_token_for_client(SCOPE)["resilience"]["reason"] == "refreshing"
    eventually(lambda: app.acquire_token_for_client(SCOPE)["resilience"]["provider"] is not None)
    told = app.acquire_token_for_client(SCOPE)["resilience"]
    assert (told["source"], told["provider"]["code"]) == ("fallback", "server_failed")
    assert any(token.last_code == "server_failed" for token in ra.health().tokens)


def test_a_denial_is_explained(idp: Emulator, daemon: Callable[..., Any], settings: Any) -> None:
    """It has no token, and so no age."""
    idp.deny("client_credentials", "invalid_client")
    told = daemon(resilience=settings(explain=True)).acquire_token_for_client(SCOPE)
    assert told["error"] == "invalid_client"
    assert told["resilience"]["age"] is None
    assert told["resilience"]["attempts"] == 1


def test_without_it_a_fresh_result_is_msals(daemon: Callable[..., Any]) -> None:
    """No key more."""
    app = daemon()
    for _ in range(2):
        assert "resilience" not in app.acquire_token_for_client(SCOPE)


@pytest.mark.parametrize("given", [1, "yes", None])
def test_what_isnt_a_truth_value_is_named(given: Any) -> None:
    with pytest.raises(ra.ConfigurationError, match="explain must be True or False"):
        ra.Settings(explain=given)


@pytest.mark.parametrize(("text", "means"), [("true", True), ("1", True), ("FALSE", False), ("0", False)])
def test_the_environment_may_ask_for_it(text: str, means: bool) -> None:
    assert ra.Settings.from_env(environ={"RESILIENT_AUTH_EXPLAIN": text}).explain is means


def test_what_the_environment_says_must_be_clear() -> None:
    """`no` isn't taken for yes because it is some text."""
    with pytest.raises(ra.ConfigurationError, match="RESILIENT_AUTH_EXPLAIN must be a truth value"):
        ra.Settings.from_env(environ={"RESILIENT_AUTH_EXPLAIN": "no"})
