"""The drill itself, for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resilient_auth.drill import main
from resilient_auth.drill.client import SDK
from resilient_auth.drill.process import ClientProcess


@pytest.mark.slow
def test_a_short_outage_is_drilled_judged_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both clients meet the same outage; the SDK comes through, the report and the findings are written."""
    report, findings = tmp_path / "r.html", tmp_path / "f.json"
    options = ["--quick", "--fault", "503", "--outage", "5", "--recovery", "1", "--threads", "2"]
    status = main([*options, "--report", str(report), "--json", str(findings)])
    told = json.loads(findings.read_text())
    (fault,) = told["faults"]
    peer, sdk = fault["msal"], fault[SDK]
    assert status == 0, capsys.readouterr().out
    assert sdk["requests"] == sdk["served"] > 50
    assert sdk["missed"] == 0
    assert peer["requests"] > 50
    assert peer["served"] < peer["requests"]
    assert 1 <= sdk["calls"] <= 3
    for text in (report.read_text(), findings.read_text()):
        assert "eyJ" not in text
        assert "of the drill" not in text


@pytest.mark.slow
def test_a_client_that_cannot_start_is_told_as_trouble() -> None:
    """Its failure is shown by kind, without the text of the error."""
    process = ClientProcess({"client": "msal", "authority": "not a url", "ca_file": "", "threads": 1, "timeout": 1})
    try:
        process._process.wait(30)
    finally:
        process.close()
    assert process.trouble is not None
    assert "status 1" in process.trouble
    assert "not a url" not in process.trouble


@pytest.mark.slow
def test_a_client_that_hangs_is_ended() -> None:
    """One that waits for orders for ever doesn't outlive the drill."""
    process = ClientProcess({})
    process.close()
    assert not process.alive
