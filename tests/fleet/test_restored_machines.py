"""A machine restored from its image, whose monotonic clock goes on from earlier: nothing lasts that much longer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from fleet_world import SCOPE, BreakableBackend, Process

import resilient_auth as ra
from resilient_auth import SealedStore
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault
from resilient_auth.testing import ManualClock
from resilient_auth.token import Token

OLD, NEW = os.urandom(32), os.urandom(32)


class RestoredClock(ManualClock):
    """A clock that goes on from earlier."""

    def restore(self, seconds: float) -> None:
        self._monotonic -= seconds


@pytest.fixture
def restored() -> RestoredClock:
    return RestoredClock()


@pytest.fixture
def process(restored: RestoredClock) -> Iterator[Callable[..., Process]]:
    backend, made = BreakableBackend(ManualClock()), list[Process]()

    def make(keys: list[bytes], clock: ManualClock) -> Process:
        made.append(Process(backend, clock, keys))
        return made[-1]

    yield make
    for each in made:
        each.die()


def test_a_store_that_was_emptied_is_noticed(restored: RestoredClock) -> None:
    """Within a second, as by any other clock."""
    backend, other = MemoryBackend(clock=ManualClock()), ManualClock()
    store = SealedStore(backend, key=[OLD, NEW], clock=restored)
    store.write("token", "a", b"x", ttl=1e6)
    restored.restore(900.0)
    backend._values.clear()
    SealedStore(backend, key=[NEW, OLD], clock=other).write("token", "b", b"y", ttl=1e6)
    restored.advance(1.5)
    assert store.read("token", "b") is not None


def test_who_signed_in_since_is_listed(restored: RestoredClock, process: Callable[..., Process]) -> None:
    """A list of all accounts is good for a minute."""
    here, there = process([OLD], restored), process([OLD], ManualClock())
    here.session.fetch_accounts(None)
    restored.restore(900.0)
    assert there.sign_in("ann", "first")
    restored.advance(61.0)
    here.session.fetch_accounts(None)
    assert here.refresh_token("ann") == "first"


def test_what_cant_be_opened_here_is_tried_again(restored: RestoredClock, process: Callable[..., Process]) -> None:
    """After five minutes, and not after as much more as the clock was set back."""
    behind, ahead = process([OLD], restored), process([NEW, OLD], ManualClock())
    assert behind.sign_in("ann", "first")
    process([OLD, NEW], ManualClock()).finds("ann")
    assert ahead.sign_in("ann", "second")
    with behind.shared_cache.saving_later():
        behind.add("ann", "third", grant="refresh_token")
    with pytest.raises(ra.StoreUnavailable, match="can't be opened here"):
        behind.shared_cache.flush()
    assert ahead.sign_out("ann")
    ahead.shared_cache.stored.store.erase("user_record", f"{ahead.shared_cache.label} ann.t")
    restored.restore(900.0)
    restored.advance(301.0)
    behind.shared_cache.flush()
    assert not behind.shared_cache._unwritten


def test_what_others_obtained_is_looked_for(idp: Emulator, life: Callable[..., Any], clock: Any) -> None:
    """Though the provider can't be asked."""
    app = life(retry=ra.RetryOptions(attempts=1))
    idp.fail(Fault.refuse())
    for number in range(8):
        with pytest.raises(requests.RequestException):
            app.acquire_token_for_client([f"https://api-{number}.example/.default"])
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(SCOPE)
    entry = next(entry for entry in app._ra_session.memory if entry.request.scopes == tuple(SCOPE))
    token = Token("held", "Bearer", clock.wall(), clock.monotonic(), 3600.0, 1800.0)
    life()._ra_session.shared_cache.save(None, entry.request, token)
    entry.looked_at += 900.0  # before the machine was restored
    assert app.acquire_token_for_client(SCOPE)["access_token"] == "held"
