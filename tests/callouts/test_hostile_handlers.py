"""Whatever a handler does, the contract's answer goes out in time, and no other callout suffers from it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from provider_requests import FRAMEWORKS, event, posed

import resilient_auth as ra
from resilient_auth.callouts import (
    ApiConnector,
    AttributeCollectionStart,
    AttributeCollectionSubmit,
    BasicCaller,
    Callout,
    Continue,
    RestProfile,
    ShowBlockPage,
    ShowValidationError,
    TokenIssuanceStart,
)
from resilient_auth.downstream.deadlines import inherited
from resilient_auth.events import CalloutDefaulted
from resilient_auth.settings import BreakerOptions
from resilient_auth.testing import capture_events, check_callout

ANYBODY = BasicCaller({"entra": "a password, in tests"})
NEVER = BreakerOptions(consecutive_failures=1000, failure_rate=1.0, minimum_throughput=1000)
KIND = {"Content-Type": "application/json"}


def asked_of(asks: type[Any]) -> Any:
    if asks.event in ("apiConnector", "restProfile"):
        return {"email": "ada@contoso.com", "ui_locales": "de-AT"}
    return event(asks.event, user=None) if "attribute" in asks.event else event(asks.event)


def callout_of(asks: type[Any], handler: Any, **options: Any) -> Callout[Any]:
    given: dict[str, Any] = {"caller": ANYBODY, "default": Continue(), "breaker": NEVER}
    return Callout(asks, handler, **given | {"timeout": 2.0, "deadline": 1.0} | options)


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


HUGE = "x" * 70_000


class Evil(UserDict[str, Any]):
    """A mapping that fails when it is read."""

    def __getitem__(self, name: str) -> Any:
        raise KeyboardInterrupt


def endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


ANSWERS: dict[str, Any] = {
    "nothing": None,
    "a dict": {"action": "Continue"},
    "a class": Continue,
    "a reply's text": b'{"version":"1.0.0"}',
    "huge": Continue({"a": HUGE}),
    "many": Continue({f"a-{number}": "x" * 100 for number in range(1000)}),
    "not JSON": Continue({"a": object()}),
    "bytes": Continue({"a": b"x"}),
    "no number": Continue({"a": float("nan")}),
    "half a pair": Continue({"a": "\ud800"}),
    "half a pair in a name": Continue({"\ud800": "x"}),
    "endless": lambda: Continue({"a": endless()}),
    "evil": lambda: Continue(Evil(a="b")),
}


@pytest.mark.parametrize(
    "asks", [TokenIssuanceStart, AttributeCollectionStart, AttributeCollectionSubmit, ApiConnector, RestProfile]
)
@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_an_answer_that_the_provider_could_not_read_is_not_sent(asks: type[Any], awaits: bool) -> None:
    """Too large, too, for any contract: what is sent is what the emulator takes for an answer."""
    for name, answer in ANSWERS.items():

        def handler(request: Any, name: str = name, answer: Any = answer) -> Any:
            return answer() if name in ("endless", "evil") else answer

        async def in_a_task(request: Any, handler: Any = handler) -> Any:
            return handler(request)

        callout = callout_of(asks, in_a_task if awaits else handler)
        with capture_events() as told:
            reply = posed(callout, asked_of(asks))
            check_callout(asks.event, reply.status, KIND, reply.body)
            assert told.wait_for(CalloutDefaulted), name
        assert b"x" * 100 not in reply.body, name


def test_an_answer_is_what_it_was_made_of_whatever_becomes_of_that() -> None:
    """Tasks that write all into one dict give no user another one's claims."""
    shared: dict[str, Any] = {"roles": []}
    both = threading.Barrier(2)

    async def handler(request: Any) -> Continue:
        shared["of"] = request.user_id
        shared["roles"][:] = [request.user_id]
        answer = Continue(shared)
        await asyncio.to_thread(both.wait, 10.0)
        return answer

    callout = callout_of(TokenIssuanceStart, handler)
    with ThreadPoolExecutor(2) as threads:
        users = ["u-1", "u-2"]
        replies = list(threads.map(lambda user: posed(callout, event(user=user)), users))
    for user, reply in zip(users, replies, strict=True):
        claims = json.loads(reply.body)["data"]["actions"][0]["claims"]
        assert claims == {"of": user, "roles": [user]}
    texts: dict[str, Any] = {"en": "u-1"}
    told = [ShowBlockPage(texts, title=texts), ShowValidationError(texts, attributes={"a": texts})]
    before = [repr(one) for one in told]
    texts["en"] = "u-2"
    assert [repr(one) for one in told] == before


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_whatever_a_handler_raises_the_default_goes_out_at_once(error: BaseException, awaits: bool) -> None:
    def fail(request: Any) -> Any:
        raise error

    async def fail_in_a_task(request: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    default = Continue({"by": "default"})
    callout = callout_of(TokenIssuanceStart, fail_in_a_task if awaits else fail, default=default, deadline=1.8)
    body = event()
    for _ in range(2):
        began = time.monotonic()
        assert b'"by":"default"' in posed(callout, body).body
        assert time.monotonic() - began < 0.9


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_handlers_that_never_come_back_take_no_place_for_ever(awaits: bool, hung: threading.Event) -> None:
    """A task that swallows its cancellation neither."""
    hangs = threading.Event()

    def hang(request: Any) -> Any:
        if not hangs.is_set():
            hung.wait(30.0)
        return Continue({"by": "handler"})

    async def hang_in_a_task(request: Any) -> Any:
        while not hangs.is_set() and not hung.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return Continue({"by": "handler"})

    callout = callout_of(
        TokenIssuanceStart,
        hang_in_a_task if awaits else hang,
        concurrency=2,
        queue=0,
        repeat_window=1.0,
        timeout=0.4,
        deadline=0.2,
    )
    for number in range(2):
        posed(callout, event(user=f"hung-{number}"))
    if not awaits:
        hangs.set()
    ends = time.monotonic() + 6.0
    if awaits:
        callout._handling._handler = lambda request: answered(request)
    while b"handler" not in posed(callout, event(user=f"u-{time.monotonic()}")).body:
        assert time.monotonic() < ends, "no place became free"
        time.sleep(0.1)


async def answered(request: Any) -> Any:
    return Continue({"by": "handler"})


def test_hung_handlers_take_a_bounded_number_of_threads_and_leave_another_callout_alone(hung: threading.Event) -> None:
    def hang(request: Any) -> Any:
        hung.wait(30.0)
        return Continue()

    bad = callout_of(TokenIssuanceStart, hang, name="bad", concurrency=4, queue=4, timeout=0.4, deadline=0.1)
    good = callout_of(TokenIssuanceStart, lambda request: Continue({"by": "handler"}), name="good")
    before = threading.active_count()
    with ThreadPoolExecutor(8) as threads:
        for number in range(80):
            threads.submit(posed, bad, event(user=f"u-{number}"))
        for number in range(20):
            assert b"handler" in posed(good, event(user=f"u-{number}")).body
    # What the pool has is gone; of the callout's, no more than a few times its places.
    assert threading.active_count() - before <= 4 * 5 + 6


def test_a_coroutine_that_blocks_its_event_loop_leaves_another_callout_alone(hung: threading.Event) -> None:
    """Where threads wait for it: one that calls what blocks is a mistake that is made every day."""

    async def block(request: Any) -> Any:
        hung.wait(5.0)
        return Continue()

    bad = callout_of(TokenIssuanceStart, block, name="bad", timeout=0.4, deadline=0.1)
    good = callout_of(TokenIssuanceStart, answered, name="good")
    assert b"handler" not in posed(bad, event()).body
    for number in range(3):
        assert b"handler" in posed(good, event(user=f"u-{number}")).body


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_what_a_handler_asks_for_is_over_by_the_deadline(awaits: bool) -> None:
    """API calls and tokens, of a coroutine's too."""
    left: list[float] = []

    def note(request: Any) -> Any:
        limit = inherited.get()
        left.append(-1.0 if limit is None else limit.left())
        return Continue()

    async def note_in_a_task(request: Any) -> Any:
        await asyncio.sleep(0)
        return note(request)

    posed(callout_of(TokenIssuanceStart, note_in_a_task if awaits else note, deadline=0.8), event())
    (seconds,) = left
    assert 0.0 < seconds <= 0.8


@pytest.mark.parametrize("awaits", [False, True], ids=["threads", "tasks"])
def test_without_a_thread_to_be_had_the_default_goes_out(awaits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in ("resilient-auth-worker", "resilient-auth-loop"):
            raise RuntimeError("can't start new thread")
        start(thread)

    handler = answered if awaits else lambda request: Continue({"by": "handler"})
    callout = callout_of(TokenIssuanceStart, handler, name=f"no threads {awaits}")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    body = event()
    with capture_events() as told:
        assert b"handler" not in posed(callout, body).body
        monkeypatch.undo()
        (defaulted,) = told.wait_for(CalloutDefaulted)
    assert defaulted.code == "overloaded"
    # It has never begun, and so the provider's retry may.
    assert b"handler" in posed(callout, body).body


MESSAGES: dict[str, Callable[[], Any]] = {
    "block page": lambda: ShowBlockPage({"en": "No.", "de": "\ud800"}),
    "title": lambda: ShowBlockPage("No.", title={"en": "No.", "de": "\ud800"}),
    "validation error": lambda: ShowValidationError({"en": "No.", "de": "\udfff"}),
    "attribute": lambda: ShowValidationError("No.", attributes={"city": {"en": "No.", "de": "\ud800"}}),
    "attribute's name": lambda: ShowValidationError("No.", attributes={"\ud800": "No."}),
    "code": lambda: ShowValidationError("No.", code="\ud800"),
}


@pytest.mark.parametrize("name", list(MESSAGES))
def test_a_message_that_cannot_be_sent_in_one_language_is_refused_at_once(name: str) -> None:
    """As the default, it would be looked at when the first user of that language comes."""
    with pytest.raises(ra.ConfigurationError):
        MESSAGES[name]()


def test_a_default_is_sent_in_every_language_and_to_every_contract() -> None:
    def fail(request: Any) -> Any:
        raise OSError("the database is dead")

    message = {"en": "\U0001f600" * 1000, "de": "\u00e4" * 1000, "ZH-hant": "\u6f22" * 1000}
    for asks in (AttributeCollectionSubmit, ApiConnector, RestProfile):
        attributes = {f"attribute-{number}": message for number in range(5)}
        default = ShowValidationError(message, attributes=attributes, code="LATER")
        callout = callout_of(asks, fail, default=default)
        for locale in ("de-AT", "zh-Hant-TW", "zh", "fr", "", "x" * 2000, "\u0130", "-", "_"):
            body = asked_of(asks)
            if "data" in body:
                body["data"]["authenticationContext"]["client"]["locale"] = locale
            else:
                body["ui_locales"] = locale
            reply = posed(callout, body)
            check_callout(asks.event, reply.status, KIND, reply.body)


@pytest.mark.parametrize(
    ("locales", "wanted"),
    [
        ("zh-Hant-TW", "zh-Hant"),
        ("zh-Hans-CN", "zh"),
        ("ZH_hant_hk", "zh-Hant"),
        ("de-AT-1996", "de-AT"),
        ("de-CH", "de"),
        ("pt-BR", "pt_BR"),
        ("fr-CA de", "de"),
        ("fr-CA", "en"),
        ("", "en"),
        ("-", "en"),
    ],
)
def test_a_message_is_in_the_users_language_as_far_as_it_is_there(locales: str, wanted: str) -> None:
    """Shortened from its end, as RFC 4647 looks languages up."""
    message = {language: language for language in ("zh", "de-AT", "zh-Hant", "de", "pt_BR", "en")}
    callout = callout_of(ApiConnector, lambda request: ShowBlockPage(message))
    reply = posed(callout, {"email": "ada@contoso.com", "ui_locales": locales})
    assert json.loads(reply.body)["userMessage"] == wanted


@pytest.mark.parametrize("framework", list(FRAMEWORKS))
def test_a_handler_cannot_change_what_was_asked(framework: str, entra: Any) -> None:
    """A repeated request is known by it, and the answer is kept for whom it names."""
    failed: list[str] = []

    def handler(request: TokenIssuanceStart) -> Continue:
        user: Any = request.user
        for change in (
            lambda: user.update(id="eve"),
            lambda: user.clear(),
            lambda: user["roles"].append("admin"),
            lambda: setattr(request, "user_id", "eve"),
        ):
            try:
                change()
            except (TypeError, AttributeError):
                failed.append("refused")
        return Continue({"of": request.user_id})

    body = event()
    body["data"]["authenticationContext"]["user"]["roles"] = ["a"]
    ask = FRAMEWORKS[framework](Callout(TokenIssuanceStart, handler, caller=entra.caller, default=Continue()))
    _, said, _ = ask(body, entra.headers)
    assert said["data"]["actions"][0]["claims"] == {"of": "u-1"}
    assert failed == ["refused"] * 4
    assert json.dumps(said)
