"""Where users are found: by name for as long as they are active, in no tenant after they signed out, however many."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msal
import pytest
from fleet_world import USER_SCOPE, BreakableBackend, Process

import resilient_auth as ra
from resilient_auth._fleet.user_record import Change, SignIn
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault
from resilient_auth.testing import ManualClock

DAY = 24 * 3600.0


def settled(app: Any) -> None:
    ends = time.monotonic() + 8
    while not app._ra_session.shared_cache.settled:
        assert time.monotonic() < ends, "it isn't written"
        time.sleep(0.01)


class CountingBackend(BreakableBackend):
    """A medium that counts its round trips, and what is written by kind."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock)
        self.trips = 0
        self.writes: list[str] = []

    def _check(self) -> None:
        self.trips += 1
        super()._check()

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        self.writes.append(key.partition(".")[0])
        return super().put(key, value, **options)


@pytest.fixture
def backend(clock: Any) -> CountingBackend:
    return CountingBackend(clock)


class TestByName:
    def test_an_active_user_is_found_however_long_ago_they_signed_in(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """Their name lives on with their tokens, at one write a day."""
        app = life()
        account = sign_in(app)
        for day in range(150):
            clock.skip(DAY)
            for _ in range(3):
                assert app.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is not None
            settled(app)
            if day == 10:
                backend.writes.clear()
            if day == 20:
                assert backend.writes.count("user_record") == 30
                assert backend.writes.count("usernames") == 10
        again = life()
        assert again.get_accounts("ann@contoso.com") == [account]
        assert life().get_accounts() == [account]

    def test_also_after_a_rotation(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """Who was active while both keys were there is found when the old one isn't any more."""
        old, new = os.urandom(32), os.urandom(32)

        def with_keys(*keys: bytes) -> Any:
            return life(store=ra.SealedStore(backend, key=[*keys], clock=clock))

        account = sign_in(with_keys(old))
        clock.skip(2 * DAY)
        app = with_keys(new, old)
        assert app.acquire_token_silent(USER_SCOPE, account) is not None
        settled(app)
        assert with_keys(new).get_accounts("ann@contoso.com") == [account]

    def test_who_comes_back_is_found_though_the_name_was_lost(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """A medium that threw the one record out and kept the other heals within a day."""
        app = life()
        account = sign_in(app)
        for key in [key for key in backend._values if key.startswith("usernames")]:
            backend.delete(key)
        assert life().get_accounts("ann@contoso.com") == []
        clock.skip(DAY + 60)
        assert life().acquire_token_silent(USER_SCOPE, account) is not None
        settled(app)
        assert life().get_accounts("ann@contoso.com") == [account]

    def test_a_list_of_all_is_good_for_a_minute(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """Who asks for all at each request doesn't read all names each time."""
        app = life()
        sign_in(life())
        assert len(app.get_accounts()) == 1
        sign_in(life(), "bob@contoso.com")
        before = backend.trips
        assert len(app.get_accounts()) == 1
        assert backend.trips == before
        clock.skip(61)
        assert len(app.get_accounts()) == 2

    def test_all_of_many_users_are_listed_in_few_round_trips(
        self, life: Callable[..., Any], backend: CountingBackend
    ) -> None:
        """A process that starts lists 10,000 in seconds; who waits for less is told, and finds them next time."""
        app = life()
        shared_cache = app._ra_session.shared_cache
        host = app._ra_origin.authority.instance
        for number in range(10_000):
            who = f"u{number}.t"
            account = {
                "home_account_id": who, "environment": host, "realm": "t", "local_account_id": "l",
                "username": f"u{number}@contoso.com", "authority_type": "MSSTS",
            }  # fmt: skip
            changes = {("Account", f"{who}-{host}-t"): Change(None, account)}
            note = functools.partial(shared_cache._names.note, who)
            shared_cache.stored.save(f"{shared_cache.label} {who}", None, "b", changes, {}, anew=SignIn(), note=note)
        again = life()
        with ra.wait_at_most(0.01), pytest.raises(ra.StoreUnavailable, match="timeout"):
            again.get_accounts()
        begun = time.perf_counter()
        assert len(again.get_accounts()) == 10_000
        took = time.perf_counter() - begun
        assert took < 20.0, took
        backend.trips = 0
        bounded = life(max_users=100)
        assert len(bounded.get_accounts()) == 100
        begun, backend.trips = time.perf_counter(), 0
        assert [a["username"] for a in life().get_accounts("u77@contoso.com")] == ["u77@contoso.com"]
        assert backend.trips < 10


class TestImportedCaches:
    def former(self, idp: Emulator) -> msal.SerializableTokenCache:
        """A cache that MSAL has kept, with a user in it."""
        cache = msal.SerializableTokenCache()
        app = msal.ConfidentialClientApplication(
            "daemon", client_credential="s3cret-of-the-daemon", authority=idp.authority("contoso"),
            instance_discovery=False, verify=idp.ca_file, token_cache=cache,
        )  # fmt: skip
        flow = app.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/back", response_mode="form_post")
        assert "access_token" in app.acquire_token_by_auth_code_flow(
            flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com")
        )
        return cache

    @pytest.mark.parametrize("days", [0, 1, 30, 80])
    def test_an_import_at_each_start_undoes_no_sign_out(
        self, idp: Emulator, life: Callable[..., Any], clock: Any, days: int
    ) -> None:
        """A cache that was written before the user signed out says nothing of now."""
        text = self.former(idp).serialize()
        app = life()
        ra.import_msal_cache(app, text)
        (account,) = app.get_accounts("ann@contoso.com")
        for _ in range(2):
            ra.import_msal_cache(life(), text)
        assert life().get_accounts("ann@contoso.com") == [account]
        clock.skip(5)
        app.remove_account(account)
        clock.skip(days * DAY)
        again = life()
        ra.import_msal_cache(again, text)
        for each in (again, app, life()):
            assert each.get_accounts("ann@contoso.com") == []
            assert each.get_accounts() == []
            assert each.acquire_token_silent(USER_SCOPE, account) is None

    def test_who_signs_in_again_is_signed_in_through_imports(
        self, idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
    ) -> None:
        """The old entries take nothing from the new sign-in."""
        text = self.former(idp).serialize()
        app = life()
        ra.import_msal_cache(app, text)
        app.remove_account(app.get_accounts("ann@contoso.com")[0])
        clock.skip(5)
        account = sign_in(app)
        again = life()
        ra.import_msal_cache(again, text)
        idp.fail(Fault.refuse())
        assert life().acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"

    def test_a_cache_that_was_written_after_the_sign_out_counts(
        self, idp: Emulator, life: Callable[..., Any], clock: Any
    ) -> None:
        """The user signed in again at the application that still keeps it."""
        app = life()
        ra.import_msal_cache(app, self.former(idp).serialize())
        (account,) = app.get_accounts("ann@contoso.com")
        app.remove_account(account)
        clock.skip(3600)
        later = json.loads(self.former(idp).serialize())
        for entry in later["RefreshToken"].values():
            entry["last_modification_time"] = str(int(clock.wall()) - 60)
        ra.import_msal_cache(life(), json.dumps(later))
        assert life().get_accounts("ann@contoso.com") == [account]

    def test_a_removal_that_isnt_written_yet_counts_too(
        self, idp: Emulator, life: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """The store was dead when the user signed out, and is when the cache is brought in again."""
        text = self.former(idp).serialize()
        app = life()
        ra.import_msal_cache(app, text)
        (account,) = app.get_accounts("ann@contoso.com")
        clock.skip(5)
        backend.failing = True
        with pytest.raises(ra.StoreUnavailable):
            app.remove_account(account)
        clock.skip(5)
        ra.import_msal_cache(app, text)
        backend.failing = False
        clock.skip(11)
        settled(app)
        for each in (app, life()):
            assert each.acquire_token_silent(USER_SCOPE, account) is None
            assert each.get_accounts("ann@contoso.com") == []


class TestOtherTenants:
    def ask(self, app: Any, account: Any, tenant: str) -> str:
        """Get a token of another tenant, and have it written down."""
        credential = ra.ResilientCredential(app, account=account, additionally_allowed_tenants=["*"])
        token: str = credential.get_token(USER_SCOPE[0], tenant_id=tenant).token
        for each in credential._core._sources[0]._siblings:
            settled(each)
        return token

    def test_a_sign_out_reaches_the_tenants_that_nobody_has_loaded(
        self, idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
    ) -> None:
        """The record of another tenant has the same refresh token, which is good there."""
        app = life()
        account = sign_in(app)

        far = self.ask(app, account, "fabrikam")
        assert self.ask(life(), account, "fabrikam") == far
        other = life()
        other.remove_account(other.get_accounts("ann@contoso.com")[0])
        with pytest.raises(ra.TokenDenied):
            self.ask(life(), account, "fabrikam")
        with pytest.raises(ra.TokenDenied):
            self.ask(other, account, "fabrikam")

    def test_a_new_sign_in_is_good_in_the_other_tenants_again(
        self, idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]
    ) -> None:
        """What a sign-out left there keeps nobody out, and what comes is kept for the next process."""
        app = life()
        account = sign_in(app)
        far = self.ask(app, account, "fabrikam")
        life().remove_account(account)
        again = life()
        sign_in(again)
        new = self.ask(again, account, "fabrikam")
        assert new != far
        idp.fail(Fault.refuse())
        assert self.ask(life(), account, "fabrikam") == new


class TestRealStores:
    @pytest.fixture(params=["file", "valkey"])
    def process(self, request: Any, tmp_path: Path, life: Callable[..., Any]) -> Callable[..., Any]:
        """Build an application as a new process with these keys would."""
        tmp_path.chmod(0o700)
        url = request.getfixturevalue("redis_url") if request.param == "valkey" else ""

        def build(*keys: bytes) -> Any:
            store = ra.RedisStore(url, [*keys]) if url else ra.FileStore(tmp_path / "store", [*keys])
            return life(store=store)

        return build

    def test_users_come_and_go_through_a_rotation(
        self, process: Callable[..., Any], sign_in: Callable[..., Any]
    ) -> None:
        """Found by name while they are active, signed out everywhere, signed in again after a retired key."""
        old, new = os.urandom(32), os.urandom(32)
        ann, bob = sign_in(process(old)), sign_in(process(old), "bob@contoso.com")
        app = process(old, new)
        assert app.get_accounts("ann@contoso.com") == [ann]
        app = process(new, old)
        app.remove_account(bob)
        assert process(new, old).get_accounts("bob@contoso.com") == []
        app = process(new)
        assert app.get_accounts("ann@contoso.com") == []  # whose record nobody has written since
        assert sign_in(app) == ann
        again = process(new)
        assert [account["username"] for account in again.get_accounts()] == ["ann@contoso.com"]
        assert again.acquire_token_silent(USER_SCOPE, ann)["token_source"] == "cache"
        again.remove_account(ann)
        assert process(new).get_accounts() == []
        assert process(new).acquire_token_silent(USER_SCOPE, ann) is None

    def test_the_applications_own_tokens_are_apart_and_go_together(
        self, idp: Emulator, process: Callable[..., Any]
    ) -> None:
        """A record for each set of scopes."""
        key = os.urandom(32)
        apis = [[f"https://api-{number}.example/.default"] for number in range(5)]
        tokens = [process(key).acquire_token_for_client(scopes)["access_token"] for scopes in apis]
        again = process(key)
        assert [again.acquire_token_for_client(scopes)["access_token"] for scopes in apis] == tokens
        process(key).remove_tokens_for_client()
        fresh = process(key)
        assert not set(tokens) & {fresh.acquire_token_for_client(scopes)["access_token"] for scopes in apis}


def test_who_signs_in_doesnt_wait_for_what_is_to_be_written_of_others() -> None:
    """After an outage that may be thousands. What this sign-in has brought is written before anybody is told of it."""
    clock, here = ManualClock(patience=2.0), threading.get_ident()
    backend, busy, gate = BreakableBackend(clock), threading.Event(), threading.Event()
    keys = [os.urandom(32)]
    process = Process(backend, clock, keys)
    put = backend.put

    def slow(*args: Any, **options: Any) -> Any:
        if threading.get_ident() != here:
            busy.set()
            gate.wait(10)
        return put(*args, **options)

    backend.put = slow  # type: ignore[method-assign]
    for number in range(3):
        process.add(f"user{number}", "any", grant="authorization_code")
    assert busy.wait(5)
    process.sign_in("last", "token")
    assert Process(backend, clock, keys).finds("last")
    gate.set()
    process.die()


def test_an_access_token_that_is_over_is_taken_out_without_a_write() -> None:
    """MSAL sweeps those of all users out at once, in the middle of somebody's exchange; a record's next write does."""
    clock = ManualClock()
    backend = CountingBackend(clock)
    process = Process(backend, clock, [os.urandom(32)])
    for who in ("ann", "bob"):
        process.sign_in(who, "any")
    clock.advance(4000.0)
    cache, before = process.session.look_at_cache(), len(backend.writes)
    with process.shared_cache.saving_later():
        for entry in list(cache.search("AccessToken", query={}, now=0)):
            cache.remove_at(entry)
    assert process.shared_cache.settled
    assert len(backend.writes) == before
    assert not list(cache.search("AccessToken", query={}, now=0))
    process.die()
