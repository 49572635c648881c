"""One request and its bounds: duration, size, encoding, and what each failure is called."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import requests

from resilient_auth import errors
from resilient_auth._wire.answers import LARGEST_ANSWER, WireResponse
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.failures import as_failure
from resilient_auth._wire.owners_client import OwnersClient
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault

CLOCK = SystemClock()
FORM = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "scope": "https://x/.default"}


@pytest.fixture
def wire(idp: Emulator) -> Iterator[Callable[..., HttpxWire]]:
    built: list[HttpxWire] = []

    def build(**options: Any) -> HttpxWire:
        built.append(HttpxWire(CLOCK, 2.0, **{"verify": idp.ca_file} | options))
        return built[-1]

    yield build
    for each in built:
        each.close()


def soon(seconds: float) -> float:
    return CLOCK.monotonic() + seconds


def token_url(idp: Emulator) -> str:
    return f"{idp.authority('contoso')}/oauth2/v2.0/token"


def failure_of(call: Callable[[], Any]) -> errors.ProviderUnavailable:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is judged next
        call()
    return as_failure(caught.value, "https://somebody")


@pytest.mark.parametrize(
    "fault",
    [Fault.trickle(20), Fault.trickle(20, headers=True), Fault.black_hole(), Fault.slow(5)],
    ids=["body", "headers", "nothing", "slow"],
)
def test_an_attempt_ends_at_its_deadline(idp: Emulator, wire, fault):
    """However the answer dawdles, each byte in time for itself, the attempt is over when its time is."""
    one = wire()
    idp.fail(fault, "token")
    begun = time.monotonic()
    failure = failure_of(lambda: one.send("POST", token_url(idp), ends=soon(0.4), data=FORM))
    assert isinstance(failure, errors.AttemptTimeout)
    assert 0.35 < time.monotonic() - begun < 0.8
    idp.heal()
    assert one.send("POST", token_url(idp), ends=soon(5), data=FORM).status_code == 200


def test_a_handshake_that_hangs_ends_at_the_deadline(wire):
    """A host that accepts and never speaks TLS is given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        failure = failure_of(
            lambda: wire().send("GET", f"https://127.0.0.1:{silent.getsockname()[1]}/", ends=soon(0.3))
        )
        assert time.monotonic() - begun < 0.8
        assert isinstance(failure, errors.ProviderUnavailable)
        assert failure.sent is False


def test_a_deadline_that_has_passed_sends_nothing(idp: Emulator, wire):
    """With no time left nothing goes out."""
    failure = failure_of(lambda: wire().send("POST", token_url(idp), ends=soon(-1), data=FORM))
    assert isinstance(failure, errors.ProviderUnavailable)
    assert not idp.ledger.calls


def test_deadlines_of_threads_do_not_mix(idp: Emulator, wire):
    """One thread's short deadline isn't another's, on the same client."""
    one, answers = wire(), []
    idp.fail(Fault.slow(0.4), "token")
    patient = threading.Thread(
        target=lambda: answers.append(one.send("POST", token_url(idp), ends=soon(5), data=FORM).status_code)
    )
    patient.start()
    assert isinstance(
        failure_of(lambda: one.send("POST", token_url(idp), ends=soon(0.1), data=FORM)), errors.AttemptTimeout
    )
    patient.join()
    assert answers == [200]


def test_a_huge_answer_is_refused(echo, wire):
    """Nobody fills our memory: an endless answer is given up after some megabytes."""
    failure = failure_of(lambda: wire().send("GET", f"{echo}/huge", ends=soon(10)))
    assert isinstance(failure, errors.MalformedAnswer)
    assert str(LARGEST_ANSWER) in str(failure)


def test_the_private_parts_of_httpx_that_we_rely_on_are_there(wire):
    """httpx offers no way to hand httpcore a network backend: this pins where we put ours."""
    client = httpx.Client(mounts={"https://": httpx.HTTPTransport()})
    for transport in (client._transport, *client._mounts.values()):
        assert isinstance(transport, httpx.HTTPTransport)
        assert isinstance(transport._pool, httpcore.ConnectionPool)
        assert isinstance(transport._pool._network_backend, httpcore.NetworkBackend)
    client.close()
    for name in ("read", "write", "close", "start_tls", "get_extra_info"):
        assert hasattr(httpcore.NetworkStream, name)


