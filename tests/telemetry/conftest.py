"""Telemetry that is on, around applications at an emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from exported import SECRET, Seen

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Every test here has one."""


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Telemetry that is on, and what comes of it."""
    seen = Seen()
    ra.telemetry.instrument(seen.meters, seen.tracers)
    seen.registry.register(ra.telemetry.prometheus_collector())
    yield seen
    ra.telemetry.uninstrument()
    seen.meters.shutdown()
    seen.tracers.shutdown()


@pytest.fixture
def settings(clock: Any) -> Callable[..., ra.Settings]:
    """Build settings on the test's own clock, and so with an engine that no other test shares."""
    return lambda **options: ra.Settings(**{"clock": clock} | options)


@pytest.fixture
def daemon(idp: Emulator, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., Any]]:
    """Build a confidential application of ours."""
    built: list[Any] = []

    def build(client_id: str = "daemon", tenant: str = "contoso", **options: Any) -> Any:
        options = {"client_credential": SECRET, "resilience": settings(), "verify": idp.ca_file} | options
        built.append(
            msal.ConfidentialClientApplication(
                client_id, authority=idp.authority(tenant), instance_discovery=False, **options
            )
        )
        return built[-1]

    yield build
    for app in built:
        app.close()
