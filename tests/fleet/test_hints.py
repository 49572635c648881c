"""What one process has learned of a provider, told to others whose clocks may say anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from fleet_world import SCOPE, BreakableBackend
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._fleet.hints import Hint
from resilient_auth._fleet.records import Records
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault
from resilient_auth.testing import ManualClock

OFFSET = st.floats(-7200.0, 7200.0)


class Machine:
    """A machine whose clocks are off, each by its own."""

    def __init__(self, clock: Any, wall: float, started: float = 0.0) -> None:
        self._clock, self._wall, self._started = clock, wall, started
        self.wait = clock.wait

    def wall(self) -> float:
        return float(self._clock.wall()) + self._wall

    def monotonic(self) -> float:
        return float(self._clock.monotonic()) + self._started


def _look(stored: Records) -> Hint | None:
    return stored.look([], ["it fails"])[1].get("it fails")


@settings(deadline=None)
@given(
    seconds=st.floats(1.0, 900.0),
    poster=OFFSET,
    reader=OFFSET,
    looks=st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=6).map(sorted),
)
def test_nobody_asks_too_early_whatever_the_clocks_say(
    seconds: float, poster: float, reader: float, looks: list[float]
) -> None:
    """While it lasts it holds, for who looks first and for who has seen it before; then it is over for all."""
    clock = ManualClock(start=1_700_000_000.0)
    store = ra.SealedStore(MemoryBackend(clock=clock), key=os.urandom(32), clock=clock)
    here = Records(store, Machine(clock, reader, 123.0), 0.0)
    Records(store, Machine(clock, poster), 0.0).hints.post("it fails", seconds, "throttled", "429")
    passed = 0.0
    for at in looks:
        clock.advance(at - passed)
        passed = at
        hint = _look(here)
        if at < seconds - 0.001:
            assert hint is not None
            assert 0 < hint.left <= seconds
        elif at > seconds + 0.001 and hint is not None:
            assert hint.left <= 0


def test_clocks_that_agree_say_when_it_ends() -> None:
    """Who comes late is told what is left, and not the whole."""
    clock = ManualClock()
    store = ra.SealedStore(MemoryBackend(clock=clock), key=os.urandom(32), clock=clock)
    Records(store, clock, 0.0).hints.post("it fails", 60.0, "throttled", "429")
    clock.advance(40.0)
    hint = _look(Records(store, clock, 0.0))
    assert hint is not None
    assert hint.left == pytest.approx(20.0)


@pytest.mark.parametrize("ahead", [45.0, -45.0, 7200.0, -7200.0])
def test_a_retry_after_holds_on_every_machine(
    idp: Emulator, life: Callable[..., Any], backend: BreakableBackend, clock: Any, eventually: Any, ahead: float
) -> None:
    """A process whose clock is off leaves the provider alone for as long as it asked another one, and no longer."""
    store = ra.SealedStore(backend, key=os.urandom(32), clock=clock)
    machine = Machine(clock, ahead)
    here, there = life(store=store), life(store=store, clock=machine)
    idp.fail(Fault.http_429(retry_after=40), "token")
    with pytest.raises(ra.Throttled):
        here.acquire_token_for_client(SCOPE)
    for _ in range(3):
        with pytest.raises(ra.Throttled):
            there.acquire_token_for_client(SCOPE)
        clock.skip(12)
    assert len(idp.ledger.token_calls()) == 1
    idp.heal()
    clock.skip(10)

    def has_a_token() -> bool:
        # Who asks first may be the timers of either: the other one waits for them, or finds what they have brought.
        try:
            return "access_token" in there.acquire_token_for_client(SCOPE)
        except ra.CircuitOpen:
            return False

    eventually(has_a_token, 4.0)
    assert len(idp.ledger.token_calls()) >= 2


def test_one_requests_failure_is_no_other_variants(
    idp: Emulator, life: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """Requests that differ in their extra parameters alone are told apart."""
    store = ra.SealedStore(backend, key=os.urandom(32), clock=clock)
    here, there = (life(store=store, retry=ra.RetryOptions(attempts=1)) for _ in range(2))
    idp.fail(Fault.http_503(), "token", count=1)
    with pytest.raises(ra.ServerFailed):
        here.acquire_token_for_client(SCOPE, fmi_path="one")
    assert "access_token" in there.acquire_token_for_client(SCOPE, fmi_path="two")
    with pytest.raises(ra.CircuitOpen):
        there.acquire_token_for_client(SCOPE, fmi_path="one")
