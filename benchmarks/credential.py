"""What a held token costs through a credential: ours over an application and over a function, and the peers'."""

from __future__ import annotations

import asyncio
import datetime
import functools
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

import google.oauth2.credentials
from azure.core.credentials import AccessToken
from azure.identity import ClientSecretCredential
from azure.identity.aio import ClientSecretCredential as AwaitedSecretCredential

import resilient_auth as ra
from resilient_auth.emulator import Emulator

from .measure import in_turns, table

SCOPE = "api://bench/.default"


def run() -> None:
    """Measure against an emulator that hands out one token to each."""
    with Emulator(token_lifetime=24 * 3600.0) as idp:
        about = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": str(idp.ca_file)}
        app = ra.msal.ConfidentialClientApplication("bench", "secret", **about)
        ours = ra.ResilientCredential(app)
        theirs = {"authority": idp.url, "disable_instance_discovery": True, "connection_verify": str(idp.ca_file)}
        azure = ClientSecretCredential("contoso", "bench", "secret", **theirs)
        around = ra.ResilientCredential(azure)
        function = ra.ResilientCredential(lambda _: AccessToken("token", int(time.time()) + 86_400))
        expiry = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=1)
        google_auth = google.oauth2.credentials.Credentials("token", expiry=expiry)  # type: ignore[no-untyped-call]
        credentials = {
            "ResilientCredential(app)": ours,
            "ResilientCredential(azure)": around,
            "ResilientCredential(function)": function,
            "azure-identity": azure,
        }
        for credential in credentials.values():
            credential.get_token(SCOPE)
        for method in ("get_token", "get_token_info"):
            costs = in_turns(
                {
                    **{
                        f"{name}.{method}": functools.partial(getattr(credential, method), SCOPE)
                        for name, credential in credentials.items()
                    },
                    "google-auth (valid, then token)": lambda: google_auth.token if google_auth.valid else None,
                    "google-auth (before_request)": lambda: google_auth.before_request(None, "GET", "https://x", {}),
                }
            )
            table("a held token through a credential", costs)
        asyncio.run(_awaited(app, theirs))


async def _awaited(app: object, theirs: dict[str, object]) -> None:
    ours = ra.aio.ResilientCredential(app)
    azure = AwaitedSecretCredential("contoso", "bench", "secret", **theirs)
    async with azure:
        for method in ("get_token", "get_token_info"):
            asks = {
                f"aio.ResilientCredential(app).{method}": getattr(ours, method),
                f"azure-identity aio {method}": getattr(azure, method),
                "a coroutine that returns at once": getattr(_Empty(), method),
            }
            table("a held token through a credential, awaited", await _awaited_in_turns(asks))


class _Empty:
    """What no credential can be faster than: one coroutine of the same signature."""

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: object,
    ) -> str:
        return ""

    async def get_token_info(self, *scopes: str, options: object = None) -> str:
        return ""


async def _awaited_in_turns(asks: Mapping[str, Callable[[str], Awaitable[object]]]) -> dict[str, float]:
    """Return each one's median cost in seconds, as `in_turns` does."""
    costs: dict[str, list[float]] = {name: [] for name in asks}
    for ask in asks.values():
        await ask(SCOPE)
    for _ in range(15):
        for name, ask in asks.items():
            begun = time.perf_counter()
            for _ in range(4_000):
                await ask(SCOPE)
            costs[name].append((time.perf_counter() - begun) / 4_000)
    return {name: statistics.median(taken) for name, taken in costs.items()}
