"""The handler's answer, or the owner's default in time, in every framework, in the contract's shape."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from provider_requests import FRAMEWORKS, Ask, event

import resilient_auth as ra
from resilient_auth.callouts import Callout, Continue, TokenIssuanceStart
from resilient_auth.events import CalloutDefaulted
from resilient_auth.testing import capture_events

GIVEN = {
    "data": {
        "@odata.type": "microsoft.graph.onTokenIssuanceStartResponseData",
        "actions": [
            {
                "@odata.type": "microsoft.graph.tokenIssuanceStart.provideClaimsForToken",
                "claims": {"tier": "gold", "roles": ["a", "b"]},
            }
        ],
    }
}
DEFAULT = {
    "data": {
        "@odata.type": "microsoft.graph.onTokenIssuanceStartResponseData",
        "actions": [
            {
                "@odata.type": "microsoft.graph.tokenIssuanceStart.provideClaimsForToken",
                "claims": {"tier": "unknown"},
            }
        ],
    }
}
STANDS_IN = Continue({"tier": "unknown"})


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What a handler waits for that hangs; it comes back in the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=list(FRAMEWORKS))
def mount(request: pytest.FixtureRequest) -> Callable[..., Ask]:
    return FRAMEWORKS[request.param]


def gold(request: TokenIssuanceStart) -> Continue:
    return Continue({"tier": "gold", "roles": ["a", "b"]})


async def gold_in_a_task(request: TokenIssuanceStart) -> Continue:
    await asyncio.sleep(0)
    return Continue({"tier": "gold", "roles": ["a", "b"]})


@pytest.mark.parametrize("handler", [gold, gold_in_a_task])
def test_the_handlers_answer_is_written_as_entra_reads_it(
    entra: Any, mount: Callable[..., Ask], handler: Callable[..., Any]
) -> None:
    ask = mount(Callout(TokenIssuanceStart, handler, caller=entra.caller, default=STANDS_IN))
    status, body, headers = ask(event(), entra.headers)
    assert (status, body) == (200, GIVEN)
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("awaits", [False, True], ids=["thread", "task"])
def test_a_handler_that_hangs_is_answered_for_in_time(
    entra: Any, mount: Callable[..., Ask], awaits: bool, hung: threading.Event
) -> None:
    def hang(request: TokenIssuanceStart) -> Continue:
        hung.wait(20.0)
        return STANDS_IN

    async def hang_in_a_task(request: TokenIssuanceStart) -> Continue:
        while not hung.is_set():
            await asyncio.sleep(0.02)
        return STANDS_IN

    handler: Any = hang_in_a_task if awaits else hang
    ask = mount(Callout(TokenIssuanceStart, handler, caller=entra.caller, default=STANDS_IN, timeout=0.4))
    with capture_events() as told:
        began = time.monotonic()
        status, body, _ = ask(event(), entra.headers)
        took = time.monotonic() - began
    assert (status, body) == (200, DEFAULT)
    assert 0.19 < took < 1.0  # under the load of a machine that is busy
    (defaulted,) = told.wait_for(CalloutDefaulted)
    assert (defaulted.source, defaulted.code) == ("default", "slow")


def test_a_handler_that_raises_is_answered_for_and_says_where(entra: Any, mount: Callable[..., Ask]) -> None:
    def fail(request: TokenIssuanceStart) -> Continue:
        raise RuntimeError("ada@contoso.com has no row")

    ask = mount(Callout(TokenIssuanceStart, fail, caller=entra.caller, default=STANDS_IN))
    with capture_events() as told:
        assert ask(event(), entra.headers)[:2] == (200, DEFAULT)
    (defaulted,) = told.wait_for(CalloutDefaulted)
    assert defaulted.code == "handler_error"
    assert "RuntimeError in test_answers_in_time.py, line" in defaulted.detail
    assert "ada" not in str(defaulted)


def test_in_an_event_loop_a_repeated_request_has_one_effect_too(entra: Any, tmp_path: Path) -> None:
    """In this process, and in another one over the same store."""
    effects: list[str] = []

    async def handler(request: TokenIssuanceStart) -> Continue:
        effects.append(request.user_id)
        await asyncio.sleep(0.01)
        return Continue({"effect": str(len(effects))})

    stores = [ra.FileStore(tmp_path / "shared.db") for _ in range(2)]
    given: dict[str, Any] = {"caller": entra.caller, "default": STANDS_IN, "timeout": 2.0, "deadline": 1.5}
    asks = [FRAMEWORKS["fastapi"](Callout(TokenIssuanceStart, handler, store=store, **given)) for store in stores]
    body = event()
    said = [ask(body, entra.headers)[1]["data"]["actions"][0]["claims"] for ask in (*asks, *asks)]
    assert said == [{"effect": "1"}] * 4
    assert len(effects) == 1
    for store in stores:
        store.close()
