"""The emulator calls as Entra and B2C do, over sockets; and says what their logs would say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from provider_requests import AUDIENCE
from werkzeug.serving import make_server

from resilient_auth.callouts import (
    ApiConnector,
    AttributeCollectionStart,
    AttributeCollectionSubmit,
    BasicCaller,
    Callout,
    Continue,
    EmailOtpSend,
    MigratePassword,
    PasswordSubmit,
    RestProfile,
    RetryPassword,
    SendByProvider,
    ShowBlockPage,
    ShowValidationError,
    TokenIssuanceStart,
    UpdatePassword,
)
from resilient_auth.callouts.entra import EntraRequest
from resilient_auth.integrations.flask import mount_callout
from resilient_auth.testing import check_callout

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OLD_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECRET = "a password of B2C's"
BASIC = BasicCaller({"b2c": SECRET})
MESSAGE = {"en": "Not today.", "de": "Heute nicht."}


def public(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a callout by Flask on a port of its own; return its address."""
    servers = []

    def start(callout: Callout[Any]) -> str:
        app = Flask("answering")
        mount_callout(app, "/callout", callout)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/callout"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CASES: list[tuple[type[Any], Any, str, dict[str, Any]]] = [
    (TokenIssuanceStart, Continue({"tier": "gold"}), "provideClaimsForToken", {"claims": {"tier": "gold"}}),
    (AttributeCollectionStart, Continue(), "continueWithDefaultBehavior", {}),
    (AttributeCollectionStart, Continue({"city": "Graz"}), "setPrefillValues", {"inputs": {"city": "Graz"}}),
    (AttributeCollectionStart, ShowBlockPage(MESSAGE), "showBlockPage", {"message": "Heute nicht."}),
    (AttributeCollectionSubmit, Continue(), "continueWithDefaultBehavior", {}),
    (AttributeCollectionSubmit, Continue({"year": 2010}), "modifyAttributeValues", {"attributes": {"year": 2010}}),
    (
        AttributeCollectionSubmit,
        ShowValidationError(MESSAGE, {"city": {"fr": "Non."}}),
        "showValidationError",
        {"message": "Heute nicht.", "attributeErrors": {"city": "Non."}},
    ),
    (
        AttributeCollectionSubmit,
        ShowBlockPage("No.", "Stop"),
        "showBlockPage",
        {"message": "No.", "title": "Stop"},
    ),
    (EmailOtpSend, Continue(), "continueWithDefaultBehavior", {}),
    (PasswordSubmit, MigratePassword(), "MigratePassword", {}),
    (PasswordSubmit, UpdatePassword(), "UpdatePassword", {}),
    (PasswordSubmit, RetryPassword(), "Retry", {}),
    (PasswordSubmit, ShowBlockPage("No."), "Block", {"message": "No."}),
    (ApiConnector, Continue({"tier": 1}), "Continue", {"version": "1.0.0", "action": "Continue", "tier": 1}),
    (
        ApiConnector,
        ShowBlockPage(MESSAGE),
        "ShowBlockPage",
        {"version": "1.0.0", "action": "ShowBlockPage", "userMessage": "Heute nicht."},
    ),
    (
        ApiConnector,
        ShowValidationError("No."),
        "ValidationError",
        {"version": "1.0.0", "action": "ValidationError", "status": 400, "userMessage": "No."},
    ),
    (RestProfile, Continue({"tier": [1, 2]}), "claims", {"tier": [1, 2]}),
]
DEFAULTS: dict[type[Any], Any] = {EmailOtpSend: SendByProvider(), PasswordSubmit: RetryPassword()}
DATA: dict[type[Any], dict[str, Any]] = {
    EmailOtpSend: {"otpContext": {"identifier": "ada@contoso.com", "oneTimeCode": "12345678"}},
    AttributeCollectionSubmit: {
        "userSignUpInfo": {
            "attributes": {"city": {"@odata.type": "x", "value": "Graz", "attributeType": "builtIn"}},
            "identities": [{"signInType": "email", "issuer": "c", "issuerAssignedId": "ada@contoso.com"}],
        }
    },
}


