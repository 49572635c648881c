"""An identity provider that fails on command, credentials at it, and a blob that a real Azure SDK client reads."""

from __future__ import annotations

import sys
import threading
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
_FOREIGN = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
)


class SkippingClock:
    """The real clock, which can also skip ahead."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def wall(self) -> float:
        return time.time() + self._skipped

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        return condition.wait(0.02 if timeout is None else min(timeout, 0.02))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def second_idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
def settings(clock: SkippingClock) -> Callable[..., ra.Settings]:
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
def together() -> Callable[..., list[Any]]:
    """Run a call in so many threads at the same moment; exceptions come back as results."""

    def run(threads: int, call: Callable[[], Any]) -> list[Any]:
        start, results = threading.Barrier(threads), []

        def work() -> None:
            start.wait()
            try:
                results.append(call())
            except BaseException as error:
                results.append(error)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return results

    return run


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for something to become true, for a few real seconds at most."""

    def wait(true: Callable[[], object], seconds: float = 8.0) -> None:
        ends = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < ends, "it didn't become true in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def scope() -> str:
    return SCOPE
