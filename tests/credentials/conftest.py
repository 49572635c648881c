"""An identity provider that fails on command, credentials at it, and a blob that a real Azure SDK client reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "azure_sdk"))

from blob_stub import BlobStub

SCOPE = "https://storage.azure.com/.default"


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Every test here has one."""


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def second_idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def settings(clock: Any) -> Callable[..., ra.Settings]:
    """Build settings on the test's own clock, and so with an engine that no other test shares."""

    def build(**options: Any) -> ra.Settings:
        return ra.Settings(**{"clock": clock, "wait": 5.0, "exchange_deadline": 5.0, "attempt_timeout": 2.0,
                              "connect_timeout": 2.0, "discovery_wait": 2.0} | options)  # fmt: skip

    return build


@pytest.fixture
def app_at(settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., Any]]:
    """Build an application of ours at an emulator."""
    built: list[Any] = []

    def build(idp: Emulator, **options: Any) -> Any:
        about = {
            "authority": idp.authority("contoso"),
            "instance_discovery": False,
            "verify": idp.ca_file,
            "client_credential": "s3cret-of-the-daemon",
            "resilience": settings(),
        }
        built.append(msal.ConfidentialClientApplication("daemon", **about | options))
        return built[-1]

    yield build
    for app in built:
        app.close()


@pytest.fixture
def blob(idp: Emulator) -> Iterator[BlobStub]:
    def is_valid(token: str) -> bool:
        issued = idp.ledger.lookup(token)
        return issued is not None and time.time() < issued.expires_at

    with BlobStub(is_valid) as stub:
        yield stub


@pytest.fixture
def scope() -> str:
    return SCOPE
