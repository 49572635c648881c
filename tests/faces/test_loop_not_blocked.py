"""Work on a cache that is slow is done on a thread, and a copy of an asyncio face is one."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from typing import Any

import msal as plain_msal

import resilient_auth as ra
from resilient_auth.events import RefreshScheduled
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'


class AnyCache(plain_msal.TokenCache):  # type: ignore[misc]
    """A cache of the owner's, who says on which threads it is searched: its disk may be slow."""

    def __init__(self) -> None:
        super().__init__()
        self.searched_on: set[threading.Thread] = set()

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self.searched_on.add(threading.current_thread())
        return super().search(*args, **kwargs)


async def test_a_claims_challenge_stops_no_loop(daemon: Callable[..., Any]) -> None:
    """The refused token goes out of a slow cache on a thread."""
    cache = AnyCache()
    app = ra.aio.wrap(daemon(token_cache=cache))
    credential = ra.aio.ResilientCredential(app.app)
    await app.acquire_token_for_client(SCOPE)
    for call in (
        lambda held: app.acquire_token_for_client(SCOPE, claims_challenge=CHALLENGE),
        lambda held: credential.get_token(*SCOPE, claims=CHALLENGE),
        lambda held: credential.invalidate(held.token),
    ):
        held = await credential.get_token(*SCOPE)
        cache.searched_on.clear()
        await call(held)
        assert cache.searched_on
        assert threading.current_thread() not in cache.searched_on


async def test_to_keep_a_token_fresh_stops_no_loop(daemon: Callable[..., Any], eventually: Callable[..., None]) -> None:
    """What a slow cache has is looked for on a thread, and kept fresh as if it had been asked for."""
    cache = AnyCache()
    held = daemon(token_cache=cache).acquire_token_for_client(SCOPE)["access_token"]
    app = ra.aio.wrap(daemon(token_cache=cache))
    cache.searched_on.clear()
    with capture_events() as events:
        app.keep_fresh(SCOPE)
        await asyncio.to_thread(events.wait_for, RefreshScheduled)
    assert cache.searched_on
    assert threading.current_thread() not in cache.searched_on
    assert events.of(RefreshScheduled)[0].seconds > 1000
    assert (await app.acquire_token_for_client(SCOPE))["access_token"] == held


def test_what_is_closed_meanwhile_is_kept_fresh_no_more(
    daemon: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    """While the slow cache was looked into, the application was closed."""

    class Closing(AnyCache):
        app: Any = None

        def search(self, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread() and self.app is not None:
                self.app.close()
            return super().search(*args, **kwargs)

    cache = Closing()
    app = daemon(token_cache=cache)
    plan = app._ra_for_client(SCOPE, None, None, None, {})
    plan.acquisition.close()
    cache.app = app
    with capture_events() as events:
        app.keep_fresh(SCOPE)
        events.wait_for(RefreshScheduled)
        eventually(lambda: plan.entry.reschedule is None and plan.entry.timer is None)


async def test_a_copy_works(daemon: Callable[..., Any]) -> None:
    """Around the same application."""
    app = ra.aio.wrap(daemon())
    copied = copy.copy(app)
    assert copied.app is app.app
    assert (await copied.acquire_token_for_client(SCOPE))["access_token"]
