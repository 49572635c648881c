"""An identity provider that fails on command, and applications at it: ours and MSAL's, side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]

_ENVIRONMENT = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "REGION_NAME",
    "MSAL_FORCE_REGION",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
)


class SkippingClock:
    """The real clock, which can also skip ahead: no test waits through a back-off, and deadlines still pass."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def wall(self) -> float:
        return time.time() + self._skipped

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        # A look every now and then finds out about a skip; callers re-check what they wait for.
        return condition.wait(0.02 if timeout is None else min(timeout, 0.02))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
def settings(clock: SkippingClock) -> Callable[..., ra.Settings]:
    """Build settings on the test's own clock, and so with an engine that no other test shares."""

    def build(**options: Any) -> ra.Settings:
        return ra.Settings(**{"clock": clock} | options)

    return build


@pytest.fixture
def hasty(settings: Callable[..., ra.Settings]) -> ra.Settings:
    """Settings under which a caller with nothing to serve learns so in half a second."""
    return settings(
        wait=0.5, exchange_deadline=0.5, attempt_timeout=0.4, connect_timeout=0.4, discovery_wait=0.5,
    )  # fmt: skip


def _at(idp: Emulator, options: dict[str, Any]) -> dict[str, Any]:
    tenant = options.pop("tenant", "contoso")
    return {"authority": idp.authority(tenant), "instance_discovery": False, "verify": idp.ca_file} | options


@pytest.fixture
def daemon(idp: Emulator, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., Any]]:
    """Build a confidential application of ours."""
    built: list[Any] = []

    def build(client_id: str = "daemon", **options: Any) -> Any:
        options = {"client_credential": "s3cret-of-the-daemon", "resilience": settings()} | options
        built.append(msal.ConfidentialClientApplication(client_id, **_at(idp, options)))
        return built[-1]

    yield build
    for app in built:
        app.close()


@pytest.fixture
def desktop(idp: Emulator, settings: Callable[..., ra.Settings]) -> Iterator[Callable[..., Any]]:
    """Build a public application of ours."""
    built: list[Any] = []

    def build(client_id: str = "desktop", **options: Any) -> Any:
        options = {"resilience": settings()} | options
        built.append(msal.PublicClientApplication(client_id, **_at(idp, options)))
        return built[-1]

    yield build
    for app in built:
        app.close()


@pytest.fixture
def plain_daemon(idp: Emulator) -> Callable[..., Any]:
    """Build MSAL's own confidential application."""

    def build(client_id: str = "daemon", **options: Any) -> Any:
        options = {"client_credential": "s3cret-of-the-daemon"} | options
        return plain_msal.ConfidentialClientApplication(client_id, **_at(idp, options))

    return build


@pytest.fixture
def plain_desktop(idp: Emulator) -> Callable[..., Any]:
    """Build MSAL's own public application."""

    def build(client_id: str = "desktop", **options: Any) -> Any:
        return plain_msal.PublicClientApplication(client_id, **_at(idp, options))

    return build


@pytest.fixture
def proxied(idp: Emulator) -> dict[str, Any]:
    """What an application needs to reach the real host names, all of which the emulator answers for."""
    return {
        "proxies": {"https": idp.proxy_url, "http": idp.proxy_url},
        "verify": idp.ca_file,
        "instance_discovery": None,
        "authority": "https://login.microsoftonline.com/contoso",
    }


@pytest.fixture
def sign_in(idp: Emulator) -> Callable[..., dict[str, Any]]:
    """Sign a user in by authorization code and PKCE."""

    def run(app: Any, username: str = "ann@contoso.com", scopes: list[str] = USER_SCOPE) -> dict[str, Any]:
        flow = app.initiate_auth_code_flow(scopes, redirect_uri="http://localhost/back", response_mode="form_post")
        result: dict[str, Any] = app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], username))
        return result

    return run


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

    def wait(true: Callable[[], object], seconds: float = 5.0) -> None:
        ends = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < ends, "it didn't become true in time"
            time.sleep(0.01)

    return wait
