"""A request that the provider sends again has one effect and one answer, in every process, whatever else fails."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_child
from provider_requests import event, posed, store_was_told
from store_that_fails import FailingStore

import resilient_auth as ra
from resilient_auth.callouts import (
    ApiConnector,
    AttributeCollectionSubmit,
    BasicCaller,
    Callout,
    Continue,
    LastKnown,
    ShowBlockPage,
    ShowValidationError,
    TokenIssuanceStart,
)
from resilient_auth.callouts.contract import Reply
from resilient_auth.events import CalloutAnswered, CalloutDefaulted
from resilient_auth.settings import BreakerOptions
from resilient_auth.testing import ManualClock, capture_events

ANYBODY = BasicCaller({"entra": "a password, in tests"})
NEVER = BreakerOptions(consecutive_failures=1000, failure_rate=1.0, minimum_throughput=1000)


class Handler:
    """Counts its effects; hangs or fails on command."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False
        self.claims: dict[str, Any] = {"tier": "gold"}

    def __call__(self, request: Any) -> Any:
        self.effects.append(request.correlation_id)
        if self.fails:
            raise OSError("the database is dead")
        self.may_go_on.wait(20.0)
        return Continue({**self.claims, "effect": str(len(self.effects))})


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler()
    yield made
    made.may_go_on.set()


def claims_in(reply: Reply) -> Any:
    return json.loads(reply.body)["data"]["actions"][0]["claims"]


def of_entra(handler: Any, **options: Any) -> Callout[TokenIssuanceStart]:
    given: dict[str, Any] = {"caller": ANYBODY, "default": Continue(), "timeout": 2.0, "deadline": 1.5}
    return Callout(TokenIssuanceStart, handler, **given | options)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], ra.FileStore]]:
    """Make the stores of so many processes, over one file."""
    made: list[ra.FileStore] = []

    def make() -> ra.FileStore:
        made.append(ra.FileStore(tmp_path / "shared.db"))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_a_repeated_request_gets_the_first_ones_answer(handler: Handler) -> None:
    callout = of_entra(handler)
    body = event()
    with capture_events() as told:
        first, second = posed(callout, body), posed(callout, body)
        answered = told.wait_for(CalloutAnswered, count=2)
    assert claims_in(first) == claims_in(second) == {"tier": "gold", "effect": "1"}
    assert len(handler.effects) == 1
    assert [one.repeated for one in answered] == [False, True]


def test_a_repeated_request_waits_for_the_first_one_that_still_runs(handler: Handler) -> None:
    callout = of_entra(handler)
    body = event()
    handler.may_go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(posed, callout, body) for _ in range(2)]
        time.sleep(0.1)
        handler.may_go_on.set()
        assert {json.dumps(claims_in(one.result())) for one in both} == {'{"tier": "gold", "effect": "1"}'}
    assert len(handler.effects) == 1


def test_the_retry_after_a_default_gets_the_answer_of_the_run_that_went_on(handler: Handler) -> None:
    """The provider gave up, and so did this API; the effect is there, and the retry learns of it."""
    callout = of_entra(handler, deadline=0.5)
    body = event()
    handler.may_go_on.clear()
    assert claims_in(posed(callout, body)) == {}
    handler.may_go_on.set()
    time.sleep(0.1)
    assert claims_in(posed(callout, body)) == {"tier": "gold", "effect": "1"}
    assert len(handler.effects) == 1


def test_another_process_gives_the_first_ones_answer_too(handler: Handler, stores: Any) -> None:
    """Two callouts over stores of their own, of one file, are what two processes have."""
    body = event()
    one, other = of_entra(handler, store=stores()), of_entra(handler, store=stores())
    assert claims_in(posed(one, body)) == {"tier": "gold", "effect": "1"}
    assert claims_in(posed(other, body)) == {"tier": "gold", "effect": "1"}
    assert len(handler.effects) == 1


