from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from drilled import Drilled
from made_up import DARK_FROM, DARK_UNTIL, ENDED, asked, call, issued

from resilient_auth.drill import main
from resilient_auth.drill.client.records import Request
from resilient_auth.drill.judge import Evidence, Finding, judge
from resilient_auth.drill.plan import SCENARIOS
from resilient_auth.drill.run import Outcome
from resilient_auth.testing import outage_drill

__all__ = ["outage_drill"]


@pytest.fixture(scope="session")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """A short outage with 503, for real, with telemetry on; for tests of the group `drilled`."""
    folder = tmp_path_factory.mktemp("drilled")
    report, findings = folder / "r.html", folder / "f.json"
    options = ["--quick", "--fault", "503", "--outage", "5", "--recovery", "8", "--threads", "2"]
    files = ["--report", str(report), "--json", str(findings), "--telemetry", str(folder)]
    status = main([*options, *files])
    return Drilled(
        status,
        report.read_text(),
        json.loads(findings.read_text()),
        {path.name.split(".")[1]: path.read_text() for path in folder.glob("http_503.*.prom")},
        [json.loads(line) for line in (folder / "http_503.spans.jsonl").read_text().splitlines()],
    )


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    """Make up a run of 30 s, dark from second 10 to 20, with one token issued at its start."""

    def build(*requests: Request, **changes: Any) -> Evidence:
        return Evidence(
            **{
                "client": "resilient-auth",
                "requests": requests,
                "interval": 0.2,
                "tokens": (issued("a", 1000.0),),
                "calls": (call(1000.0, "a"),),
                "began": 1000.0,
                "dark_from": DARK_FROM,
                "dark_until": DARK_UNTIL,
                "ended": ENDED,
            }
            | changes
        )

    return build


@pytest.fixture
def finding(evidence: Callable[..., Evidence]) -> Callable[..., Finding]:
    def build(*requests: Request, **changes: Any) -> Finding:
        return judge(evidence(*requests, **changes))

    return build


@pytest.fixture
def outcome(finding: Callable[..., Finding]) -> Callable[..., Outcome]:
    """Make up what became of both clients: the SDK misses `missed` of 100 requests, MSAL half of them."""

    def build(missed: int = 0, scenario: int = 0, **changes: Any) -> Outcome:
        def hundred(bad: int) -> list[Request]:
            return [
                asked(1010.0 + n / 10, **({"name": None, "error": "MsalServiceError"} if n < bad else {}))
                for n in range(100)
            ]

        peer = finding(
            *hundred(50), client="msal", calls=(call(1000.0, "a"), call(1012.0, status=503, fault="http_503"))
        )
        return Outcome(SCENARIOS[scenario], peer, finding(*hundred(missed), **changes))

    return build
