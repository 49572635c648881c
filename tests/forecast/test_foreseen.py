"""What goes dark when, by the rules alone: times in seconds from now, and nothing else."""

from __future__ import annotations

import time
from typing import Any

import pytest

from resilient_auth import FallbackOptions
from resilient_auth._policy.key_reports import KeysHealth
from resilient_auth.health.foreseen import Forecast, Holding, foresee

#: 02:30 UTC.
NOW = 1_800_066_600.0
HERE = "https://login.example"
OFF, HOUR = FallbackOptions(), FallbackOptions(grace=3600.0, grace_outage=7200.0)


def holding(**changes: Any) -> Holding:
    known: dict[str, Any] = {
        "authority": HERE, "tenant": "t", "client_id": "app", "flow": "client_credentials", "scopes": ("a",),
        "users": False, "pinned": True, "left": 4260.0, "age": 100.0, "due_after": 1800.0, "asked_in": 1700.0,
        "site": "here", "grace": OFF, "renewable": True, "kept": True, "stored": 4260.0,
    }  # fmt: skip
    return Holding(**known | changes)


def keys(**changes: Any) -> KeysHealth:
    known: dict[str, Any] = {
        "authority": HERE, "issuer": f"{HERE}/t", "state": "fresh", "age": 10.0, "keys": 2, "time_to_dark": 90_000.0,
        "failures": 0, "last_code": None,
    }  # fmt: skip
    return KeysHealth(**known | changes)


def foreseen(*holdings: Holding, keys: tuple[KeysHealth, ...] = ()) -> Forecast:
    return foresee(holdings, keys, at=NOW)


@pytest.mark.parametrize(
    ("ends", "changes"),
    [
        pytest.param(4260.0, {}, id="to-its-end"),
        pytest.param(0.0, {"left": 0.0, "grace": None}, id="nothing-held"),
        pytest.param(0.0, {"left": -5.0}, id="over"),
        pytest.param(7860.0, {"grace": HOUR}, id="grace"),
        pytest.param(4260.0, {"grace": None}, id="refused-by-an-api"),
        pytest.param(100 + 7200.0, {"grace": HOUR, "left": 5000.0, "asked_in": 100.0}, id="the-outage-lasts-too-long"),
        pytest.param(8600.0, {"grace": HOUR, "left": 5000.0, "asked_in": None}, id="nobody-asks-before-it-is-over"),
        pytest.param(200.0, {"grace": HOUR, "left": -3400.0, "failing_for": 3500.0}, id="in-grace"),
        pytest.param(200.0, {"grace": HOUR, "left": -100.0, "failing_for": 7000.0}, id="failing-already"),
        pytest.param(5000.0, {"grace": HOUR, "left": 5000.0, "failing_for": 7000.0}, id="valid-all-the-time"),
    ],
)
def test_a_token_is_served_to_its_end_or_through_grace(ends: float, changes: dict[str, Any]) -> None:
    """Grace is bounded by the token's end, and by the outage, which begins when somebody first finds out."""
    assert foreseen(holding(**changes)).first == ends


def test_whoever_asks_first_finds_out_for_all() -> None:
    """One token's refresh begins the outage of all that the same provider gives."""
    mine = holding(grace=HOUR, left=5000.0, asked_in=3000.0)
    early, elsewhere = holding(scopes=("b",), grace=HOUR, asked_in=10.0, left=9000.0), {"site": "there"}
    ends = {part.name: part.first for part in foreseen(mine, early).parts}
    assert ends["a"] == 10 + 7200.0
    assert foreseen(mine, holding(scopes=("b",), asked_in=10.0, left=9000.0, **elsewhere)).first == 8600.0


def test_users_are_a_population() -> None:
    """Told by their scopes, with the first and the last of them; nobody's name is in it."""
    users = [holding(users=True, pinned=False, left=left) for left in (50.0, 900.0, 300.0)]
    (part,) = foreseen(*users).parts
    assert (part.kind, part.count, part.first, part.last) == ("users", 3, 50.0, 900.0)
    assert "3 users' a at https://login.example/t: in 50 s, at 02:30 UTC; the last one in 15 min" in str(
        foreseen(*users)
    )


def test_the_fleets_tokens_are_apart() -> None:
    """They don't decide when this process goes dark."""
    seen = foreseen(holding(), holding(in_fleet=True, left=10.0))
    assert seen.first == 4260.0
    assert [(part.reach, part.first) for part in seen.parts] == [("fleet", 10.0), ("process", 4260.0)]


def test_pinning_is_advised_where_it_would_have_helped() -> None:
    """The scopes that end before the rest would, and with what they gain."""
    asked_for = holding(scopes=("pinned",), left=6600.0)
    forgotten = [
        holding(scopes=(name,), pinned=False, left=left, age=2700.0, due_after=1800.0, asked_in=None)
        for name, left in (("b", 4860.0), ("c", 4920.0))
    ]
    advice = foreseen(asked_for, *forgotten).advice
    (advised,) = [each for each in advice if each.change == "pin"]
    assert advised.first == 6600.0
    assert advised.text == "pin these 2 scopes (b, c): 04:20 UTC instead of 03:51 UTC"
    assert "pin" not in [each.change for each in foreseen(asked_for, holding(pinned=False)).advice]


def test_what_helps_most_comes_first() -> None:
    """Grace and pinned keys are weighed where they are what is missing, and told of where they gain something."""
    assert [(each.change, each.first) for each in foreseen(holding()).advice] == [("grace", 7860.0)]
    advice = foreseen(holding(), keys=(keys(time_to_dark=600.0),)).advice
    assert [(each.change, each.first) for each in advice] == [("keys", 4260.0)]
    assert foreseen(holding(grace=HOUR)).advice == ()


def test_a_restart_is_weighed() -> None:
    """Without a store nothing outlives the process."""
    seen = foreseen(holding(kept=False, stored=0.0))
    assert (seen.after_restart, seen.first) == (0.0, 4260.0)
    assert seen.advice[-1].text == (
        "add a store: after a restart tokens last until 03:41 UTC; without one they are gone at once"
    )
    assert foreseen(holding(stored=100.0)).after_restart == 100.0


def test_keys_go_dark_too_and_pinned_ones_never() -> None:
    """A token that can't be verified is as bad as one that can't be had."""
    assert foreseen(holding(), keys=(keys(time_to_dark=60.0),)).first == 60.0
    (part,) = foreseen(keys=(keys(time_to_dark=None, state="pinned"),)).parts
    assert (part.first, part.pinned) == (None, True)
    assert foreseen().first is None
    assert str(foreseen()) == "IF THE PROVIDER DIED NOW: nothing is held that could go dark"


def test_many_tokens_are_foreseen_in_passing() -> None:
    """What it takes grows with their number and no faster: health asks for it."""
    many = [holding(users=True, pinned=False, scopes=(str(n % 50),), left=float(n)) for n in range(20_000)]
    began = time.thread_time()
    seen = foreseen(*many)
    assert time.thread_time() - began < 10.0
    assert len(seen.parts) == 50