def test_every_transport_is_bounded_those_of_proxies_too(idp: Emulator, wire):
    """No way out of the client goes past the deadline."""
    one = wire(proxies={"https": idp.proxy_url})
    idp.fail(Fault.trickle(20), "token")
    begun = time.monotonic()
    url = "https://login.microsoftonline.com/contoso/oauth2/v2.0/token"
    failure = failure_of(lambda: one.send("POST", url, ends=soon(0.4), data=FORM))
    assert isinstance(failure, errors.AttemptTimeout)
    assert time.monotonic() - begun < 0.8
    idp.heal()


def test_closing_leaves_a_connection_to_the_request_that_reads_from_it(idp: Emulator, wire):
    """Its descriptor must not become another connection's while a thread still reads from it."""
    one = wire()
    idp.fail(Fault.slow(0.5), "token")
    url = f"{idp.url}/contoso/oauth2/v2.0/token"
    with ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(one.send, "POST", url, ends=soon(5), data=FORM) for _ in range(8)]
        while len(idp.ledger.token_calls()) < 8:
            time.sleep(0.005)
        one.close()
        idp.heal()
        new = [one.send("POST", url, ends=soon(5), data=FORM).status_code for _ in range(20)]
        old = [each.result().status_code for each in under_way]
    assert set(new + old) == {new[0]}


def test_a_form_is_sent_as_requests_sends_it(echo, wire):
    """Names, values and what is missing look the same on the wire as under MSAL's own client."""
    form = {"a": "1 2&3=ä", "b": None, "scope": "x y", "n": 5}
    ours = json.loads(wire().send("POST", f"{echo}/?q=1", ends=soon(5), data=form, headers={"X-A": "b"}).text)
    theirs = requests.post(f"{echo}/?q=1", data=form, headers={"X-A": "b"}, timeout=5).json()
    assert ours["headers"]["content-type"] == theirs["headers"]["content-type"]
    assert ours["headers"]["x-a"] == "b"
    assert ours["path"] == theirs["path"]
    assert {part for part in ours["body"].split("&") if part != "b="} == set(theirs["body"].split("&"))


@pytest.mark.parametrize("value", [None, b"bytes", True], ids=repr)
def test_values_that_are_no_strings_are_sent_as_requests_sends_them(echo, wire, value):
    """MSAL hands over bytes (SAML assertions), and requests knows what to do with them."""
    ours = json.loads(wire().send("POST", echo, ends=soon(5), data={"a": "1", "v": value}).text)["body"]
    assert ours == requests.post(echo, data={"a": "1", "v": value}, timeout=5).json()["body"]


@pytest.mark.parametrize("body", ["<soap/>", b"<soap/>"], ids=["text", "bytes"])
def test_a_body_that_is_no_form_is_sent_as_it_is(echo, wire, body):
    """WS-Trust posts XML."""
    said = json.loads(wire().send("POST", echo, ends=soon(5), data=body, headers={"Content-Type": "x/y"}).text)
    assert said["body"] == "<soap/>"
    assert said["headers"]["content-type"] == "x/y"


def test_parameters_are_added_to_the_query(echo, wire):
    """`params` go into the URL, as requests puts them."""
    for url in (echo, f"{echo}/a"):
        ours = json.loads(wire().send("GET", url, ends=soon(5), params={"x": "1 2", "y": "é"}).text)["path"]
        assert ours.replace("%20", "+") == requests.get(url, params={"x": "1 2", "y": "é"}, timeout=5).json()["path"]
        assert json.loads(wire().send("GET", url, ends=soon(5), params=None).text)["path"].endswith(url[len(echo) :])


@pytest.mark.parametrize("params", [{"x": "1"}, {}], ids=str)
def test_a_query_that_is_there_stays(echo, wire, params):
    """A token endpoint such as B2C's `...?p=policy` keeps its query beside `params`."""
    ours = json.loads(wire().send("GET", f"{echo}/a?p=policy", ends=soon(5), params=params).text)["path"]
    assert ours == requests.get(f"{echo}/a?p=policy", params=params, timeout=5).json()["path"]


@pytest.mark.parametrize("path", ["/latin", "/odd"])
def test_any_charset_is_read(echo, wire, path):
    """What the answer says of its encoding is followed, and nonsense does no harm."""
    assert json.loads(wire().send("GET", f"{echo}{path}", ends=soon(5)).text)["said"] == "ä"


def test_an_answer_tells_no_content():
    """An answer's repr is its status."""
    assert repr(WireResponse(503, "a secret", {})) == "Answer(503)"


