"""Verifications, counted where somebody observes this process; where nobody does, nothing is in their way."""

from __future__ import annotations

from typing import Protocol

from .._engine.steps import Step
from .._process import observing
from .._process.living import LiveObjects
from .claims import Claims

__all__ = ["Counting", "count", "count_anew", "counted", "refused"]


class Counting(Protocol):
    """What verifies, and counts those that it remembers."""

    @property
    def issuer(self) -> str:
        """What it is told by."""
        ...

    #: The number that grows; None where nobody observes.
    served: observing.Count | None


_all: LiveObjects[Counting] = LiveObjects()


def counted(steps: observing.Through[Step, Claims], issuer: str) -> observing.Through[Step, Claims]:
    """Return the steps of a verification, observed where somebody does."""
    observer = observing.observer
    return steps if observer is None else observer.through("verification", steps, issuer=issuer)


def refused(error: Exception, issuer: str) -> None:
    """Note that a token which is remembered is refused, or can't be verified now."""
    observer = observing.observer
    if observer is not None:
        observer.begin("verification", issuer=issuer).end(error=error)


def count(one: Counting) -> None:
    """Have one count, now and whenever somebody observes."""
    _all.add(one)
    _count(one)


def count_anew() -> None:
    """Have all of them count for who observes now, or for nobody."""
    for one in _all.all():
        _count(one)


def _count(one: Counting) -> None:
    observer = observing.observer
    one.served = None if observer is None else observer.served("verification", issuer=one.issuer)