@pytest.mark.parametrize(("asks", "answer", "action", "says"), CASES)
def test_every_answer_is_one_that_the_provider_takes(
    entra: Any, serve: Callable[..., str], asks: type[Any], answer: Any, action: str, says: dict[str, Any]
) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return answer

    callout = Callout(
        asks,
        handler,
        caller=entra.caller if issubclass(asks, EntraRequest) else BASIC,
        default=DEFAULTS.get(asks, Continue()),
        decryption_keys=[OLD_KEY, KEY],
        timeout=2.0,
    )
    outcome = entra.idp.call_out(
        serve(callout),
        asks.event,
        audience=AUDIENCE,
        basic=("b2c", SECRET),
        locale="de-AT",
        data=DATA.get(asks),
        password="hunter2-hunter2",
        encrypt_for=public(KEY),
        timeout=10.0,
    )
    assert (outcome.action, dict(outcome.says), outcome.code) == (action, says, 0)
    (request,) = seen
    assert request.user_id
    assert request.locales[0] == "de-AT"
    assert "ann@contoso" not in repr(request)
    assert "hunter2" not in repr(request)
    if asks is PasswordSubmit:
        assert (request.password, request.username) == ("hunter2-hunter2", "ann@contoso.com")
    if asks is EmailOtpSend:
        assert (request.email, request.one_time_code) == ("ada@contoso.com", "12345678")
    if asks is AttributeCollectionSubmit:
        assert dict(request.attributes) == {"city": "Graz"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [(ShowBlockPage(MESSAGE), ""), (ShowValidationError(MESSAGE, code="DUPLICATE"), "DUPLICATE")],
)
def test_a_technical_profile_is_told_no_by_a_409(entra: Any, serve: Callable[..., str], answer: Any, code: str) -> None:
    url = serve(Callout(RestProfile, lambda request: answer, caller=BASIC, default=Continue()))
    sent = httpx.post(url, auth=("b2c", SECRET), json={"correlationId": "c-1", "ui_locales": "de", "x": 1})
    assert check_callout("restProfile", sent.status_code, sent.headers, sent.content) == "error"
    expected = {"version": "1.0.0", "status": 409, "userMessage": "Heute nicht.", "requestId": "c-1"}
    assert sent.json() == expected | ({"code": code} if code else {})


def test_a_provider_that_sends_codes_itself_is_told_to(entra: Any, serve: Callable[..., str]) -> None:
    def fail(request: EmailOtpSend) -> Continue:
        raise OSError

    url = serve(Callout(EmailOtpSend, fail, caller=entra.caller, default=SendByProvider()))
    outcome = entra.idp.call_out(url, "emailOtpSend", audience=AUDIENCE, data=DATA[EmailOtpSend], retries=0)
    assert (outcome.failed, outcome.code, outcome.attempts[0].status) == (True, 1003002, 503)


ENTRAS = {"data": {"@odata.type": "microsoft.graph.onTokenIssuanceStartResponseData", "actions": []}}
CLAIMS = {"@odata.type": "microsoft.graph.tokenIssuanceStart.provideClaimsForToken", "claims": {}}


def of(*actions: dict[str, Any]) -> bytes:
    return json.dumps({"data": ENTRAS["data"] | {"actions": list(actions)}}).encode()


WRONG: dict[str, tuple[int, str, bytes, int]] = {
    "status": (204, "application/json", of(CLAIMS), 1003002),
    "no JSON": (200, "application/json", b"<html>", 1003003),
    "another event's": (200, "application/json", b'{"data":{"@odata.type":"x","actions":[{}]}}', 1003003),
    "unknown action": (200, "application/json", of({"@odata.type": "x"}), 1003003),
    "a number": (200, "application/json", of(CLAIMS | {"claims": {"age": 7}}), 1003003),
    "content type": (200, "text/html", of(CLAIMS), 1003006),
    "no action": (200, "application/json", of(), 1003010),
    "two actions": (200, "application/json", of(CLAIMS, CLAIMS), 1003010),
    "too large": (200, "application/json", b" " * 70_000, 1003024),
    "large claims": (200, "application/json", of(CLAIMS | {"claims": {"x": "y" * 3100}}), 1003025),
}


