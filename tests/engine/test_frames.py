"""How many calls of the package's own a token takes: what was taken out of its way doesn't come back unseen."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator

ROOT = str(Path(ra.__file__).parent) + os.sep
EMULATOR = f"{ROOT}emulator{os.sep}"
SCOPE = ["https://graph.microsoft.com/.default"]


class Frames:
    """The calls of functions of the package's, on all threads that begin in this block, while `count` runs."""

    def __init__(self) -> None:
        self._counting = False
        self._calls: list[str] = []

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if self._counting and event == "call" and file.startswith(ROOT) and not file.startswith(EMULATOR):
            self._calls.append(f"{file[len(ROOT) :]} {frame.f_code.co_qualname}")

    def __enter__(self) -> Frames:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def count(self, call: Callable[[], object], *, until: Callable[[], bool] = lambda: True) -> list[str]:
        """List the calls that one call makes, in all threads, until it has nothing left to do."""
        self._calls.clear()
        gc.collect()
        gc.disable()  # what other tests have left is ended amid any call
        self._counting = True
        try:
            call()
            while not until():
                threading.Event().wait(0.01)
        finally:
            self._counting = False
            gc.enable()
        return list(self._calls)


class Stopped(SystemClock):
    """The machine's clock, stopped: what a store looks at each second isn't looked at once more on a busy machine."""

    def __init__(self) -> None:
        now = SystemClock.monotonic()
        self.monotonic = lambda: now


def _app(emulator: Emulator, settings: ra.Settings) -> Any:
    return msal.ConfidentialClientApplication(
        "daemon",
        client_credential="s3cret-of-the-daemon",
        authority=emulator.authority("contoso"),
        instance_discovery=False,
        verify=emulator.ca_file,
        resilience=settings,
    )


def _idle(app: Any) -> Callable[[], bool]:
    """Return whether its workers have nothing to do."""
    workers = app._ra_session.engine.workers
    return lambda: not workers._lanes


@pytest.mark.parametrize(("stored", "most"), [(False, 206), (True, 602)], ids=["alone", "file"])
def test_a_token_takes_no_more_calls_than_it_did(stored: bool, most: int, tmp_path: Path) -> None:
    """A cold exchange, alone and with a file store; and two calls for one that memory has."""
    store = ra.FileStore(tmp_path / "store", key=os.urandom(32), clock=Stopped()) if stored else None
    # Settings of its own have workers of their own, which begin in the block.
    settings = ra.Settings(store=store, wait=29.25 if stored else 29.5)
    with Emulator() as emulator, Frames() as frames:
        app = _app(emulator, settings)
        cold = frames.count(lambda: app.acquire_token_for_client(SCOPE), until=_idle(app))
        hit = frames.count(lambda: app.acquire_token_for_client(SCOPE))
        app.close()
    assert 100 < len(cold) <= most, sorted(cold)
    assert len(hit) == 2, hit
