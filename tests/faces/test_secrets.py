"""No secret in any log at DEBUG, exception, event, pickle, health report, metric, span, status page or result."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.telemetry.page.serving import StatusPage
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
SECRET = "client~secret.of-the_daemon+1"
USER = "ann@contoso.com"
PASSWORD = "passw0rd-of-ann!"
ASSERTION = "eyJhbGciOiJub25lIn0.eyJ1c2VyIjoiYW5uIn0.c2lnbmF0dXJlLW9mLWFubg"
SAML = "PHNhbWw-opaque-assertion-of-bob"
HEADER = "identity-header-of-app-service"


class Everything(logging.Handler):
    """Keep every record's whole text, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.lines.append(f"{record.name} {record.__dict__!r}")


@pytest.fixture
def log() -> Iterator[Everything]:
    root, handler = logging.getLogger(), Everything()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


class Owner:
    """All that an owner's tools are told: metrics, spans, health, the forecast, service levels and the status page."""

    def __init__(self) -> None:
        self._spans, self._reader, self._registry = InMemorySpanExporter(), InMemoryMetricReader(), CollectorRegistry()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        ra.telemetry.instrument(MeterProvider([self._reader], shutdown_on_exit=False), tracers)
        self._registry.register(ra.telemetry.prometheus_collector())
        self._page = StatusPage("/status", "Tokens")

    def told(self) -> list[str]:
        """Return what it is told now."""
        health = ra.health()
        data = self._reader.get_metrics_data()
        return [
            repr(health), str(health), json.dumps(health.to_dict()), str(dataclasses.asdict(health)),
            str(ra.forecast()),
            generate_latest(self._registry).decode(), "" if data is None else data.to_json(),
            *(span.to_json() for span in self._spans.get_finished_spans()),
            *(str(answer().body) for answer in (self._page.document, self._page.now, self._page.event)),
        ]  # fmt: skip


@pytest.fixture
def owner() -> Iterator[Owner]:
    yield Owner()
    ra.telemetry.uninstrument()


def told_by(error: BaseException) -> str:
    """Return all that an exception can tell."""
    texts = [str(error), repr(error), "".join(traceback.format_exception(error)), repr(error.args), repr(vars(error))]
    if isinstance(error, ra.ResilientAuthError):
        kept = pickle.dumps(error)
        texts += [repr(kept), repr(pickle.loads(kept)), str(pickle.loads(kept))]
    return "\n".join(texts)


def secrets_in(cache: Any) -> set[str]:
    kinds = ("AccessToken", "RefreshToken", "IdToken")
    return {msal_entry["secret"] for kind in kinds for msal_entry in list(cache.search(kind, now=0))}


