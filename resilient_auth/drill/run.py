"""The drill from the first process to the last finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .client import Refused
from .judge import Finding, judge
from .plan import Plan, Scenario
from .scene import Scene

__all__ = ["Outcome", "run"]

_TICK: Final = 0.05
#: Seconds between the starts of two scenes, so that not all of them break in the same instant of a small machine.
_STAGGER: Final = 0.15


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of both clients under one fault."""

    scenario: Scenario
    peer: Finding
    sdk: Finding


def run(plan: Plan, watch: Callable[[Sequence[Scene]], None]) -> list[Outcome]:
    """Carry a plan through, as many scenarios at a time as it says.

    Args:
        plan: What to do.
        watch: Called often with the scenes that are under way.

    Raises:
        Refused: An application can't be drilled at all.
    """
    outcomes: list[Outcome] = []
    for first in range(0, len(plan.scenarios), plan.parallel):
        outcomes += _run_wave(plan.scenarios[first : first + plan.parallel], plan, watch)
    return outcomes


def _run_wave(wave: Sequence[Scenario], plan: Plan, watch: Callable[[Sequence[Scene]], None]) -> list[Outcome]:
    scenes: list[Scene] = []
    try:
        for scenario in wave:
            scenes.append(Scene(scenario, plan))
            watch(scenes)
        while not all(scene.ready for scene in scenes):
            _tick(scenes, watch)
        for side in (side for scene in scenes for side in scene.sides):
            if side.process.refused is not None:
                raise Refused(side.process.refused)
        first = time.time() + 0.2
        for number, scene in enumerate(scenes):
            scene.start(first + number * _STAGGER)
        while not all(scene.over for scene in scenes):
            _tick(scenes, watch)
        return [Outcome(scene.scenario, *(judge(one) for one in scene.evidence())) for scene in scenes]
    finally:
        for scene in scenes:
            scene.close()


def _tick(scenes: Sequence[Scene], watch: Callable[[Sequence[Scene]], None]) -> None:
    for scene in scenes:
        scene.advance()
    watch(scenes)
    time.sleep(_TICK)
