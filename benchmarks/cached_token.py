"""What a token costs that is held and fresh: ours, MSAL's, azure-identity's and google-auth's."""

from __future__ import annotations

import asyncio
import datetime
import time

import google.oauth2.credentials
import msal
from azure.identity import ClientSecretCredential

import resilient_auth as ra
from resilient_auth.emulator import Emulator

from .measure import in_turns, table

SCOPES = ["api://bench/.default"]


def run() -> None:
    """Measure against an emulator that hands out one token to each."""
    with Emulator(token_lifetime=24 * 3600.0) as idp:
        about = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": str(idp.ca_file)}
        ours = ra.msal.ConfidentialClientApplication("bench", "secret", **about)
        wrapped = ra.wrap(msal.ConfidentialClientApplication("bench", "secret", **about))
        theirs = msal.ConfidentialClientApplication("bench", "secret", **about)
        azure = ClientSecretCredential(
            "contoso",
            "bench",
            "secret",
            authority=idp.url,
            disable_instance_discovery=True,
            connection_verify=str(idp.ca_file),
        )
        expiry = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=1)
        google_auth = google.oauth2.credentials.Credentials("token", expiry=expiry)  # type: ignore[no-untyped-call]
        for app in (ours, wrapped, theirs):
            app.acquire_token_for_client(SCOPES)
        azure.get_token(*SCOPES)
        costs = in_turns(
            {
                "resilient_auth.msal": lambda: ours.acquire_token_for_client(SCOPES),
                "resilient_auth.wrap(msal app)": lambda: wrapped.acquire_token_for_client(SCOPES),
                "msal": lambda: theirs.acquire_token_for_client(SCOPES),
                "azure-identity": lambda: azure.get_token(*SCOPES),
                "google-auth (valid, then token)": lambda: google_auth.token if google_auth.valid else None,
                # Headers of its own: it writes itself into those that it is given, behind what is there.
                "google-auth (before_request)": lambda: google_auth.before_request(None, "GET", "https://x", {}),
            }
        )
        table("a held token", costs)
        asyncio.run(_asynchronously(ours))


async def _asynchronously(app: object) -> None:
    awaited = ra.aio.wrap(app)
    await awaited.acquire_token_for_client(SCOPES)
    count = 50_000
    begun = time.perf_counter()
    for _ in range(count):
        await awaited.acquire_token_for_client(SCOPES)
    table("a held token, awaited", {"resilient_auth.aio.wrap(app)": (time.perf_counter() - begun) / count})
