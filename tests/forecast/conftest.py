"""A provider that dies on command, for applications in random states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Every test here has one."""


@pytest.fixture(scope="module")
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator
