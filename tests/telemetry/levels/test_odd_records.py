"""Records that nobody of the fleet wrote so: each is read as what it says, or is malformed, and ends no look."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from odd_records import altered

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.telemetry.levels.counts import Counts
from resilient_auth.telemetry.levels.fleet import Fleet
from resilient_auth.telemetry.levels.state import Item, State
from resilient_auth.telemetry.levels.values import Alert

KEY = bytes(range(32))
NOW = 1_800_000_100.0


def fleet_with(kind: str, name: str, body: Any) -> Fleet:
    store = ra.SealedStore(MemoryBackend(), key=KEY)
    store.write(kind, name, json.dumps(body | {"of": name, "format": 1}).encode(), ttl=1e6)
    fleet = Fleet(store, "app")
    fleet._shard = 0
    return fleet


def counted(number: int, failed: int) -> Counts:
    counts = Counts(1.0)
    counts.add("acquisitions", NOW - 100.0, number, failed)
    return counts


def test_counts_are_those_of_requests_or_none() -> None:
    """Whatever is written there: all that is shown of them is a number, and a fleet's clock is one."""
    shard = {"counts": counted(10, 1).to_json(), "writers": {"a": 1, "b": 2}, "clocks": {"a": NOW, "b": NOW}}
    for place, body in altered(shard):
        fleet = fleet_with("levels", "app 0", body)
        fleet.add(counted(5, 0), NOW)
        total = fleet.total(NOW)
        for kind in total.kinds():
            level = total.level(kind, NOW)
            assert all(0 <= each.failed <= each.total for each in (*level.minutes, *level.hours)), place
        json.dumps(total.to_json(), allow_nan=False)
        found = total.totals("acquisitions", NOW - 3600, NOW, NOW)
        assert 0 <= found.failed <= found.total >= 5, place
        for later in (1, 2):
            fleet.clocks.compare(fleet.reports, NOW, 5.0 * later)
            fleet.reports = {who: one._replace(number=one.number + 1) for who, one in fleet.reports.items()}
        assert math.isfinite(fleet.clocks.behind), place


def test_what_was_told_is_that_or_nothing() -> None:
    """And can be written again."""
    alert = Alert(kind="acquisitions", code="success_rate", since=1.0, detail="d")
    state = State(
        alerts={("acquisitions", "success_rate"): alert},
        ended={("acquisitions", "success_rate"): 1.0},
        warned={"a": 1},
        outbox=[Item("msg_1", 1.0, "{}", 1, 2.0)],
        day=3,
    )
    for place, body in altered(state.to_json()):
        found, _ = fleet_with("levels-state", "app state", {"state": body}).state(NOW)
        json.dumps(found.to_json(), allow_nan=False)
        assert all(math.isfinite(item.due) for item in found.outbox), place


@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_record_at_all_is_none(seed: int) -> None:
    """Bytes by chance, and what nests without end."""
    draw = random.Random(seed)
    store = ra.SealedStore(MemoryBackend(), key=KEY)
    for number in range(8):
        value = draw.randbytes(200) if number % 2 else b"[" * 100_000
        store.write("levels", f"app {number}", value, ttl=1e6)
    store.write("levels-state", "app state", b"[" * 100_000, ttl=1e6)
    fleet = Fleet(store, "app")
    fleet.add(counted(5, 0), NOW)
    assert fleet.total(NOW).totals("acquisitions", NOW - 3600, NOW, NOW).total == 5
    assert fleet.state(NOW)[0] == State()


def test_fleets_whose_names_begin_alike_are_others() -> None:
    """A number or a space at the end of one makes it none of another's shards."""
    store = ra.SealedStore(MemoryBackend(), key=KEY)
    names = ["app", "app 1", "app 1 1", "app ", "app state", "app 1 state", "1"]
    for number, name in enumerate(names):
        for _ in range(10):
            Fleet(store, name).add(counted(number + 1, 0), NOW)
        assert Fleet(store, name).save(State(day=number), None)
    for number, name in enumerate(names):
        fleet = Fleet(store, name)
        assert fleet.total(NOW).totals("acquisitions", NOW - 3600, NOW, NOW).total == 10 * (number + 1)
        assert fleet.state(NOW)[0].day == number
        assert fleet.lead(60.0)
