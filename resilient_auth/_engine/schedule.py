"""Tokens that are kept fresh: refreshed when they are due, with or without traffic (G5)."""

from __future__ import annotations

from .._policy.freshness import Freshness, assess
from .._process import forks
from .._process.living import weakly
from ..events import RefreshScheduled, emit
from .cache import CacheEntry, memories
from .engine import Engine
from .recovery import refresh_in_background, watch_over

__all__ = ["keep_fresh", "release", "schedule"]

#: Seconds before its time at which a token counts as due for its timer: sums of floats are a little off.
_TOLERANCE = 0.01


def keep_fresh(engine: Engine, entry: CacheEntry) -> None:
    """Pin a cache entry: get its token now and refresh it ahead from then on, with or without traffic."""
    entry.reschedule = schedule
    schedule(engine, entry)


def release(entry: CacheEntry) -> None:
    """Unpin a cache entry."""
    entry.reschedule = None
    timer, entry.timer = entry.timer, None
    if timer is not None:
        timer.cancel()


def schedule(engine: Engine, entry: CacheEntry, delay: float | None = None) -> None:
    """Have a cache entry refreshed when it is due, or after `delay` seconds."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    if delay is None:
        token = entry.token
        if token is None:
            delay = 0.0
        else:
            # A little later than due, never later than half of what is left: a fleet that started together spreads.
            left = max(0.0, token.due_after - token.age(wall, now))
            spread = max(0.0, min(0.05 * token.life, 0.5 * (token.life - token.due_after)))
            delay = left + engine.jitter(0.0, spread)
    release_timer, entry.timer = entry.timer, None
    if release_timer is not None:
        release_timer.cancel()
    emit(RefreshScheduled(at=wall, request=entry.request, seconds=delay, code="keep_fresh"))
    timer = engine.timers.call_at(now + delay, weakly(entry, lambda s: _refresh_if_due(engine, s)))
    if timer.pending:  # or it has come already, and the exchange that it began has set the next one
        entry.timer = timer


def _refresh_if_due(engine: Engine, entry: CacheEntry) -> None:
    renew = entry.renew
    if renew is None or not entry.pinned:
        return
    state = assess(entry.token, engine.clock.wall(), engine.clock.monotonic(), engine.settings.freshness)
    if state is Freshness.FRESH and not _is_about_due(engine, entry):  # traffic was faster
        schedule(engine, entry)
    else:
        entry.not_before = 0.0
        refresh_in_background(engine, entry, renew)
        watch_over(engine, entry)


def _is_about_due(engine: Engine, entry: CacheEntry) -> bool:
    token = entry.token
    return token is None or token.due_after - token.age(engine.clock.wall(), engine.clock.monotonic()) <= _TOLERANCE


@forks.resumed
def _resume() -> None:
    # The parent's timers aren't there: what is pinned is scheduled anew.
    for memory in memories():
        for entry in memory:
            if entry.pinned:
                schedule(memory.engine, entry)
