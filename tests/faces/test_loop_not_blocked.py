"""Work on a cache that is slow is done on a thread, and a copy of an asyncio face is one."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from typing import Any

import msal as plain_msal

import resilient_auth as ra

SCOPE = ["https://graph.microsoft.com/.default"]
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'


class SlowCache(plain_msal.TokenCache):  # type: ignore[misc]
    """A cache of the owner's on a slow disk."""

    def search(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.2)
        return super().search(*args, **kwargs)


async def longest_pause(work: Any) -> float:
    """Return for how long the loop did nothing else."""
    longest, task = 0.0, asyncio.ensure_future(work)
    while not task.done():
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - begun)
    await task
    return longest


async def test_a_claims_challenge_stops_no_loop(daemon: Callable[..., Any]) -> None:
    """The refused token goes out of a slow cache on a thread."""
    app = ra.aio.wrap(daemon(token_cache=SlowCache()))
    credential = ra.aio.ResilientCredential(app.app)
    await app.acquire_token_for_client(SCOPE)
    assert await longest_pause(app.acquire_token_for_client(SCOPE, claims_challenge=CHALLENGE)) < 0.15
    assert await longest_pause(credential.get_token(*SCOPE, claims=CHALLENGE)) < 0.15
    assert await longest_pause(credential.invalidate((await credential.get_token(*SCOPE)).token)) < 0.15


async def test_a_copy_works(daemon: Callable[..., Any]) -> None:
    """Around the same application."""
    app = ra.aio.wrap(daemon())
    copied = copy.copy(app)
    assert copied.app is app.app
    assert (await copied.acquire_token_for_client(SCOPE))["access_token"]
