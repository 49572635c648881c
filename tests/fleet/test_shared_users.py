"""Users that several processes share: rotations, removals and losses that cross each other."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from fleet_world import SCOPE, USER_SCOPE, BreakableBackend

import resilient_auth as ra
from resilient_auth._fleet.user_record import Change, UserRecord, merge
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault, WrongAnswer
from resilient_auth.events import RemovalPostponed, RemovalWritten
from resilient_auth.testing import capture_events
from resilient_auth.token import fingerprint

RT = ("RefreshToken", "key")


def _rt(secret: str, at: int) -> dict[str, Any]:
    return {"secret": secret, "last_modification_time": str(at)}


def _settled(app: Any) -> bool:
    return bool(app._ra_session.shared_cache.settled)


class SlowBackend(BreakableBackend):
    """A medium that takes its time."""

    seconds = 0.0

    def _check(self) -> None:
        super()._check()
        time.sleep(self.seconds)


@pytest.fixture
def one_time(idp: Emulator) -> None:
    """A provider whose refresh tokens work once."""
    idp.one_time_refresh_tokens = True


def test_a_late_write_doesnt_bring_a_used_refresh_token_back() -> None:
    """Written twice, since the first time seemed to fail; the one in between has rotated on, by a slower clock."""
    rotation = {RT: Change(_rt("r1", 10), _rt("r2", 500))}
    first = merge(UserRecord("b", {RT: _rt("r1", 10)}), "b", rotation, {}, anew=None)
    between = merge(first, "b", {RT: Change(_rt("r2", 500), _rt("r3", 20))}, {}, anew=None)
    late = merge(between, "b", rotation, {}, anew=None)
    assert late is not None
    assert late.entries[RT]["secret"] == "r3"


def test_a_token_of_a_machine_whose_clock_is_ahead_isnt_served_past_its_end(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
) -> None:
    """Its expiry lies minutes too late on our clock: we ask for our own."""
    app = life()
    account = sign_in(app)
    for entry in list(app.token_cache.search("AccessToken", query={"home_account_id": account["home_account_id"]})):
        later = {name: str(int(entry[name]) + 300) for name in ("cached_at", "expires_on")}
        app.token_cache.modify("AccessToken", entry, later)
    _eventually_settled(app)
    assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "identity_provider"


def _eventually_settled(app: Any) -> None:
    ends = time.monotonic() + 8
    while not _settled(app):
        assert time.monotonic() < ends, "it isn't written"
        time.sleep(0.01)


def test_a_refresh_token_that_another_process_used_is_no_denial(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any, one_time: None
) -> None:
    """Whoever was taken for dead and comes back with it goes on with what the other one got."""
    here, there = life(attempt_timeout=1.0, connect_timeout=0.5, exchange_deadline=90.0, wait=90.0), life()
    account = sign_in(here)
    idp.fail(Fault.black_hole(), "token", count=1)
    begun, answers = len(idp.ledger.token_calls()), []
    asking = threading.Thread(
        target=lambda: answers.append(here.acquire_token_silent(USER_SCOPE, account, force_refresh=True))
    )
    asking.start()
    while len(idp.ledger.token_calls()) == begun:
        time.sleep(0.01)
    clock.skip(13)  # the lease is over
    assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["token_source"] == "identity_provider"
    while asking.is_alive():
        clock.skip(2)  # the attempt times out, and its back-off passes
        asking.join(0.2)
    assert answers[0]["token_source"] == "identity_provider"


def test_processes_take_turns_with_a_refresh_token_that_works_once(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], together: Callable[..., list[Any]],
    one_time: None,
) -> None:  # fmt: skip
    """Several scopes in several processes at the same moment: each rotation builds on the one before."""
    fleet = [life() for _ in range(3)]
    account = sign_in(fleet[0])
    turn = iter(range(12))
    lock = threading.Lock()

    def ask() -> Any:
        with lock:
            number = next(turn)
        scope = [f"https://graph.microsoft.com/Scope.{number}"]
        return fleet[number % 3].acquire_token_silent_with_error(scope, account)

    results = together(12, ask)
    assert [result.get("error") for result in results] == [None] * 12
    assert life().acquire_token_silent(["https://graph.microsoft.com/Another"], account) is not None


def test_a_sign_in_doesnt_bring_back_somebody_else(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """What one process had still to write of a user whom another one signed out isn't part of the next sign-in."""
    here, there = life(), life()
    account = sign_in(here)
    assert there.acquire_token_silent(USER_SCOPE, account) is not None
    backend.failing = True
    assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is not None
    assert not _settled(there)
    backend.failing = False
    clock.skip(11)
    here.remove_account(account)
    sign_in(there, "bob@contoso.com")
    _eventually_settled(there)
    assert life().get_accounts("ann@contoso.com") == []
    assert life().acquire_token_silent(USER_SCOPE, account) is None
    assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None


