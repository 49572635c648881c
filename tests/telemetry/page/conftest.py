"""Status pages of a process that stands as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import page_scenes
import pytest

from resilient_auth.telemetry.page import serving
from resilient_auth.telemetry.page.history import history


@pytest.fixture(autouse=True)
def _own_page(monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]) -> Iterator[None]:
    """What other tests' circuits did isn't shown, and none looks into the next one's stores."""
    yield
    eventually(lambda: all(thread.name != "resilient-auth-status-page" for thread in threading.enumerate()), 25.0)
    history.end()


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Have the process stand as a test wants it; what that returns may be changed."""

    def stand(health: Any, *, levels: Any = None, name: str = "token", quiet: bool = False) -> Any:
        found, outages = page_scenes.lanes(name)
        now = SimpleNamespace(health=health, levels=levels or page_scenes.levels(), at=page_scenes.NOW, looks=0)

        def look() -> Any:
            now.looks += 1
            return now.health

        monkeypatch.setattr(serving, "health", look)
        monkeypatch.setattr(serving, "service_levels", lambda: now.levels)
        monkeypatch.setattr(serving, "take_stock", lambda: None)
        monkeypatch.setattr(serving, "_time", lambda: now.at)
        monkeypatch.setattr(history, "lanes", lambda at, most: [] if quiet else found)
        monkeypatch.setattr(history, "outages", lambda lanes, most: [] if quiet else outages)
        monkeypatch.setattr(history, "since", page_scenes.NOW - 30_000)
        return now

    return stand
