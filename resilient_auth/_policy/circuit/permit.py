"""One call's leave to go out, and what it says about the dependency."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Protocol

__all__ = ["Permit", "Verdict"]


class Verdict(Enum):
    """What a call said about the dependency; NONE where it was cancelled, or the dependency works and said no."""

    SUCCESS = "success"
    FAILURE = "failure"
    NONE = "none"


class Settling(Protocol):
    """What a verdict is owed to."""

    def settle(self, permit: Permit, verdict: Verdict, code: str = "", *, whoever: bool = False) -> bool:
        """Take a permit's first verdict; returns whether it counted."""


class Permit:
    """One call's leave to go out, and its verdict: the first one counts.

    As a context manager it gives itself back without a verdict where none was given.
    """

    __slots__ = ("_breaker", "era", "settled", "who")

    def __init__(self, breaker: Settling, era: int, who: Hashable = None) -> None:
        self._breaker = breaker
        self.era = era
        self.who = who
        self.settled = False

    def success(self) -> None:
        """Say that the dependency answered as it should."""
        self._breaker.settle(self, Verdict.SUCCESS)

    def failure(self, code: str, *, whoever: bool = False) -> bool:
        """Say that the dependency failed, with a stable code.

        Args:
            code: What happened.
            whoever: Whether anybody would have seen it fail: it counts each time, whoever asked.

        Returns:
            Whether it counted.
        """
        return self._breaker.settle(self, Verdict.FAILURE, code, whoever=whoever)

    def none(self) -> None:
        """Say nothing about the dependency, and let the next caller probe it."""
        self._breaker.settle(self, Verdict.NONE)

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.settled:
            self.none()
