"""Whoever is told harms nobody: exporters, samplers, readers and listeners that raise, block or are flooded."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from exported import SCOPE, SECRET, Seen
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from prometheus_client import generate_latest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.telemetry import reading


class Blocking(SpanProcessor):
    """An exporter that never comes back, until it may."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def on_end(self, span: Any) -> None:
        self.may_go_on.wait(20)


class Raising(SpanProcessor):
    def on_start(self, *_: Any, **__: Any) -> None:
        raise ValueError(SECRET)

    def on_end(self, *_: Any) -> None:
        raise ValueError(SECRET)


class RaisingSampler(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> Any:
        raise ValueError(SECRET)

    def get_description(self) -> str:
        return "raises"


class Meters:
    """A provider whose instruments block or raise."""

    def __init__(self, record: Callable[[], None]) -> None:
        self._record = record

    def get_meter(self, *_: Any) -> Any:
        return self

    def create_observable_counter(self, *_: Any, **__: Any) -> None: ...

    create_observable_gauge = create_observable_counter

    def create_histogram(self, *_: Any, **__: Any) -> Any:
        return self

    def record(self, *_: Any) -> None:
        self._record()


def _raise() -> None:
    raise ValueError(SECRET)


@pytest.mark.parametrize("how", ["blocks", "raises", "sampler raises"])
def test_an_exporter_changes_nothing(how: str, daemon: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Neither results nor time; and what it raises stays out of the log."""
    blocking = Blocking()
    tracers = TracerProvider(shutdown_on_exit=False, sampler=RaisingSampler() if "sampler" in how else None)
    tracers.add_span_processor(blocking if how == "blocks" else Raising())
    ra.telemetry.instrument(Meters(blocking.may_go_on.wait if how == "blocks" else _raise), tracers)
    try:
        began = time.monotonic()
        for number in range(20):
            assert "access_token" in daemon().acquire_token_for_client([f"api://api-{number}/.default"])
        assert time.monotonic() - began < 5.0
    finally:
        ra.telemetry.uninstrument()
        blocking.may_go_on.set()
    assert SECRET not in caplog.text


def test_what_isnt_taken_in_time_is_dropped_and_counted(seen: Seen, daemon: Callable[..., Any]) -> None:
    """What is kept is bounded."""
    app = daemon()
    blocked = threading.Event()
    handing_on = reading.handing_on
    handing_on.put(lambda: blocked.wait(10))
    verifier = ra.ClaimsVerifier(issuer="https://login.example/t", audience="api://orders")
    for _ in range(reading.MOST_KEPT + 100):
        with pytest.raises(ra.InvalidToken):
            verifier.verify("x.y.z")
    app.acquire_token_for_client(SCOPE)
    dropped = seen.scraped("resilient_auth_telemetry_dropped_total")
    blocked.set()
    verifier.close()
    assert dropped > 100
    assert seen.scraped("resilient_auth_verifications_total") == reading.MOST_KEPT + 100


def test_nothing_that_is_told_is_a_secret(seen: Seen, idp: Emulator, daemon: Callable[..., Any], clock: Any) -> None:
    """No token, secret, user name or account id, in faults and denials either."""
    app = msal.PublicClientApplication(
        "desktop", authority=idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file,
        resilience=ra.Settings(clock=clock),
    )  # fmt: skip
    idp.add_user("ann@contoso.com")
    flow = app.initiate_auth_code_flow(["User.Read"], redirect_uri="http://localhost/back", response_mode="form_post")
    signed_in = app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com"))
    account = app.get_accounts()[0]
    kept = daemon()
    token = kept.acquire_token_for_client(SCOPE)["access_token"]
    app.acquire_token_silent(["User.Read"], account)
    idp.deny("refresh_token", "invalid_grant", "ann@contoso.com was deleted")
    app.acquire_token_silent(["User.Read"], account, force_refresh=True)
    idp.deny("client_credentials", "ann@contoso.com")
    kept.acquire_token_for_client(["api://third/.default"])
    idp.fail(Fault.http_503())
    clock.skip(4000)
    with pytest.raises(ra.ProviderUnavailable), ra.wait_at_most(0.1):
        kept.acquire_token_for_client(SCOPE)
    app.close()
    seen.spans("resilient_auth.exchange", 4)
    told = generate_latest(seen.registry).decode() + json.dumps(
        [[span.name, dict(span.attributes), str(span.status)] for span in seen.exporter.get_finished_spans()]
    )
    told += seen.reader.get_metrics_data().to_json()
    for secret in (SECRET, token, signed_in["access_token"], "ann@", "contoso.com", account["home_account_id"]):
        assert secret not in told


def test_a_hit_is_counted_without_a_call(seen: Seen, daemon: Callable[..., Any]) -> None:
    """It takes as many as where nobody observes, which `test_a_token_takes_no_more_calls_than_it_did` holds."""
    import sys

    app = daemon(resilience=None)
    app.acquire_token_for_client(SCOPE)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        app.acquire_token_for_client(SCOPE)
    finally:
        sys.setprofile(None)
    assert len(calls) == 2, calls
