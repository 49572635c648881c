"""A token cache of the owner's that raises: what is in memory, or was just obtained, is served, and an event tells."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msal as plain_msal
import pytest
from msal_extensions import FilePersistence, PersistedTokenCache

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import StoreFailed, StoreRecovered
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def cache_in(file: Path) -> PersistedTokenCache:
    return PersistedTokenCache(FilePersistence(str(file)))


def tear(file: Path) -> None:
    """Cut the file off as a crash in the middle of a write does."""
    file.write_text(file.read_text()[:-20])


def test_a_torn_file_takes_no_token_out_of_memory(idp: Emulator, daemon, clock, file):
    """It is told once, and costs a second once in a while and not at every call."""
    app = daemon(token_cache=cache_in(file))
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    idp.fail(Fault.http_503())
    time.sleep(0.02)  # the file's times are compared with the clock's
    tear(file)
    with capture_events() as events:
        for _ in range(20):
            begun = time.monotonic()
            assert app.acquire_token_for_client(SCOPE)["access_token"] == held
        assert time.monotonic() - begun < 0.5
        (told,) = events.wait_for(StoreFailed)
    assert told.target == "token_cache reading"
    assert held not in str(told)


def test_a_torn_file_loses_no_new_token(idp: Emulator, daemon, clock, file, eventually):
    """What was obtained is served, through the repair of the file and after it."""
    app = daemon(token_cache=cache_in(file))
    app.acquire_token_for_client(SCOPE)
    whole = file.read_text()
    time.sleep(0.02)
    tear(file)
    clock.skip(3600)
    with capture_events() as events:
        new = app.acquire_token_for_client(SCOPE)["access_token"]
        assert {event.target for event in events.wait_for(StoreFailed, count=2)} == {
            "token_cache reading",
            "token_cache writing",
        }
        idp.fail(Fault.refuse())
        file.write_text(whole)
        clock.skip(6)
        assert app.acquire_token_for_client(SCOPE)["access_token"] == new
        events.wait_for(StoreRecovered)


def test_a_fresh_process_with_a_torn_file_works(idp: Emulator, daemon, file):
    """There is nothing in memory, and nothing to read: the provider is asked."""
    file.write_text("{")
    assert daemon(token_cache=cache_in(file)).acquire_token_for_client(SCOPE)["access_token"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_costs_no_token(idp: Emulator, daemon, clock, small_disk: Path):
    """Renewals go on in memory while nothing can be written, and are written down when there is room again."""
    app = daemon(token_cache=cache_in(small_disk / "tokens.json"))
    first = app.acquire_token_for_client(SCOPE)["access_token"]
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * 65_536)
    with capture_events() as events:
        clock.skip(3600)
        second = app.acquire_token_for_client(SCOPE)["access_token"]
        assert second != first
        assert app.acquire_token_for_client(SCOPE)["access_token"] == second
        assert events.wait_for(StoreFailed)[0].code == "full"
        filler.unlink()
        # Where portalocker isn't installed, msal-extensions leaves its own lock behind, and wants that removed.
        (small_disk / "tokens.json.lockfile").unlink(missing_ok=True)
        clock.skip(3600)
        third = app.acquire_token_for_client(SCOPE)["access_token"]
        events.wait_for(StoreRecovered)
    assert third in (small_disk / "tokens.json").read_text()


class Raising(plain_msal.TokenCache):
    """A cache that raises what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.at: set[str] = set()

    def _raise(self, where: str) -> None:
        if where in self.at:
            raise RuntimeError("SECRET that it has read")

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self._raise("search")
        return list(super().search(*args, **kwargs))

    def modify(self, *args: Any, **kwargs: Any) -> Any:
        self._raise("modify")
        return super().modify(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        self._raise("add")
        return super().add(*args, **kwargs)


@pytest.mark.parametrize(
    "at", [{"search"}, {"modify"}, {"add"}, {"search", "modify", "add"}], ids=lambda at: " ".join(sorted(at))
)
def test_whatever_raises_tokens_are_served(idp: Emulator, daemon, clock, at):
    """Those that are held, and new ones; what was raised is quoted nowhere."""
    cache = Raising()
    app = daemon(token_cache=cache)
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    cache.at = at
    with capture_events() as events:
        assert app.acquire_token_for_client(SCOPE)["access_token"] == held
        clock.skip(3600)
        new = app.acquire_token_for_client(SCOPE)["access_token"]
        assert idp.ledger.is_valid(new)
        assert new != held
        assert app.acquire_token_for_client(SCOPE)["access_token"] == new
        events.wait_for(StoreFailed)
    assert not any("SECRET" in str(event) for event in events)


def test_a_users_token_in_memory_is_served(idp: Emulator, desktop, sign_in, clock):
    """To its end; then the owner's error comes through, since whether the user is signed in can't be told."""
    cache = Raising()
    app = desktop(token_cache=cache)
    sign_in(app)
    account = app.get_accounts()[0]
    held = app.acquire_token_silent(USER_SCOPE, account)["access_token"]
    cache.at = {"search", "modify", "add"}
    clock.skip(1900)
    assert app.acquire_token_silent(USER_SCOPE, account)["access_token"] == held
    clock.skip(1700)
    with pytest.raises(RuntimeError, match="SECRET"):
        app.acquire_token_silent(USER_SCOPE, account)


def test_an_outage_is_told_and_not_the_cache_that_fails_too(idp: Emulator, desktop, sign_in, hasty, clock):
    """Whether there is anything to ask with can't be read: that is no answer."""
    cache = Raising()
    app = desktop(token_cache=cache, resilience=hasty)
    sign_in(app)
    account = app.get_accounts()[0]
    idp.fail(Fault.http_503())
    clock.skip(3600)
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_silent(USER_SCOPE, account)
    cache.at = {"search"}
    with pytest.raises((ra.ProviderUnavailable, RuntimeError)):
        app.acquire_token_silent(USER_SCOPE, account)


def test_a_claims_challenge_is_met_with_a_cache_that_raises(idp: Emulator, daemon):
    """The refused token isn't served, and a new one is had."""
    cache = Raising()
    app = daemon(token_cache=cache)
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    cache.at = {"search", "modify", "add"}
    new = app.acquire_token_for_client(SCOPE, claims_challenge='{"access_token": {"nbf": {"essential": true}}}')
    assert new["access_token"] != held
    assert app.acquire_token_for_client(SCOPE)["access_token"] != held


def test_a_sign_in_survives_a_cache_that_cant_be_written(idp: Emulator, desktop, sign_in):
    """Redeeming a code twice isn't possible: its result is the caller's, written down or not."""
    cache = Raising()
    app = desktop(token_cache=cache)
    cache.at = {"add", "modify"}
    assert sign_in(app)["access_token"]


def test_a_sign_out_that_a_cache_does_not_take_is_told(idp: Emulator, desktop, sign_in):
    """As in MSAL: the user's tokens are still there, and would be served to whoever takes them for signed out."""
    cache = Raising()
    app = desktop(token_cache=cache)
    sign_in(app)
    account = app.get_accounts()[0]
    cache.at = {"modify"}
    with pytest.raises(RuntimeError, match="SECRET"):
        app.remove_account(account)
    assert app.get_accounts() == [account]
    cache.at = set()
    app.remove_account(account)
    assert app.get_accounts() == []
    assert app.acquire_token_silent(USER_SCOPE, account) is None


def test_tokens_that_a_cache_does_not_let_go_are_told(idp: Emulator, daemon):
    """As in MSAL: `remove_tokens_for_client` raises what the cache does."""
    cache = Raising()
    app = daemon(token_cache=cache)
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    cache.at = {"modify"}
    with pytest.raises(RuntimeError, match="SECRET"):
        app.remove_tokens_for_client()
    cache.at = set()
    app.remove_tokens_for_client()
    assert app.acquire_token_for_client(SCOPE)["access_token"] != held
