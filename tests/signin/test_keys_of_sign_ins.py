"""The keys that seal sign-ins under way: one for all processes, also when the store has lost them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_sessions import Medium

import resilient_auth as ra
from resilient_auth.signin import flows
from resilient_auth.signin.flows import Flows
from resilient_auth.signin.messages import Arrival
from resilient_auth.testing import ManualClock

NOTHING = Arrival("GET", "/")


class Fleet:
    """Processes over a medium that can be emptied, and fail."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_000_000_000.0)
        self.medium = Medium(self.clock)
        self.key = os.urandom(32)

    def process(self) -> Flows:
        store = ra.SealedStore(self.medium, key=self.key, clock=self.clock)
        return Flows(store, "https://app.example", self.clock, life=600.0, most=5, prefix="__Host-sign-in-")

    @contextmanager
    def down(self) -> Iterator[None]:
        self.medium.down = True
        yield
        self.medium.down = False
        self.clock.advance(11.0)


def crosses(one: Flows, other: Flows) -> bool:
    """Return whether a sign-in that begins at one may end at the other."""
    begun = one.begin(NOTHING, "state", {})
    assert begun is not None
    arrival = Arrival("GET", "/", cookies={begun[0].name: begun[0].value})
    return other.open(arrival, "state")[0] is not None


def test_a_store_that_was_emptied_divides_nobody() -> None:
    """A Redis without a file comes back with nothing: processes that go on, and those that are new, agree at once."""
    fleet = Fleet()
    old = [fleet.process(), fleet.process()]
    assert crosses(*old)
    fleet.medium.close()
    everybody = [fleet.process(), *old, fleet.process()]
    assert all(crosses(one, other) for one, other in itertools.permutations(everybody, 2))


def test_a_sign_in_of_another_release_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a rolling upgrade: what its cookie holds may have other names."""
    fleet = Fleet()
    older, newer = fleet.process(), fleet.process()
    begun = older.begin(NOTHING, "state", {})
    assert begun is not None
    arrival = Arrival("GET", "/", cookies={begun[0].name: begun[0].value})
    with monkeypatch.context() as upgraded:
        upgraded.setattr(flows, "_FORM", flows._FORM + 1)
        assert newer.open(arrival, "state")[0] is None
    assert older.open(arrival, "state")[0] is not None


def test_whoever_comes_first_then_brings_the_key_back() -> None:
    """What was begun before goes on."""
    fleet = Fleet()
    old = fleet.process()
    begun = old.begin(NOTHING, "earlier", {})
    assert begun is not None
    fleet.medium.close()
    assert crosses(old, fleet.process())
    arrival = Arrival("GET", "/", cookies={begun[0].name: begun[0].value})
    assert fleet.process().open(arrival, "earlier")[0] is not None


def test_a_store_that_fails_keeps_nobody_from_signing_in_where_the_key_is_known() -> None:
    fleet = Fleet()
    one = fleet.process()
    assert crosses(one, one)
    with fleet.down():
        assert crosses(one, one)
