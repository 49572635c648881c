"""What tests of applications need: a clock that stands still, events, claims and tokens, and as fixtures the emulator
and the drill.

Register the fixtures with `pytest_plugins = ["resilient_auth.testing"]` in the top-level `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .._store.conformance import check_backend
from .callouts import check_callout
from .captured import CapturedEvents, capture_events
from .clock import ManualClock, no_jitter
from .faults import chaos
from .tokens import claims, token

if TYPE_CHECKING:
    from ..drill.judge import Finding
    from ..emulator import Emulator

__all__ = [
    "CapturedEvents",
    "ManualClock",
    "capture_events",
    "chaos",
    "check_backend",
    "check_callout",
    "claims",
    "identity_provider",
    "no_jitter",
    "outage_drill",
    "token",
]

try:
    import pytest
except ModuleNotFoundError:  # outside of tests
    pass
else:

    @pytest.fixture
    def identity_provider() -> Iterator[Emulator]:
        """An identity provider on loopback that fails on command; see `resilient_auth.emulator`."""
        from ..emulator import Emulator

        with Emulator() as emulator:
            yield emulator

    @pytest.fixture
    def outage_drill() -> Callable[..., dict[str, Finding]]:
        """Drill the application with every fault of a provider; see `resilient_auth.drill.rehearse`."""
        from ..drill import rehearse

        return rehearse
