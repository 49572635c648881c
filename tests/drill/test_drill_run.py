"""The drill itself, for real."""

from __future__ import annotations

import pytest
from drilled import Drilled

from resilient_auth.drill.client import SDK
from resilient_auth.drill.client.process import ClientProcess


@pytest.mark.slow
@pytest.mark.xdist_group("drilled")
def test_a_short_outage_is_drilled_judged_and_reported(drilled: Drilled) -> None:
    """Both clients meet the same outage; the SDK comes through, the report and the findings are written."""
    (fault,) = drilled.findings["faults"]
    peer, sdk = fault["msal"], fault[SDK]
    assert drilled.status == 0, fault
    assert sdk["requests"] == sdk["served"] > 50
    assert sdk["missed"] == 0
    assert peer["requests"] > 50
    assert peer["served"] < peer["requests"]
    assert 1 <= sdk["calls"] <= 3
    for text in drilled.texts:
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
