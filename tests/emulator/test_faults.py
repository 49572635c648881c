from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from email.utils import parsedate_to_datetime

import httpx
import msal
import pytest
import requests

from resilient_auth.emulator import Emulator, Fault

SHORT = 0.3
HUNG = {"black_hole", "slow", "trickle"}
BROKEN = {"refuse", "reset", "wrong_content_length", "tls_failed"}


@pytest.mark.parametrize("name", Fault.all())
def test_every_fault_is_seen_and_heals(idp, client, ask, name):
    """Every fault shows on the wire as what it is called, the ledger knows it, and healing ends it."""
    assert ask().status_code == 200
    idp.ledger.clear()
    idp.fail(Fault.all()[name])
    client.timeout = SHORT
    if name in HUNG:
        with pytest.raises(httpx.TimeoutException):
            ask()
    elif name in BROKEN:
        with pytest.raises(httpx.TransportError):
            ask()
    else:
        answer = ask()
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == {
            "http_503": (503, "application/json"),
            "http_503_html": (503, "text/html"),
            "http_429": (429, "application/json"),
            "html_200": (200, "text/html"),
            "flapping": (503, "application/json"),
        }.get(name, (200, "application/json"))
    assert [call.fault for call in idp.ledger.calls] == ([] if name == "refuse" else [name])
    idp.heal()
    client.timeout = 5
    assert ask().status_code == 200


@pytest.mark.parametrize("name", sorted((HUNG - {"slow"}) | {*BROKEN, "html_200", "truncated_json", "http_503"}))
def test_msal_feels_every_fault(idp, daemon, name):
    """Plain MSAL can't get a token through any of them, and can after healing."""
    app = daemon(timeout=SHORT)
    idp.fail(Fault.all()[name], "token")
    with pytest.raises((requests.RequestException, ValueError, msal.exceptions.MsalServiceError)):
        app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
    idp.heal()
    fresh = daemon()
    assert "access_token" in fresh.acquire_token_for_client(["https://graph.microsoft.com/.default"])


@pytest.mark.parametrize("fault", [Fault.refuse(), Fault.tls_failed()])
def test_host_wide_faults_kill_kept_alive_connections(idp, client, ask, fault):
    """A connection that was alive dies with the host, and a new one isn't made."""
    assert ask().status_code == 200
    idp.fail(fault)
    with pytest.raises(httpx.ConnectError):
        ask()
    assert len(idp.ledger.token_calls()) == 1


def test_refuse_ends_a_request_in_flight(idp, client, ask):
    """Whoever waits for an answer when the host goes down learns at once."""
    idp.fail(Fault.black_hole())
    failures: list[Exception] = []

    def wait() -> None:
        try:
            ask()
        except httpx.TransportError as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not idp.ledger.token_calls():
        time.sleep(0.005)
    idp.fail(Fault.refuse())
    waiter.join(2)
    assert failures


def test_refuse_keeps_the_port_from_others(idp):
    """While nothing listens, nobody else can take the port, and listening works again."""
    port = int(idp.url.rpartition(":")[2])
    for _ in range(20):
        handle = idp.fail(Fault.refuse())
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(OSError, match="in use"):
            Emulator(port=port).start()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)
        handle.stop()
        socket.create_connection(("127.0.0.1", port), 1).close()