def test_connections_are_kept_and_not_for_long(idp: Emulator, wire):
    """Exchanges in a row share a connection."""
    one = wire()
    for _ in range(3):
        one.send("POST", token_url(idp), ends=soon(5), data=FORM)
    assert len({call.connection for call in idp.ledger.calls}) == 1
    one.close()
    one.send("POST", token_url(idp), ends=soon(5), data=FORM)
    assert len({call.connection for call in idp.ledger.calls}) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_its_parents_connections_alone(idp: Emulator, wire):
    """The child opens connections of its own, and the parent's stays usable."""
    one = wire()
    one.send("POST", token_url(idp), ends=soon(5), data=FORM)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if one.send("POST", token_url(idp), ends=soon(5), data=FORM).status_code == 200 else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    one.send("POST", token_url(idp), ends=soon(5), data=FORM)
    connections = [call.connection for call in idp.ledger.calls]
    assert connections[0] == connections[2] != connections[1]


@pytest.mark.parametrize("verify", [False, "context", "directory", True], ids=str)
def test_verify_takes_all_that_requests_takes(idp: Emulator, wire, verify, tmp_path, monkeypatch):
    """False, a path, a directory, a context, or True with the environment's bundle."""
    given: Any = verify
    if verify == "context":
        given = ssl.create_default_context(cafile=idp.ca_file)
    elif verify == "directory":
        name = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", idp.ca_file], capture_output=True, text=True, check=True
        ).stdout.strip()
        (tmp_path / f"{name}.0").write_text(Path(idp.ca_file).read_text())
        given = str(tmp_path)
    elif verify is True:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", idp.ca_file)
    assert wire(verify=given).send("POST", token_url(idp), ends=soon(5), data=FORM).status_code == 200


REAL = {
    "refuse": (Fault.refuse(), errors.ConnectionFailed, False),
    "reset": (Fault.reset(), errors.ConnectionFailed, True),
    "black hole": (Fault.black_hole(), errors.AttemptTimeout, None),
    "wrong length": (Fault.wrong_content_length(), errors.ConnectionFailed, True),
    "no TLS": (Fault.tls_failed(), errors.TLSFailed, None),
}


@pytest.mark.parametrize("client", ["httpx", "requests"])
@pytest.mark.parametrize("name", REAL)
def test_each_real_failure_has_its_name(idp: Emulator, wire, name, client):
    """With our wire and with the owner's requests, the same failure is the same error."""
    fault, kind, sent = REAL[name]
    with requests.Session() as session:
        session.verify = idp.ca_file
        one = wire() if client == "httpx" else OwnersClient(session, CLOCK)
        options: dict[str, Any] = {"data": FORM} | ({"timeout": 0.3} if client == "requests" else {})
        idp.fail(fault)
        failure = failure_of(lambda: one.send("POST", token_url(idp), ends=soon(0.5), **options))
    assert type(failure) is kind
    assert isinstance(failure, requests.RequestException)
    assert failure.authority == "https://somebody"
    if sent is not None:
        assert failure.sent is sent
    idp.heal()


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_a_name_that_does_not_resolve_has_its_error(wire, client):
    """A wrong host name is told as that, and nothing was sent."""
    with requests.Session() as session:
        one = wire() if client == "httpx" else OwnersClient(session, CLOCK)
        failure = failure_of(lambda: one.send("POST", "https://no.such.host.invalid/", ends=soon(5), data={}))
    assert type(failure) is errors.NameNotResolved
    assert failure.sent is False


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_a_certificate_that_is_not_trusted_has_its_error(idp: Emulator, client):
    """Without the CA the reason is told."""
    with requests.Session() as session:
        one = HttpxWire(CLOCK, 2.0) if client == "httpx" else OwnersClient(session, CLOCK)
        failure = failure_of(lambda: one.send("POST", token_url(idp), ends=soon(5), data=FORM))
        one.close()
    assert type(failure) is errors.TLSFailed
    assert "certificate" in str(failure)


def test_an_error_of_ours_is_told_as_it_is():
    """What was judged already keeps its type, and gets the authority."""
    error = errors.MalformedAnswer("too large")
    assert as_failure(error, "https://a") is error
    assert error.authority == "https://a"


def test_causes_that_go_in_circles_end():
    """A chain of causes that bites its own tail doesn't hang anybody."""
    one, two = RuntimeError("a"), RuntimeError("b")
    one.__cause__, two.__cause__ = two, one
    assert isinstance(as_failure(one, "https://a"), errors.ConnectionFailed)
