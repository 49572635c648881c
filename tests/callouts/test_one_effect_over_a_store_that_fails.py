"""Whatever becomes of the store, a process gives a request one effect; and it tells the store nothing that isn't so."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from databases import KEY
from provider_requests import event, posed, store_was_told
from store_that_fails import FailingStore

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.callouts import ApiConnector, BasicCaller, Callout, Continue, RestProfile, TokenIssuanceStart
from resilient_auth.callouts.caller import Arriving
from resilient_auth.callouts.contract import Reply
from resilient_auth.events import CalloutDefaulted
from resilient_auth.settings import BreakerOptions
from resilient_auth.store import BackendFailed
from resilient_auth.testing import capture_events

ANYBODY = BasicCaller({"entra": "a password, in tests"})
NEVER = BreakerOptions(consecutive_failures=1000, failure_rate=1.0, minimum_throughput=1000)


class Handler:
    """Counts its effects; hangs or fails on command."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False

    def __call__(self, request: Any) -> Any:
        self.effects.append(request.correlation_id)
        self.may_go_on.wait(20.0)
        if self.fails:
            raise OSError("the database is dead")
        return Continue({"effect": str(len(self.effects))})

    async def in_a_task(self, request: Any) -> Any:
        self.effects.append(request.correlation_id)
        while not self.may_go_on.is_set():
            await asyncio.sleep(0.005)
        if self.fails:
            raise OSError("the database is dead")
        return Continue({"effect": str(len(self.effects))})


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler()
    yield made
    made.may_go_on.set()


def claims_in(reply: Reply) -> Any:
    return json.loads(reply.body)["data"]["actions"][0]["claims"]


def of_entra(handler: Any, **options: Any) -> Callout[TokenIssuanceStart]:
    given: dict[str, Any] = {"caller": ANYBODY, "default": Continue(), "timeout": 2.0, "deadline": 1.0}
    return Callout(TokenIssuanceStart, handler, **given | {"breaker": NEVER} | options)


@pytest.fixture(params=["dead", "hangs", "flaps"])
def failing(request: pytest.FixtureRequest) -> Iterator[FailingStore]:
    store = FailingStore(request.param)
    yield store
    store.go_on()


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "at once"])
def test_without_the_store_a_repeated_request_has_one_effect_in_this_process(
    handler: Handler, failing: FailingStore, awaits: bool, fails: bool, together: bool
) -> None:
    """With `when_store_fails="run"`, the default."""
    callout = of_entra(handler.in_a_task if awaits else handler, store=failing)
    handler.fails = fails
    body = event()
    if together:
        handler.may_go_on.clear()
        with ThreadPoolExecutor(4) as threads:
            sent = [threads.submit(posed, callout, body) for _ in range(4)]
            while not handler.effects:
                threading.Event().wait(0.005)
            handler.may_go_on.set()
            replies = [one.result() for one in sent]
    else:
        replies = [posed(callout, body) for _ in range(3)]
    assert len(handler.effects) == 1
    assert [claims_in(reply) for reply in replies] == [{} if fails else {"effect": "1"}] * len(replies)


class Way:
    """One process's way to it."""

    label = "a way"

    def __init__(self, medium: MemoryBackend) -> None:
        self._medium = medium
        self.open = threading.Event()
        self.open.set()
        self.waits = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._medium, name)

        def passing(*args: Any, **options: Any) -> Any:
            if not self.waits and not self.open.is_set():
                raise BackendFailed("connection_failed")
            self.open.wait(20.0)
            return call(*args, **options)

        return passing if callable(call) else call


@pytest.mark.parametrize("mode", ["run", "default"])
def test_who_could_not_ask_the_store_does_not_say_that_another_processs_request_failed(
    handler: Handler, mode: Any
) -> None:
    medium = MemoryBackend()
    ways = [Way(medium) for _ in range(3)]
    here, slow, later = (
        of_entra(handler, store=ra.SealedStore(way, key=KEY), when_store_fails=mode)  # type: ignore[arg-type]
        for way in ways
    )
    body = event()
    assert claims_in(posed(here, body)) == {"effect": "1"}
    store_was_told(here)
    handler.fails = True
    ways[1].open.clear()
    assert claims_in(posed(slow, body)) == {}
    ways[1].open.set()
    store_was_told(slow)
    assert claims_in(posed(later, body)) == {"effect": "1"}


def test_a_request_of_a_process_that_died_is_not_run_again(handler: Handler, tmp_path: Path) -> None:
    """Nobody knows whether it has had its effect."""
    body = event()
    stores = [ra.FileStore(tmp_path / "shared.db") for _ in range(2)]
    died, restarted = (of_entra(handler, store=store) for store in stores)
    for store in stores:
        store.read("callout", "none")  # so that a busy disk doesn't take the store's share of the deadline
    handler.may_go_on.clear()
    assert claims_in(posed(died, body)) == {}
    with capture_events() as seen:
        assert claims_in(posed(restarted, body)) == {}
        (defaulted,) = seen.wait_for(CalloutDefaulted)
    assert defaulted.code == "slow"
    store_was_told(restarted)  # nobody asks it again for a caller who has gone
    assert len(handler.effects) == 1
    for store in stores:
        store.close()


