"""Verifications, counted where somebody observes this process; where nobody does, nothing is in their way."""

from __future__ import annotations

from typing import Any

from .._engine.steps import Step
from .._process import observing
from .._process.living import LiveObjects
from .claims import Claims
from .errors import InvalidToken, VerificationUnavailable

__all__ = ["count", "count_anew", "counted"]

#: What verifies, and where it keeps the issuer by which it is told.
_cores: LiveObjects[Any] = LiveObjects()
_ISSUER = "_counted_by"


def counted(steps: observing.Through[Step, Claims], issuer: str) -> observing.Through[Step, Claims]:
    """Return the steps of a verification, observed where somebody does."""
    observer = observing.observer
    return steps if observer is None else observer.through("verification", steps, issuer=issuer)


def count(core: Any, issuer: str) -> None:
    """Have what a verifier's `seen` returns counted, now and whenever somebody observes."""
    core.__dict__[_ISSUER] = issuer
    _cores.add(core)
    _count(core)


def count_anew() -> None:
    """Have all of them counted by who observes now, or by nobody."""
    for core in _cores.all():
        _count(core)


def _count(core: Any) -> None:
    issuer: str = core.__dict__[_ISSUER]
    core.__dict__.pop("seen", None)
    observer, seen = observing.observer, type(core).seen
    if observer is None:
        return
    served = observer.served("verification", issuer=issuer)

    def counting(token: str) -> Claims | None:
        try:
            claims: Claims | None = seen(core, token)
        except (InvalidToken, VerificationUnavailable) as error:
            observer.begin("verification", issuer=issuer).end(error=error)
            raise
        if claims is not None:
            served.count += 1
        return claims

    core.__dict__["seen"] = counting
