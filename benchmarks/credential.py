"""What a held token costs through a credential: ours over an application and over a function, and the peers'."""

from __future__ import annotations

import asyncio
import datetime
import functools
import time
from collections.abc import Awaitable, Callable

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
                    "google-auth (before_request)": lambda: google_auth.before_request(None, "GET", "https://x", {}),
                }
            )
            table("a held token through a credential", costs)
        asyncio.run(_awaited(app, theirs))


async def _awaited(app: object, theirs: dict[str, object]) -> None:
    ours = ra.aio.ResilientCredential(app)
    azure = AwaitedSecretCredential("contoso", "bench", "secret", **theirs)
    async with azure:
        table(
            "a held token through a credential, awaited",
            {
                "aio.ResilientCredential(app).get_token": await _cost(ours.get_token),
                "aio.ResilientCredential(app).get_token_info": await _cost(ours.get_token_info),
                "azure-identity aio get_token": await _cost(azure.get_token),
                "azure-identity aio get_token_info": await _cost(azure.get_token_info),
            },
        )


async def _cost(ask: Callable[[str], Awaitable[object]]) -> float:
    await ask(SCOPE)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(5_000):
            await ask(SCOPE)
        best = min(best, (time.perf_counter() - begun) / 5_000)
    return best
