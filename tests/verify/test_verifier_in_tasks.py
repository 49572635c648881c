"""The same verifier for asyncio: the loop is never blocked, and a cancelled task harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from arriving import AUDIENCE, TENANT

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault

Build = Callable[..., ra.aio.ClaimsVerifier]


@pytest.fixture
def build(idp: Emulator, settings: Any) -> Build:
    """Build one at the emulator."""

    def make(**options: Any) -> ra.aio.ClaimsVerifier:
        given = {"settings": settings(), "verify": idp.ca_file, "authority": idp.url} | options
        return ra.aio.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **given)

    return make


async def turns(work: Any) -> int:
    """Return how often the loop turned to something else meanwhile."""
    task, count = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0.005)
        count += 1
    await task
    return count


async def test_a_token_is_verified(build: Build, mint: Any) -> None:
    """At first sight, again, and with what the call asks."""
    async with build() as verifier:
        token = mint()
        first = await verifier.verify(token)
        assert await verifier.verify(token) is first
        assert await verifier.verify(token, scopes=["Orders.Read"], app_only=False)
        with pytest.raises(ra.InvalidToken) as caught:
            await verifier.verify(token, scopes=["Orders.Delete"])
        assert caught.value.status == 403
        with pytest.raises(ra.InvalidToken):
            await verifier.verify("x")


async def test_many_tasks_make_one_fetch(build: Build, mint: Any, fetches: Any, idp: Emulator) -> None:
    """At first and in a roll-over, while the loop goes on."""
    async with build() as verifier:
        idp.fail(Fault.slow(0.3), "jwks")
        for _ in range(2):
            # A loop that a fetch holds up turns once or twice; another one sixty times, if the machine is quiet.
            assert await turns(asyncio.gather(*(verifier.verify(mint(uti=str(n))) for n in range(50)))) >= 6
            idp.roll_keys()
        assert fetches() == 2


async def test_a_cancelled_task_harms_no_other(build: Build, mint: Any, idp: Emulator) -> None:
    """The fetch that it began goes on for those who wait."""
    idp.fail(Fault.slow(0.3), "jwks")
    async with build() as verifier:
        token = mint()
        first = asyncio.create_task(verifier.verify(token))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(verifier.verify(token))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).client_id == "shop"


async def test_those_who_give_up_leave_their_place(build: Build, mint: Any, idp: Emulator) -> None:
    """Cancelled or out of patience: the bounded number of waiters is that of those who wait."""
    options = ra.verify.KeyOptions(waiters=2, wait=5.0)
    idp.fail(Fault.black_hole(), "jwks")
    async with build(keys=options) as verifier:
        token = mint()
        for _ in range(5):
            waiting = [asyncio.create_task(verifier.verify(token)) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(ra.VerificationUnavailable, match="too many wait"):
                await verifier.verify(token)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        with ra.wait_at_most(0.05), pytest.raises(ra.VerificationUnavailable, match="hasn't answered"):
            await verifier.verify(token)


async def test_warming_up_and_closing(build: Build, mint: Any, idp: Emulator) -> None:
    """As the blocking one does."""
    verifier = build()
    await verifier.warm_up()
    idp.fail(Fault.refuse())
    assert (await verifier.verify(mint())).provenance.keys == "fresh"
    await verifier.aclose()
    with pytest.raises(ra.errors.Closed):
        await verifier.verify(mint())


def test_one_verifier_in_several_loops(build: Build, mint: Any) -> None:
    """It belongs to none of them."""
    verifier = build()
    for _ in range(2):
        assert asyncio.run(verifier.verify(mint())).client_id == "shop"
    asyncio.run(verifier.close())