@pytest.mark.parametrize(("status", "kind", "body", "code"), WRONG.values(), ids=list(WRONG))
def test_what_is_no_answer_has_the_log_s_code(entra: Any, status: int, kind: str, body: bytes, code: int) -> None:
    class Wrong(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Wrong)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    outcome = entra.idp.call_out(f"http://127.0.0.1:{server.server_port}/", audience=AUDIENCE, timeout=5.0)
    server.shutdown()
    server.server_close()
    assert (outcome.code, len(outcome.attempts)) == (code, 1)
    with pytest.raises(AssertionError, match=f"{code}: "):
        check_callout("tokenIssuanceStart", status, {"Content-Type": kind}, body)


def test_nobody_there_and_nobody_answering_have_their_codes_and_a_retry(
    entra: Any, swallowing: Callable[[int], int]
) -> None:
    began = time.monotonic()
    outcome = entra.idp.call_out(f"http://127.0.0.1:{swallowing(1)}/", audience=AUDIENCE, timeout=0.2)
    assert (outcome.code, len(outcome.attempts)) == (1003027, 2)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        outcome = entra.idp.call_out(f"http://127.0.0.1:{deaf.getsockname()[1]}/", audience=AUDIENCE, timeout=0.2)
    assert (outcome.code, len(outcome.attempts)) == (1003005, 2)
    assert time.monotonic() - began < 5.0


def test_an_answer_that_trickles_is_late_too(entra: Any) -> None:
    """Each byte comes in time, and the answer doesn't: one that ends with its connection, too."""

    class Trickling(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b" ")
                    time.sleep(0.05)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickling)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    began = time.monotonic()
    url = f"http://127.0.0.1:{server.server_port}/"
    outcome = entra.idp.call_out(url, audience=AUDIENCE, timeout=0.3, retries=0)
    took = time.monotonic() - began
    server.shutdown()
    server.server_close()
    assert outcome.code == 1003005
    assert took < 4.0


def test_another_program_can_have_it_call(entra: Any, serve: Callable[..., str]) -> None:
    url = serve(
        Callout(
            TokenIssuanceStart,
            lambda request: Continue({"tier": request.correlation_id}),
            caller=entra.caller,
            default=Continue(),
            timeout=2.0,
        )
    )
    control = entra.idp.control_url
    sent = {"url": url, "audience": AUDIENCE, "correlation_id": "by-control", "timeout": 10.0}
    assert httpx.post(f"{control}/call_out", json=sent).json() == {"ok": True}
    ends = time.monotonic() + 10.0
    while True:
        called = httpx.get(f"{control}/called").json()["called"]
        found = [one for one in called if one["correlation_id"] == "by-control"]
        if found:
            break
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert found[0]["says"] == {"claims": {"tier": "by-control"}}
    assert httpx.post(f"{control}/call_out", json={"url": "http://example.com/"}).status_code == 400


def test_an_api_is_called_over_tls_that_is_trusted_alone(entra: Any, tmp_path: Path) -> None:
    """The emulator's own API stands in for one; it answers 401, since the token isn't one that it has issued."""
    outcome = entra.idp.call_out(f"{entra.idp.api_url}/callouts", audience=AUDIENCE, timeout=5.0)
    assert (outcome.code, outcome.attempts[0].status) == (1003002, 401)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    outcome = entra.idp.call_out(
        f"{entra.idp.api_url}/callouts", audience=AUDIENCE, timeout=5.0, ca_file=str(other), retries=0
    )
    assert (outcome.code, outcome.attempts[0].reason) == (1003027, "SSLCertVerificationError")
    with pytest.raises(ValueError, match="https"):
        entra.idp.call_out("http://api.example/", audience=AUDIENCE)
    with pytest.raises(ValueError, match="event must be one of"):
        entra.idp.call_out("http://localhost/", "somethingElse")
