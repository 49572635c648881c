"""An identity provider that fails on command, and applications at it: ours and MSAL's, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._process.loading import load
from resilient_auth.emulator import Emulator

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]

# The first application of a process loads these; a test that times a constructor needn't be the first one.
load(
    "tenacity",
    "resilient_auth._wire.connection",
    "resilient_auth._policy.circuit.window",
    "resilient_auth._msal.wrapped",
)


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Every test here has one."""


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def settings(clock: Any) -> Callable[..., ra.Settings]:
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
def plain_daemon(idp: Emulator) -> Iterator[Callable[..., Any]]:
    """Build MSAL's own confidential application."""
    built: list[Any] = []

    def build(client_id: str = "daemon", **options: Any) -> Any:
        options = {"client_credential": "s3cret-of-the-daemon"} | options
        built.append(plain_msal.ConfidentialClientApplication(client_id, **_at(idp, options)))
        return built[-1]

    yield build
    for app in built:
        app.http_client.close()  # it has connections, and no way to close them of its own


@pytest.fixture
def plain_desktop(idp: Emulator) -> Iterator[Callable[..., Any]]:
    """Build MSAL's own public application."""
    built: list[Any] = []

    def build(client_id: str = "desktop", **options: Any) -> Any:
        built.append(plain_msal.PublicClientApplication(client_id, **_at(idp, options)))
        return built[-1]

    yield build
    for app in built:
        app.http_client.close()


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
