"""What workers run, and the lanes in which it has places."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Job", "Lane", "LaneStatus"]


class Job:
    """Something to run.

    Args:
        lanes: Where it needs places, one after the other.
        call: What to run.
        ends: Monotonic time by which it should be over.
        late: Called in its place where it hasn't begun by then; without it, it begins however late.
    """

    __slots__ = ("beyond", "call", "ends", "held", "hurried", "lanes", "late")

    def __init__(
        self,
        lanes: tuple[str, ...],
        call: Callable[[], object],
        *,
        ends: float = math.inf,
        late: Callable[[], None] | None = None,
    ) -> None:
        self.lanes = lanes
        self.call: Callable[[], object] | None = call
        self.ends = ends
        self.late = late
        #: In how many of its lanes it has a place.
        self.held = 0
        #: One that runs waits for it, and so it waits for no place.
        self.hurried = False
        #: The places that it has beyond a lane's bound.
        self.beyond = 0


@dataclass(slots=True)
class Lane:
    """The jobs of one lane."""

    active: dict[Job, None] = field(default_factory=dict)
    waiting: OrderedDict[Job, None] = field(default_factory=OrderedDict)
    #: Whether a timer will look for overdue ones.
    watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """How many exchanges of one lane are under way, wait, or are overdue."""

    #: The authority that they ask; and for whom, where that is told apart.
    name: str
    active: int
    waiting: int
    #: Those whose time is over and which haven't come back: what they call hangs, such as a function of yours.
    overdue: int
