"""What the calls with one key share: a breaker, a bulkhead and a budget of retries."""

from __future__ import annotations

import threading

import cachetools

from ..._policy.breaker import Breaker, BreakerStatus, Dependency, prepare
from ..._policy.retry import Budget
from ..._process.living import LiveObjects
from ..options import TransportOptions
from .bulkhead import Bulkhead

__all__ = ["Circuit", "Circuits", "circuits"]

#: Keys whose breakers are kept.
_MOST_KEYS = 1024


class Circuit:
    """What the calls with one key share."""

    __slots__ = ("breaker", "budget", "bulkhead", "name")

    def __init__(self, name: str, options: TransportOptions) -> None:
        self.name = name
        around = Dependency(target=name, purpose="api")
        self.breaker = Breaker(around, options.breaker, clock=options.clock, jitter=options.jitter)
        self.bulkhead = Bulkhead(options.concurrency, options.queue)
        self.budget = Budget(options.retry_budget)

    def after_fork(self) -> None:
        """Make it usable in a forked child: what it knows of the API stays, the parent's calls are forgotten."""
        self.breaker.renew_lock()
        self.budget.renew_lock()
        self.bulkhead = self.bulkhead.after_fork()


class Circuits:
    """Keep a transport's circuits by key, the most recently used ones."""

    def __init__(self, options: TransportOptions) -> None:
        prepare()
        self._options = options
        self._lock = threading.Lock()
        self._kept: cachetools.LRUCache[str, Circuit] = cachetools.LRUCache(_MOST_KEYS)
        self._last: Circuit | None = None
        _kept.add(self)

    def find(self, name: str) -> Circuit:
        """Find the one with this key, or make it."""
        last = self._last
        if last is not None and last.name == name:
            return last
        with self._lock:
            circuit: Circuit | None = self._kept.get(name)
            if circuit is None:
                circuit = self._kept[name] = Circuit(name, self._options)
            # It can't be evicted before another key was asked for, and so stood here.
            self._last = circuit
            return circuit

    def all(self) -> list[Circuit]:
        """List those that are kept."""
        with self._lock:
            return list(self._kept.values())

    def statuses(self) -> tuple[BreakerStatus, ...]:
        """Return how each breaker stands."""
        return tuple(circuit.breaker.status() for circuit in self.all())

    def after_fork(self) -> None:
        """Make them usable in a forked child."""
        self._lock = threading.Lock()
        # Another thread of the parent's may have been in the middle of changing it.
        kept, self._kept = self._kept, cachetools.LRUCache(_MOST_KEYS)
        for name, circuit in list(kept.items()):
            circuit.after_fork()
            self._kept[name] = circuit


_kept: LiveObjects[Circuits] = LiveObjects()


def circuits() -> list[Circuit]:
    """List those of all transports of this process."""
    return [circuit for kept in _kept.all() for circuit in kept.all()]
