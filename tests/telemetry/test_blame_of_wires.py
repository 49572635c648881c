"""Whose fault it is, where two applications, wires or providers are at it; and through a client of the owner's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import requests
import trustme
from exported import SCOPE, SECRET

import resilient_auth as ra
from resilient_auth._fleet.engines import engine_for
from resilient_auth._policy.blame.sighting import Symptom
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._wire.failures import as_failure
from resilient_auth._wire.network.connect import LookupTimeout
from resilient_auth._wire.trail import Trail, shown_by_failure, shown_by_setting
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError
from resilient_auth.events import BlameChanged
from resilient_auth.testing import capture_events


def ask(app: Any, scope: list[str] = SCOPE) -> None:
    with suppress(ra.ProviderUnavailable, ra.ConfigurationError):
        app.acquire_token_for_client(scope)


def told(*authorities: str) -> set[tuple[str, str, str]]:
    """Who is to blame there: over which wire, and for which application."""
    return {(each.what, each.wire, each.client_id) for each in ra.health().blame if each.authority in authorities}


def test_one_providers_fault_is_not_told_of_another(daemon: Callable[..., Any], settings: Any, idp: Emulator) -> None:
    """With the same settings, in one process."""
    shared = settings(retry=ra.RetryOptions(attempts=1))
    with Emulator() as other:
        app = daemon(resilience=shared)
        beside = ra.msal.ConfidentialClientApplication(
            "daemon", authority=other.authority("contoso"), client_credential=SECRET, instance_discovery=False,
            verify=other.ca_file, resilience=shared,
        )  # fmt: skip
        ask(beside)
        idp.fail(Fault.status(503))
        ask(app)
        assert {what for what, _, _ in told(idp.url)} == {"provider"}
        assert told(other.url) == set()
        beside.close()


def test_one_wires_fault_is_not_told_of_another(
    daemon: Callable[..., Any], settings: Any, idp: Emulator, tmp_path: Any
) -> None:
    """One application trusts the wrong authority, another one none: neither changes what is told over the good wire."""
    wrong = tmp_path / "wrong.pem"
    trustme.CA().cert_pem.write_to_path(str(wrong))
    shared = settings(retry=ra.RetryOptions(attempts=1))
    good = daemon(resilience=shared)
    ask(good)
    bad = daemon(resilience=shared, verify=str(wrong))
    ask(bad)
    assert told(idp.url) == {("tls", f"verify={wrong}", "")}
    lax = daemon(resilience=shared, verify=False)
    ask(lax)
    assert told(idp.url) == {("tls", f"verify={wrong}", "")}
    idp.fail(Fault.status(503))
    ask(lax, ["api://lax/.default"])
    assert told(idp.url) == {("tls", f"verify={wrong}", ""), ("provider", "unverified", "")}


def test_one_applications_secret_is_not_told_of_another(
    daemon: Callable[..., Any], settings: Any, idp: Emulator
) -> None:
    """Nor of the provider; and the secret isn't told at all."""
    shared = settings(retry=ra.RetryOptions(attempts=1))
    with capture_events() as events:
        ask(daemon("first", resilience=shared, client_credential="wrong"))
        ask(daemon("second", resilience=shared))
        (event,) = events.wait_for(BlameChanged)
    assert {(what, client) for what, _, client in told(idp.url)} == {("credential", "first")}
    assert (event.what, event.client_id, event.previous) == ("credential", "first", "nobody")
    shown = json.dumps(ra.health().to_dict()) + str(ra.health()) + json.dumps(event.to_dict()) + repr(event)
    assert "AADSTS7000215" in shown
    assert SECRET not in shown
    assert '"wrong"' not in shown


@pytest.mark.parametrize(
    ("fault", "right"),
    [
        (Fault.refuse(), "unknown"),
        (Fault.reset(), "unknown"),
        (Fault.http_503(), "provider"),
        (Fault.tls_failed(), "tls"),
        (Fault.json_object(), "provider"),
        (Fault.html_200(), "unknown"),
        (Fault.http_429(), "throttled"),
    ],
    ids=lambda one: getattr(one, "name", one),
)
def test_an_owners_client_tells_less(
    daemon: Callable[..., Any], settings: Any, idp: Emulator, fault: Fault, right: str
) -> None:
    """It doesn't say how far a request came: what gets no answer is unknown."""
    session = requests.Session()
    session.verify = idp.ca_file
    app = daemon(resilience=settings(retry=ra.RetryOptions(attempts=1)), http_client=session, verify=None)
    ask(app)
    idp.fail(fault)
    ask(app, ["api://other/.default"])
    assert {what for what, _, _ in told(idp.url)} == {right}


def test_a_process_without_threads_is_to_blame(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider wasn't even asked."""
    engine, asked = engine_for(settings()), Endpoint("https://starved.example")

    def begin(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", begin)
        with pytest.raises(ra.errors.Overloaded):
            engine.run(asked, lambda: None)
    assert told("https://starved.example") == {("process", "", "")}


class Secured:
    """A connection on which TLS was made with the provider, perhaps for an attempt before."""

    handshakes = 1
    get_extra_info = None


def seen(error: Exception, late: float = 0.0, **trail: Any) -> Symptom | None:
    way = Trail(https=True, trusted_wire=True, **{"ours": True} | trail)
    return shown_by_failure(error, as_failure(error, "https://a"), way, late).symptom


def test_what_an_attempt_shows() -> None:
    """What the tests in networks of their own don't break."""
    assert seen(MemoryError()) is Symptom.STARVED
    assert seen(RuntimeError("can't start new thread")) is Symptom.STARVED
    assert seen(TimeoutError(), late=30.0) is Symptom.STALLED
    assert seen(TimeoutError(), connected=True) is Symptom.HANDSHAKE_SILENT
    assert seen(ConnectionResetError(), connected=True) is Symptom.BROKE_EARLY
    assert seen(TimeoutError(), connected=True, stream=Secured(), begun=1) is Symptom.NO_ANSWER
    assert seen(TimeoutError(), connected=True, stream=Secured(), begun=1, acknowledged=False) is Symptom.SILENT
    assert seen(TimeoutError(), connected=True, stream=Secured()) is Symptom.UNSEEN
    assert seen(TimeoutError(), connected=True, stream=Secured(), acknowledged=True) is Symptom.NO_ANSWER
    assert seen(LookupTimeout()) is Symptom.UNRESOLVED
    assert seen(TimeoutError(), connected=True, proxied=True) is Symptom.PROXY
    assert seen(TimeoutError(), connected=True, proxied=True, begun=1) is Symptom.HANDSHAKE_SILENT
    assert seen(RuntimeError("a bug of ours"), ours=False) is Symptom.UNSEEN


@pytest.mark.parametrize(("proxied", "symptom"), [(False, Symptom.BUNDLE), (True, Symptom.PROXY)])
def test_a_setting_that_is_wrong_shows_which(proxied: bool, symptom: Symptom) -> None:
    """The trust is read before the proxy."""
    way = Trail(https=True, trusted_wire=True, ours=True, proxied=proxied)
    assert shown_by_setting(ConfigurationError("it"), way).symptom is symptom
