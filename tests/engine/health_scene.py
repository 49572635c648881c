"""Scenes for `test_health`, each in a process of its own, since health() looks at a whole process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from resilient_auth._engine import schedule
from resilient_auth._engine.cache import CacheEntry, Memory, forget_closed
from resilient_auth._engine.engine import Engine
from resilient_auth._fleet.engines import engine_for
from resilient_auth._policy.breaker import breakers
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth.errors import ServerFailed
from resilient_auth.health import Health, health
from resilient_auth.settings import Settings
from resilient_auth.testing import ManualClock, no_jitter
from resilient_auth.token import Token, TokenRequest

HOST = "https://login.example"
HERE = Endpoint(HOST)


class Scene:
    """One application, one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_700_000_000.0)
        self.engine: Engine = engine_for(Settings(clock=self.clock, jitter=no_jitter))
        self.memory = Memory(100, self.engine)

    def entry(self, scope: str = "a", *, life: float | None = None, subject: str | None = None) -> CacheEntry:
        entry = self.memory.entry(TokenRequest(HOST, "app", "silent", (scope,), subject), (HERE,))
        entry.asked_at = self.clock.monotonic()
        if life is not None:
            self.memory.put(
                entry, Token("s", "Bearer", self.clock.wall(), self.clock.monotonic(), life, life / 2), None
            )
        return entry

    def fail(self, entry: CacheEntry) -> None:
        entry.last_error = ServerFailed("503", authority=HOST)
        entry.failures += 1
        for _ in range(3):
            if self.engine.breaker(HERE, Purpose.TOKEN).status().state == "closed":
                self.engine.breaker(HERE, Purpose.TOKEN).admit().failure("503")


def nothing(_: Scene) -> None:
    """Nobody has asked for anything."""


def fresh(scene: Scene) -> None:
    scene.entry(life=3600, subject="user.tenant")
    scene.clock.advance(100)


def due(scene: Scene) -> None:
    scene.entry(life=3600)
    scene.clock.advance(1800)


def outage(scene: Scene) -> None:
    scene.entry("b", life=7200)
    entry = scene.entry(life=3600)
    scene.clock.advance(2000)
    entry.asked_at = scene.clock.monotonic()
    scene.fail(entry)


def soon_gone(scene: Scene) -> None:
    entry = scene.entry(life=3600)
    scene.clock.advance(2800)
    entry.asked_at = scene.clock.monotonic()
    scene.fail(entry)


def gone(scene: Scene) -> None:
    entry = scene.entry(life=3600)
    scene.clock.advance(3600)
    entry.asked_at = scene.clock.monotonic()
    scene.fail(entry)


def never_had(scene: Scene) -> None:
    scene.fail(scene.entry())


def given_up(scene: Scene) -> None:
    scene.fail(scene.entry())
    scene.clock.advance(901)


def pinned_and_gone(scene: Scene) -> None:
    entry = scene.entry(life=3600)
    entry.reschedule = schedule.schedule
    scene.clock.advance(10_000)
    scene.fail(entry)


def closed(scene: Scene) -> None:
    """As whoever replaces one application by another one does, which still holds the former."""
    entry = scene.entry(life=3600)
    entry.reschedule = schedule.schedule
    scene.clock.advance(10_000)
    scene.fail(entry)
    forget_closed(scene.memory)


def idle(scene: Scene) -> None:
    scene.entry(life=600)
    scene.clock.advance(601)


def denied(scene: Scene) -> None:
    scene.entry().denied = True


def isolated(scene: Scene) -> None:
    scene.entry(life=3600)
    scene.engine.breaker(HERE, Purpose.TOKEN).isolate()


SCENES: dict[str, Callable[[Scene], None]] = {
    f.__name__: f
    for f in (
        nothing,
        fresh,
        due,
        outage,
        soon_gone,
        gone,
        never_had,
        given_up,
        pinned_and_gone,
        closed,
        idle,
        denied,
        isolated,
    )
}


def play(name: str) -> dict[str, Any]:
    scene = Scene()
    SCENES[name](scene)
    seen: Health = health()
    for breaker in breakers():
        breaker.reset()
    return {
        "verdict": seen.verdict,
        "ready": seen.ready,
        "time_to_dark": seen.time_to_dark,
        "tokens": [
            [t.scopes, t.state, t.time_to_dark, t.pinned, t.failures, t.last_code, t.subject] for t in seen.tokens
        ],
        "text": str(seen),
        "json": seen.to_dict(),
        "breakers": [[b.name, b.state, b.last_code] for b in seen.breakers if b.state != "closed"],
    }


if __name__ == "__main__":
    import gc

    report = {}
    for name in SCENES:
        report[name] = play(name)
        gc.collect()
    json.dump(report, sys.stdout)