def test_an_exchange_under_way_doesnt_bring_a_removed_user_back(
    life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """The refresh token that comes after the sign-out is nobody's."""
    app = life()
    account = sign_in(app)
    theirs = {"home_account_id": account["home_account_id"]}
    (old,) = app.token_cache.search("RefreshToken", query=theirs)
    app.remove_account(account)
    app.token_cache.update_rt(old, "one-that-came-too-late")  # as MSAL does with what it has read before
    _eventually_settled(app)
    assert life().acquire_token_silent(USER_SCOPE, account) is None
    assert list(app.token_cache.search("RefreshToken", query=theirs)) == []


def test_a_removal_that_the_store_missed_is_made_later(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """Who signs out while the store is dead is signed out everywhere when it is back; until then it is told."""
    here, there = life(), life()
    account = sign_in(here)
    assert there.acquire_token_silent(USER_SCOPE, account) is not None
    backend.failing = True
    with capture_events() as events:
        with pytest.raises(ra.StoreUnavailable):
            here.remove_account(account)
        assert here.acquire_token_silent(USER_SCOPE, account) is None
        with pytest.raises(ra.StoreUnavailable):
            here.remove_account(account)
        assert ra.health().removals_pending == 1
        (told,) = events.wait_for(RemovalPostponed)
        assert (told.subject, len(told.subject)) == (fingerprint(account["home_account_id"]), 16)
        backend.failing = False
        clock.skip(11)
        _eventually_settled(here)
        events.wait_for(RemovalWritten)
        assert len(events.of(RemovalPostponed)) == 1
    assert ra.health().removals_pending == 0
    backend.failing = False
    clock.skip(11)
    _eventually_settled(here)
    assert here.acquire_token_silent(USER_SCOPE, account) is None
    assert life().acquire_token_silent(USER_SCOPE, account) is None
    assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None


def test_a_sign_in_that_is_written_late_doesnt_undo_a_later_sign_out(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """The store failed for the process at which the user signed in; then the user signed out at another one."""
    here, there = life(), life()
    backend.failing = True
    account = sign_in(here)
    clock.skip(3)
    backend.failing = False
    there.remove_account(account)
    assert not _settled(here)
    clock.skip(11)
    _eventually_settled(here)
    assert life().acquire_token_silent(USER_SCOPE, account) is None
    assert here.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None
    sign_in(here)
    assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"


def test_who_signs_out_and_in_again_while_the_store_is_dead_is_signed_in(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """Both are written late, in their order."""
    app = life()
    account = sign_in(app)
    backend.failing = True
    with pytest.raises(ra.StoreUnavailable):
        app.remove_account(account)
    clock.skip(3)
    sign_in(app)
    backend.failing = False
    clock.skip(11)
    _eventually_settled(app)
    assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
    assert app.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is not None


def test_a_removal_isnt_lost_where_too_much_waits_for_the_store(
    life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
) -> None:
    """Nobody could be found to make it at once; it is made all the same."""
    app = life(workers_per_authority=1, queue_per_authority=1)
    account = sign_in(app)
    gate = threading.Event()
    engine = app._ra_session.engine
    for _ in range(2):
        engine.run("store", gate.wait)
    with pytest.raises(ra.StoreUnavailable, match="busy"):
        app.remove_account(account)
    gate.set()
    clock.skip(6)
    _eventually_settled(app)
    assert life().acquire_token_silent(USER_SCOPE, account) is None


def test_an_emptied_store_is_filled_again_from_memory(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, one_time: None
) -> None:
    """A restart of the server with nothing on its disk signs nobody out whom a living process knows (G13)."""
    app = life()
    account = sign_in(app)
    for key in list(backend.keys("user_record")) + list(backend.keys("usernames")):
        backend.delete(key)
    assert app.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["token_source"] == "identity_provider"
    _eventually_settled(app)
    idp.fail(Fault.refuse())
    again = life()
    (found,) = again.get_accounts("ann@contoso.com")
    assert again.acquire_token_silent(USER_SCOPE, found)["token_source"] == "cache"


def test_a_store_that_forgot_a_removal_doesnt_revive_the_user(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """A process that hasn't looked for days doesn't believe its memory where the store has nothing any more."""
    here, there = life(), life()
    account = sign_in(here)
    assert there.acquire_token_silent(USER_SCOPE, account) is not None
    here.remove_account(account)
    clock.skip(91 * 24 * 3600)  # the note of it is over
    assert there.acquire_token_silent(USER_SCOPE, account) is None
    assert life().acquire_token_silent(USER_SCOPE, account) is None


def test_letting_a_user_go_in_one_application_removes_it_in_none(
    life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """Two application objects over one cache: what one lets go to the store, the other one doesn't take out of it."""
    one = life(max_users=1)
    two = life(max_users=1)
    two.token_cache = one.token_cache
    two.get_accounts("nobody@contoso.com")
    account = sign_in(one)
    sign_in(one, "bob@contoso.com")
    for app in (one, two):
        _eventually_settled(app)
    assert [a["username"] for a in life().get_accounts("ann@contoso.com")] == ["ann@contoso.com"]
    assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"


def test_what_cant_be_written_down_doesnt_keep_a_thread_busy(life: Callable[..., Any]) -> None:
    """A user name that no store takes is left out."""
    app = life()
    entry = {"home_account_id": "h.t", "environment": "e", "realm": "r", "username": "\ud800", "local_account_id": "h"}
    app.token_cache.modify("Account", entry, entry)
    _eventually_settled(app)


def test_who_cant_be_written_down_can_sign_out(life: Callable[..., Any]) -> None:
    """A home account that no store takes was never there: its removal is made at once, and keeps no thread busy."""
    app = life()
    entry = {
        "home_account_id": "\ud800", "environment": app._ra_origin.authority.instance, "realm": "r", "username": "u",
        "local_account_id": "h", "authority_type": "MSSTS",
    }  # fmt: skip
    app.token_cache.modify("Account", entry, entry)
    (account,) = app.get_accounts("u")
    app.remove_account(account)
    _eventually_settled(app)
    assert app.get_accounts("u") == []
    assert app._ra_session.shared_cache.removals_pending == 0


def test_memory_is_bounded_and_users_come_back(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """Of more users than `max_users` those who were wanted last are in memory; the others are found in the store."""
    app = life(max_users=5)
    names = [f"user{number}@contoso.com" for number in range(12)]
    for name in names:
        idp.add_user(name)
        sign_in(app, name)
    held = {e["home_account_id"] for e in app.token_cache.search("RefreshToken")}
    assert len(held) <= 5
    assert len(app._ra_session.shared_cache._partitions) <= 6
    idp.fail(Fault.refuse())
    for name in names:
        (account,) = app.get_accounts(name)
        assert app.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
    assert len(life().get_accounts()) == 12


def test_who_signs_in_elsewhere_is_found_by_a_process_that_knew_better(
    life: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    """That a user was signed out a moment ago, or never there, isn't believed for ever."""
    here, there = life(), life()
    account = sign_in(here)
    assert there.get_accounts("ann@contoso.com")
    here.remove_account(account)
    assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None
    assert there.get_accounts("ann@contoso.com") == []
    sign_in(here)
    assert there.get_accounts("ann@contoso.com") == [account]


def test_a_list_of_accounts_that_failed_is_asked_for_again(
    life: Callable[..., Any], sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """A store that was dead a moment ago isn't taken for an empty one, neither then nor for a minute."""
    sign_in(life())
    app = life()
    backend.failing = True
    for _ in range(3):
        with pytest.raises(ra.StoreUnavailable):
            app.get_accounts()
    backend.failing = False
    clock.skip(11)
    assert [account["username"] for account in app.get_accounts()] == ["ann@contoso.com"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it isn't closed, that is the point
def test_an_application_that_was_let_go_is_collected(
    life: Callable[..., Any], idp: Emulator, sign_in: Callable[..., Any], backend: BreakableBackend
) -> None:
    """Neither the store nor what waits to be written keeps it alive."""
    app = life(wrap=True)
    sign_in(app)
    backend.failing = True
    app.acquire_token_for_client(SCOPE)
    assert not _settled(app)
    gone = [weakref.ref(app._ra_session), weakref.ref(app._ra_session.shared_cache)]
    _forget(life)
    del app
    ends = time.monotonic() + 3  # what is tried again is so after 5
    while any(each() is not None for each in gone) and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.05)
    assert [each() for each in gone] == [None, None]


def _forget(life: Callable[..., Any]) -> None:
    """Let the fixture let go of what it has built."""
    for cell in life.__closure__ or ():
        if isinstance(cell.cell_contents, list):
            cell.cell_contents.clear()


async def test_a_slow_store_never_holds_the_loop_up(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
) -> None:
    """Each call to the store takes 0.4 s; the loop goes on all the while."""
    slow, key = SlowBackend(), os.urandom(32)

    def store() -> Any:
        return ra.SealedStore(slow, key=key, clock=clock)

    await asyncio.to_thread(sign_in, life(store=store()))
    slow.seconds = 0.4
    app = ra.aio.wrap(await asyncio.to_thread(life, store=store()))
    lags, done = [0.0], asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - begun - 0.005)

    watching = asyncio.create_task(watch())
    (found,) = await app.get_accounts("ann@contoso.com")
    assert (await app.acquire_token_silent(USER_SCOPE, found))["token_source"] == "cache"
    assert "access_token" in await app.acquire_token_for_client(SCOPE)
    await app.remove_account(found)
    done.set()
    await watching
    # A busy machine has its own pauses; one of the store's calls on the loop would be longer than both bounds.
    assert sorted(lags)[int(len(lags) * 0.99)] < 0.05
    assert max(lags) < 0.3


def test_a_failing_provider_is_no_removal(
    idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], one_time: None
) -> None:
    """An exchange that ends in an error leaves in the store what the next one needs."""
    app = life(retry=ra.RetryOptions(attempts=1))
    account = sign_in(app)
    outage = idp.fail(WrongAnswer(503), "token")
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_silent(["https://graph.microsoft.com/Mail.Read"], account)
    outage.stop()
    other = life()
    deadline = time.monotonic() + 12
    while True:
        try:
            result = other.acquire_token_silent(["https://graph.microsoft.com/Mail.Read"], account)
            break
        except ra.ProviderUnavailable:
            assert time.monotonic() < deadline
            other._ra_session.engine.clock.skip(1)
    assert result["token_source"] == "identity_provider"
