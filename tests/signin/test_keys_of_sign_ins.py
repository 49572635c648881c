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


class Browser:
    """Holds cookies as it is told to."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.flows = fleet, fleet.process()
        self.cookies: dict[str, str] = {}

    @property
    def arrival(self) -> Arrival:
        return Arrival("GET", "/", cookies=self.cookies)

    def begin(self, label: str, **body: str) -> None:
        set_ = self.flows.begin(self.arrival, label, body)
        assert set_ is not None
        for cookie in set_:
            self.cookies.pop(cookie.name, None)
            if cookie.value:
                self.cookies[cookie.name] = cookie.value

    def knows(self, label: str) -> bool:
        return self.flows.open(self.arrival, label)[0] is not None


def test_a_sign_in_is_under_way_for_so_long_by_any_clock_of_the_fleet() -> None:
    """What comes from a clock that is a minute ahead or more was begun by none of them."""
    browser = Browser(Fleet())
    browser.begin("state")
    for seconds, known in ((599.0, True), (1.0, False), (-600.0, True), (-60.0, True), (-1.0, False)):
        browser.fleet.clock.jump(seconds)
        assert browser.knows("state") is known


def test_a_browser_has_so_many_under_way_the_latest_ones() -> None:
    """Those that are over go first, and no cookie of somebody else's goes."""
    browser = Browser(Fleet())
    browser.cookies["__Host-session"] = "s"
    browser.begin("over")
    browser.fleet.clock.advance(600.0)
    for number in range(8):
        browser.begin(f"state {number}")
        browser.fleet.clock.advance(1.0)
    assert len(browser.cookies) == 1 + 5
    assert [number for number in range(8) if browser.knows(f"state {number}")] == [3, 4, 5, 6, 7]
    browser.begin("state 7")
    assert browser.knows("state 3"), "the same sign-in once more takes no place"


def test_what_no_process_can_have_set_is_asked_of_no_store() -> None:
    """Whatever a browser has there; nor does a key that is known cost a look."""
    browser = Browser(Fleet())
    browser.begin("state")
    ((name, value),) = browser.cookies.items()
    day, _, sealed = value.partition(".")
    before = browser.fleet.medium.calls
    assert browser.knows("state")
    days = ("", "x", "-1", "²", "9" * 5000, str(int(day) + 2), str(int(day) - 2), "0")
    for odd in (*(f"{one}.{sealed}" for one in days), f"{day}.%", day, ""):
        browser.cookies[name] = odd
        assert not browser.knows("state")
    assert browser.fleet.medium.calls - before <= 3, "one look for each seal of today's that can't be opened"
    del browser.cookies[name]
    assert browser.flows.open(browser.arrival, "state") == (None, None)


def test_what_is_too_large_for_a_cookie_isnt_begun() -> None:
    browser = Browser(Fleet())
    assert browser.flows.begin(browser.arrival, "state", {"next": "x" * 3_000}) is None
    browser.begin("state", next="x" * 1_000)


def test_keys_of_days_that_are_over_are_let_go() -> None:
    browser = Browser(Fleet())
    for _ in range(10):
        browser.begin("state")
        browser.fleet.clock.advance(86_400.0)
    assert len(browser.flows._sealers) <= 3
