"""An application in good health, and what the doctor says of it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resilient_auth import FileStore
from resilient_auth.emulator import Emulator
from resilient_auth.telemetry.doctor import Finding, Setup, examine

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def idp(running: Emulator, own_environment: None) -> Iterator[Emulator]:
    """A provider that is healed after the test."""
    yield running
    running.heal()
    running.allow()


@pytest.fixture
def healthy(idp: Emulator, tmp_path: Path) -> Setup:
    """A set-up in which nothing is wrong."""
    store = tmp_path / "state" / "tokens.db"
    FileStore(store).close()
    return Setup(
        authority=idp.authority("contoso"),
        client_id="my-app",
        flows=("client_credentials",),
        scopes=(("api://mine/.default",),),
        client_secret=SECRET,
        secret_expires=datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=200),
        store=str(store),
        verify=idp.ca_file,
        timeout=2.0,
    )


@pytest.fixture
def diagnose(healthy: Setup) -> Callable[..., list[Finding]]:
    """Examine the healthy set-up with some of it changed; no finding may hold the secret."""

    def run(*, clock: Any = None, **changes: Any) -> list[Finding]:
        found = list(examine(replace(healthy, **changes), environ=os.environ, clock=clock))
        assert SECRET not in repr(found)
        return found

    return run


@pytest.fixture
def wrong(diagnose: Callable[..., list[Finding]]) -> Callable[..., set[str]]:
    """Return the check, severity and code of what needs mending."""

    def run(**changes: Any) -> set[str]:
        found = [each for each in diagnose(**changes) if each.severity in ("warning", "error")]
        assert all(each.fix for each in found)
        return {f"{each.check} {each.severity} {each.code}" for each in found}

    return run
