"""Users whom the store can't tell of: it fails, or their records can't be opened. Nobody is taken for signed out."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleet_world import SCOPE, USER_SCOPE, BreakableBackend

import resilient_auth as ra
from resilient_auth.events import RemovalPostponed, RemovalWritten
from resilient_auth.health.verdict import Seen, judge
from resilient_auth.testing import capture_events

OLD, NEW = os.urandom(32), os.urandom(32)
MAIL = ["https://graph.microsoft.com/Mail.Read"]


def settled(app: Any) -> None:
    ends = time.monotonic() + 8
    while not app._ra_session.shared_cache.settled:
        assert time.monotonic() < ends, "it isn't written"
        time.sleep(0.01)


class CountingBackend(BreakableBackend):
    """A medium that counts what it is asked, hangs on command, and may let each comparison fail."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock)
        self.calls = 0
        self.contended = ""
        self.gate = threading.Event()
        self.gate.set()

    def _check(self) -> None:
        self.calls += 1
        self.gate.wait(30)
        super()._check()

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        if self.contended and key.startswith(self.contended):
            self._check()
            return None
        return super().put(key, value, **options)


@pytest.fixture
def backend(clock: Any) -> Iterator[CountingBackend]:
    made = CountingBackend(clock)
    yield made
    made.gate.set()


@pytest.fixture
def with_keys(life: Callable[..., Any], backend: CountingBackend, clock: Any) -> Callable[..., Any]:
    """Build an application as a new process with these keys would."""

    def build(*keys: bytes, **options: Any) -> Any:
        return life(store=ra.SealedStore(backend, key=[*keys], clock=clock), **options)

    return build


