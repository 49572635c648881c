"""One discovery document for all who want it, however short they wait, and nobody who waits in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]


def documents(idp: Emulator) -> int:
    """How many discovery documents were asked for."""
    return len([call for call in idp.ledger.calls if call.endpoint == "discovery"])


@pytest.mark.parametrize("wait", [0, 0.05])
def test_constructors_that_dont_wait_share_one_request(
    idp: Emulator, daemon: Callable[..., Any], settings: Callable[..., ra.Settings], wait: float
) -> None:
    """Twenty of them, one after the other, while the provider is slow; the document serves them all."""
    idp.fail(Fault.slow(1.0), "discovery")
    own = settings(discovery_wait=wait)
    apps = [daemon(f"app {n}", tenant=f"slow-{wait}", resilience=own) for n in range(20)]
    assert documents(idp) <= 1
    for app in apps:
        assert app.acquire_token_for_client(SCOPE)["access_token"]
    assert documents(idp) == 1


def test_nobody_waits_for_a_document_that_nobody_fetches(
    idp: Emulator, daemon: Callable[..., Any], settings: Callable[..., ra.Settings], eventually: Any
) -> None:
    """Where the lane for documents was full for one constructor, the next one fetches it."""
    own = settings(workers_per_authority=1, queue_per_authority=0)
    idp.fail(Fault.slow(1.5), "discovery")
    first = threading.Thread(target=lambda: daemon("first", tenant="one", resilience=own))
    first.start()
    eventually(lambda: documents(idp) == 1)
    daemon("refused", tenant="two", resilience=own)
    assert documents(idp) == 1
    first.join()
    idp.heal()
    began = time.monotonic()
    app = daemon("next", tenant="two", resilience=own)
    assert time.monotonic() - began < 2.0
    assert app.acquire_token_for_client(SCOPE)["access_token"]


def test_who_is_refused_a_document_is_told_so(
    idp: Emulator, daemon: Callable[..., Any], settings: Callable[..., ra.Settings], eventually: Any
) -> None:
    """And so is who waits with them: at once, as a lane that is full."""
    own = settings(workers_per_authority=1, queue_per_authority=0)
    idp.fail(Fault.slow(1.5), "discovery")
    first = threading.Thread(target=lambda: daemon("first", tenant="three", resilience=own))
    first.start()
    eventually(lambda: documents(idp) == 1)
    app = daemon("refused", tenant="four", resilience=own)
    began = time.monotonic()
    with pytest.raises(ra.Overloaded, match="the queue for"):
        app.authority  # noqa: B018
    assert time.monotonic() - began < 1.0
    first.join()


def test_closing_an_application_takes_no_document_from_another(
    idp: Emulator, daemon: Callable[..., Any], settings: Callable[..., ra.Settings], clock: Any, eventually: Any
) -> None:
    """Who waits for one that a closed application was fetching has it fetched: it isn't theirs that was closed."""
    own = settings(discovery_wait=20)
    idp.fail(Fault.reset(), "discovery")
    closing, got = daemon("closing", resilience=own), []

    def ask() -> None:
        with pytest.raises(ra.Closed):
            closing.acquire_token_for_client(SCOPE)

    def build() -> None:
        got.append(daemon("going on", resilience=own).acquire_token_for_client(SCOPE))

    # By this name the clock counts it among those who wait.
    threads = [threading.Thread(target=ask), threading.Thread(target=build, name="resilient-auth-worker of the test")]
    threads[0].start()
    eventually(lambda: clock.waiting_workers == 2)  # for the document, and to ask for it again
    threads[1].start()
    eventually(lambda: clock.waiting_workers == 3)
    idp.heal()
    closing.close()
    for thread in threads:
        thread.join(10)
    assert got[0]["access_token"]
