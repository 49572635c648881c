"""What a cached token costs, against MSAL in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
pytestmark = pytest.mark.filterwarnings("ignore:response_mode:UserWarning")


def faster(ours: Callable[[], Any], theirs: Callable[[], Any], calls: int = 2000) -> float:
    """Return how many times as fast ours is: the median over batches that alternate."""
    ratios = []
    for _ in range(9):
        spent = []
        for call in (theirs, ours):
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            spent.append(time.perf_counter() - begun)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def test_a_cached_application_token(daemon, plain_daemon):
    """The target is 12 times as fast; 8 is asserted, since this machine isn't alone."""
    ours, theirs = daemon(resilience=None), plain_daemon()
    for app in (ours, theirs):
        app.acquire_token_for_client(SCOPE)
    ratio = faster(lambda: ours.acquire_token_for_client(SCOPE), lambda: theirs.acquire_token_for_client(SCOPE))
    print(f"a cached application token: {ratio:.1f} times as fast as through MSAL")
    assert ratio >= 8


def test_a_cached_user_token(desktop, plain_desktop, sign_in):
    """A user's cached token is served several times as fast too."""
    calls = []
    for app in (desktop(resilience=None), plain_desktop()):
        sign_in(app)
        account = app.get_accounts()[0]
        app.acquire_token_silent(USER_SCOPE, account)
        calls.append(lambda app=app, account=account: app.acquire_token_silent(USER_SCOPE, account))
    ratio = faster(*calls, calls=1000)
    print(f"a cached user token: {ratio:.1f} times as fast as through MSAL")
    assert ratio >= 5
