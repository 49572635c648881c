"""An issuer's keys as a state machine: any sequence of fetches, anomalies, outages and time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilient_auth.verify import KeyOptions
from resilient_auth.verify.jose.jwk import VerificationKey
from resilient_auth.verify.keys.key_set import Anomaly, FetchSchedule, KeySet

OPTIONS = KeyOptions()
HOUR = 3600.0
KIDS = st.sampled_from("abcde")


def key(material: str) -> VerificationKey:
    """Make a key of which only its identity matters here."""
    return VerificationKey(material, {}, None)


def keys(**materials: str) -> dict[str, VerificationKey]:
    return {kid: key(material) for kid, material in materials.items()}


def test_a_first_set_is_taken_in() -> None:
    """Fresh, with its age to the minute."""
    after, anomalies = KeySet().merged(keys(a="1", b="2"), 100.0, OPTIONS)
    view = after.view(100.0 + 125.0, OPTIONS)
    assert (set(view.keys), view.provenance.keys, view.provenance.keys_age) == ({"a", "b"}, "fresh", 120.0)
    assert view.until == 100.0 + 180.0
    assert not anomalies


def test_keys_are_fresh_until_a_refresh_is_due_then_stale_then_gone() -> None:
    """An outage of 24 hours is survived, whenever in the hour it begins."""
    held, _ = KeySet().merged(keys(a="1"), 0.0, OPTIONS)
    for now, standing in (
        (0.0, "fresh"),
        (HOUR - 1, "fresh"),
        (HOUR, "stale"),
        (24 * HOUR, "stale"),
        (25 * HOUR - 1, "stale"),
    ):
        view = held.view(now, OPTIONS)
        assert (set(view.keys), view.provenance.keys) == ({"a"}, standing), now
        assert now < view.until <= 25 * HOUR
    assert not held.view(25 * HOUR, OPTIONS).keys


@given(st.floats(0.0, 2.0**24), st.floats(1.0, 7200.0), st.floats(0.0, 1e5), st.integers(-3, 3))
@example(1.6662587597893435, 60.0, 65520.0, 0)
def test_a_view_ends_when_what_it_says_is_over_at_every_uptime(
    obtained_at: float, refresh_every: float, age: float, steps: int
) -> None:
    """Not a minute later, since a sum of floats was off by its last place; and never before it began."""
    options = KeyOptions(refresh_every=max(60.0, refresh_every))
    held, _ = KeySet().merged(keys(a="1"), obtained_at, options)
    for moment in (obtained_at + age, obtained_at + options.refresh_every, obtained_at + 60.0 * (age // 60)):
        now = moment
        for _ in range(abs(steps)):
            now = math.nextafter(now, math.inf if steps > 0 else 0.0)
        if now < obtained_at:
            continue
        view = held.view(now, options)
        assert now < view.until
        last = held.view(math.nextafter(view.until, 0.0), options)
        assert (last.provenance, last.keys) == (view.provenance, view.keys)


def test_a_key_that_is_listed_no_more_lives_on_for_its_life() -> None:
    """Entra's sets flap during a roll-over."""
    held, _ = KeySet().merged(keys(a="1"), 0.0, OPTIONS)
    for hour in range(1, 30):
        held, _ = held.merged(keys(b="2"), hour * HOUR, OPTIONS)
        assert ("a" in held.view(hour * HOUR, OPTIONS).keys) is (hour < 25), hour
        assert held.view(hour * HOUR, OPTIONS).provenance.keys == "fresh"


def test_an_empty_set_changes_nothing() -> None:
    """Not even when the keys were last fetched."""
    held, _ = KeySet().merged(keys(a="1"), 0.0, OPTIONS)
    after, anomalies = held.merged({}, HOUR, OPTIONS)
    assert after is held
    assert anomalies == (Anomaly("empty"),)


def test_another_key_under_a_known_kid_isnt_taken_in() -> None:
    """Whoever can publish it could sign anything; when the known one's life is over, there is nothing to protect."""
    held, _ = KeySet().merged(keys(a="1", b="2"), 0.0, OPTIONS)
    after, anomalies = held.merged(keys(a="x", b="2"), HOUR, OPTIONS)
    assert anomalies == (Anomaly("changed", ("a",)),)
    assert after.view(HOUR, OPTIONS).keys["a"].material == "1"
    later, anomalies = after.merged(keys(a="x", b="2"), 26 * HOUR, OPTIONS)
    assert not anomalies
    assert later.view(26 * HOUR, OPTIONS).keys["a"].material == "x"


def test_a_set_that_shrank() -> None:
    """Is told, and takes no key away; a plain roll-over isn't one."""
    held, _ = KeySet().merged(keys(a="1", b="2"), 0.0, OPTIONS)
    after, anomalies = held.merged(keys(a="1"), HOUR, OPTIONS)
    assert anomalies == (Anomaly("shrank", ("b",)),)
    assert set(after.view(HOUR, OPTIONS).keys) == {"a", "b"}
    _, anomalies = held.merged(keys(b="2", c="3"), HOUR, OPTIONS)
    assert not anomalies


def test_a_key_that_stays_is_the_same_object() -> None:
    """What was verified with it stays verified."""
    held, _ = KeySet().merged(keys(a="1"), 0.0, OPTIONS)
    after, _ = held.merged(keys(a="1"), HOUR, OPTIONS)
    assert after.view(HOUR, OPTIONS).keys["a"] is held.view(HOUR, OPTIONS).keys["a"]


