"""Whatever others write, a log has one line an event, and nothing that is shown tells whose token it is."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from typing import Any

import httpx
import pytest
import requests

import resilient_auth as ra
from resilient_auth import downstream, errors, events, msal
from resilient_auth._credentials.azure_errors import denial, for_azure
from resilient_auth._credentials.third_party_errors import verdict_on
from resilient_auth.downstream.source import TokenSource
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import printable
from resilient_auth.events import Event, catalogue, emit
from resilient_auth.testing import capture_events
from resilient_auth.token import TokenRequest, fingerprint
from resilient_auth.verify.errors import InvalidToken

#: What begins a line, somewhere: in a file, a terminal, a browser, a log viewer.
ENDS = {
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "VT": "\v",
    "FF": "\f",
    "NUL": "\0",
    "NEL": "\x85",
    "LS": "\u2028",
    "PS": "\u2029",
    "ANSI": "\x1b[2K\x1b[1A",
    "CSI": "\x9b2K",
    "BIDI": "\u202e",
    "BACKSPACE": "\b" * 10,
    "surrogate": "\ud800",
}
FORGED = "CRITICAL root: all is well"
HOME = "0000-ada.1111-contoso"
REQUEST = TokenRequest("https://login.example", "app", "silent", ("api://x/.default",), HOME)
KINDS = [getattr(catalogue, name) for name in catalogue.__all__]

foreign = pytest.mark.parametrize("foreign", [f"denied{end}{FORGED}" for end in ENDS.values()], ids=ENDS)


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None) -> None:
    """Every test here has one."""


def is_a_line(text: str) -> bool:
    return text.isprintable() and FORGED in text


@foreign
def test_a_text_stays_readable_and_is_one_line(foreign: str) -> None:
    """Escaped, not cut: who investigates sees what was sent."""
    assert is_a_line(printable(foreign))
    assert printable(printable(foreign)) == printable(foreign)
    assert printable("Grüße, 世界") == "Grüße, 世界"


@foreign
@pytest.mark.parametrize("kind", KINDS)
def test_no_event_of_any_kind_has_a_second_line(kind: type[Event], foreign: str, caplog: Any) -> None:
    """Neither in the log nor in a field that a listener logs by itself."""
    values: dict[str, Any] = {
        field.name: (foreign, foreign) if "tuple" in str(field.type) else foreign for field in dataclasses.fields(kind)
    }
    values["at"] = 0.0
    event = kind(**values)
    with caplog.at_level(logging.DEBUG, "resilient_auth"):
        emit(event)
    (record,) = caplog.records
    assert is_a_line(record.getMessage())
    for value in dataclasses.asdict(event).values():
        for text in value if isinstance(value, tuple) else [value]:
            assert not isinstance(text, str) or is_a_line(text)


@foreign
@pytest.mark.parametrize(
    "make",
    [
        lambda text: errors.ConfigurationError(f"tenant {text}"),
        lambda text: errors.Closed(text),
        lambda text: errors.TokenDenied(text, text, claims="{}"),
        lambda text: errors.StoreUnavailable(text, text, text),
        lambda text: errors.ServerFailed(text, authority="https://login.example"),
        lambda text: errors.AttemptTimeout(text),
        lambda text: errors.TLSFailed(text),
        lambda text: downstream.ApiCircuitOpen(text),
        lambda text: downstream.ApiAttemptTimeout(text),
        lambda text: downstream.TokenUnavailable(text),
        lambda text: InvalidToken("malformed", text),
        lambda text: denial({"error": text, "error_description": text}),
        lambda text: verdict_on(errors.ServerFailed(text), "source", 0.0, lambda: False),
        lambda text: verdict_on(ConnectionError(text), "source", 0.0, lambda: False),
    ],
)
def test_no_error_has_a_second_line(make: Any, foreign: str) -> None:
    """Whether it is logged by its text, its message or its traceback; copied and pickled too."""
    made = make(foreign)
    for error in (made, copy.copy(made), pickle.loads(pickle.dumps(made))):
        for text in (str(error), repr(error), getattr(error, "message", ""), *traceback.format_exception_only(error)):
            assert text.rstrip("\n").isprintable()


@foreign
def test_what_a_provider_calls_an_error_reaches_no_log_as_it_is(foreign: str, caplog: Any) -> None:
    """From the token endpoint through MSAL's own log, our events, a credential's error and azure-core's twin of it."""
    import azure.core.exceptions  # noqa: F401 - our errors are azure-core's too where it is imported

    body = json.dumps({"error": foreign, "error_description": foreign, "correlation_id": foreign})
    with Emulator() as idp:
        idp.fail(Fault.status(400, body), "token")
        app = msal.ConfidentialClientApplication(
            "daemon", client_credential="s", authority=idp.authority("contoso"), instance_discovery=False,
            verify=idp.ca_file, resilience=ra.Settings(wait=5.0),
        )  # fmt: skip
        with caplog.at_level(logging.DEBUG), capture_events() as told, ra.ResilientCredential(app) as credential:
            with pytest.raises(ra.TokenDenied) as caught:
                credential.get_token("api://x/.default")
            (denied,) = told.wait_for(events.ExchangeDenied)
        app.close()
    assert is_a_line(str(caught.value))
    assert is_a_line(caught.value.description)
    assert is_a_line(str(for_azure(ra.TokenDenied(foreign))))
    assert is_a_line(denied.code)
    ours = [record for record in caplog.records if record.name.partition(".")[0] in ("resilient_auth", "msal")]
    assert any(FORGED in record.getMessage() for record in ours)
    assert all(record.getMessage().isprintable() for record in ours)


