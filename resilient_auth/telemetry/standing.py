"""The gauges: how things stand when somebody reads, from `health()` and from those who hold it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from .._engine.cache import memories
from ..downstream.pipeline.circuit import circuits
from ..events.event import origin_in
from ..health import Health, health
from ..health.standing import Verdict
from .certificates import lives
from .labels import Addresses
from .metrics import MOST_SERIES, folded
from .tally import Labels

__all__ = ["Standing", "standing"]

#: A gauge's name, its labels, and its value.
Standing = tuple[str, Labels, float]


def standing(addresses: Addresses) -> list[Standing]:
    """Return every gauge's readings, those with the same labels as one: a sum of numbers, the worst of times."""
    kept: dict[tuple[str, Labels], float] = {}
    told: Counter[str] = Counter()
    for name, labels, value in _readings(addresses, health()):
        if (name, labels) not in kept and told[name] >= MOST_SERIES:
            labels = folded(name, labels)
        told[name] += (name, labels) not in kept
        before = kept.get((name, labels))
        kept[name, labels] = value if before is None else _worst(name)(before, value)
    return [(name, labels, value) for (name, labels), value in kept.items()]


def _worst(name: str) -> Callable[[float, float], float]:
    if name.endswith(("time_to_dark", "budget", "remaining")):
        return min
    return max if name.endswith("age") else float.__add__


def _readings(addresses: Addresses, now: Health) -> Iterator[Standing]:
    yield from _of_process(now)
    for token in now.tokens:
        host = addresses.of(token.authority)
        yield "resilient_auth.tokens", (host, token.state), 1.0
        if token.pinned:
            scope = " ".join(token.scopes)[:200] if token.subject is None else "users"
            yield "resilient_auth.token.time_to_dark", (host, token.client_id, scope), token.time_to_dark
    for breaker in now.breakers:
        yield "resilient_auth.breakers", (addresses.of(breaker.whom), breaker.purpose, breaker.state), 1.0
    for blame in now.blame:
        yield "resilient_auth.blame", (addresses.of(blame.authority), blame.what), 1.0
    for keys in now.keys:
        host = addresses.of(keys.authority)
        if keys.age is not None:
            yield "resilient_auth.keys.age", (host,), keys.age
        # Keys that nobody has needed yet aren't held, and end nowhere.
        if keys.time_to_dark is not None and (keys.state != "none" or keys.failures):
            yield "resilient_auth.keys.time_to_dark", (host,), keys.time_to_dark
    for store in now.stores:
        yield "resilient_auth.stores", (addresses.of(store.target), store.state), 1.0
    for lane in now.lanes:
        host = addresses.of(origin_in(lane.name))
        for state, number in (("active", lane.active), ("waiting", lane.waiting), ("overdue", lane.overdue)):
            yield "resilient_auth.queue.depth", (host, state), float(number)
    for end in now.credentials:
        if end.credential == "secret":  # those of certificates are there without a watch
            yield "resilient_auth.credential.remaining", (addresses.of(end.authority), end.client_id), end.remaining
    yield from _of_holders(addresses)


def _of_process(now: Health) -> Iterator[Standing]:
    if now.time_to_dark is not None:
        yield "resilient_auth.time_to_dark", (), now.time_to_dark
    for verdict in get_args(Verdict):
        yield "resilient_auth.verdict", (verdict,), float(now.verdict == verdict)
    yield "resilient_auth.removals.pending", (), float(now.removals_pending)
    if now.writes:
        yield "resilient_auth.writes", ("waiting",), float(sum(writes.pending for writes in now.writes))
        yield "resilient_auth.writes", ("dead",), float(sum(writes.dead for writes in now.writes))


def _of_holders(addresses: Addresses) -> Iterator[Standing]:
    engines = {}
    for memory in memories():
        engine = engines[id(memory.engine)] = memory.engine
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        for entry in () if memory.closed else memory:
            token, request = entry.token, entry.request
            if entry.pinned and token is not None:
                scope = " ".join(request.scopes)[:200] if request.subject is None else "users"
                labels = (addresses.of(entry.authorities[0].origin), request.client_id, scope)
                yield "resilient_auth.token.age", labels, token.age(wall, now)
    for engine in engines.values():
        for site, budget in engine.budgets():
            yield "resilient_auth.retry.budget", (addresses.of(site.origin), "token"), float(budget.left)
    for life in lives():
        yield "resilient_auth.credential.remaining", (addresses.of(life.authority), life.client_id), life.remaining
    for circuit in circuits():
        host, bulkhead = addresses.of(circuit.name), circuit.bulkhead
        yield "resilient_auth.bulkhead.depth", (host, "active"), float(bulkhead.in_use)
        yield "resilient_auth.bulkhead.depth", (host, "waiting"), float(bulkhead.waiting)
        yield "resilient_auth.retry.budget", (host, "api"), float(circuit.budget.left)
