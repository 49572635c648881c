from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from leaving import Process, World

from resilient_auth.emulator import Emulator


@pytest.fixture(scope="session")
def _running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def idp(_running: Emulator, own_environment: None) -> Iterator[Emulator]:
    yield _running
    _running.heal()


@pytest.fixture
def world(idp: Emulator, tmp_path: Path) -> Iterator[World]:
    made = World(idp, tmp_path)
    yield made
    made.close()


@pytest.fixture
def one(world: World) -> Process:
    """The application's first process."""
    return world.process()


@pytest.fixture
def other(world: World, one: Process) -> Process:
    """Another one."""
    return world.process()
