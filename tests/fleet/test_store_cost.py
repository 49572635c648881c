"""What an exchange costs at its store: commands and round trips, counted by the server itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from fleet_world import SCOPE

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault


@contextmanager
def _watched(url: str) -> Iterator[list[dict[str, Any]]]:
    """List what a server is told, as it says itself; what a script does is marked."""
    seen: list[dict[str, Any]] = []
    client = redis.Redis.from_url(url)
    with client.monitor() as monitor:

        def listen() -> None:
            for told in monitor.listen():
                if "that is all" in told["command"]:
                    return
                seen.append(told)

        listening = threading.Thread(target=listen)
        listening.start()
        yield seen
        client.echo("that is all")
        listening.join()
    client.close()


def _commands(seen: list[dict[str, Any]]) -> list[str]:
    """List the commands, those in scripts too, without what begins a connection."""
    begins = ("HELLO", "CLIENT", "AUTH", "SELECT")
    return [told["command"] for told in seen if not told["command"].upper().startswith(begins)]


def _trips(seen: list[dict[str, Any]]) -> list[str]:
    """Name the commands that made a round trip of their own."""
    return [command.split()[0] for command in _commands([told for told in seen if told["client_type"] != "lua"])]


@pytest.fixture
def app(redis_url: str, life: Callable[..., Any]) -> Any:
    """An application over Valkey, which has its discovery document and has used each of its store's scripts."""
    app = life(store=ra.RedisStore(redis_url, os.urandom(32), timeout=5.0))
    for api in ("vault.azure.net", "storage.azure.com"):
        assert app.acquire_token_for_client([f"https://{api}/.default"])["access_token"]
    return app


def test_a_cold_exchange_is_five_round_trips(redis_url: str, app: Any) -> None:
    """A look, the lease, another look, the token, the lease's end; with what the scripts do, 12 commands."""
    with _watched(redis_url) as seen:
        assert app.acquire_token_for_client(SCOPE)["token_source"] == "identity_provider"
    assert _trips(seen) == ["MGET", "EVALSHA", "MGET", "SET", "EVALSHA"]
    assert len(_commands(seen)) == 12


def test_a_token_that_another_process_has_is_one_round_trip(redis_url: str, app: Any, life: Callable[..., Any]) -> None:
    """What keeps it company, hints and the names' key, is read with it."""
    other = life(store=app._ra_session.settings.store)
    with _watched(redis_url) as seen:
        assert other.acquire_token_for_client(["https://vault.azure.net/.default"])["token_source"] == "cache"
    assert _trips(seen) == ["MGET"]


def test_a_refusal_is_two_round_trips(idp: Emulator, redis_url: str, app: Any, life: Callable[..., Any]) -> None:
    """While a hint may hold, the store is asked whether it does; nothing is written, nothing leased."""
    other = life(store=app._ra_session.settings.store)
    idp.fail(Fault.http_429(retry_after=60), "token")
    with pytest.raises(ra.Throttled):
        app.acquire_token_for_client(SCOPE)
    with _watched(redis_url) as seen, pytest.raises(ra.Throttled):
        other.acquire_token_for_client(SCOPE)
    assert _trips(seen) == ["MGET", "GET"]
