"""Credentials that are awaited: in a loop that lasts, or in the caller's where they belong to it."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time

import aiohttp
import pytest
from azure.identity.aio import ClientSecretCredential

import resilient_auth as ra
from resilient_auth._engine.threads import lasting_loop
from resilient_auth.emulator import Fault
from resilient_auth.events import TokenAcquired
from resilient_auth.testing import capture_events


def azures(idp):
    return ClientSecretCredential(
        "contoso", "daemon", "secret", authority=idp.url, disable_instance_discovery=True,
        connection_verify=idp.ca_file, retry_total=0,
    )  # fmt: skip


def test_azure_identitys_session_outlives_the_job_that_opened_it(idp, settings):
    """Each job is an `asyncio.run`, and each asks the provider."""
    credential = ra.aio.ResilientCredential(azures(idp), settings=settings())
    for number in range(3):
        assert asyncio.run(credential.get_token(f"api://{number}/.default")).token
    asyncio.run(credential.close())


def test_an_outage_is_lived_through_where_each_job_is_a_run(idp, settings, clock, eventually):
    """The token that is held is served, and a new one comes when the provider is back."""
    form = {
        "grant_type": "client_credentials",
        "client_id": "daemon",
        "client_secret": "s",
        "scope": "api://a/.default",
    }
    sessions = []

    async def ask(_):
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        trust = ssl.create_default_context(cafile=idp.ca_file)
        url = f"{idp.authority('contoso')}/oauth2/v2.0/token"
        async with sessions[0].post(url, data=form, ssl=trust) as response:
            if response.status >= 500:
                raise ConnectionError
            return (await response.json())["access_token"], clock.wall() + 3600

    credential = ra.aio.ResilientCredential(ask, settings=settings())

    async def job():
        return (await credential.get_token("a")).token

    first = asyncio.run(job())
    idp.fail(Fault.http_503(), "token")
    clock.skip(2000)  # due: each job begins a refresh in the background, and ends
    for _ in range(3):
        assert asyncio.run(job()) == first
        clock.skip(60)
    idp.heal()
    clock.skip(120)

    def fresh():
        clock.skip(
            1
        )  # a refresh that began in the outage may fail after it, and the next one has a back-off to wait for
        return asyncio.run(job()) != first

    eventually(fresh)
    asyncio.run_coroutine_threadsafe(sessions[0].close(), lasting_loop()).result(5)


def test_a_refresh_ahead_needs_no_callers_loop(settings, clock):
    """The job that made it due is over by then; the provider isn't blamed, and the next job has the new token."""
    loops, slow = [], threading.Event()

    async def ask(_):
        loops.append(asyncio.get_running_loop())
        while loops[1:] and not slow.is_set():
            await asyncio.sleep(0.01)
        return f"t{len(loops)}", clock.wall() + 3600

    credential = ra.aio.ResilientCredential(ask, settings=settings())

    async def job():
        return (await credential.get_token("a")).token, asyncio.get_running_loop()

    with capture_events() as events:
        token, first = asyncio.run(job())
        assert token == "t1"
        clock.skip(3000)
        token, second = asyncio.run(job())
        assert token == "t1"
        slow.set()
        events.wait_for(TokenAcquired, count=2)
    assert asyncio.run(job())[0] == "t2"
    assert len(set(loops)) == 1
    assert loops[0] not in (first, second)


async def test_one_that_was_opened_in_the_callers_loop_is_awaited_there(idp, scope, settings):
    """Its session belongs to that loop, as after `async with`."""
    async with azures(idp) as theirs:
        credential = ra.aio.ResilientCredential(theirs, settings=settings())
        got = await asyncio.gather(*(credential.get_token(scope) for _ in range(20)))
        assert len({one.token for one in got}) == 1
        await credential.close()


async def test_a_callers_loop_is_never_used_for_anothers_call(settings):
    """A function whose lock belongs to one loop works for callers there, and raises for those elsewhere."""
    lock = asyncio.Lock()
    await lock.acquire()
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    mine = asyncio.get_running_loop()

    async def ask(scopes):
        waits = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0.01)
        waits.cancel()
        try:
            await waits
        except asyncio.CancelledError:
            return f"t of {asyncio.get_running_loop() is mine}", time.time() + 3600

    credential = ra.aio.ResilientCredential(ask, settings=settings())
    assert (await credential.get_token("here")).token == "t of True"
    with pytest.raises(RuntimeError, match="different event loop"):
        await asyncio.to_thread(lambda: asyncio.run(credential.get_token("elsewhere")))
    waiting.cancel()


@pytest.mark.parametrize("ends", [SystemExit(3), KeyboardInterrupt(), None], ids=["exit", "interrupt", "stop"])
def test_one_that_ends_the_loop_ends_no_others(settings, ends):
    """Each other credential of the process is awaited there as well, as long as it lives."""

    async def odd(_):
        if ends is not None:
            raise ends
        asyncio.get_running_loop().stop()
        return "odd", time.time() + 3600

    async def good(_):
        return "good", time.time() + 3600

    first, second = (ra.aio.ResilientCredential(each, settings=settings()) for each in (odd, good))
    for number in range(3):
        if ends is None:
            assert asyncio.run(first.get_token(f"a{number}")).token == "odd"
        else:
            with pytest.raises(type(ends)):
                asyncio.run(first.get_token(f"a{number}"))
        assert asyncio.run(second.get_token(f"b{number}")).token == "good"


def test_a_forked_childs_loop_is_its_own(settings):
    """The parent's thread isn't there."""
    from forked import in_a_child

    async def ask(_):
        return f"of {os.getpid()}", time.time() + 3600

    credential = ra.aio.ResilientCredential(ask, settings=settings())
    asyncio.run(credential.get_token("a"))

    def work():
        assert asyncio.run(credential.get_token("b")).token == f"of {os.getpid()}"

    assert in_a_child(work) < 3
