"""What the metrics tell of acquisitions, exchanges, attempts, breakers, stores and verifications, name by name."""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID
from exported import SCOPE, Seen
from forked import in_a_child
from opentelemetry.sdk.metrics import MeterProvider

import resilient_auth as ra
from resilient_auth._process import observing
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError, ProviderUnavailable
from resilient_auth.health.standing import Verdict
from resilient_auth.telemetry.labels import Addresses
from resilient_auth.telemetry.metrics import LABELS, METRICS, MOST_ADDRESSES, MOST_SERIES, OTHER
from resilient_auth.telemetry.prometheus import name_of
from resilient_auth.telemetry.standing import standing
from resilient_auth.telemetry.tally import Tally
from resilient_auth.verify import DenyList

ACQUISITIONS = "resilient_auth_acquisitions_total"


def test_hits_and_exchanges_are_told_apart(seen: Seen, daemon: Callable[..., Any]) -> None:
    """By source, whichever face is asked, and both exporters tell the same."""
    app = daemon()
    for _ in range(5):
        app.acquire_token_for_client(SCOPE)
    credential = ra.ResilientCredential(app)
    for _ in range(3):
        credential.get_token(*SCOPE)
    told = {
        point.attributes["resilient_auth.source"]: point.value for point in seen.points("resilient_auth.acquisitions")
    }
    assert told == {"provider": 1, "memory": 7}
    assert seen.scraped(ACQUISITIONS, resilient_auth_source="memory", server_address="localhost") == 7
    assert seen.scraped("resilient_auth_exchange_duration_seconds_count", resilient_auth_outcome="success") == 1
    assert seen.scraped("http_client_request_duration_seconds_count", resilient_auth_purpose="token") == 1


async def test_tasks_that_are_served_from_memory_are_counted(seen: Seen, daemon: Callable[..., Any]) -> None:
    """As threads are, by each face and each of its calls."""
    app = daemon()
    wrapped, credential = ra.aio.wrap(app), ra.aio.ResilientCredential(app)
    await credential.get_token(*SCOPE)
    told = [seen.scraped(ACQUISITIONS, resilient_auth_source="memory")]
    for call in (
        lambda: wrapped.acquire_token_for_client(SCOPE),
        lambda: credential.get_token(*SCOPE),
        lambda: credential.get_token_info(*SCOPE),
    ):
        for _ in range(3):
            await call()
        told.append(seen.scraped(ACQUISITIONS, resilient_auth_source="memory"))
    assert told == [0, 3, 6, 9]


def test_what_was_held_before_is_counted_too(idp: Emulator, daemon: Callable[..., Any]) -> None:
    """And nothing is, and nothing is left in the way, when it is off."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    seen = Seen()
    seen.registry.register(ra.telemetry.prometheus_collector())
    try:
        for _ in range(3):
            app.acquire_token_for_client(SCOPE)
        assert seen.scraped(ACQUISITIONS, resilient_auth_source="memory") == 3
    finally:
        ra.telemetry.uninstrument()
    app.acquire_token_for_client(SCOPE)
    assert seen.scraped(ACQUISITIONS) == 0
    assert observing.observer is None
    assert all(type(hit.answer) is dict for hit in app._ra_session.memory.hits.values())


def test_an_outage_is_told(
    seen: Seen, idp: Emulator, daemon: Callable[..., Any], clock: Any, eventually: Callable[..., None]
) -> None:
    """The failed attempts with their status, the exchange, the breaker, the retries, the fallback."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    idp.fail(Fault.status(503))
    clock.skip(3400)
    result = app.acquire_token_for_client(SCOPE)
    with pytest.raises(ProviderUnavailable), ra.wait_at_most(0.05):
        app.acquire_token_for_client(["api://other/.default"])
    assert result["token_source"] == "cache"
    assert seen.scraped("resilient_auth_retries_total", error_type="server_failed", resilient_auth_purpose="token")
    assert seen.scraped("http_client_request_duration_seconds_count", error_type="503")
    # Another test's provider may be failing on this host too; and one look is told for a while.
    blamed = [one.authority for one in ra.health().blame if one.what == "provider" and "//localhost:" in one.authority]
    told = {"resilient_auth_blame": "provider", "server_address": "localhost"}
    assert idp.url in blamed
    eventually(lambda: seen.scraped("resilient_auth_blame", **told) == len(blamed))
    assert seen.scraped(ACQUISITIONS, resilient_auth_outcome="failed", resilient_auth_source="none") == 1
    assert seen.scraped("resilient_auth_acquisition_duration_seconds_count", error_type="acquisition_timeout") == 1


