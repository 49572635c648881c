"""Applications of either wire: where their secrets go, what they take, and what this machine's faults do to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest
import requests
import trustme

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.owners_client import OwnersClient
from resilient_auth.clock import SystemClock
from resilient_auth.testing import capture_events

SCOPE = ["https://api.example/.default"]
SECRET = "s3cret-of-the-daemon"
LIFETIME = 3600


def provider(serve: Callable[..., Any]) -> Any:
    """An OpenID provider that grants every application a token."""
    server = serve()
    issuer = f"{server.url}/realms/one"
    document = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/keys",
    }
    server.answers["/realms/one/.well-known/openid-configuration"] = (200, {}, json.dumps(document).encode())
    grants(server)
    server.issuer = issuer
    return server


def grants(server: Any, **more: Any) -> None:
    token = {"access_token": "T", "token_type": "Bearer", "expires_in": LIFETIME} | more
    server.answers["/realms/one/token"] = (200, {"Content-Type": "application/json"}, json.dumps(token).encode())


@pytest.fixture
def settings(clock: Any) -> Callable[..., ra.Settings]:
    def build(**options: Any) -> ra.Settings:
        return ra.Settings(**{"clock": clock} | options)

    return build


@pytest.fixture
def hasty(settings: Callable[..., ra.Settings]) -> ra.Settings:
    return settings(
        wait=3.0, exchange_deadline=3.0, attempt_timeout=2.0, connect_timeout=1.0, discovery_wait=2.0,
    )  # fmt: skip


@pytest.fixture(params=["drop-in", "wrapped", "a session"])
def build(request: pytest.FixtureRequest, ca_file: str) -> Iterator[Callable[..., Any]]:
    """Build an application: the drop-in, one wrapped around MSAL's own, or one with a session of its owner's."""
    built: list[Any] = []

    def make(server: Any, resilience: ra.Settings) -> Any:
        arguments: dict[str, Any] = {
            "client_credential": SECRET,
            "oidc_authority": server.issuer,
            "token_cache": plain_msal.TokenCache(),
        }
        if request.param == "drop-in":
            app = msal.ConfidentialClientApplication("d", **arguments, verify=ca_file, resilience=resilience)
        elif request.param == "wrapped":
            plain = plain_msal.ConfidentialClientApplication("d", **arguments, verify=ca_file)
            app = ra.wrap(plain, resilience=resilience)
        else:
            session = requests.Session()
            session.verify = ca_file
            plain = plain_msal.ConfidentialClientApplication("d", **arguments, http_client=session)
            app = ra.wrap(plain, resilience=resilience)
        built.append(app)
        return app

    yield make
    for app in built:
        app.close()


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
def test_a_secret_is_posted_to_nobody_else(serve, build, hasty, status, tls):
    """A token endpoint that sends elsewhere gets no application to send its secret there."""
    server, elsewhere = provider(serve), serve(tls=tls)
    app = build(server, hasty)
    server.answers["/realms/one/token"] = (status, {"Location": f"{elsewhere.url}/token"}, b"")
    with pytest.raises(ra.MalformedAnswer):
        app.acquire_token_for_client(SCOPE)
    assert elsewhere.seen == []
    assert any(SECRET.encode() in body for _, _, _, body in server.seen)


def test_a_huge_answer_is_not_taken(serve, build, hasty):
    """20 MiB of token are no token."""
    server = provider(serve)
    app = build(server, hasty)
    grants(server, filler="x" * 20 * 1024 * 1024)
    with pytest.raises(ra.MalformedAnswer, match="bytes"):
        app.acquire_token_for_client(SCOPE)


def test_answers_are_not_asked_for_packed(serve, build, hasty):
    """Neither documents nor tokens."""
    server = provider(serve)
    build(server, hasty).acquire_token_for_client(SCOPE)
    asked = [headers["accept-encoding"] for method, _, headers, _ in server.seen if method == "POST"]
    assert asked == ["identity"]


def test_a_wrapped_application_gets_our_wire(serve, ca_file, settings):
    """What was given to MSAL holds: whom to trust, which proxy, how long."""
    server = provider(serve)
    plain = plain_msal.ConfidentialClientApplication(
        "d", client_credential=SECRET, oidc_authority=server.issuer, verify=ca_file, timeout=7
    )
    with ra.wrap(plain, resilience=settings()) as app:
        assert isinstance(app._ra_transport.wire, HttpxWire)
        assert app._ra_transport.wire._timeout.read == 7
        assert app.acquire_token_for_client(SCOPE)["access_token"] == "T"
    theirs = plain.http_client.http_client
    theirs.proxies = {"https": "127.0.0.1:9"}
    with ra.wrap(plain, resilience=settings(wait=1)) as app, pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(["https://other.example/.default"])
    theirs.proxies = None
    theirs.headers["x-mine"] = "yes"
    with ra.wrap(plain, resilience=settings()) as app:
        assert isinstance(app._ra_transport.wire, OwnersClient)
        app.acquire_token_for_client(["https://third.example/.default"])
    assert server.seen[-1][2]["x-mine"] == "yes"


def test_a_fault_of_this_machine_is_told_and_opens_no_breaker(serve, build, settings, clock, monkeypatch):
    """A setting that can't work says nothing of the provider: the breaker stays closed, and all is well once mended."""
    server = provider(serve)
    app, began = build(server, settings(wait=5.0)), clock.wall()
    app.acquire_token_for_client(SCOPE)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    for number in range(10):
        with pytest.raises(ra.ConfigurationError, match="ALL_PROXY"):
            app.acquire_token_for_client([f"https://{number}.example/.default"])
    breakers = [each for each in ra.health().breakers if each.name.startswith(server.url)]
    assert breakers
    # An earlier server may have had the same port.
    assert [each for each in breakers if (each.failing_since or 0.0) >= began] == []
    monkeypatch.delenv("ALL_PROXY")
    assert app.acquire_token_for_client(["https://10.example/.default"])["access_token"] == "T"