def test_reset_is_a_real_rst(idp):
    """The connection doesn't just close: the peer gets ECONNRESET."""
    idp.fail(Fault.reset(), "managed_identity")
    with socket.create_connection(("127.0.0.1", int(idp.metadata_url.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET /msi/token HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    with pytest.raises(httpx.ReadError):
        httpx.get(f"{idp.metadata_url}/msi/token")


def test_healing_frees_a_black_hole(idp, ask):
    """Healing aborts those who hang, so that no test waits for a time-out."""
    idp.fail(Fault.black_hole())
    threading.Timer(0.2, idp.heal).start()
    started = time.monotonic()
    with pytest.raises(httpx.TransportError):
        ask()
    assert time.monotonic() - started < 2


def test_healing_finishes_what_is_slow(idp, ask):
    """Slow and trickled answers come at once when the fault ends."""
    for fault in (Fault.slow(60), Fault.trickle(), Fault.trickle(headers=True)):
        idp.fail(fault)
        threading.Timer(0.1, idp.heal).start()
        assert ask().status_code == 200


def test_slow_answers_late_and_correctly(idp, ask):
    """A slow answer is right when it comes."""
    idp.fail(Fault.slow(0.2))
    started = time.monotonic()
    assert "access_token" in ask().json()
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("headers", [False, True])
def test_trickle_sends_a_few_bytes(idp, client, headers):
    """A trickle keeps the connection busy, and never ends in reasonable time."""
    idp.fail(Fault.trickle(40, headers=headers), "managed_identity")
    with socket.create_connection(("127.0.0.1", int(idp.metadata_url.rpartition(":")[2])), 2) as raw:
        raw.sendall(b"GET /msi/token HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        received = raw.recv(65536)
    head, ended, body = received.partition(b"\r\n\r\n")
    assert bool(ended) is not headers
    assert 4 <= len(head if headers else body) <= 20


def test_retry_after_is_a_number_or_a_date(idp, ask):
    """Throttling tells when to come back, and the ledger remembers what it told."""
    idp.fail(Fault.http_429(7), count=1)
    assert ask().headers["retry-after"] == "7"
    idp.fail(Fault.http_429(7, as_date=True), count=1)
    date = ask().headers["retry-after"]
    assert 6 < parsedate_to_datetime(date).timestamp() - time.time() <= 8
    idp.fail(Fault.http_503(retry_after=1.2), count=1)
    assert ask().headers["retry-after"] == "2"
    assert [call.retry_after for call in idp.ledger.token_calls()] == ["7", date, "2"]


def test_faults_stay_at_their_endpoint(idp, client, ask):
    """A broken token endpoint leaves discovery, keys and the API alone; `"*"` leaves the API alone."""
    idp.fail(Fault.http_503(), "token")
    document = client.get(f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration")
    assert document.status_code == 200
    assert client.get(document.json()["jwks_uri"]).status_code == 200
    assert ask().status_code == 503
    idp.fail(Fault.http_503())
    assert client.get(document.json()["jwks_uri"]).status_code == 503
    assert client.get(f"{idp.url}/nowhere/to/be/found").status_code == 503
    assert client.get(f"{idp.api_url}/api/x").status_code == 401
    idp.fail(Fault.refuse())
    assert client.get(f"{idp.api_url}/api/x").status_code == 401
    idp.heal()
    idp.fail(Fault.refuse(), "api")
    assert ask().status_code == 200
    with pytest.raises(httpx.ConnectError):
        client.get(f"{idp.api_url}/api/x")


def test_faults_count_match_and_chance(idp, client, ask):
    """A fault can be limited by number, by who calls and by chance, and the newest one wins."""
    idp.fail(Fault.http_503(), count=2)
    assert [ask().status_code for _ in range(3)] == [503, 503, 200]
    idp.heal()
    idp.fail(Fault.http_503(), match={"client_id": "victim"})
    assert [ask(client_id=one).status_code for one in ("victim", "other")] == [503, 200]
    idp.fail(Fault.http_429(), match=lambda call: call.client_id == "victim")
    assert ask(client_id="victim").status_code == 429
    idp.heal()
    idp.fail(Fault.http_503(), probability=0.5)
    failed = [ask().status_code for _ in range(60)].count(503)
    assert 10 < failed < 50


def test_chance_is_reproducible():
    """The same seed fails the same requests."""

    def run() -> list[int]:
        with Emulator(seed=7) as emulator:
            emulator.fail(Fault.http_503(), "managed_identity", probability=0.5)
            return [httpx.get(f"{emulator.metadata_url}/msi/token").status_code for _ in range(20)]

    first = run()
    assert first == run()
    assert {401, 503} == set(first)


def test_faults_end_by_time_and_by_handle(idp, ask):
    """A fault ends after its seconds, or when its handle is stopped, and only that one."""
    idp.fail(Fault.http_503(), seconds=0.15)
    assert ask().status_code == 503
    time.sleep(0.2)
    assert ask().status_code == 200
    handle = idp.fail(Fault.http_503())
    other = idp.fail(Fault.http_429())
    other.stop()
    assert ask().status_code == 503
    handle.stop()
    handle.stop()
    assert ask().status_code == 200


def test_a_schedule_runs_by_itself(idp, ask):
    """Planned faults begin and end on time, and healing cancels the rest of the plan."""
    idp.schedule([(0.1, 0.3, Fault.http_503(), "token"), (0.9, 9, Fault.refuse(), "*")])
    started = time.monotonic()
    seen = []
    while len(seen) < 3:
        status = ask().status_code
        if seen[-1:] != [status]:
            seen.append(status)
    assert seen == [200, 503, 200]
    assert 0.3 <= time.monotonic() - started < 0.9
    idp.heal()
    time.sleep(started + 1 - time.monotonic())
    assert ask().status_code == 200


def test_flapping_goes_on_and_off(idp, client, ask):
    """A flapping fault fails, works and fails again; a flapping refusal re-listens in between."""
    idp.fail(Fault.flapping(0.1, Fault.status(502)))
    seen: list[int] = []
    while len(seen) < 4:
        status = ask().status_code
        if seen[-1:] != [status]:
            seen.append(status)
    assert seen in ([502, 200, 502, 200], [200, 502, 200, 502])
    idp.heal()

    idp.fail(Fault.flapping(0.1, Fault.refuse()))
    outcomes = set()
    deadline = time.monotonic() + 5
    while outcomes != {0, 200} and time.monotonic() < deadline:
        try:
            outcomes.add(ask().status_code)
        except httpx.TransportError:
            outcomes.add(0)
    assert outcomes == {0, 200}


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        (Fault.reset(), {"endpoint": "tokens"}, "unknown endpoint"),
        (Fault.reset(), {"count": 0}, "count"),
        (Fault.reset(), {"probability": 0}, "probability"),
        (Fault.refuse(), {"count": 3}, "whole host"),
        (Fault.flapping(inner=Fault.refuse()), {"probability": 0.5}, "whole host"),
        (Fault.tls_failed(), {"endpoint": "managed_identity"}, "plain HTTP"),
    ],
)
def test_faults_that_make_no_sense_are_refused(idp, fault, options, message):
    """A fault that can't apply is an error that says why."""
    with pytest.raises(ValueError, match=message):
        idp.fail(fault, **options)
    with pytest.raises(ValueError, match="before it stops"):
        idp.schedule([(2, 1, Fault.reset(), "*")])


def test_faults_parse_by_name():
    """Names, status codes and arguments after a colon make the same faults as the constructors."""
    assert Fault.parse("503") == Fault.http_503()
    assert Fault.parse("black-hole") == Fault.black_hole()
    assert Fault.parse("slow:5") == Fault.slow(5)
    assert Fault.parse("429:9") == Fault.http_429(9)
    assert Fault.parse("418") == Fault.status(418)
    assert Fault.parse("flapping:2", inner="refuse") == Fault.flapping(2, Fault.refuse())
    assert all(Fault.parse(name).name == name for name in Fault.all())
    for wrong in ("nonsense", "99", "refuse:3", "slow:fast", "slow:0"):
        with pytest.raises(ValueError, match=r"."):
            Fault.parse(wrong)


def test_asyncio_clients_meet_the_same_faults(idp, token_url):
    """An asyncio client sees the fault as its own kind of error."""

    async def run() -> None:
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=idp.ca_file), timeout=1) as http:
            idp.fail(Fault.reset())
            with pytest.raises(httpx.TransportError):
                await http.post(token_url)
            idp.heal()
            assert (await http.post(token_url)).status_code == 400

    asyncio.run(run())


def test_bodies_are_what_they_are_called(idp, ask):
    """The malformed bodies are malformed in exactly one way."""
    idp.fail(Fault.json_array())
    assert ask().json() == []
    idp.fail(Fault.json_object())
    assert ask().json() == {}
    idp.fail(Fault.truncated_json())
    with pytest.raises(json.JSONDecodeError):
        ask().json()
    idp.fail(Fault.status(500, body="boom"))
    assert ask().text == "boom"
    idp.fail(Fault.status(204))
    assert ask().content == b""
