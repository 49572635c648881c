"""What workers run, and the lanes in which it has places."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

__all__ = ["Job", "Lane", "LaneStatus"]


@dataclass(slots=True, eq=False, repr=False)
class Job:
    """Something to run.

    Args:
        lanes: Where it needs places, one after the other.
        call: What to run; None once it is run.
        ends: Monotonic time by which it should be over.
        late: Called in its place where it hasn't begun by then; without it, it begins however late.
    """

    lanes: tuple[str, ...]
    call: Callable[[], object] | None
    _: KW_ONLY
    ends: float = math.inf
    late: Callable[[], None] | None = None
    #: In how many of its lanes it has a place.
    held: int = 0
    #: One that runs waits for it, and so it waits for no place.
    hurried: bool = False
    #: The places that it has beyond a lane's bound.
    beyond: int = 0


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