@pytest.mark.parametrize(
    ("username", "more"),
    [("\u0142uk@contoso.com", {}), ("ann\n@contoso.com", {}), ("ann@contoso.com", {"data": {"hint": "half \ud83d"}})],
    ids=["no Latin-1", "two lines", "half a character"],
)
def test_what_a_user_writes_and_nobody_can_send_is_nobody_elses_fault(serve, build, settings, clock, username, more):
    """It is told at once, and what they wrote isn't; neither the provider nor this machine's settings are blamed."""
    server = provider(serve)
    app, began = build(server, settings(wait=5.0)), clock.wall()
    ask = app.acquire_token_by_user_federated_identity_credential
    with capture_events() as events:
        for _ in range(4):
            with pytest.raises(ra.ConfigurationError) as caught:
                ask(SCOPE, "a.b.c", username=username, **more)
    assert caught.value.__context__ is None
    assert not {type(event).__name__ for event in events} & {"BlameChanged", "RetryScheduled", "BreakerOpened"}
    breakers = [each for each in ra.health().breakers if each.name.startswith(server.url)]
    assert [each for each in breakers if (each.failing_since or 0.0) >= began] == []
    assert app._ra_session.engine.sightings.out == {}

    assert "access_token" in ask(SCOPE, "a.b.c", username="ann@contoso.com")


@pytest.mark.parametrize("options", [{"allow_redirects": True}, {"timeout": "soon"}, {"timeout": (1, 2, 3)}], ids=str)
def test_an_option_that_no_request_takes_is_nobody_elses_fault(serve, ca_file, settings, options):
    """It is told, and neither a proxy nor a bundle is blamed for it."""
    server = provider(serve)
    with (
        capture_events() as events,
        msal.ConfidentialClientApplication(
            "d", client_credential=SECRET, oidc_authority=server.issuer, verify=ca_file, resilience=settings()
        ) as app,
    ):
        with pytest.raises(ra.ConfigurationError, match=next(iter(options))):
            app.acquire_token_for_client(SCOPE, **options)
        assert app.acquire_token_for_client(SCOPE)["access_token"] == "T"
    assert "BlameChanged" not in {type(event).__name__ for event in events}