def test_pinned_keys_serve_while_there_is_nothing_else() -> None:
    """From the start until a set was fetched, and again when that is too old."""
    pinned = KeySet(pinned=keys(p="1"))
    for now in (0.0, 1000 * HOUR):
        assert (set(pinned.view(now, OPTIONS).keys), pinned.view(now, OPTIONS).provenance.keys) == ({"p"}, "pinned")
    held, _ = pinned.merged(keys(a="2"), 0.0, OPTIONS)
    assert set(held.view(0.0, OPTIONS).keys) == {"a"}
    assert set(held.view(30 * HOUR, OPTIONS).keys) == {"p"}
    _, anomalies = pinned.merged(keys(p="other"), 0.0, OPTIONS)
    assert anomalies == (Anomaly("changed", ("p",)),)


def test_a_kept_set_is_as_old_as_it_is() -> None:
    """From an earlier process; a fetched one wins."""
    restored = KeySet().restored(keys(a="1"), -2 * HOUR)
    assert restored.view(0.0, OPTIONS).provenance.keys == "stale"
    assert not restored.view(23 * HOUR, OPTIONS).keys
    held, _ = KeySet().merged(keys(b="2"), 0.0, OPTIONS)
    assert held.restored(keys(a="1"), -HOUR) is held


class Keys(RuleBasedStateMachine):
    """Compare with a model that knows, for each `kid`, which key was good when."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.set = KeySet()
        #: By kid: material, and when it was last listed.
        self.model: dict[str, tuple[str, float]] = {}
        self.obtained: float | None = None

    def alive(self) -> dict[str, str]:
        return {kid: m for kid, (m, seen) in self.model.items() if self.now - seen < OPTIONS.longest}

    @rule(seconds=st.sampled_from([0.0, 1.0, 59.0, HOUR, 12 * HOUR, 24 * HOUR, 25 * HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(found=st.dictionaries(KIDS, st.sampled_from("12"), max_size=5))
    def a_set_is_fetched(self, found: dict[str, str]) -> None:
        alive = self.alive()
        self.set, anomalies = self.set.merged({kid: key(m) for kid, m in found.items()}, self.now, OPTIONS)
        kinds = {anomaly.kind for anomaly in anomalies}
        assert ("empty" in kinds) is (not found)
        changed = {kid for kid, m in found.items() if alive.get(kid, m) != m}
        assert ("changed" in kinds) is bool(changed)
        if found:
            self.obtained = self.now
            self.model = {kid: known for kid, known in self.model.items() if kid in alive}
            for kid in found.keys() - changed:
                self.model[kid] = (found[kid], self.now)

    @invariant()
    def the_view_is_the_models(self) -> None:
        view = self.set.view(self.now, OPTIONS)
        assert {kid: k.material for kid, k in view.keys.items()} == self.alive()
        assert view.until > self.now
        if view.keys and self.obtained is not None:
            fresh = self.now - self.obtained < OPTIONS.refresh_every
            assert view.provenance.keys == ("fresh" if fresh else "stale")

    @invariant()
    def a_view_holds_until_it_says(self) -> None:
        view = self.set.view(self.now, OPTIONS)
        just_before = self.set.view(view.until - 1e-3, OPTIONS)
        assert just_before.keys == view.keys
        assert just_before.provenance == view.provenance


TestAnySequence = Keys.TestCase
TestAnySequence.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestAsking:
    def test_one_unknown_kid_causes_a_fetch_every_five_minutes(self) -> None:
        """Whichever it is, and whether the fetch succeeds or not."""
        asking = FetchSchedule(OPTIONS)
        assert asking.may_ask(0.0) == 0.0
        asking.asked(0.0)
        assert asking.may_ask(1.0) == 299.0
        assert asking.may_ask(300.0) == 0.0

    def test_a_failure_is_rested_after(self) -> None:
        """Five seconds at least, longer each time, as long as the provider asked (G8, G9, G10)."""
        asking = FetchSchedule(OPTIONS)
        assert [asking.failed(0.0, urgent=True, retry_after=None) for _ in range(6)] == [5, 10, 20, 40, 60, 60]
        assert asking.failed(0.0, urgent=True, retry_after=120.0) == 120.0
        assert asking.may_load(10.0) == 110.0
        assert asking.may_ask(10.0) == 110.0
        asking.succeeded()
        assert asking.may_load(10.0) == 0.0
        assert asking.failed(0.0, urgent=False, retry_after=None) == 60.0
        assert asking.may_ask(4.0) == 1.0

    def test_those_who_wait_are_bounded(self) -> None:
        """In number, and in how many different keys they wait for."""
        asking = FetchSchedule(KeyOptions(waiters=3, waiting_kids=2))
        assert [asking.enter(kid) for kid in "abc"] == [True, True, False]
        assert asking.enter("a")
        assert not asking.enter("a")
        asking.leave("b")
        assert asking.enter("c")


@pytest.mark.parametrize(
    "options",
    [
        {"refresh_every": 1.0},
        {"unknown_every": 0.0},
        {"wait": 0.0},
        {"waiters": -1},
        {"hosts": "a"},
        {"hosts": ("a/b",)},
    ],
    ids=str,
)
def test_options_out_of_range_are_told(options: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        KeyOptions(**options)
