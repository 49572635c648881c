"""Claims that were given last stand in for nobody else, and for nobody to whom the handler has said no since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databases import KEY
from provider_requests import posed

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.callouts import ApiConnector, BasicCaller, Callout, Continue, LastKnown, RestProfile, ShowBlockPage
from resilient_auth.settings import BreakerOptions
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock

ANYBODY = BasicCaller({"entra": "a password, in tests"})
NEVER = BreakerOptions(consecutive_failures=1000, failure_rate=1.0, minimum_throughput=1000)
GOLD, NO = Continue({"tier": "gold"}), ShowBlockPage("No.")


class Medium(MemoryBackend):
    """One whose calls wait, or fail, on command."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        #: Set where writes go through; the keys of those that wait are told.
        self.open = threading.Event()
        self.open.set()

    def _pass(self) -> None:
        if self.fails:
            raise BackendFailed("timeout")
        self.open.wait(20.0)

    def get(self, key: str) -> Any:
        self._pass()
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        self._pass()
        return super().get_many(keys)

    def put(self, *args: Any, **options: Any) -> Any:
        self._pass()
        return super().put(*args, **options)

    def delete(self, *args: Any, **options: Any) -> Any:
        self._pass()
        return super().delete(*args, **options)


@pytest.fixture
def medium() -> Iterator[Medium]:
    made = Medium()
    yield made
    made.open.set()


class Handler:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.says: Any = GOLD

    def __call__(self, request: ApiConnector) -> Any:
        if self.says is None:
            raise OSError("the database is dead")
        return self.says


def of_users(handler: Callable[[Any], Any], medium: Medium | None, **options: Any) -> Callout[Any]:
    given: dict[str, Any] = {"asks": ApiConnector, "timeout": 2.0, "deadline": 1.2, "breaker": NEVER}
    given |= {"store": None if medium is None else ra.SealedStore(medium, key=KEY)}
    given |= {"default": LastKnown(otherwise=ShowBlockPage("Later.")), "caller": ANYBODY} | options
    return Callout(given.pop("asks"), handler, **given)


numbers = iter(range(1000))


def ask(callout: Callout[Any], user: str = "u-1") -> bytes:
    return posed(callout, {"objectId": user, "client_id": "a", "n": next(numbers)}).body


def settled(callout: Callout[Any]) -> None:
    """Wait until the store was told what it is to know."""
    pause = threading.Event()
    for _ in range(400):
        if not callout._handling._workers.status():
            return
        pause.wait(0.005)
    pytest.fail("it is still told")


@pytest.mark.parametrize("how", ["hangs", "fails", "works"])
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_no_ends_what_was_known_whatever_the_store_does(medium: Medium, how: str, comes_back: bool) -> None:
    handler = Handler()
    callout = of_users(handler, medium)
    assert b"gold" in ask(callout)
    settled(callout)
    if how == "hangs":
        medium.open.clear()
    medium.fails = how == "fails"
    handler.says = NO
    assert b"No." in ask(callout)
    if comes_back:
        medium.fails = False
        medium.open.set()
        settled(callout)
    handler.says = None
    assert b"Later." in ask(callout)


def test_a_no_of_one_process_ends_what_another_one_knows(medium: Medium) -> None:
    handler = Handler()
    here, there = of_users(handler, medium), of_users(handler, medium)
    for callout in (here, there):
        assert b"gold" in ask(callout)
        settled(callout)
    handler.says = NO
    assert b"No." in ask(there)
    settled(there)
    handler.says = None
    assert b"Later." in ask(here)


