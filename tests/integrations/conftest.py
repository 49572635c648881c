"""The provider whose tokens web frameworks verify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.testing import ManualClock
from resilient_auth.verify import GraceOptions


@pytest.fixture
def patient(issuer: Issuer) -> dict[str, Any]:
    """Options of a verifier whose owner allows grace, on a clock of the test's own."""
    return {"grace": GraceOptions(past_expiry=3600.0, outage=3600.0), "settings": ra.Settings(clock=ManualClock())}


@pytest.fixture(scope="session")
def _running() -> Iterator[Issuer]:
    with Emulator() as emulator:
        issuer = Issuer(emulator)
        yield issuer
        issuer.close()


@pytest.fixture
def issuer(_running: Issuer, own_environment: None) -> Iterator[Issuer]:
    """The provider, which works until told otherwise."""
    yield _running
    _running.idp.heal()
