"""The verdict on a process, and its reasons: what somebody reads at 3 a.m."""

from __future__ import annotations

import time
from typing import Any

import pytest

from resilient_auth._engine.lanes import LaneStatus
from resilient_auth._policy.blame.verdict import Blame
from resilient_auth._policy.circuit.status import BreakerStatus
from resilient_auth._policy.key_reports import KeysHealth
from resilient_auth._store.gate import StoreStatus
from resilient_auth.health import TokenHealth
from resilient_auth.health.verdict import Seen, judge

#: 02:30 UTC.
NOW = 1_800_066_600.0
HERE, THERE = "https://login.example", "https://other.example"


def token(**changes: Any) -> TokenHealth:
    known: dict[str, Any] = {
        "authority": HERE, "tenant": "t", "client_id": "app", "flow": "client_credentials", "scopes": ("a",),
        "subject": None, "state": "fresh", "time_to_dark": 4260.0, "pinned": False, "in_use": True, "failures": 0,
        "last_code": None,
    }  # fmt: skip
    return TokenHealth(**known | changes)


def breaker(**changes: Any) -> BreakerStatus:
    known: dict[str, Any] = {
        "authority": HERE, "purpose": "token", "state": "open", "since": NOW - 1000, "retry_after": 12.0,
        "failing_since": NOW - 1020, "last_code": "connection_failed", "era": 1,
    }  # fmt: skip
    return BreakerStatus(**known | changes)


def keys(**changes: Any) -> KeysHealth:
    known: dict[str, Any] = {
        "authority": HERE, "issuer": f"{HERE}/t", "state": "fresh", "age": 10.0, "keys": 2, "time_to_dark": 3600.0,
        "failures": 0, "last_code": None,
    }  # fmt: skip
    return KeysHealth(**known | changes)


def judged(*seen: Any, **more: Any) -> tuple[str, tuple[str, ...]]:
    kinds = {TokenHealth: "tokens", BreakerStatus: "breakers", KeysHealth: "keys", StoreStatus: "stores"}
    parts: dict[str, Any] = dict.fromkeys(kinds.values(), ())
    for each in seen:
        parts[kinds[type(each)]] += (each,)
    return judge(Seen(at=NOW, **parts, **more))


STORE = StoreStatus(target="redis", state="read_only", rejected=0, last_code="full")
FAILED = {"failures": 3, "last_code": "connection_failed"}


def test_an_outage_is_told_whole() -> None:
    """Since when, why, how long it can be lived with, what comes next, and what there is to do."""
    verdict, (reason,) = judged(token(**FAILED), breaker())
    assert verdict == "degraded"
    assert reason == (
        f"{HERE} has failed since 02:13 UTC (connections to it fail); tokens last until 03:41 UTC; next probe in 12 s; "
        "nothing to do on your side, if the network is up"
    )