def test_another_process_waits_while_the_first_one_runs(handler: Handler, stores: Any) -> None:
    body = event()
    one, other = of_entra(handler, store=stores()), of_entra(handler, store=stores())
    handler.may_go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(posed, one, body)
        while not handler.effects:
            time.sleep(0.005)
        second = threads.submit(posed, other, body)
        time.sleep(0.1)
        handler.may_go_on.set()
        assert claims_in(first.result()) == claims_in(second.result()) == {"tier": "gold", "effect": "1"}
    assert len(handler.effects) == 1


def test_what_failed_is_not_run_again_for_the_retry(handler: Handler, stores: Any) -> None:
    """Whether it has had its effect isn't known."""
    body = event()
    one, other = of_entra(handler, store=stores()), of_entra(handler, store=stores())
    handler.fails = True
    with capture_events() as seen:
        assert claims_in(posed(one, body)) == {}
        assert claims_in(posed(one, body)) == {}
        store_was_told(one)
        assert claims_in(posed(other, body)) == {}
        codes = [defaulted.code for defaulted in seen.wait_for(CalloutDefaulted, count=3)]
    assert codes == ["handler_error", "handler_error", "failed_before"]
    assert len(handler.effects) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "ffffeeee-0000-cccc-1111-dddd2222eeee"},
        {"user": "u-2"},
        {"customAuthenticationExtensionId": "another"},
    ],
    ids=["tenant", "user", "extension"],
)
def test_another_tenant_user_or_extension_is_another_request(handler: Handler, stores: Any, other: Any) -> None:
    """Even with one correlation id, which is whatever the caller says."""
    callout = of_entra(handler, store=stores())
    first, second = event(), event(**other)
    first["data"]["authenticationContext"]["correlationId"] = "c"
    second["data"]["authenticationContext"]["correlationId"] = "c"
    assert claims_in(posed(callout, first))["effect"] == "1"
    assert claims_in(posed(callout, second))["effect"] == "2"


def test_another_callout_over_the_same_store_has_answers_of_its_own(handler: Handler, stores: Any) -> None:
    body, store = event(), stores()
    assert claims_in(posed(of_entra(handler, store=store), body))["effect"] == "1"
    assert claims_in(posed(of_entra(handler, store=store, name="second"), body))["effect"] == "2"


def test_a_form_that_was_corrected_is_another_request() -> None:
    """The sign-up's correlation id stays when a user corrects what was wrong."""
    callout = Callout(
        AttributeCollectionSubmit,
        lambda request: Continue() if request.attributes["city"] == "Graz" else ShowValidationError("Which city?"),
        caller=ANYBODY,
        default=Continue(),
    )

    def form(city: str) -> dict[str, Any]:
        attributes = {"city": {"@odata.type": "s", "value": city, "attributeType": "builtIn"}}
        body = event("attributeCollectionSubmit", user=None, userSignUpInfo={"attributes": attributes})
        body["data"]["authenticationContext"]["correlationId"] = "c"
        return body

    assert b"showValidationError" in posed(callout, form("Gratz")).body
    assert b"continueWithDefaultBehavior" in posed(callout, form("Graz")).body


def test_a_request_is_handled_anew_when_no_retry_of_it_can_come(handler: Handler) -> None:
    clock = ManualClock()
    callout = of_entra(handler, clock=clock)
    body = event()
    posed(callout, body)
    clock.advance(11.0)
    assert claims_in(posed(callout, body))["effect"] == "2"


def test_b2c_s_connector_names_no_sign_in_and_its_retry_is_known_all_the_same(handler: Handler) -> None:
    callout = Callout(ApiConnector, handler_of(handler), caller=ANYBODY, default=Continue())
    body = {"email": "ada@contoso.com", "step": "PostAttributeCollection", "ui_locales": "en-US"}
    first, second = posed(callout, body), posed(callout, body)
    assert first.body == second.body
    assert len(handler.effects) == 1
    assert posed(callout, body | {"email": "eve@contoso.com"}).body != first.body


