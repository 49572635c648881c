"""A failing exchange is told at its first failed attempt: an outage's first half minute isn't silent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from exported import SCOPE

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import BlameChanged, ExchangeFailed, RetryScheduled
from resilient_auth.testing import capture_events


@pytest.mark.parametrize("held", [True, False], ids=["in-the-background", "with-a-caller-that-waits"])
def test_the_first_failed_attempt_is_told_at_once(
    idp: Emulator, daemon: Callable[..., Any], settings: Any, clock: Any, eventually: Callable[..., None], held: bool
) -> None:
    """The caller, health and events of level WARNING know it while the exchange rests before its next attempt."""
    app = daemon(resilience=settings(explain=True))
    if held:
        app.acquire_token_for_client(SCOPE)
        clock.skip(2000)
    else:
        app.acquire_token_for_client(["api://other/.default"])
    idp.fail(Fault.status(503))

    def ask() -> None:
        with suppress(ra.ProviderUnavailable):
            app.acquire_token_for_client(SCOPE)

    def here() -> Any:
        return [token for token in ra.health().tokens if token.authority == idp.url and token.scopes == tuple(SCOPE)]

    with capture_events() as events:
        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: [token for token in here() if token.failures])
        (token,) = here()
        told = ra.health()
        retries, changes = events.wait_for(RetryScheduled), events.wait_for(BlameChanged)
        caller = app.acquire_token_for_client(SCOPE)["resilience"]["provider"] if held else None
        assert not events.of(ExchangeFailed)
    assert (token.failures, token.last_code) == (1, "server_failed")
    assert [(event.level, event.attempt, event.code) for event in retries] == [(logging.WARNING, 1, "server_failed")]
    assert [(event.level, event.what) for event in changes] == [(logging.WARNING, "provider")]
    assert [blame.what for blame in told.blame if blame.authority == idp.url] == ["provider"]
    if held:
        assert caller["code"] == "server_failed"
    idp.heal()
    clock.skip(100)
    thread.join()


def test_an_exchange_of_one_attempt_ends_with_it(idp: Emulator, daemon: Callable[..., Any], settings: Any) -> None:
    """There is nothing to wait for, and its end is the first word."""
    app = daemon(resilience=settings(retry=ra.RetryOptions(attempts=1)))
    idp.fail(Fault.status(503))
    with capture_events() as events:
        with pytest.raises(ra.ProviderUnavailable):
            app.acquire_token_for_client(SCOPE)
        told = (*events.wait_for(ExchangeFailed), *events.wait_for(BlameChanged))
    assert [event.level for event in told] == [logging.WARNING] * 2