@pytest.mark.parametrize(
    ("verdict", "seen"),
    [
        pytest.param("ok", [], id="nothing"),
        pytest.param("ok", [token(state="due")], id="routine-refresh"),
        pytest.param("ok", [token(state="expired", time_to_dark=0.0, in_use=False)], id="expired-unasked"),
        pytest.param("ok", [keys(state="none", keys=0, time_to_dark=0.0)], id="keys-not-needed-yet"),
        pytest.param("degraded", [token(**FAILED)], id="first-failure"),
        pytest.param("at risk", [token(**FAILED, time_to_dark=900.0)], id="a-quarter-of-an-hour"),
        pytest.param("degraded", [token(**FAILED, time_to_dark=901.0)], id="more-than-that"),
        pytest.param("down", [token(**FAILED, time_to_dark=0.0)], id="gone"),
        pytest.param("down", [token(time_to_dark=0.0)], id="gone-without-a-count"),
        pytest.param("degraded", [token(**FAILED, time_to_dark=0.0, in_use=False)], id="gone-and-not-wanted"),
        pytest.param("at risk", [token(time_to_dark=60.0), breaker()], id="cannot-be-renewed"),
        pytest.param("degraded", [token(time_to_dark=60.0), breaker(part="by x at y")], id="another-part"),
        pytest.param("degraded", [token(time_to_dark=60.0), breaker(authority=THERE)], id="another-authority"),
        pytest.param("degraded", [token(time_to_dark=60.0), token(**FAILED)], id="the-other-one-ends"),
        pytest.param("at risk", [token(time_to_dark=60.0), breaker(state="isolated")], id="isolated"),
        pytest.param("ok", [breaker(state="closed")], id="one-failure-of-a-call"),
        pytest.param("degraded", [breaker(authority="", target="https://api.example", purpose="api")], id="api"),
        pytest.param("degraded", [keys(state="stale")], id="stale-keys"),
        pytest.param("at risk", [keys(failures=2, time_to_dark=100.0)], id="keys-end"),
        pytest.param("degraded", [keys(failures=2, time_to_dark=None, state="pinned")], id="pinned-keys"),
        pytest.param("down", [keys(state="none", failures=1, keys=0, time_to_dark=0.0)], id="no-keys"),
        pytest.param("degraded", [STORE], id="store"),
        pytest.param("degraded", [token(**FAILED, time_to_dark=1e300)], id="no-end"),
    ],
)  # fmt: skip
def test_the_verdict(verdict: str, seen: list[Any]) -> None:
    """Each has a reason, and "ok" has none."""
    found, reasons = judged(*seen)
    assert found == verdict
    assert bool(reasons) == (verdict != "ok")


def test_the_worst_comes_first() -> None:
    """And is the verdict; each authority is told once."""
    verdict, reasons = judged(
        token(**FAILED), token(**FAILED, scopes=("b",)), keys(failures=2, time_to_dark=100.0),
        token(authority=THERE, time_to_dark=0.0, failures=1, last_code="tls_failed"), breaker(),
        lanes=(LaneStatus(name=HERE, active=2, waiting=0, overdue=2),), removals_pending=1,
    )  # fmt: skip
    assert verdict == "down"
    assert [reason.split(" ", 1)[0] for reason in reasons] == [THERE, "signing", HERE, "2", "1"]
    assert "resilient-auth doctor" in reasons[0]
    assert "a token that is in use is gone" in reasons[0]


def test_a_hundred_thousand_tokens_are_judged_in_no_time() -> None:
    """All failing, at many authorities: each is looked at a few times, whatever the others are."""
    one = token(**FAILED)
    tokens = tuple(token(**FAILED, authority=f"https://{number}.example") for number in range(200))
    began = time.process_time()
    verdict, reasons = judge(Seen(at=NOW, tokens=(*tokens, *(one,) * 100_000)))
    assert (verdict, len(reasons)) == ("degraded", 201)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("blame", "advice"),
    [
        pytest.param({}, "look at this machine's network", id="network"),
        pytest.param({"what": "proxy"}, "look at the proxy", id="proxy"),
        pytest.param({"what": "provider"}, "nothing to do on your side", id="provider"),
        pytest.param({"what": "unknown"}, "nothing to do on your side, if the network is up", id="unknown"),
        pytest.param({"authority": THERE}, "nothing to do on your side, if the network is up", id="of-another"),
        pytest.param({"client_id": "b"}, "nothing to do on your side, if the network is up", id="another-application"),
    ],
)
def test_what_there_is_to_do_depends_on_whose_fault_it_is(blame: dict[str, str], advice: str) -> None:
    """Where that can be told; else on how it fails."""
    about: dict[str, Any] = {"what": "network", "authority": HERE, "since": NOW, "evidence": ("x",)}
    _, (reason,) = judged(token(**FAILED), breaker(), blame=(Blame(**about | blame),))
    assert reason.rpartition("next probe in 12 s; ")[2].startswith(advice)
    _, (reason,) = judged(keys(failures=1, last_code="connection_failed"), blame=(Blame(**about | blame),))
    assert f"; {advice}" in reason


def test_who_isolated_a_provider_is_not_told_that_it_fails() -> None:
    """They did it."""
    _, (reason,) = judged(breaker(state="isolated", retry_after=None))
    assert reason == f"calls to {HERE} token are stopped by isolate() since 02:13 UTC; reset() lets them through"