def handler_of(handler: Handler) -> Callable[[Any], Any]:
    return lambda request: handler(request)


@pytest.mark.parametrize("kind", ["dead", "hangs"])
def test_a_store_that_fails_takes_a_part_of_the_time_at_most(handler: Handler, kind: str) -> None:
    store = FailingStore(kind)
    callout = of_entra(handler, store=store, deadline=1.0)
    began = time.monotonic()
    assert claims_in(posed(callout, event()))["effect"] == "1"
    assert time.monotonic() - began < 0.9
    store.go_on()


def test_who_would_rather_have_no_answer_than_two_effects_gets_none(handler: Handler) -> None:
    callout = of_entra(handler, store=FailingStore("dead"), when_store_fails="default")
    with capture_events() as told:
        assert claims_in(posed(callout, event())) == {}
        (defaulted,) = told.wait_for(CalloutDefaulted)
    assert defaulted.code == "store_unavailable"
    assert not handler.effects


def test_the_last_known_claims_stand_in_for_a_handler_that_fails(handler: Handler, stores: Any) -> None:
    """For the same user, tenant and application, after a restart too; and for nobody else."""
    store = stores()
    default = LastKnown(otherwise=Continue({"tier": "none"}), max_age=60.0)
    before = of_entra(handler, store=store, default=default)
    posed(before, event())
    store_was_told(before)
    handler.fails = True
    restarted = of_entra(handler, store=stores(), default=default, breaker=NEVER)
    with capture_events() as told:
        assert claims_in(posed(restarted, event())) == {"tier": "gold", "effect": "1"}
        (defaulted,) = told.wait_for(CalloutDefaulted)
    assert (defaulted.source, defaulted.code) == ("last_known", "handler_error")
    assert claims_in(posed(restarted, event(user="u-2"))) == {"tier": "none"}
    other = event()
    other["data"]["authenticationContext"]["clientServicePrincipal"]["appId"] = "another"
    assert claims_in(posed(restarted, other)) == {"tier": "none"}
    other = event(tenant="ffffeeee-0000-cccc-1111-dddd2222eeee")
    assert claims_in(posed(restarted, other)) == {"tier": "none"}
    assert claims_in(posed(restarted, event(user=None))) == {"tier": "none"}


def test_claims_that_are_too_old_stand_in_for_nothing(handler: Handler) -> None:
    clock = ManualClock()
    default = LastKnown(otherwise=Continue({"tier": "none"}), max_age=60.0)
    callout = of_entra(handler, default=default, clock=clock)
    posed(callout, event())
    time.sleep(0.05)
    handler.fails = True
    clock.advance(59.0)
    assert claims_in(posed(callout, event())) == {"tier": "gold", "effect": "1"}
    clock.advance(2.0)
    assert claims_in(posed(callout, event())) == {"tier": "none"}


def test_a_no_ends_what_was_known() -> None:
    said: list[Any] = [Continue({"tier": "gold"}), ShowBlockPage("No."), OSError()]

    def handler(request: ApiConnector) -> Any:
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    default = LastKnown(otherwise=ShowBlockPage("Try again later."))
    callout = Callout(ApiConnector, handler, caller=ANYBODY, default=default)
    for number, wanted in enumerate((b"gold", b"No.", b"later")):
        reply = posed(callout, {"objectId": "u-1", "client_id": "a", "n": number})
        assert wanted in reply.body
        time.sleep(0.05)


def test_a_handler_that_always_fails_is_left_alone_for_a_while(handler: Handler) -> None:
    callout = of_entra(handler, breaker=BreakerOptions(consecutive_failures=3))
    handler.fails = True
    with capture_events() as told:
        for number in range(6):
            posed(callout, event(user=f"u-{number}"))
        codes = [one.code for one in told.wait_for(CalloutDefaulted, count=6)]
    assert codes == ["handler_error"] * 3 + ["circuit_open"] * 3
    assert len(handler.effects) == 3
    assert "callout tokenIssuanceStart" in str(ra.health())


