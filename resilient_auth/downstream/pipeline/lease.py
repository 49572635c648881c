"""What a call holds while it is under way: the breaker's permit and a slot of the bulkhead, given back exactly once.

A call whose event loop was closed is ended by the collector, on a thread that may hold any lock: what the call holds is
handed over, and the next one gives it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..._policy.breaker import Permit
    from .bulkhead import Bulkhead, QueuePlace

__all__ = ["Lease", "Turn"]


class Lease:
    """Hold a permit and a slot. The first verdict counts; the slot is left once, whoever asks how often."""

    __slots__ = ("_permit", "held")

    def __init__(self, permit: Permit, bulkhead: Bulkhead) -> None:
        self._permit = permit
        #: The bulkhead while the slot is taken. Taking the last item out of a list is atomic: two threads can't both.
        self.held = [bulkhead]

    def judge(self, cause: str | None) -> None:
        """Give the verdict and keep the slot: a cause for a failure, None for nothing said about the API."""
        if cause is None:
            self._permit.none()
        else:
            self._permit.failure(cause)

    def succeed(self) -> None:
        """Say that the API answered as it should, and leave."""
        if self.held:
            self._permit.success()
            self._leave()

    def fail(self, cause: str | None) -> None:
        """Give the verdict, and leave."""
        if self.held:
            self.judge(cause)
            self._leave()

    def _leave(self) -> None:
        try:
            bulkhead = self.held.pop()
        except IndexError:
            return
        bulkhead.leave()


class Turn:
    """Hold a permit and a place in line."""

    __slots__ = ("_bulkhead", "_permit", "_place")

    def __init__(self, permit: Permit, bulkhead: Bulkhead, place: QueuePlace) -> None:
        self._permit = permit
        self._bulkhead = bulkhead
        self._place = place

    def fail(self, cause: str | None) -> None:
        """Leave the line, or the slot that was granted meanwhile."""
        if self._bulkhead.give_up(self._place):
            self._bulkhead.leave()
        if cause is None:
            self._permit.none()
        else:
            self._permit.failure(cause)
