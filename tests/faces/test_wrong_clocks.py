"""A wall clock that is wrong, or set while an application runs: tokens live for as long as they were given for."""

from __future__ import annotations

import statistics
import sys
import time

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]


@pytest.mark.parametrize("wrong", [7200.0, -7200.0, 86_400.0 * 400])
def test_a_wall_clock_that_is_set_in_an_outage_takes_no_token_away(idp: Emulator, daemon, clock, wrong):
    """One with 50 minutes left is served for 50 minutes, and no longer."""
    app = daemon()
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    clock.skip(600)
    idp.fail(Fault.refuse())
    clock.set_wall(wrong)
    for _ in range(9):
        answer = app.acquire_token_for_client(SCOPE)
        assert answer["access_token"] == held
        assert answer["expires_in"] <= 3000
        clock.skip(330)
    app.close()


def test_it_is_over_when_it_is_over(idp: Emulator, daemon, hasty, clock):
    """A clock that is set back makes nothing last."""
    app = daemon(resilience=hasty)
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.refuse())
    clock.set_wall(-7200.0)
    clock.skip(3601)
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(SCOPE)


class ReadEachTime(plain_msal.TokenCache):
    def search(self, *args, **kwargs):
        return list(super().search(*args, **kwargs))


def test_a_cache_that_is_read_each_time_isnt_emptied_by_a_clock(idp: Emulator, daemon, clock):
    """What is over by the wall clock alone is still there, and still served."""
    app = daemon(token_cache=ReadEachTime())
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    idp.fail(Fault.refuse())
    clock.set_wall(7200.0)
    assert app.acquire_token_for_client(SCOPE)["access_token"] == held
    app.token_cache.remove_at(next(iter(app.token_cache.search("AccessToken", now=0))))
    with pytest.raises(ra.ProviderUnavailable), ra.wait_at_most(0.5):
        app.acquire_token_for_client(SCOPE)


def test_a_token_from_a_cache_lives_no_longer_than_it_was_given_for(idp: Emulator, daemon, clock):
    """Where the wall clock has been set back since it was written there."""
    cache = plain_msal.TokenCache()
    daemon(token_cache=cache).acquire_token_for_client(SCOPE)
    clock.set_wall(-7200.0)
    again = daemon(token_cache=cache).acquire_token_for_client(SCOPE)
    assert again["token_source"] == "cache"
    assert again["expires_in"] <= 3600


@pytest.mark.skipif(sys.platform != "linux", reason="another system's clock")
def test_the_systems_clock_counts_a_machines_sleep() -> None:
    """Tokens age by it alone."""
    clock = SystemClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_wall_clock_that_is_ahead_makes_no_call_slow(idp: Emulator, daemon, clock):
    """Such a call isn't answered in a microsecond, and still from memory."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    clock.set_wall(7200.0)
    took = []
    for _ in range(50):
        begun = time.perf_counter()
        app.acquire_token_for_client(SCOPE)
        took.append(time.perf_counter() - begun)
    assert statistics.median(took) < 0.005
    assert len(idp.ledger.token_calls()) == 1