def test_a_denial_is_told_by_a_code_that_is_known(seen: Seen, idp: Emulator, daemon: Callable[..., Any]) -> None:
    """What else a provider writes there is `_OTHER`: it may be a user's name."""
    idp.deny("client_credentials", "invalid_client")
    daemon().acquire_token_for_client(SCOPE)
    assert seen.scraped(ACQUISITIONS, resilient_auth_outcome="denied") == 1
    assert seen.scraped("resilient_auth_acquisition_duration_seconds_count", error_type="invalid_client") == 1
    idp.deny("client_credentials", "ann_of_contoso")
    daemon().acquire_token_for_client(["api://second/.default"])
    assert seen.scraped("resilient_auth_acquisition_duration_seconds_count", error_type=OTHER) == 1


def test_how_things_stand(
    seen: Seen,
    daemon: Callable[..., Any],
    settings: Any,
    tmp_path: Path,
    eventually: Callable[..., None],
) -> None:
    """Time to dark and refresh age of what is pinned, breakers, stores, queues and budgets."""
    store = ra.FileStore(tmp_path / "store", key=os.urandom(32))
    app = daemon(resilience=settings(store=store, keep_fresh=(tuple(SCOPE),)))
    app.acquire_token_for_client(SCOPE)
    pinned = {"resilient_auth_scope": SCOPE[0], "resilient_auth_client_id": "daemon"}
    # One look is told for a while.
    eventually(lambda: 3000 < seen.scraped("resilient_auth_token_time_to_dark_seconds", **pinned) <= 3600)
    assert 0 <= seen.scraped("resilient_auth_token_age_seconds", **pinned) < 60
    assert seen.scraped("resilient_auth_breakers", resilient_auth_state="closed", resilient_auth_purpose="token") >= 1
    # Each store of the process's: other tests may have left some.
    stores = partial(seen.scraped, "resilient_auth_stores", resilient_auth_state="ok", resilient_auth_store="file")
    eventually(lambda: stores() == [(at.target, at.state) for at in ra.health().stores].count(("file", "ok")) > 0)
    # Of all the authorities that this process has asked, in other tests too.
    assert seen.scraped("resilient_auth_retry_budget", resilient_auth_purpose="token") >= 1
    assert seen.scraped("resilient_auth_store_operation_duration_seconds_count", resilient_auth_operation="read")
    assert seen.scraped("resilient_auth_store_operation_duration_seconds_count", resilient_auth_operation="write")
    assert seen.scraped("resilient_auth_verdict") == 1
    store.close()


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_each_verdict_has_a_state(
    monkeypatch: pytest.MonkeyPatch, seen: Seen, verdict: Verdict, eventually: Callable[..., None]
) -> None:
    """An alert on "down" that can never be 1 is worse than none."""
    now = dataclasses.replace(ra.health(), verdict=verdict)
    monkeypatch.setattr("resilient_auth.telemetry.standing.health", lambda: now)
    # One look is told for a while, the test's before this one too.
    eventually(lambda: seen.scraped("resilient_auth_verdict", resilient_auth_state=verdict) == 1)
    assert seen.scraped("resilient_auth_verdict") == 1


def test_a_token_from_the_store_is_told(seen: Seen, daemon: Callable[..., Any], settings: Any, tmp_path: Path) -> None:
    """Another application, or an earlier life of this one, had it."""
    key = os.urandom(32)
    first = ra.FileStore(tmp_path / "store", key=key)
    daemon(resilience=settings(store=first)).acquire_token_for_client(SCOPE)
    second = ra.FileStore(tmp_path / "store", key=key)
    daemon(resilience=settings(store=second, wait=29.0)).acquire_token_for_client(SCOPE)
    assert seen.scraped(ACQUISITIONS, resilient_auth_source="store") == 1
    first.close()
    second.close()


