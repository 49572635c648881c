"""Where there is no token, what callers of each HTTP library catch catches it, and a fallback is asked."""

from __future__ import annotations

import copy
import pickle
import ssl

import httpx
import httpx2
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError

import resilient_auth as ra
from resilient_auth.downstream import TokenUnavailable
from resilient_auth.downstream.errors import no_token
from resilient_auth.emulator import Fault
from resilient_auth.events import FallbackServed
from resilient_auth.integrations import httpx2 as for_httpx2
from resilient_auth.integrations import requests as for_requests
from resilient_auth.testing import capture_events

SCOPE = "api://orders/.default"
API = "https://api.example/orders"
LIBRARIES = ["httpx", "httpx2", "requests"]


def sending(library, credential, *scopes):
    """Return how to send a request, and what callers of a library catch."""
    if library == "httpx":
        transport = httpx.MockTransport(lambda request: httpx.Response(200))
        client = httpx.Client(auth=ra.BearerAuth(credential, *scopes), transport=transport)
        return lambda: client.get(API), httpx.TransportError
    if library == "httpx2":
        transport = httpx2.MockTransport(lambda request: httpx2.Response(200))
        client = httpx2.Client(auth=for_httpx2.BearerAuth(credential, *scopes), transport=transport)
        return lambda: client.get(API), httpx2.TransportError
    session = requests.Session()
    session.auth = for_requests.BearerAuth(credential, *scopes)
    return lambda: session.get(API), requests.RequestException


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [("refuse", ra.ConnectionFailed), ("http_503", ra.ServerFailed), ("http_429", ra.Throttled)],
    ids=["refuse", "http_503", "http_429"],
)
def test_an_outage(idp, app_at, settings, library, fault, kind):
    """It stays what it is, too: with the time at which to try again, and the request that it is about."""
    credential = ra.ResilientCredential(app_at(idp, resilience=settings(wait=0.3)))
    idp.fail(Fault.all()[fault])
    send, caught = sending(library, credential, SCOPE)
    with pytest.raises(caught) as raised:
        send()
    error = raised.value
    assert isinstance(error, (kind, ra.AcquisitionTimeout))
    assert isinstance(error, (TokenUnavailable, caught))
    assert str(error) == error.message
    assert error.authority == idp.url
    assert str(error.request.url) == API
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(again, caught)
        assert (again.message, again.retry_after, again.code) == (error.message, error.retry_after, error.code)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_denial(idp, app_at, library):
    """With what the provider said."""
    idp.deny("client_credentials", "invalid_client")
    send, caught = sending(library, ra.ResilientCredential(app_at(idp)), SCOPE)
    with pytest.raises(caught) as raised:
        send()
    assert isinstance(raised.value, ra.TokenDenied)
    assert isinstance(raised.value, ClientAuthenticationError)
    assert raised.value.error == "invalid_client"
    assert pickle.loads(pickle.dumps(raised.value)).error == "invalid_client"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "error",
    [
        ClientAuthenticationError("no"),
        requests.ConnectionError("gone"),
        ConnectionRefusedError(111, "refused"),
        httpx.ConnectError("gone"),
        ra.TokenDenied("invalid_grant"),
        TokenUnavailable("none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_somebody_elses_error(library, error):
    """Of azure-identity's credentials, of MSAL's own applications, or of a function that asks by itself."""

    def token():
        raise error

    send, caught = sending(library, token)
    with pytest.raises(caught) as raised:
        send()
    assert isinstance(raised.value, type(error))
    assert str(raised.value) == str(error)
    assert isinstance(copy.copy(raised.value), caught)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "error", [KeyError("x"), ra.ConfigurationError("x"), ra.Closed("x")], ids=["bug", "args", "closed"]
)
def test_what_is_no_outage_stays_as_it_is(library, error):
    """A bug must not look like one."""

    def token():
        raise error

    send, caught = sending(library, token)
    with pytest.raises(type(error)) as raised:
        send()
    assert not isinstance(raised.value, caught)


def test_what_cannot_be_both_is_named():
    """An exception with a shape of its own is the cause of one that is caught."""

    class Sealed(OSError):
        def __init_subclass__(cls):
            raise TypeError("sealed")

    error = Sealed("s3cret")
    told = no_token(error, TokenUnavailable)
    assert type(told) is TokenUnavailable
    assert "Sealed" in str(told)
    assert "s3cret" not in str(told)
    assert told.__cause__ is error


def fallback(request, error):
    return httpx.Response(200, text=f"reduced: {error.code}")


async def afallback(request, error):
    return fallback(request, error)


@pytest.fixture
def trust(idp):
    return ssl.create_default_context(cafile=idp.ca_file)


@pytest.mark.parametrize("denied", [False, True], ids=["outage", "denial"])
async def test_a_fallback_is_asked(idp, app_at, settings, trust, denied):
    """Nothing is sent to the API, and the answer is marked."""
    app = app_at(idp, resilience=settings(wait=0.2))
    idp.deny("client_credentials", "invalid_client") if denied else idp.fail(Fault.http_503(), "token")
    seen = []
    with (
        ra.ResilientCredential(app) as credential,
        ra.api_client(idp.api_url, credential, SCOPE, verify=trust, fallback=fallback) as client,
        capture_events() as told,
    ):
        answer = client.get("/orders")
        seen.append((answer.status_code, answer.text, answer.headers["X-Fallback"]))
        told.wait_for(FallbackServed)
    async with (
        ra.aio.ResilientCredential(app) as credential,
        ra.aio.api_client(idp.api_url, credential, SCOPE, verify=trust, fallback=afallback) as client,
    ):
        answer = await client.get("/orders")
        seen.append((answer.status_code, answer.text, answer.headers["X-Fallback"]))
    for status, text, mark in seen:
        assert status == 200
        assert text == f"reduced: {mark}"
        assert (mark == "token_denied") is denied
    assert not [call for call in idp.ledger.calls if call.endpoint == "api"]


@pytest.mark.parametrize("options", [{}, {"fallback": lambda request, error: None}], ids=["none", "gives none"])
def test_without_an_answer_from_it_the_error_is_raised(idp, app_at, settings, trust, options):
    """As where there is no fallback."""
    idp.fail(Fault.http_503(), "token")
    credential = ra.ResilientCredential(app_at(idp, resilience=settings(wait=0.2)))
    with (
        ra.api_client(idp.api_url, credential, SCOPE, verify=trust, **options) as client,
        pytest.raises(httpx.TransportError) as raised,
    ):
        client.get("/orders")
    assert isinstance(raised.value, ra.ProviderUnavailable)
    assert raised.value.request.url.path == "/orders"


def test_it_is_asked_too_where_a_challenge_cannot_be_met(idp, app_at, settings, trust):
    """The token is revoked, and the provider gives no other one."""
    credential = ra.ResilientCredential(app_at(idp, resilience=settings(wait=0.2)))
    with ra.api_client(idp.api_url, credential, SCOPE, verify=trust, fallback=fallback) as client:
        assert client.get("/orders").json()["path"] == "/orders"
        idp.revoke("daemon")
        idp.fail(Fault.http_503(), "token")
        assert client.get("/orders").text.startswith("reduced: ")


def test_it_is_not_asked_for_a_bug(trust):
    """Which is to be seen."""
    with (
        ra.api_client("https://api.example", lambda: {}["token"], fallback=fallback) as client,
        pytest.raises(KeyError),
    ):
        client.get("/")
