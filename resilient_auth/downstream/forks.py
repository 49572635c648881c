"""What can't be used in a forked child as it is: locks that a thread of the parent's may hold, and its connections."""

from __future__ import annotations

import os
from typing import Protocol

from .._policy.living import Living

__all__ = ["Forked", "renew_in_children"]


class Forked(Protocol):
    """What can make itself usable in a child."""

    def after_fork(self) -> None:
        """Take locks of one's own, and forget the calls that the parent's threads are in the middle of."""


_living: Living[Forked] = Living()


def renew_in_children(one: Forked) -> None:
    """Have its `after_fork` called in each forked child in which it is alive."""
    _living.add(one)


def _after_fork() -> None:
    for one in _living.all():
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
