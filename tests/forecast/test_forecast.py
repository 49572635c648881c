"""The forecast against what then happens; `python -m tests.forecast` does it for two hundred states."""

from __future__ import annotations

import json
from typing import Any

import pytest
from forecast_world import SCOPES, SECRET, State, run, served, verified

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.verify import KeyOptions


@pytest.mark.parametrize("seed", [11, 45])
def test_what_is_forecast_is_what_happens(idp: Emulator, seed: int) -> None:
    """Random tokens, users, keys, stores and failures: within five seconds, for each thing, on a manual clock.

    Grace with a store (11), and grace that is running (45).
    """
    assert run(idp, seed) == []


def test_what_another_process_has_renewed_counts(idp: Emulator) -> None:
    """Its token lies in the store, and is served when the one in memory is over."""
    state = State(idp, 6)
    assert state.stored
    try:
        idp.change({"token_lifetime": 3600.0, "refresh_in": None})
        mine, theirs = (
            state.app(msal.ConfidentialClientApplication, "daemon", state.settings(), client_credential=SECRET)
            for _ in range(2)
        )
        state.done(lambda: mine.acquire_token_for_client(SCOPES[0]))
        state.driver.until(state.clock.monotonic() + 2500.0)
        for _ in range(2):  # it finds mine, which is due, and renews it in the background
            state.done(lambda: theirs.acquire_token_for_client(SCOPES[0]))
            state.driver.rest()
        theirs.close()
        idp.fail(Fault.refuse())
        (part,) = [each for each in ra.forecast().parts if each.reach == "process" and each.authority == idp.url]
        assert part.first == pytest.approx(3600.0, abs=5.0)
        state.driver.until(state.clock.monotonic() + 3590.0)
        assert state.done(lambda: served(mine.acquire_token_for_client, SCOPES[0]))
        state.driver.until(state.clock.monotonic() + 20.0)
        assert not state.done(lambda: served(mine.acquire_token_for_client, SCOPES[0]))
    finally:
        state.close()


def test_it_is_part_of_health_and_tells_no_user(idp: Emulator) -> None:
    """In `to_dict` and in the report; with no account id, and without another look into the store."""
    state = State(idp, 5)
    try:
        state.build()
        told = ra.forecast()
        seen = ra.health()
        assert seen.forecast is not None
        assert [part.name for part in seen.forecast.parts] == [part.name for part in told.parts]
        assert "if the provider died now: first dark" in str(seen)
        text = json.dumps(seen.to_dict()) + str(told)
        assert seen.to_dict()["forecast"]["parts"]
        assert "@" not in text
        assert not any(entry.request.subject in text for entry in state.entries() if entry.request.subject)
    finally:
        state.close()


def test_a_store_that_fails_leaves_what_memory_holds(idp: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast says that nobody could look."""
    state = State(idp, 6)
    assert state.stored
    try:
        state.build()
        monkeypatch.setattr(state.backend, "get", _broken)
        monkeypatch.setattr(state.backend, "get_many", _broken)
        seen = ra.forecast()
        assert seen.stores_age is None
        assert seen.first is not None
        assert {part.reach for part in seen.parts} == {"process"}
    finally:
        state.close()


def _broken(*_: Any) -> Any:
    raise OSError("no medium")


def test_keys_that_only_the_store_has_are_forecast(idp: Emulator) -> None:
    """A verifier that nobody has used yet: its issuer's keys last as they would, once they are needed."""
    state = State(idp, 6)
    assert state.stored
    options = KeyOptions(refresh_every=600.0, last_known_good=1500.0)
    try:
        first = state.verifier(options)
        assert state.done(lambda: verified(state, first))
        first.close()
        state.clock.advance(300.0)
        unused = state.verifier(options)
        assert state.keys() == []
        assert ra.health().forecast.stores_age is None  # type: ignore[union-attr]
        assert ra.forecast().stores_age == pytest.approx(0.0, abs=5.0)
        (part,) = state.keys()
        # Waiting for the first verifier moves the clock, too.
        before = part.first
        assert (part.count, before) == (1, pytest.approx(1800.0, abs=5.0))
        state.clock.advance(100.0)
        (part,) = state.keys()
        assert part.first == pytest.approx(before - 100.0)
        (reported,) = [keys for keys in ra.health().keys if keys.issuer == part.name]
        assert (reported.state, reported.keys) == ("none", 0)
        idp.fail(Fault.refuse())
        state.clock.advance(1700.0 - 5.0)
        assert state.done(lambda: verified(state, unused))
        state.clock.advance(10.0)
        assert not state.done(lambda: verified(state, unused))
    finally:
        state.close()


def test_a_store_that_has_no_keys_or_none_that_count_adds_none(idp: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old is no key; and where nobody can look, what was seen last holds."""
    state = State(idp, 6)
    options = KeyOptions(refresh_every=600.0, last_known_good=1500.0)
    try:
        unused = state.verifier(options)
        ra.forecast()
        assert state.keys() == []
        other = state.verifier(KeyOptions(refresh_every=601.0, last_known_good=1500.0))
        assert state.done(lambda: verified(state, other))
        other.close()
        ra.forecast()
        assert len(state.keys()) == 1
        with monkeypatch.context() as broken:
            broken.setattr(state.backend, "get", _broken)
            ra.forecast()
            assert len(state.keys()) == 1
        state.clock.advance(2101.0)
        ra.forecast()
        assert state.keys() == []
        unused.close()
    finally:
        state.close()