def test_a_fault_of_this_machine_takes_no_valid_token_away(serve, build, settings, monkeypatch, clock):
    """What is held is served to its end."""
    server = provider(serve)
    app = build(server, settings())
    grants(server, refresh_in=60)
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    clock.skip(LIFETIME - 60)
    for _ in range(3):
        assert app.acquire_token_for_client(SCOPE)["access_token"] == token


def test_a_bundle_that_names_no_file_is_told_at_construction(serve, monkeypatch, settings):
    """Before anything is asked."""
    server = provider(serve)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ra.ConfigurationError, match="REQUESTS_CA_BUNDLE"):
        msal.ConfidentialClientApplication(
            "d", client_credential=SECRET, oidc_authority=server.issuer, resilience=settings()
        )
    with pytest.raises(ra.ConfigurationError, match="REQUESTS_CA_BUNDLE"):
        ra.ClaimsVerifier(issuer=server.issuer, audience="a")
    assert server.seen == []


def test_a_bundle_that_is_replaced_needs_no_restart(serve, build, settings, ca_file):
    """An application goes on when its provider's authority changes, and its bundle with it."""
    server = provider(serve)
    status, headers, token = server.answers["/realms/one/token"]
    server.answers["/realms/one/token"] = (status, {**headers, "Connection": "close"}, token)
    app = build(server, settings(wait=2.0))
    app.acquire_token_for_client(SCOPE)
    new = trustme.CA()
    new.issue_cert("localhost").configure_cert(server.context)
    new.cert_pem.write_to_path(ca_file)
    assert app.acquire_token_for_client(["https://other.example/.default"])["access_token"] == "T"


@pytest.mark.parametrize("fault", ["certificate", "name"])
def test_what_waiting_cannot_mend_is_told_at_once(serve, ca_file, fault):
    """No retry for a certificate that isn't trusted or a name that isn't there: who waits learns the fix."""
    server = provider(serve)
    authority = server.issuer if fault == "certificate" else "https://no.such.host.invalid/realms/one"
    settings = ra.Settings(clock=SystemClock())
    app = msal.ConfidentialClientApplication(
        "d", client_credential=SECRET, oidc_authority=authority, resilience=settings
    )
    kind, fix = (ra.TLSFailed, "verify=<CA file>") if fault == "certificate" else (ra.NameNotResolved, "no such name")
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(kind, match=fix):
            app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - began < 3.0
    app.close()


def test_who_comes_next_learns_it_at_once_too(serve, ca_file, clock):
    """Until the next attempt may be made the same is told again, with when that is; then it is looked at anew."""
    server = provider(serve)
    document = "/realms/one/.well-known/openid-configuration"
    server.answers[document] = (200, {"Connection": "close"}, server.answers[document][2])
    app = msal.ConfidentialClientApplication(
        "d",
        client_credential=SECRET,
        oidc_authority=server.issuer,
        verify=ca_file,
        resilience=ra.Settings(clock=clock),
    )
    new = trustme.CA()
    new.issue_cert("localhost").configure_cert(server.context)
    began = time.monotonic()
    for _ in range(4):
        with pytest.raises(ra.TLSFailed, match="verify=<CA file>") as caught:
            app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - began < 2.0
    assert 0 < caught.value.retry_after <= 5.0
    new.cert_pem.write_to_path(ca_file)
    clock.skip(caught.value.retry_after)
    assert app.acquire_token_for_client(SCOPE)["access_token"] == "T"
    app.close()