@foreign
def test_what_a_function_says_of_its_failure_is_one_line(foreign: str) -> None:
    """A result of MSAL's for an API's client, and an exception of somebody else's credential."""
    source = TokenSource(lambda: {"error": foreign, "error_description": foreign}, (), cae=True, tenant_id=None)
    with pytest.raises(downstream.TokenUnavailable) as caught:
        source.token(None)
    assert is_a_line(str(caught.value))

    class ClientAuthenticationError(Exception):
        pass

    failure = verdict_on(ClientAuthenticationError(foreign), "source", 0.0, lambda: False)
    assert isinstance(failure, ra.ProviderUnavailable)
    assert failure.message.isprintable()


def test_an_apis_header_reaches_no_log(caplog: Any) -> None:
    """A challenge is read, not told."""
    raw = f'Bearer error="{FORGED}\r\n", realm="\x1b[2K"'
    answer = httpx.MockTransport(lambda request: httpx.Response(401, headers={"WWW-Authenticate": raw}))
    with (
        caplog.at_level(logging.DEBUG, "resilient_auth"),
        httpx.Client(auth=ra.BearerAuth(lambda: "T"), transport=answer) as client,
    ):
        assert client.get("https://api.example/").status_code == 401
    assert FORGED not in caplog.text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "request" in kind.__dataclass_fields__])
def test_no_event_shows_whose_token_it_is_but_as_a_hash(kind: type[Event]) -> None:
    """By repr, asdict, astuple, JSON, pickle, vars of it, or an f-string."""
    values: dict[str, Any] = dict.fromkeys((field.name for field in dataclasses.fields(kind)), "x")
    event = kind(**values | {"at": 0.0, "request": REQUEST})
    shown = [
        repr(event),
        str(event),
        f"{event.request!r} {event.request}",  # type: ignore[attr-defined]
        repr(dataclasses.asdict(event)),
        repr(dataclasses.astuple(event)),
        json.dumps(dataclasses.asdict(event)),
        json.dumps(event.to_dict()),
        repr(pickle.dumps(event)),
        repr(copy.deepcopy(event)),
        event.request.subject,  # type: ignore[attr-defined]
    ]
    for text in shown:
        assert HOME not in text
        assert fingerprint(HOME) in text
    assert kind(**values | {"at": 0.0, "request": event.request}) == event  # type: ignore[attr-defined]


def test_a_request_is_told_from_another_users_and_shows_neither() -> None:
    """Its equality is the raw subject's, what it shows is a hash."""
    other = dataclasses.replace(REQUEST, subject="bob")
    assert other != REQUEST
    assert dataclasses.replace(other, subject=HOME) == REQUEST
    assert HOME not in f"{REQUEST} {REQUEST!r} {[REQUEST]}"


def test_requests_errors_stay_what_callers_of_msal_catch() -> None:
    """The text is made printable on the way into the same classes."""
    error = errors.ConnectionFailed("a\nb", authority="https://login.example", retry_after=2.0)
    assert isinstance(error, requests.ConnectionError)
    assert error.args == ("a\\nb",)