def test_one_user_whose_data_always_fails_takes_nobody_along(handler: Handler) -> None:
    callout = of_entra(handler)
    handler.fails = True
    for _ in range(6):
        posed(callout, event(user="unlucky"))
    handler.fails = False
    assert claims_in(posed(callout, event(user="other")))["tier"] == "gold"


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_more_than_may_run_are_answered_for_at_once(handler: Handler, awaits: bool) -> None:
    async def in_a_task(request: Any) -> Continue:
        while not handler.may_go_on.is_set():
            await asyncio.sleep(0.01)
        return Continue({"tier": "gold"})

    callout = of_entra(in_a_task if awaits else handler, concurrency=2, queue=0, breaker=NEVER)
    handler.may_go_on.clear()
    with ThreadPoolExecutor(8) as threads, capture_events() as told:
        all_of_them = [threads.submit(posed, callout, event(user=f"u-{number}")) for number in range(6)]
        codes = [one.code for one in told.wait_for(CalloutDefaulted, count=4)]
        handler.may_go_on.set()
        answers = [claims_in(one.result()).get("tier") for one in all_of_them]
    assert codes == ["overloaded"] * 4
    assert sorted(map(str, answers)) == ["None"] * 4 + ["gold"] * 2


def test_an_answer_that_the_contract_does_not_know_is_not_sent(handler: Handler) -> None:
    unfit = {
        "nothing": None,
        "another contract's": ShowBlockPage("No."),
        "too large": Continue({"x": "y" * 3100}),
        "a number": Continue({"age": 7}),
    }
    for name, answer in unfit.items():
        callout = of_entra(lambda request, answer=answer: answer, default=Continue({"tier": name}))
        with capture_events() as told:
            assert claims_in(posed(callout, event())) == {"tier": name}
            (defaulted,) = told.wait_for(CalloutDefaulted)
        assert defaulted.code == "unfit_answer"


def test_a_handler_that_wants_to_end_the_process_ends_nothing() -> None:
    def leave(request: TokenIssuanceStart) -> Continue:
        raise SystemExit(3)

    async def leave_in_a_task(request: TokenIssuanceStart) -> Continue:
        raise SystemExit(3)

    for handler in (leave, leave_in_a_task):
        with capture_events() as told:
            assert claims_in(posed(of_entra(handler), event())) == {}
            (defaulted,) = told.wait_for(CalloutDefaulted)
        assert defaulted.code == "handler_error"


def test_what_was_asked_is_not_kept_for_as_long_as_the_answer(
    handler: Handler, eventually: Callable[..., None]
) -> None:
    """It may hold a password."""
    callout = of_entra(handler)
    posed(callout, event())
    runs = list(callout._handling.once._runs.values())
    assert [run.request for run in runs] == [None]
    for store in (None, FailingStore("dead")):
        callout = of_entra(handler, store=store, default=LastKnown(otherwise=Continue()))
        posed(callout, event())
        runs = list(callout._handling.once._runs.values())
        assert len(runs) == 1
        # The store is told behind the answer.
        eventually(lambda run=runs[0]: "u-1" not in str(run.told))


def test_two_callouts_of_one_name_do_not_share_a_store(handler: Handler, stores: Any) -> None:
    store = stores()
    first = of_entra(handler, store=store)
    with pytest.raises(ra.ConfigurationError, match="give name="):
        of_entra(handler, store=store)
    assert first.name


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_a_forked_child_answers_by_threads_of_its_own(handler: Handler, stores: Any, awaits: bool) -> None:
    async def in_a_task(request: Any) -> Continue:
        return Continue({"tier": "gold"})

    callout = of_entra(in_a_task if awaits else handler, store=stores())
    posed(callout, event())

    def work() -> None:
        for _ in range(3):
            assert claims_in(posed(callout, event()))["tier"] == "gold"

    in_a_child(work)
    posed(callout, event())