def test_no_secret_is_told_in_any_fault(idp: Emulator, proxied, settings, clock, log, monkeypatch, owner):
    """Every flow, in every fault, with MSAL's, httpx's and urllib3's loggers at DEBUG: no secret in anything told."""
    idp.add_user(USER, PASSWORD)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{idp.metadata_url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    hasty = settings(
        wait=0.25, exchange_deadline=0.25, attempt_timeout=0.2, connect_timeout=0.2, discovery_wait=0.25,
        retry=ra.RetryOptions(attempts=1),
        breaker=ra.BreakerOptions(consecutive_failures=1000, minimum_throughput=1000),
    )  # fmt: skip
    app = msal.ConfidentialClientApplication("daemon", SECRET, **proxied, resilience=hasty)
    public = msal.PublicClientApplication("desktop", **proxied, resilience=hasty)
    identity = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), resilience=hasty)
    said: list[str] = []
    secrets = {SECRET, PASSWORD, ASSERTION, SAML, HEADER}
    account: dict[str, Any] | None = None

    def ask(call: Any) -> Any:
        try:
            result = call()
        except Exception as error:
            said.append(told_by(error))
            return None
        if isinstance(result, dict):
            said.append(repr(result.get("resilience")))
            secrets.update(
                str(result[k]) for k in ("access_token", "refresh_token", "id_token", "device_code") if k in result
            )
        return result

    def redeem() -> Any:
        flow = public.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/", response_mode="form_post")
        answer = idp.sign_in(flow["auth_uri"], USER)
        secrets.update({answer["code"], flow["code_verifier"]})
        return public.acquire_token_by_auth_code_flow(flow, answer)

    def device() -> Any:
        flow = public.initiate_device_flow(USER_SCOPE)
        secrets.add(flow["device_code"])
        return public.acquire_token_by_device_flow(flow, exit_condition=lambda flow: True)

    def password() -> Any:
        return public.acquire_token_by_username_password(USER, PASSWORD, USER_SCOPE)

    with capture_events() as events:
        while not public.get_accounts():  # an attempt of a fifth of a second may be too short on a busy machine
            ask(redeem)
            clock.skip(60)
        account = public.get_accounts()[0]
        for number, fault in enumerate([None, *Fault.all().values()]):
            if fault is not None:
                idp.fail(fault)
                if fault.name != "tls_failed":
                    idp.fail(fault, "managed_identity")
            refresh_token = next(iter(public.token_cache.search("RefreshToken")))["secret"]
            calls = [
                lambda: app.acquire_token_for_client(SCOPE),
                lambda n=number: app.acquire_token_for_client([f"https://api{n}/.default"]),
                lambda n=number: app.acquire_token_on_behalf_of(f"{ASSERTION}{n}", USER_SCOPE),
                lambda: app.acquire_token_on_behalf_of(SAML, USER_SCOPE),
                lambda: app.acquire_token_by_user_federated_identity_credential(USER_SCOPE, ASSERTION, username=USER),
                lambda: public.acquire_token_silent(USER_SCOPE, account, force_refresh=True),
                lambda rt=refresh_token: public.acquire_token_by_refresh_token(rt, USER_SCOPE),
                lambda: identity.acquire_token_for_client(resource="https://vault.azure.net"),
                password,
                redeem,
                device,
            ]
            slow = fault is not None and fault.name in ("black_hole", "slow", "trickle")
            for call in calls[:3] + calls[7:10] if slow else calls:
                ask(call)
            secrets |= secrets_in(app.token_cache) | secrets_in(public.token_cache)
            said += owner.told()
            idp.heal()
            clock.skip(3000)
        idp.deny("*", "invalid_grant")
        for call in calls:
            ask(call)
        time.sleep(0.2)
        said += [f"{event} {event!r} {pickle.dumps(event)!r} {dataclasses.asdict(event)}" for event in events]
    said += [repr(app), repr(public), repr(vars(app).get("_ra_session")), repr(hasty), *log.lines]
    for made in (app, public, identity):
        made.close()
    # Whose they are is nobody's business either; MSAL's own records, and what a user's name is looked up with, aside.
    people = {USER, account["home_account_id"], account["local_account_id"]}
    ours = "\n".join(line for line in said if not line.startswith(("msal", "httpx", "httpcore", "urllib3")))
    named = [ours[max(0, ours.find(one) - 300) : ours.find(one) + 20] for one in people if one in ours]
    assert not named, named[0]
    text = "\n".join(said)
    assert len(secrets) > 30
    assert len(text) > 100_000
    leaked = [
        (secret[:12], text[max(0, text.find(secret) - 200) : text.find(secret) + 20])
        for secret in secrets
        if secret in text
    ]
    assert not leaked, leaked[0]


def test_a_token_cannot_be_pickled_or_shown(idp: Emulator, daemon):
    """The object that holds a token shows a fingerprint and refuses to be written down."""
    app = daemon()
    text = app.acquire_token_for_client(SCOPE)["access_token"]
    entries = list(app._ra_session.memory)
    assert entries
    for entry in entries:
        assert text not in repr(entry.token)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(entry.token)
