"""Applications that are drilled, by their owner's own tests or by `--app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.drill import Provider


def application(provider: Provider) -> Any:
    return msal.ConfidentialClientApplication(
        provider.client_id,
        authority=provider.authority,
        client_credential=provider.client_credential,
        instance_discovery=False,
        verify=provider.ca_file,
    )


def shop(provider: Provider) -> Callable[[], Awaitable[httpx.Response]]:
    """Calls an API, as a coroutine."""
    app = ra.aio.wrap(application(provider))
    client = ra.aio.api_client(provider.api_url, app, provider.scopes, verify=provider.ca_file)

    async def order() -> httpx.Response:
        return await client.get("/api/orders")

    return order


def careless(provider: Provider) -> Callable[[], Any]:
    """Asks the provider each time, and so holds nothing when it is gone."""
    client = httpx.Client(verify=provider.ca_file, timeout=5.0)
    asked = {
        "grant_type": "client_credentials",
        "client_id": provider.client_id,
        "client_secret": provider.client_credential,
        "scope": " ".join(provider.scopes),
    }

    def order() -> Any:
        return client.post(f"{provider.authority}/oauth2/v2.0/token", data=asked).raise_for_status().json()

    return order


def a_number(provider: Provider) -> int:
    """No application at all."""
    return 3
