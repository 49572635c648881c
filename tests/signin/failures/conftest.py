from __future__ import annotations

from collections.abc import Iterator

import pytest
from failing_site import World

from resilient_auth.emulator import Emulator
from resilient_auth.testing import ManualClock


@pytest.fixture
def world(emulator: Emulator) -> Iterator[World]:
    made = World(emulator, ManualClock())
    # The test's clock goes ahead of the provider's own.
    emulator.token_lifetime = 24 * 3600.0
    yield made
    emulator.token_lifetime = 3600.0
    made.stop()
