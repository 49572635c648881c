"""What the SDK tells its owner in an outage, as a scrape and as traces, name by name."""

from __future__ import annotations

from typing import Any

import pytest
from drilled import Drilled, told
from prometheus_client.parser import text_string_to_metric_families

from resilient_auth.telemetry.metrics import METRICS
from resilient_auth.telemetry.prometheus import name_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("drilled")]

SERVED, ATTEMPTS = "resilient_auth_acquisitions_total", "http_client_request_duration_seconds_count"


@pytest.mark.parametrize("phase", ["healthy", "dark", "recovery"])
def test_every_scrape_has_every_metric(drilled: Drilled, phase: str) -> None:
    """Under the names on the page, with the page's texts; in a drill most of them have something to tell."""
    families = {family.name: family for family in text_string_to_metric_families(drilled.scrapes[phase])}
    names = {name_of(metric).removesuffix("_total"): metric for metric in METRICS.values()}
    assert names.keys() == families.keys()
    assert all(families[name].documentation == metric.text for name, metric in names.items())
    # Whether an exchange is in the queue just then is chance.
    silent = {name for name in names if not families[name].samples} - {"resilient_auth_queue_depth"}
    quiet_when_well = set() if phase == "dark" else {"resilient_auth_blame"}
    if phase == "healthy":
        quiet_when_well.add("resilient_auth_retries")
    assert silent == quiet_when_well | {
        # The drill keeps nothing fresh ahead, and has no store, certificate, API, verifier or queue.
        "resilient_auth_breaker_refused",
        "resilient_auth_writes",
        "resilient_auth_breaker_transitions",
        "resilient_auth_bulkhead_depth",
        "resilient_auth_call_duration_seconds",
        "resilient_auth_cooldown_duration_seconds",
        "resilient_auth_credential_remaining_seconds",
        "resilient_auth_keys_age_seconds",
        "resilient_auth_keys_time_to_dark_seconds",
        "resilient_auth_store_operation_duration_seconds",
        "resilient_auth_stores",
        "resilient_auth_token_age_seconds",
        "resilient_auth_token_time_to_dark_seconds",
        "resilient_auth_verification_duration_seconds",
        "resilient_auth_verifications",
    }


def test_the_scrapes_tell_the_outage(drilled: Drilled) -> None:
    """Well, then served from what is held while attempts fail, then fresh again."""
    assert told(drilled, "healthy", "resilient_auth_verdict", resilient_auth_state="ok") == 1
    assert told(drilled, "healthy", SERVED, resilient_auth_source="fallback") == 0
    assert told(drilled, "healthy", ATTEMPTS, http_response_status_code="503") == 0
    # Under a quarter of an hour is left of the short-lived token, and it can't be renewed.
    assert told(drilled, "dark", "resilient_auth_verdict", resilient_auth_state="at risk") == 1
    assert told(drilled, "dark", "resilient_auth_blame", resilient_auth_blame="provider") == 1
    assert told(drilled, "dark", SERVED, resilient_auth_source="fallback") > 10
    assert told(drilled, "dark", ATTEMPTS, http_response_status_code="503", error_type="503") >= 1
    assert told(drilled, "dark", "resilient_auth_retries_total", error_type="server_failed") >= 1
    assert 200 < told(drilled, "dark", "resilient_auth_time_to_dark_seconds") < 308
    for phase in drilled.scrapes:
        assert told(drilled, phase, SERVED) == told(drilled, phase, SERVED, resilient_auth_outcome="success")
    assert told(drilled, "recovery", SERVED) > told(drilled, "dark", SERVED) > told(drilled, "healthy", SERVED)


def test_the_traces_tell_the_outage(drilled: Drilled) -> None:
    """Exchanges with their attempts below them, and background refreshes linked to the exchange before."""
    by_name: dict[str, list[Any]] = {}
    for span in drilled.spans:
        by_name.setdefault(span["name"], []).append(span)
    assert by_name.keys() == {"GET", "POST", "resilient_auth.exchange"}
    exchanges = {span["context"]["span_id"]: span["attributes"] for span in by_name["resilient_auth.exchange"]}
    first, *refreshes = by_name["resilient_auth.exchange"]
    assert first["attributes"]["resilient_auth.unasked"] == "false"
    assert first["links"] == []
    for refresh in refreshes:
        assert refresh["attributes"]["resilient_auth.unasked"] == "true"
        assert refresh["links"][0]["context"]["span_id"] in exchanges
    for attempt in by_name["POST"]:
        assert attempt["attributes"]["resilient_auth.purpose"] == "token"
        failed = attempt["attributes"]["http.response.status_code"] == 503
        assert (attempt["attributes"].get("error.type") == "503") is failed
        assert (attempt["status"]["status_code"] == "ERROR") is failed
    failing = [span for span in by_name["POST"] if span["attributes"]["http.response.status_code"] == 503]
    assert failing
    # An exchange that is still waiting for its next attempt has no span yet.
    ended = {span["parent_id"] for span in by_name["POST"]} & exchanges.keys()
    assert len(ended) == len(exchanges)
    assert by_name["GET"][0]["attributes"]["resilient_auth.purpose"] == "discovery"
