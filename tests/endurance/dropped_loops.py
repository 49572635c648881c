"""Calls that are pending when their event loop is closed and forgotten: the collector ends them, and takes no lock."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import watched_locks

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.downstream import TransportOptions, deadline
from resilient_auth.emulator.provider.realms import tenant_id

faulthandler.dump_traceback_later(50, exit=True)
url, api_url, ca_file, held = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca_file)
app = msal.ConfidentialClientApplication(
    "daemon", "s3cret-of-the-daemon", authority=f"{url}/contoso", instance_discovery=False, verify=ca_file
)


class Silent(httpx.AsyncBaseTransport):
    """An API that never answers, until it does."""

    answers = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        while not self.answers:
            await asyncio.sleep(0.01)
        return httpx.Response(200)


async def never(scopes: Any) -> Any:
    await asyncio.sleep(3600)


def pending(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Begin calls in a loop that is closed while they wait."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    tasks = [loop.create_task(call()) for call in calls]
    loop.run_until_complete(asyncio.sleep(0.3))
    assert not any(task.done() for task in tasks), tasks
    loop.close()
    del loop, tasks
    gc.collect()


def transport(fallback: Callable[..., Any] | None = None, **options: Any) -> tuple[Silent, Any]:
    api = Silent()
    given = {"concurrency": 1, "queue": 1, "queue_wait": 30.0} | options
    return api, ra.AsyncResilientTransport(api, options=TransportOptions(**given), fallback=fallback)


async def send(wire: Any) -> int:
    with deadline(30):
        return int((await wire.handle_async_request(httpx.Request("GET", "https://api.example"))).status_code)


# Asked of a provider that doesn't answer: an application's, a credential's and a verifier's calls.
aio = ra.aio.wrap(app)
awaited = ra.aio.ResilientCredential(never)
credential = ra.aio.ResilientCredential(app)
verifier = ra.aio.ClaimsVerifier.for_entra(tenant_id("contoso"), "api://orders", authority=url, verify=ca_file)
auth = ra.BearerAuth(credential, "api://other/.default", origins=api_url)


async def get() -> None:
    async with httpx.AsyncClient(auth=auth, verify=trust) as client:
        await client.get(f"{api_url}/a")


async def patient() -> Any:
    with ra.wait_at_most(20):
        return await aio.acquire_token_for_client(["api://a/.default"])


for _ in range(3):
    pending(
        patient,
        lambda: awaited.get_token("a"),
        lambda: credential.get_token("api://b/.default"),
        lambda: verifier.verify(held),
        get,
    )
# On the way to an API: sent, in line, hedged, with a fallback.
silent, wire = transport()
for _ in range(3):
    pending(lambda: send(wire), lambda: send(wire))
hedging, hedged = transport(concurrency=2, hedge_after=0.05)
pending(lambda: send(hedged))
falling, fallen = transport(lambda *_: None)
pending(lambda: send(fallen))
gc.collect()
# Nothing that they held is lost.
for api, one in ((silent, wire), (hedging, hedged), (falling, fallen)):
    api.answers = True
    for _ in range(3):
        assert asyncio.run(send(one)) == 200
        assert [circuit.bulkhead.in_use for circuit in one._pipeline.circuits._kept.values()] == [0]
# Owners that are forgotten and not closed.
for name in ("aio", "awaited", "credential", "verifier", "auth", "app", "wire", "hedged", "fallen", "one"):
    del globals()[name]
gc.collect()
ra.health()
print(*watched_locks.violations or ["none"], sep="\n", flush=True)
os._exit(0)
