"""What the forecast is reckoned from: what memory holds, and what the stores were found to hold."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from .._engine.cache import CacheEntry, Memory, memories
from .._fleet.coordination import Coordinator
from .._fleet.inventory import everything, kept
from .._policy import key_reports
from .._policy.endpoint import PLAIN, Endpoint, origin_of
from .._process import session_ends
from ..errors import StoreUnavailable
from ..token import TokenRequest
from .foreseen import Holding

__all__ = ["holdings_of", "stores_age", "take_stock", "whom"]

#: Of one application's tokens, those that end first are looked for in its store, so many at most.
_MOST_LOOKED_FOR: Final = 1024
#: Of a fleet's, so many are read at most, for so many seconds at most; and the stores of others for so many.
_MOST_READ: Final = 4096
_LONGEST: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Stock:
    """What an application's store was found to hold."""

    at: float
    #: When the token of an entry ends there, on the monotonic clock of its engine, and the generation that it is of.
    kept: weakref.WeakKeyDictionary[CacheEntry, tuple[float, int]]
    #: What all processes have there, and when it ends in seconds since the epoch.
    fleet: tuple[tuple[TokenRequest, float], ...] = field(repr=False)


_stocks: weakref.WeakKeyDictionary[Memory, _Stock] = weakref.WeakKeyDictionary()
#: When the store of each of the others was looked into, by `time.monotonic`; None where none could be yet.
_looked: weakref.WeakKeyDictionary[object, float | None] = weakref.WeakKeyDictionary()


def take_stock() -> None:
    """Look into all stores. It may block for as long as they allow, and harms nobody."""
    for memory in memories():
        shared = memory.shared
        if isinstance(shared, Coordinator) and not memory.closed:
            with suppress(StoreUnavailable):
                _stocks[memory] = _look(memory, shared)
    ends = time.monotonic() + _LONGEST
    for each in _reporters():
        if time.monotonic() > ends:
            break
        try:
            if each.take_stock():
                _looked[each] = time.monotonic()
        except StoreUnavailable:
            _looked.setdefault(each, None)


def _reporters() -> list[key_reports.Reporter | session_ends.Reporter]:
    return [*key_reports.reporters.all(), *session_ends.reporters.all()]


def _look(memory: Memory, shared: Coordinator) -> _Stock:
    clock = memory.engine.clock
    wall, now = clock.wall(), clock.monotonic()
    soonest = sorted(memory, key=lambda entry: 0.0 if entry.token is None else entry.token.remaining(wall, now))
    found: weakref.WeakKeyDictionary[CacheEntry, tuple[float, int]] = weakref.WeakKeyDictionary()
    generations = {entry: entry.generation for entry in soonest[:_MOST_LOOKED_FOR]}
    for entry, token in kept(shared, list(generations)):
        if isinstance(entry, CacheEntry):
            found[entry] = now + token.remaining(wall, now), generations[entry]
    ends = time.monotonic() + _LONGEST
    fleet = []
    for each in islice(everything(shared), _MOST_READ):
        fleet.append(each)
        if time.monotonic() > ends:
            break
    return _Stock(time.monotonic(), found, tuple(fleet))


def stores_age() -> float | None:
    """Return for how many seconds what is known of the stores has been known; None where one was never looked into."""
    having = [memory for memory in memories() if memory.shared is not None and not memory.closed]
    stocks = [_stocks.get(memory) for memory in having]
    looked = [None if stock is None else stock.at for stock in stocks]
    looked += [_looked[each] for each in _reporters() if each in _looked]
    first = min((at for at in looked if at is not None), default=None)
    return None if first is None or None in looked else time.monotonic() - first


def holdings_of(memory: Memory) -> Iterator[Holding]:
    """Yield what an application holds in memory, and what its fleet does in the store as far as is known."""
    engine, stock = memory.engine, _stocks.get(memory)
    if memory.closed:
        return
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    for entry in memory:
        holding = _holding(memory, entry, stock, wall, now)
        if holding is not None:
            yield holding
    for request, ends in () if stock is None else stock.fleet:
        if ends > wall:
            yield _described(request, left=ends - wall, grace=engine.settings.fallback, kept=True, in_fleet=True)


def _holding(memory: Memory, entry: CacheEntry, stock: _Stock | None, wall: float, now: float) -> Holding | None:
    engine, token = memory.engine, entry.token
    ends, generation = (None if stock is None else stock.kept.get(entry)) or (now, entry.generation)
    stored = max(0.0, ends - now) if generation == entry.generation else 0.0
    # What is over may be served for a while yet, by the owner's grace: how long it has been counts.
    ends_in = [*([stored] if stored > 0 else []), *([] if token is None else [token.remaining(wall, now)])]
    left = max(ends_in, default=0.0)
    wanted = entry.pinned or now - entry.asked_at <= engine.settings.keep_trying
    if left <= 0 and not (wanted and entry.last_error is not None):
        return None
    served_past = token is not None and not entry.denied and not token.suspect
    age = 0.0 if token is None else token.age(wall, now)
    due_after = 0.0 if token is None else token.due_after
    asked: list[float] = []
    # Who is served from memory leaves no trace: what is fresh is taken to be asked for. Past that, each one does.
    if age < due_after or now - entry.asked_at <= engine.settings.keep_trying:
        asked.append(max(0.0, due_after - age, entry.rest_left(now)))
    timer = entry.timer
    if timer is not None and timer.pending:
        asked.append(max(0.0, timer.when - now))
    failing = [engine.levels.failing_since(way) for way in entry.ways]
    since = max((at for at in failing if at is not None), default=None) if None not in failing else None
    return _described(
        entry.request,
        left=left,
        grace=engine.settings.fallback if served_past else None,
        kept=memory.shared is not None,
        pinned=entry.pinned,
        age=age,
        due_after=due_after,
        asked_in=min(asked, default=None),
        # A number in its place: it is looked up again and again.
        site=hash((id(engine), entry.ways[0].site, entry.purpose)),
        failing_for=None if since is None else now - since,
        renewable=entry.renew is not None,
        # What was never looked for is taken to be there: whatever is obtained is written down.
        stored=left if memory.shared is not None and stock is None else stored,
    )


@lru_cache(maxsize=256)
def whom(authority: str) -> tuple[str, str]:
    """Return an authority's origin, and the tenant there; what is no URL is the name of an owner's own credential."""
    return (origin_of(authority), Endpoint.of(authority, PLAIN).realm) if "://" in authority else (authority, "")


def _described(request: TokenRequest, **known: Any) -> Holding:
    authority, tenant = whom(request.authority)
    return Holding(
        authority=authority,
        tenant=tenant,
        client_id=request.client_id,
        flow=request.flow,
        scopes=request.scopes,
        users=request.subject is not None,
        **{"pinned": False, **known},
    )