def test_what_was_said_first_is_not_kept_last_where_the_store_is_slow(medium: Medium) -> None:
    """Whatever the order in which the store's calls get through."""
    handler = Handler()
    here, there = of_users(handler, medium), of_users(handler, medium)
    medium.open.clear()
    assert b"gold" in ask(here)
    medium.open.set()
    handler.says = NO
    kept = here._handling._last
    assert kept is not None
    yes = dict(kept._kept)
    assert b"No." in ask(there)
    settled(here)
    settled(there)
    # What the first one had to tell comes once more, and late.
    for name, one in yes.items():
        kept.tell(name, one)
    handler.says = None
    assert b"Later." in ask(of_users(handler, medium))


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_claims_are_the_users_own_though_the_handler_writes_all_into_one_dict(medium: Medium, awaits: bool) -> None:
    """It is changed for the next user before the store was told of the last one."""
    shared: dict[str, Any] = {}
    dead = threading.Event()

    def answer(request: Any) -> Any:
        if dead.is_set():
            raise OSError("the database is dead")
        shared["of"] = request.user_id
        shared["roles"] = [request.user_id]
        return Continue(shared)

    async def in_a_task(request: Any) -> Any:
        return answer(request)

    callout = of_users(in_a_task if awaits else answer, medium)
    medium.open.clear()
    for user in ("u-1", "u-2"):
        assert user.encode() in ask(callout, user)
    medium.open.set()
    settled(callout)
    dead.set()
    for one in (callout, of_users(answer, medium)):
        for user in ("u-1", "u-2"):
            assert f'"of":"{user}","roles":["{user}"]'.encode() in ask(one, user)


def test_another_contract_of_the_same_name_has_claims_of_its_own(medium: Medium) -> None:
    handler = Handler()
    connector = of_users(handler, medium, name="users")
    assert b"gold" in ask(connector)
    settled(connector)
    handler.says = None
    assert b"Later." in ask(of_users(handler, medium, name="users", asks=RestProfile))


def test_claims_that_cannot_be_read_stand_in_for_nothing(medium: Medium) -> None:
    """Another release may have kept them."""
    handler = Handler()
    callout = of_users(handler, medium)
    assert b"gold" in ask(callout)
    settled(callout)
    store = callout._handling._store
    assert store is not None
    (record,) = store.scan("callout-claims")
    handler.says = None
    for value in (b"[]", b"{}", b"\xff", b'{"at":"x","claims":{}}', b'{"at":1e12,"claims":[]}', b'{"at":0,"claims":7}'):
        store.write("callout-claims", record.name, value, ttl=60.0)
        assert b"Later." in ask(of_users(handler, medium))


def test_users_of_any_name_are_told_apart(medium: Medium) -> None:
    handler = Handler()
    callout = of_users(handler, medium)
    users = ["a", "A", "\u00e4", "a\u0308", '"', "\\", "\u0000", "\U0001f600" * 128]
    for user in users:
        handler.says = Continue({"of": user})
        ask(callout, user)
    settled(callout)
    handler.says = None
    after = of_users(handler, medium)
    for number, user in enumerate(users):
        assert ask(after, user) == ask(callout, user), number
        assert b"Later." not in ask(after, user)


def test_a_clock_that_was_ahead_for_a_while_lets_no_earlier_yes_count_for_later(medium: Medium) -> None:
    clock = ManualClock()
    handler = Handler()
    callout = of_users(handler, medium, clock=clock)
    clock.jump(600.0)
    assert b"gold" in ask(callout)
    settled(callout)
    clock.jump(-600.0)
    handler.says = NO
    assert b"No." in ask(callout)
    settled(callout)
    handler.says = None
    for seconds in (0.0, 599.0, 100.0):
        clock.advance(seconds)
        for one in (callout, of_users(handler, medium, clock=clock)):
            assert b"Later." in ask(one)
    # And what is said now counts at once.
    clock.jump(600.0)
    handler.says = GOLD
    assert b"gold" in ask(callout)
    settled(callout)
    clock.jump(-600.0)
    clock.advance(5.0)
    handler.says = Continue({"tier": "silver"})
    assert b"silver" in ask(callout)
    settled(callout)
    handler.says = None
    for one in (callout, of_users(handler, medium, clock=clock)):
        assert b"silver" in ask(one)
