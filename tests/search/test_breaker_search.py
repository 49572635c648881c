"""Search who may ask a provider, and when, for an order in which somebody healthy is refused for ever.

In short here; whole by `make search`.
"""

from __future__ import annotations

import logging
import os

import pytest
import recovery_search
from breaker_search import SCENES, Broken, Caller, always, never, request, search

PREEMPTIONS = int(os.environ.get("RESILIENT_AUTH_SEARCH", "1"))
MOST = 120 if PREEMPTIONS < 2 else 10**9


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "resilient_auth")


@pytest.mark.parametrize("scene", SCENES)
def test_nobody_healthy_is_refused_for_ever(scene: str) -> None:
    """Everybody whose request works is served, who comes back when told to is let through, one probe is out at most."""
    assert search(SCENES[scene], PREEMPTIONS, MOST) > 10


def test_the_search_finds_who_is_never_served() -> None:
    """It would tell."""
    with pytest.raises(Broken, match="never served"):
        search(lambda: [Caller(request("t", "a"), always), Caller(request("t", "b"), never)], 1)


def test_no_recovery_is_lost_where_an_application_closes() -> None:
    """Wherever in an outage that is, what others want comes soon after its end."""
    assert recovery_search.search(pairs=PREEMPTIONS > 1) > 60
