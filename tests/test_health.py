"""How the application stands: what a readiness probe and a dashboard are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resilient_auth._policy.blame.verdict import Blame
from resilient_auth._policy.breaker import BreakerStatus
from resilient_auth._store.gate import StoreStatus
from resilient_auth.health import Health, KeysHealth, LaneStatus, TokenHealth

#: One process lives through the scenes for all of these.
pytestmark = pytest.mark.xdist_group("health")

HERE = Path(__file__).parent
SECONDS = 30.0


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Every scene's report, from a process in which nothing else lives."""
    done = subprocess.run(
        [sys.executable, str(HERE / "engine" / "health_scene.py")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(
    ("scene", "verdict", "ready"),
    [
        ("nothing", "ok", True),
        ("fresh", "ok", True),
        ("due", "ok", True),
        ("outage", "degraded", True),
        ("gone", "down", False),
        ("never_had", "down", False),
        ("given_up", "degraded", True),
        ("pinned_and_gone", "down", False),
        ("denied", "ok", True),
        ("isolated", "degraded", True),
        ("soon_gone", "at risk", True),
        ("idle", "ok", True),
        ("closed", "ok", True),
    ],
)
def test_the_verdict(seen: dict[str, Any], scene: str, verdict: str, ready: bool) -> None:
    """Down means that somebody who asks now gets nothing, and only then is the process not ready."""
    assert (seen[scene]["verdict"], seen[scene]["ready"]) == (verdict, ready)


@pytest.mark.parametrize(
    ("scene", "seconds"),
    [("nothing", None), ("fresh", 3500.0), ("due", 1800.0), ("outage", 1600.0), ("gone", 0.0), ("never_had", 0.0),
     ("given_up", None), ("denied", None)],
)  # fmt: skip
def test_the_time_to_dark_is_that_of_the_first_token_in_use(
    seen: dict[str, Any], scene: str, seconds: float | None
) -> None:
    """None where none is in use."""
    assert seen[scene]["time_to_dark"] == seconds


def test_each_token_is_told_with_its_state_and_its_failures(seen: dict[str, Any]) -> None:
    """Two tokens in an outage: one due and failing, one that nobody has asked for yet."""
    tokens = {scopes[0]: rest for scopes, *rest in seen["outage"]["tokens"]}
    assert tokens == {
        "a": ["due", 1600.0, False, 1, "server_failed", None],
        "b": ["fresh", 5200.0, False, 0, None, None],
    }


def test_whose_token_it_is_comes_as_a_hash(seen: dict[str, Any]) -> None:
    """Health may be shown to more people than account ids may."""
    (token,) = seen["fresh"]["tokens"]
    assert token[-1] is not None
    assert "user.tenant" not in json.dumps(seen["fresh"])


def test_breakers_are_told_by_name_state_and_cause(seen: dict[str, Any]) -> None:
    """One that an operator took out of use is named as such."""
    assert seen["outage"]["breakers"] == [["https://login.example token", "open", "503"]]
    assert [b[1] for b in seen["isolated"]["breakers"]] == ["isolated"]


def test_it_reads_as_a_report(seen: dict[str, Any]) -> None:
    """The verdict first, then a line for each thing."""
    assert seen["nothing"]["text"] == "OK: no token in use, ready"
    verdict, *lines = seen["outage"]["text"].splitlines()
    assert verdict == "DEGRADED: 27 min to dark, ready"
    assert lines == [
        f"  {seen['outage']['json']['reasons'][0]}",
        "  token silent b at https://login.example: fresh, 87 min left",
        "  token silent a at https://login.example: due, 27 min left, failed 1 time, last with server_failed",
        "  circuit https://login.example token: open after 503; next probe in 10 s",
        "  if the provider died now: first dark in 27 min, at 23:13 UTC",
    ]
    assert seen["gone"]["text"].startswith("DOWN: 0 s to dark, not ready\n")


def test_the_report_has_a_line_for_each_kind_of_trouble() -> None:
    """Keys, stores, lanes, an isolated API and sign-outs that aren't written yet."""
    known = {"authority": "https://login.example", "issuer": "https://login.example/t/v2.0"}
    report = Health(
        verdict="down",
        time_to_dark=None,
        tokens=(
            TokenHealth(
                authority="https://login.example", tenant="t", client_id="app", flow="silent", scopes=("a", "b"),
                subject="0123456789abcdef", state="expired", time_to_dark=0.0, pinned=True, failures=2,
                last_code="server_failed",
            ),
        ),
        breakers=(
            BreakerStatus(
                target="https://api.example", purpose="api", wire="other.pem", state="isolated", since=1.0,
                retry_after=None, failing_since=None, last_code=None, era=3,
            ),
        ),
        blame=(
            Blame(what="network", authority="https://login.example", since=3600.0, evidence=("no way", "others")),
            Blame(
                what="credential", authority="https://login.example", wire="other.pem", client_id="app", since=0.0,
                evidence=("AADSTS7000215",),
            ),
        ),
        keys=(
            KeysHealth(**known, state="none", age=None, keys=0, time_to_dark=0.0, failures=3, last_code="http_503"),
            KeysHealth(**known, state="stale", age=9000.0, keys=2, time_to_dark=60.0, failures=0, last_code=None),
        ),
        stores=(StoreStatus(target="redis", state="read_only", last_code="full", rejected=1, unreadable=4),),
        lanes=(LaneStatus(name="https://login.example", active=2, waiting=1, overdue=1),),
        removals_pending=5,
    )  # fmt: skip
    assert str(report).splitlines() == [
        "DOWN: no token in use, not ready",
        "  blame https://login.example: network since 01:00 UTC, no way; others",
        "  blame https://login.example over other.pem for app: credential since 00:00 UTC, AADSTS7000215",
        "  token silent a b for 0123456789abcdef at https://login.example/t: expired, nothing left, failed 2 times, "
        "last with server_failed",
        "  circuit https://api.example api over other.pem: isolated",
        "  signing keys of https://login.example/t/v2.0: none held, never fetched, failed 3 times, last with http_503",
        "  signing keys of https://login.example/t/v2.0: 2 stale, fetched 2.5 h ago",
        "  store redis: read_only with full, 4 records unreadable",
        "  lane https://login.example: 2 under way, 1 waiting, 1 overdue",
        "  sign-outs not yet in a store: 5",
    ]
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_it_is_json(seen: dict[str, Any]) -> None:
    """For an endpoint or a log, with the names of the attributes."""
    found = seen["outage"]["json"]
    assert (found["verdict"], found["ready"], found["time_to_dark"]) == ("degraded", True, 1600.0)
    assert found["tokens"][1] == {
        "authority": "https://login.example", "tenant": "", "client_id": "app", "flow": "silent", "scopes": ["a"],
        "subject": None, "state": "due", "time_to_dark": 1600.0, "pinned": False, "in_use": True, "failures": 1,
        "last_code": "server_failed",
    }  # fmt: skip
    (breaker,) = found["breakers"]
    assert {name: breaker[name] for name in ("authority", "target", "purpose", "state", "last_code")} == {
        "authority": "https://login.example", "target": "", "purpose": "token", "state": "open", "last_code": "503",
    }  # fmt: skip


def test_the_function_can_be_called_whoever_imports_the_module() -> None:
    """`import resilient_auth.health` puts the module in the place of the package's function; both can be called."""
    program = "import resilient_auth as ra, resilient_auth.health as m; print(ra.health().verdict, m.health().verdict)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == said.split()[1]