@pytest.mark.parametrize("mode", ["run", "default"])
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
def test_what_runs_elsewhere_is_not_run_here_when_the_store_fails_then(
    handler: Handler, mode: Any, hangs: bool
) -> None:
    """As in the last milliseconds before the deadline, in which no store answers."""
    medium = MemoryBackend()
    ways = [Way(medium) for _ in range(2)]
    one, other = (
        of_entra(handler, store=ra.SealedStore(way, key=KEY), when_store_fails=mode)  # type: ignore[arg-type]
        for way in ways
    )
    body = event()
    handler.may_go_on.clear()
    assert claims_in(posed(one, body)) == {}
    ways[1].waits = hangs
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(posed, other, body)
        while not any(run.repeated for run in list(other._handling.once._runs.values())):
            threading.Event().wait(0.005)
        ways[1].open.clear()
        assert claims_in(sent.result()) == {}
    ways[1].open.set()
    store_was_told(other)
    assert len(handler.effects) == 1


@pytest.mark.parametrize("store", [False, True], ids=["alone", "shared"])
def test_the_order_of_members_and_blanks_make_no_other_request(handler: Handler, tmp_path: Path, store: bool) -> None:
    shared = ra.FileStore(tmp_path / "shared.db") if store else None
    callout = of_entra(handler, store=shared)
    body = event()
    turned = {"data": dict(reversed(body["data"].items())), "source": body["source"], "type": body["type"]}
    for sent in (body, json.dumps(body, indent=2).encode(), json.dumps(turned).encode()):
        assert claims_in(posed(callout, sent)) == {"effect": "1"}


def by(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def test_another_caller_with_the_same_words_gets_no_answer_of_the_first_ones(handler: Handler, tmp_path: Path) -> None:
    """Two tenants of B2C, say, each with a password of its own: what they send may be the same."""
    callers = BasicCaller({"contoso": "the password of contoso", "fabrikam": "the password of fabrikam"})
    store = ra.FileStore(tmp_path / "shared.db")
    callout = Callout(ApiConnector, handler, caller=callers, default=Continue(), store=store)
    body = {"email": "ada@contoso.com", "step": "PostAttributeCollection"}
    answers = {
        name: [json.loads(posed(callout, body, by(name, f"the password of {name}")).body)["effect"] for _ in range(2)]
        for name in ("contoso", "fabrikam")
    }
    assert answers == {"contoso": ["1", "1"], "fabrikam": ["2", "2"]}
    store.close()


def test_a_policys_request_that_names_no_sign_in_shares_its_answer_with_nobody(handler: Handler) -> None:
    """What a policy sends needn't tell one user from another: a voucher that a handler gives is one user's."""
    callout = Callout(RestProfile, handler, caller=ANYBODY, default=Continue())
    assert posed(callout, {"campaign": "x"}).body != posed(callout, {"campaign": "x"}).body
    named = {"campaign": "x", "correlationId": "c"}
    assert posed(callout, named).body == posed(callout, named).body


@pytest.mark.parametrize("said", [False, True, 1, b"tenant", object()])
def test_a_caller_of_the_owners_that_says_something_else_than_a_tenant_lets_nobody_in(
    handler: Handler, said: Any
) -> None:
    """It may mean no by it."""

    class Own:
        waits = False

        def admit(self, arriving: Any) -> Any:
            return said

    connector = Callout(ApiConnector, handler, caller=Own(), default=Continue())
    assert posed(connector, {"email": "ada@contoso.com"}).status == 503
    assert posed(of_entra(handler, caller=Own()), event()).status == 503
    assert not handler.effects


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_caller_that_goes_away_at_any_moment_leaves_the_answer_for_its_retry(
    handler: Handler, tmp_path: Path, awaits: bool, shared: bool
) -> None:
    """The server cancels whoever waits for it, wherever they are."""
    store = ra.FileStore(tmp_path / "shared.db") if shared else None
    chosen = handler.in_a_task if awaits else handler
    callout = of_entra(chosen, store=store, concurrency=4, queue=8, caller=Waits(), deadline=1.5)

    async def go_away(turns: int) -> bool:
        body = json.dumps(event()).encode()

        async def read(most: int, seconds: float) -> bytes:
            await asyncio.sleep(0)
            return body

        before = len(handler.effects)
        task = asyncio.create_task(callout.answer_async(ARRIVING, read))
        for _ in range(turns):
            await asyncio.sleep(0)
        gone = not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reply = await callout.answer_async(ARRIVING, read)
        assert len(handler.effects) == before + 1, turns
        assert claims_in(reply) == {"effect": str(before + 1)}, turns
        return gone

    async def all_of_them() -> None:
        for turns in range(400):
            if not await go_away(turns):
                return
        if awaits and not shared:
            pytest.fail("it was never over")

    asyncio.run(all_of_them())
    if store is not None:
        store.close()


class Waits:
    """A caller who is looked at on another thread."""

    waits = True

    def admit(self, arriving: Any) -> None:
        return None


ARRIVING = Arriving(lambda name: ["application/json"] if name == "Content-Type" else [])
