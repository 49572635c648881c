"""What takes time, told as it begins and as it ends to the one who observes this process; by default nobody does.

What is decided is an event. An event can't say which call it was part of, and costs too much for what happens often.
So whoever does what takes time looks here first, and where nobody observes that look is all it costs:

    operation = None if observing.observer is None else observing.observer.begin("store", ...)
    ... do it ...
    if operation is not None: operation.end(...)

An observer and its operations raise nothing and wait for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, MutableMapping
from typing import Any, Protocol, TypeVar

__all__ = ["Count", "Observer", "Operation", "Through", "observe", "observer"]

_S = TypeVar("_S")
_T = TypeVar("_T")

#: Steps, and what they end with.
Through = Generator[_S, Any, _T]


class Count:
    """A number that grows, one step a call that memory answers."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Operation(Protocol):
    """Something that is under way."""

    def enter(self) -> Callable[[], None]:
        """Take what goes on in this context as a part of it, until what this returns is called."""

    def carry(self, headers: MutableMapping[str, str]) -> None:
        """Let the one who is asked know what its work is a part of."""

    def end(self, result: object = None, error: BaseException | None = None) -> None:
        """Note how it ended, on any thread; the first time counts."""

    def abandon(self) -> None:
        """Note that what it is of was given up. It takes no lock: a finaliser may say so, in the middle of anything."""


class Observer(Protocol):
    """One who wants to know how long things take, and what they are part of."""

    def begin(self, kind: str, **about: object) -> Operation:
        """Begin an operation, as a part of what goes on in this context."""

    def through(self, kind: str, steps: Through[_S, _T], **about: object) -> Through[_S, _T]:
        """Take steps through as an operation, of which whatever goes on meanwhile is a part."""

    def decided(self, event: object) -> None:
        """Count an event, at once: a flood of them loses none."""

    def served(self, kind: str, **about: object) -> Count:
        """Return the number that grows each time memory serves what it is about."""


observer: Observer | None = None


def observe(one: Observer | None) -> None:
    """Have one observe this process from now on, in place of whoever did; None for nobody."""
    global observer
    observer = one
