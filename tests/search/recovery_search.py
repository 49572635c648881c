"""Every order in which applications close, and others ask, while the package's own recovery waits for a provider.

Each exchange, timer and answer of a simulated outage is a step. In between any two of them one application may be
closed, and in between any two later ones somebody may ask: all pairs of places are tried. Whatever is closed, and when,
what the others want comes by itself soon after the provider is back.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from flow_world import HERE, HOST, Process, Provider, World, exchange_over, seeded

from resilient_auth._engine import schedule
from resilient_auth._engine.cache import Memory
from resilient_auth.token import TokenRequest

MODES = ("503", "refuse", "429")
#: Seconds of the outage, and after it until which everything must have come.
OUTAGE, SOON = 40.0, 40.0


class Lost(AssertionError):
    """Somebody's token never came, though nobody is in its way."""


def run(mode: str, close_after: int | None, ask_after: int | None) -> int:
    """Go through one outage; returns its number of steps."""
    world = World()
    provider = Provider(world, mode="up", retry_after=20.0, dark=[(1_000.0, 1_000.0 + OUTAGE, mode)])
    closing = Process.make(world, provider, who="closing", jitter=seeded(1))
    pinned = _beside(closing, "pinned")
    asked = _beside(closing, "asked")
    for process in (closing, pinned):
        process.keep_fresh()
    asked.ask()
    steps = 0
    while world.now < 1_000.0 + OUTAGE + SOON:
        before = world.entries
        world.until(1_000.0 + OUTAGE + SOON, stop=lambda before=before: world.entries > before)
        steps += 1
        if steps == close_after:
            _close(closing)
        if steps == ask_after:
            asked.ask()
    for process in (pinned, asked):
        token = process.entry.token
        if token is None:
            raise Lost(f"{process.entry.request}: {mode}, closed after {close_after}, asked after {ask_after}")
    if not provider.overlaps:
        return steps
    raise Lost(f"two exchanges for one token at once: {mode}, closed after {close_after}, asked after {ask_after}")


def _beside(process: Process, who: str) -> Process:
    """Make one more application with the same engine."""
    memory = Memory(100, process.engine)
    entry = memory.entry(TokenRequest(HOST, "app", "client_credentials", (f"scope of {who}",)), (HERE,))
    entry.renew = exchange_over(process.engine, process.provider, who)
    return Process(process.world, process.provider, process.engine, memory, entry, entry.renew)


def _close(process: Process) -> None:
    """Do what an application object's close() does."""
    for entry in process.memory:
        schedule.release(entry)
        entry.renew = None
    process.memory.drop_all("closed")


def search(*, pairs: bool) -> int:
    """Search all places to close, with all later ones to ask for `pairs`; returns the number of runs."""
    runs = 0
    for mode in MODES:
        steps = run(mode, None, None)
        for close_after in range(1, steps):
            for ask_after in (None, *(range(close_after, steps) if pairs else ())):
                run(mode, close_after, ask_after)
                runs += 1
    return runs


def whole() -> str:
    """Search all pairs; returns what was searched."""
    return f"{search(pairs=True)} runs"