class TestAStoreThatFails:
    def test_a_user_who_isnt_in_memory_isnt_unknown(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """By name and among all: whether they are signed in can't be told, and an empty list would tell it."""
        account = sign_in(life())
        app = life()
        backend.failing = True
        for username in ("ann@contoso.com", "Ann@contoso.com", None) * 2:
            with pytest.raises(ra.StoreUnavailable):
                app.get_accounts(username)
        backend.failing = False
        clock.skip(11)
        assert app.get_accounts("ann@contoso.com") == [account]

    async def test_nor_for_tasks(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """The asyncio face says the same, a sign-out included."""
        account = await asyncio.to_thread(sign_in, await asyncio.to_thread(life))
        app = ra.aio.wrap(await asyncio.to_thread(life))
        backend.failing = True
        for username in ("ann@contoso.com", None):
            with pytest.raises(ra.StoreUnavailable):
                await app.get_accounts(username)
        with pytest.raises(ra.ProviderUnavailable, match="it is unknown whether"):
            await app.acquire_token_silent(USER_SCOPE, account)
        with pytest.raises(ra.StoreUnavailable):
            await app.remove_account(account)
        backend.failing = False
        clock.skip(11)
        await asyncio.to_thread(settled, app.app)

    def test_who_is_in_memory_is_found_there(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """An outage of the store costs them nothing."""
        app = life()
        account = sign_in(app)
        backend.failing = True
        clock.skip(120)
        assert app.get_accounts("ann@contoso.com") == [account]
        assert app.get_accounts() == [account]
        with pytest.raises(ra.StoreUnavailable):
            app.get_accounts("bob@contoso.com")

    def test_one_that_hangs_is_waited_for_as_long_as_the_caller_waits(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend
    ) -> None:
        """Then that is said, and no list is made up."""
        sign_in(life())
        app = life()
        backend.gate.clear()
        for username in ("ann@contoso.com", None):
            with ra.wait_at_most(0.2), pytest.raises(ra.StoreUnavailable, match="timeout"):
                app.get_accounts(username)
        backend.gate.set()
        assert [a["username"] for a in app.get_accounts("ann@contoso.com")] == ["ann@contoso.com"]

    def test_that_somebody_was_unknown_once_says_nothing_of_now(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """They may have signed in at another process since; the silent call doesn't say that they haven't."""
        here, there = life(), life()
        account = sign_in(there)
        there.remove_account(account)
        assert here.acquire_token_silent(USER_SCOPE, account) is None
        sign_in(there)
        backend.failing = True
        for ask in (here.acquire_token_silent, here.acquire_token_silent_with_error):
            with pytest.raises(ra.ProviderUnavailable, match="it is unknown whether"):
                ask(MAIL, account)
        backend.failing = False
        clock.skip(11)
        assert here.acquire_token_silent(MAIL, account) is not None

    def test_removed_tokens_of_an_application_are_told_too(
        self, life: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """They are gone here, and from the store when it is back."""
        app = life()
        app.acquire_token_for_client(SCOPE)
        backend.failing = True
        with pytest.raises(ra.StoreUnavailable):
            app.remove_tokens_for_client()
        assert ra.health().removals_pending == 1
        assert app.acquire_token_for_client(SCOPE)["token_source"] == "identity_provider"
        backend.failing = False
        clock.skip(11)
        settled(app)
        assert ra.health().removals_pending == 0


class TestARecordThatCantBeOpened:
    def rotated(self, with_keys: Callable[..., Any]) -> None:
        """Have the medium see a rotation, step by step."""
        for keys in ((OLD, NEW), (NEW, OLD)):
            with_keys(*keys).acquire_token_for_client([f"https://api-{keys[0][0]}.example/.default"])

    def test_a_retired_keys_user_signs_in_again(
        self, with_keys: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend
    ) -> None:
        """And is found from then on, by name too, at a bounded cost."""
        sign_in(with_keys(OLD))
        self.rotated(with_keys)
        app = with_keys(NEW)
        assert app.get_accounts("ann@contoso.com") == []
        before = backend.calls
        account = sign_in(app)
        settled(app)
        assert backend.calls - before < 60
        again = with_keys(NEW)
        assert again.get_accounts("ann@contoso.com") == [account]
        assert again.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
        assert app._ra_session.engine.shared.store._gate.status().unreadable == 0

    def test_a_newer_keys_record_gives_way_to_a_sign_in(
        self, with_keys: Callable[..., Any], sign_in: Callable[..., Any]
    ) -> None:
        """A process that hasn't the new key yet serves who signs in there; who has both finds that."""
        self.rotated(with_keys)
        sign_in(with_keys(NEW, OLD))
        app = with_keys(OLD)
        account = sign_in(app)
        settled(app)
        assert with_keys(NEW, OLD).acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
        assert with_keys(OLD).get_accounts("ann@contoso.com") == [account]

    def test_a_newer_keys_record_gives_way_to_a_sign_out(
        self, with_keys: Callable[..., Any], sign_in: Callable[..., Any]
    ) -> None:
        """A removal owes nothing to what was there."""
        behind = with_keys(OLD)
        account = sign_in(behind)
        self.rotated(with_keys)
        ahead = with_keys(NEW, OLD)
        assert ahead.acquire_token_silent(MAIL, account) is not None
        settled(ahead)
        behind.remove_account(account)
        assert with_keys(NEW, OLD).acquire_token_silent(USER_SCOPE, account) is None
        assert with_keys(NEW, OLD).get_accounts("ann@contoso.com") == []

    def test_what_another_process_can_open_costs_a_bounded_number_of_calls(
        self, with_keys: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """A refresh doesn't replace it: it is tried some times an hour, and other users' records are written."""
        behind = with_keys(OLD)
        account = sign_in(behind)
        self.rotated(with_keys)
        ahead = with_keys(NEW, OLD)
        assert ahead.acquire_token_silent(MAIL, account) is not None
        settled(ahead)
        before = backend.calls
        assert behind.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is not None
        assert backend.calls - before < 60
        other = sign_in_unsettled(behind, sign_in, backend)
        ends = time.monotonic() + 5
        while with_keys(OLD).get_accounts("bob@contoso.com") != [other]:
            assert time.monotonic() < ends
        before = backend.calls
        for _ in range(60):
            clock.skip(5)
            time.sleep(0.01)
        assert backend.calls - before < 60
        assert behind.acquire_token_silent(USER_SCOPE, account) is not None
        assert with_keys(NEW).acquire_token_silent(MAIL, account)["token_source"] == "cache"

    def test_garbage_is_replaced_by_who_signs_in(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """And by who is in memory: what can be opened and says nothing is nobody's."""
        store = ra.SealedStore(backend, key=os.urandom(32), clock=clock)
        app = life(store=store)
        account = sign_in(app)
        name = f"{app._ra_identity.label} {account['home_account_id']}"
        usernames = f"{app._ra_identity.label} ann@contoso.com"
        for garbage in (b"garbage", b"{}", b'{"of": 5}'):
            store.write("user_record", name, garbage, ttl=1e6)
            store.write("usernames", usernames, garbage, ttl=1e6)
            assert life(store=store).acquire_token_silent(USER_SCOPE, account) is None
            sign_in(app)
            settled(app)
            again = life(store=store)
            assert again.get_accounts("ann@contoso.com") == [account]
            assert again.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
        store.write("user_record", name, b"garbage", ttl=1e6)
        assert app.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is not None
        settled(app)
        assert life(store=store).acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"

    def test_garbage_doesnt_keep_a_sign_out_from_being_made(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """The note of it takes its place."""
        store = ra.SealedStore(backend, key=os.urandom(32), clock=clock)
        here, there = life(store=store), life(store=store)
        account = sign_in(here)
        assert there.acquire_token_silent(USER_SCOPE, account) is not None
        store.write("user_record", f"{here._ra_identity.label} {account['home_account_id']}", b"garbage", ttl=1e6)
        here.remove_account(account)
        assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None


class TestARecordThatOthersWrite:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it isn't closed, that is the point
    def test_a_sign_out_outlives_its_application_object(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any
    ) -> None:
        """Servers that make one for each request don't lose it."""
        there = life()
        account = sign_in(there)
        app = life(wrap=True)
        backend.failing = True
        with pytest.raises(ra.StoreUnavailable):
            app.remove_account(account)
        shared_cache = weakref.ref(app._ra_session.shared_cache)
        app._ra_transport.close()
        forget(life)
        del app
        gc.collect()
        assert ra.health().removals_pending == 1
        backend.failing = False
        clock.skip(11)
        ends = time.monotonic() + 8
        while ra.health().removals_pending:
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None
        del there
        while shared_cache() is not None and time.monotonic() < ends:
            gc.collect()
            time.sleep(0.01)
        assert shared_cache() is None

    @pytest.mark.parametrize("kind", ["user_record", "usernames"])
    def test_a_sign_out_is_made_or_told(
        self, life: Callable[..., Any], sign_in: Callable[..., Any], backend: CountingBackend, clock: Any, kind: str
    ) -> None:
        """However often somebody else was faster; it is tried until it is made."""
        app, there = life(), life()
        account = sign_in(app)
        assert there.acquire_token_silent(USER_SCOPE, account) is not None
        backend.contended = kind
        before = backend.calls
        with capture_events() as events:
            with pytest.raises(ra.StoreUnavailable, match="contended"):
                app.remove_account(account)
            assert backend.calls - before < 80
            events.wait_for(RemovalPostponed)
            assert app.acquire_token_silent(USER_SCOPE, account) is None
            pending = ra.health().removals_pending
            assert (pending, judge(Seen(at=0.0, removals_pending=pending))[0]) == (1, "degraded")
            backend.contended = ""
            clock.skip(6)
            settled(app)
            events.wait_for(RemovalWritten)
        assert ra.health().removals_pending == 0
        assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True) is None
        assert life().get_accounts("ann@contoso.com") == []


def forget(life: Callable[..., Any]) -> None:
    """Let the fixture let go of what it has built."""
    for cell in life.__closure__ or ():
        if isinstance(cell.cell_contents, list):
            cell.cell_contents.clear()


def sign_in_unsettled(app: Any, sign_in: Callable[..., Any], backend: CountingBackend) -> Any:
    """Sign bob in without waiting for everything to be written: something never is."""
    answers: list[Any] = []
    signing = threading.Thread(target=lambda: answers.append(sign_in(app, "bob@contoso.com")), daemon=True)
    signing.start()
    ends = time.monotonic() + 8
    while not (found := app.get_accounts("bob@contoso.com")):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return found[0]
