"""A moment in which the system has no thread to give ends nothing: what was to be done then is done later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

from resilient_auth.telemetry.levels.outbox import Outbox
from resilient_auth.telemetry.levels.state import Item, State
from resilient_auth.telemetry.levels.webhooks import Webhook
from resilient_auth.testing import ManualClock, no_jitter

SECRET = "whsec_" + "AAAA" * 10


class Scarce:
    """A system that has no thread for what is told or sent, while a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.none_left = False
        start = threading.Thread.start

        def starting(thread: threading.Thread) -> None:
            if self.none_left and thread.name == "resilient-auth-events":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scarce]:
    scarce = Scarce(monkeypatch)
    yield scarce
    scarce.none_left = False


def test_a_watch_looks_on(system: Scarce, watched: Callable[..., Any], eventually: Callable[..., None]) -> None:
    """When its minute came in that moment."""
    clock = ManualClock()
    one = watched(clock)
    one.watch.begin()
    eventually(lambda: one.watch._timer is not None)
    system.none_left = True
    for _ in range(3):
        clock.advance(61.0)
    threading.Event().wait(0.1)
    system.none_left = False
    one.count(7)
    before = one.watch._looked

    def looked() -> bool:
        clock.advance(61.0)
        return bool(one.watch._looked != before)

    eventually(looked)


def test_a_message_is_sent_later(system: Scarce, eventually: Callable[..., None]) -> None:
    """And not only when there is another one."""
    state, now = State(), 1.8e9
    state.post(Item("msg_1", now, "{}", due=now))
    told = threading.Event()
    outbox = Outbox(Webhook("http://127.0.0.1:9/", secret=SECRET), no_jitter, told.set, lambda: now)
    system.none_left = True
    outbox.send(state, now)
    system.none_left = False
    outbox.send(state, now + 60.0)
    assert told.wait(5.0)
    outbox.end()


def test_the_owners_function_is_asked_later(
    system: Scarce, watched: Callable[..., Any], clock: ManualClock, eventually: Callable[..., None]
) -> None:
    """When secrets end is known after it."""
    asked: list[int] = []

    def ends() -> dict[str, date]:
        asked.append(1)
        return {"app": date(2099, 1, 1)}

    one = watched(secret_expires=ends)
    system.none_left = True
    one.watch.look()
    system.none_left = False
    clock.advance(60.0)
    one.watch.look()
    eventually(lambda: asked == [1] and one.watch.credential_ends())