def test_waiters_are_counted_while_they_wait(seen: Seen, idp: Emulator, daemon: Callable[..., Any]) -> None:
    """All who wait for the one exchange."""
    idp.fail(Fault.slow(0.4))
    app = daemon()
    threads = [threading.Thread(target=app.acquire_token_for_client, args=(SCOPE,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    most = 0.0
    while any(thread.is_alive() for thread in threads):
        most = max(most, seen.scraped("resilient_auth_waiters"))
        threading.Event().wait(0.02)
    assert most == 5
    assert seen.scraped("resilient_auth_waiters") == 0
    assert seen.scraped("resilient_auth_exchange_duration_seconds_count") == 1


def test_keys_that_nobody_needed_end_nowhere(
    idp: Emulator, daemon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that has just been started, and that nobody calls at night, is no alert; one that can't get them is."""
    token = daemon().acquire_token_for_client(SCOPE)["access_token"]
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    idp.fail(Fault.status(503))
    discovery = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    about: dict[str, Any] = {"audience": "api://orders", "discovery": discovery, "verify": idp.ca_file}

    def health() -> Any:
        # Another test's verifier may have keys of this host, too.
        now = ra.health()
        return dataclasses.replace(now, keys=tuple(each for each in now.keys if each.authority == idp.url))

    monkeypatch.setattr("resilient_auth.telemetry.standing.health", health)

    def told() -> list[float]:
        name = "resilient_auth.keys.time_to_dark"
        return [at for known, labels, at in standing(Addresses()) if (known, labels) == (name, ("localhost",))]

    with ra.ClaimsVerifier(issuer=issuer, **about) as verifier:
        assert told() == []
        with pytest.raises(ra.VerificationUnavailable), ra.wait_at_most(0.5):
            verifier.verify(token)
        assert told() == [0.0]


def test_verdicts_are_counted(seen: Seen, idp: Emulator, daemon: Callable[..., Any]) -> None:
    """Those of remembered tokens too: each once, and one that is refused by then isn't accepted as well."""
    denied: list[bool] = []
    deny = DenyList(check=lambda _: bool(denied))
    token = daemon().acquire_token_for_client(SCOPE)["access_token"]
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    discovery = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    about: dict[str, Any] = {"audience": "api://orders", "discovery": discovery, "verify": idp.ca_file, "deny": deny}
    with ra.ClaimsVerifier(issuer=issuer, **about) as verifier:
        for _ in range(3):
            verifier.verify(token)
        with pytest.raises(ra.InvalidToken):
            verifier.verify("nonsense")
        denied.append(True)
        with pytest.raises(ra.InvalidToken):
            verifier.verify(token)
    name = "resilient_auth_verifications_total"
    assert seen.scraped(name, resilient_auth_verdict="refused", error_type="denied") == 1
    assert seen.scraped(name, resilient_auth_verdict="accepted", resilient_auth_remembered="false") == 1
    assert seen.scraped(name, resilient_auth_verdict="accepted", resilient_auth_remembered="true") == 2
    assert seen.scraped(name, resilient_auth_verdict="refused", error_type="malformed") == 1
    assert seen.scraped("resilient_auth_keys_age_seconds") >= 0


def test_a_forked_child_counts_from_nothing(seen: Seen, daemon: Callable[..., Any]) -> None:
    """What the parent had counted is the parent's to tell."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    app.acquire_token_for_client(SCOPE)

    def child() -> None:
        assert seen.scraped(ACQUISITIONS) == 0
        app.acquire_token_for_client(SCOPE)
        app.acquire_token_for_client(SCOPE)
        assert seen.scraped(ACQUISITIONS, resilient_auth_source="memory") == 2

    in_a_child(child)
    assert seen.scraped(ACQUISITIONS) == 2


def test_a_second_call_changes_nothing(seen: Seen, daemon: Callable[..., Any]) -> None:
    """With the same providers; with others it says what to do, and off and on again it tells from nothing."""
    ra.telemetry.instrument(seen.meters, seen.tracers)
    daemon().acquire_token_for_client(SCOPE)
    assert [point.count for point in seen.points("resilient_auth.exchange.duration")] == [1]
    with pytest.raises(ConfigurationError, match="uninstrument"):
        ra.telemetry.instrument(MeterProvider(shutdown_on_exit=False), seen.tracers)
    ra.telemetry.uninstrument()
    ra.telemetry.uninstrument()
    ra.telemetry.instrument(seen.meters, seen.tracers)
    daemon("second").acquire_token_for_client(SCOPE)
    assert seen.scraped(ACQUISITIONS) == 1


@pytest.mark.parametrize("name", ["meter_provider", "tracer_provider"])
def test_what_is_no_provider_is_named(name: str) -> None:
    """Before anything is changed."""
    with pytest.raises(ConfigurationError, match=name):
        ra.telemetry.instrument(**{name: object()})
    assert observing.observer is None


def test_engines_and_applications_are_counted_each(
    seen: Seen, daemon: Callable[..., Any], settings: Any, eventually: Callable[..., None]
) -> None:
    """Their tokens by client, their counts together."""
    for number, tenant in enumerate(("contoso", "fabrikam")):
        own = settings(wait=20.0 + number, keep_fresh=(tuple(SCOPE),))
        daemon(f"app-{number}", tenant, resilience=own).acquire_token_for_client(SCOPE)
    told = partial(seen.scraped, "resilient_auth_token_time_to_dark_seconds")
    # One look is told for a while.
    eventually(lambda: all(told(resilient_auth_client_id=f"app-{number}") > 0 for number in range(2)))


def test_labels_are_bounded() -> None:
    """Hosts and label sets above the bound are one."""
    tally = Tally()
    for number in range(MOST_SERIES + 50):
        tally.add("resilient_auth.events", (f"event-{number}",))
    counted = dict(tally.counts("resilient_auth.events"))
    assert len(counted) <= MOST_SERIES + 1
    assert counted[OTHER,] == 50
    addresses = Addresses()
    named = {addresses.of(f"https://user:pass@host-{number}.example/x") for number in range(MOST_ADDRESSES + 50)}
    assert len(named) == MOST_ADDRESSES + 1
    assert not any("user" in name for name in named)


def test_every_label_is_explained() -> None:
    """With its bound, and names are those of OpenTelemetry and Prometheus."""
    assert {label for metric in METRICS.values() for label in metric.labels} == set(LABELS)
    assert name_of(METRICS["resilient_auth.acquisitions"]) == ACQUISITIONS
    assert name_of(METRICS["http.client.request.duration"]) == "http_client_request_duration_seconds"


def test_hits_on_many_threads_are_counted_exactly(
    seen: Seen, daemon: Callable[..., Any], together: Callable[..., list[Any]]
) -> None:
    """None is lost."""
    app = daemon(resilience=None)
    app.acquire_token_for_client(SCOPE)

    def ask() -> None:
        for _ in range(2000):
            app.acquire_token_for_client(SCOPE)

    together(4, ask)
    assert seen.scraped(ACQUISITIONS, resilient_auth_source="memory") == 8000


@pytest.mark.parametrize("form", ["pem", "pfx", "unreadable"])
def test_how_long_a_certificate_lasts_is_told(
    form: str, seen: Seen, daemon: Callable[..., Any], tmp_path: Path, clock: Any
) -> None:
    """As MSAL is given it; what can't be read has no end that is known."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daemon")])
    begins = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begins).not_valid_after(begins + datetime.timedelta(days=30))
    certificate = made.sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    credential: dict[str, Any] = {"private_key": private, "thumbprint": certificate.fingerprint(hashes.SHA1()).hex()}
    if form == "pem":
        credential["public_certificate"] = certificate.public_bytes(Encoding.PEM).decode()
    elif form == "pfx":
        path = tmp_path / "daemon.pfx"
        path.write_bytes(
            pkcs12.serialize_key_and_certificates(b"d", key, certificate, None, BestAvailableEncryption(b"p"))
        )
        credential = {"private_key_pfx_path": str(path), "passphrase": "p"}
    app = daemon(f"signs-{form}", client_credential=credential)
    metric = "resilient_auth_credential_remaining_seconds"
    told = seen.scraped(metric, resilient_auth_client_id=f"signs-{form}")
    assert told == 0 if form == "unreadable" else 29.9 * 86400 < told <= 30 * 86400
    assert app is not None
