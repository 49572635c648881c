"""More calls wait for a thread than may: each request is told so in its own way, and nothing is done by halves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from awaiting_site import Awaiting
from failing_site import World
from test_cancelled_at_each_await import (
    BackChannel,
    Beginning,
    Callback,
    Case,
    Extended,
    FrontChannel,
    Guest,
    Rotated,
    Signals,
    SigningOut,
    Touched,
)

from resilient_auth._engine import threads
from resilient_auth._engine.workers import Workers


@pytest.fixture
def site(world: World) -> Iterator[Awaiting]:
    made = Awaiting(world)
    yield made
    made.close()


@contextmanager
def busy(monkeypatch: pytest.MonkeyPatch, free: int) -> Iterator[None]:
    """Refuse calls after so many."""
    go_on = threading.Event()

    class Few(Workers):
        def submit(self, name: str, *args: Any, **options: Any) -> Any:
            nonlocal free
            free -= 1
            if free < 0:
                super().submit(name, go_on.wait)
            return super().submit(name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(threads, "_workers", Few(per_lane=1, queue=0))
        yield
        go_on.set()


@pytest.mark.parametrize("case", [
    Beginning, Callback, Touched, Rotated, Extended, SigningOut, BackChannel, FrontChannel, Signals, Guest,
])  # fmt: skip
async def test_it_is_told(site: Awaiting, case: type[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page, or what the contract has; and afterwards it can be done."""
    for free in range(4):
        one = case(site, free)
        await one.begin()
        with busy(monkeypatch, free):
            answer = await one.ask()
        assert answer is not None
        status, text, _ = answer
        if case is BackChannel:
            assert status == 200 or (status == 400 and "temporarily_unavailable" in text), text
        elif case is Signals:
            assert status == 202 or (status == 503 and '"err"' in text), text
        elif case is FrontChannel:
            assert (status, text) in ((200, ""), (503, ""))
        else:
            assert status in (200, 303) or (status == 503 and "<h1>" in text), text
        if status >= 400 or case in (Touched, Rotated, Extended, SigningOut, BackChannel, FrontChannel, Signals):
            await one.judge()
        site.world.clock.advance(5.0)
