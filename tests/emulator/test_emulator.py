from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from resilient_auth.emulator import Emulator, Fault


def test_it_starts_and_stops_fast_and_cleanly(client, ask):
    """Start and stop take no time, leave no thread, no port and no file, even with clients hanging."""
    Emulator().start().stop()  # the process's first one makes the signing key
    started = time.monotonic()
    emulator = Emulator().start()
    ca_file, port = Path(emulator.ca_file), int(emulator.metadata_url.rpartition(":")[2])
    emulator.fail(Fault.black_hole(), "managed_identity")
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not emulator.ledger.calls:
            pass
        emulator.stop()
        emulator.stop()
    assert time.monotonic() - started < 1
    assert not ca_file.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(RuntimeError, match="isn't running"):
        emulator.heal()


def test_it_stands_many_threads(idp, daemon):
    """64 threads get a token each, and every one of them is in the ledger."""
    scopes = ["https://graph.microsoft.com/.default"]
    apps = [daemon(f"client-{number}") for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(lambda app: app.acquire_token_for_client(scopes), apps))
    assert all(idp.ledger.is_valid(result["access_token"]) for result in results)
    assert len(idp.ledger.token_calls()) == 64


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx leaves sockets to the collector
def test_it_survives_a_flapping_host_under_load(idp, ask, token_url, caplog):
    """Connections killed in every state of their life leave no error and no orphan behind."""
    trust = ssl.create_default_context(cafile=idp.ca_file)
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            try:
                httpx.post(token_url, verify=trust, timeout=1)
            except httpx.TransportError:
                time.sleep(0.001)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        for fault in (Fault.refuse(), Fault.tls_failed()):
            idp.fail(fault)
            time.sleep(0.005)
            idp.heal()
            time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join(5)
    assert ask().status_code == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 50, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999"],
)
def test_garbage_harms_nobody(idp, ask, garbage, caplog):
    """Bytes that aren't HTTP, or aren't TLS, end that connection alone."""
    for url in (idp.url, idp.metadata_url, idp.proxy_url, idp.control_url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 2) as raw:
            raw.sendall(garbage)
            # A reset may come at any point from here on.
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(1000):
                    pass
    assert ask().status_code == 200
    assert not [record for record in caplog.records if "emulator" in record.name]


def test_a_body_that_is_too_large_is_refused(idp):
    """A request of more than a megabyte gets 413 or a reset, not memory."""
    try:
        answer = httpx.post(f"{idp.metadata_url}/msi/token", content=b"x" * 3_000_000)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass


def test_http_details_are_right(idp, client):
    """HEAD has no body, `Connection: close` closes, `Expect: 100-continue` goes on."""
    url = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    assert client.head(url).content == b""
    assert client.get(url, headers={"Connection": "close"}).status_code == 200
    assert client.post(f"{idp.api_url}/x", content=b"1", headers={"Expect": "100-continue"}).status_code == 401
    connections = [call.connection for call in idp.ledger.calls]
    assert connections[0] == connections[1] != connections[2]


def test_settings_are_checked_at_the_door():
    """A lifetime below zero is an error that names it."""
    with pytest.raises(ValueError, match="token_lifetime"):
        Emulator(token_lifetime=-1)
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = Emulator().url
    with Emulator() as emulator, pytest.raises(RuntimeError, match="started before"):
        emulator.start()


def test_wrong_names_are_errors(idp):
    """Unknown users, device codes and URLs are told apart from known ones."""
    with pytest.raises(ValueError, match="add_user"):
        idp.sign_in(f"{idp.url}/contoso/oauth2/v2.0/authorize?client_id=x", "nobody@contoso.com")
    with pytest.raises(ValueError, match="URL"):
        idp.sign_in(f"{idp.url}/contoso/oauth2/v2.0/token", "ann@contoso.com")
    with pytest.raises(ValueError, match="no device"):
        idp.approve_device("XXXX", "ann@contoso.com")


def test_it_imports_nothing_else_of_the_package():
    """The emulator is an independent witness."""
    code = (
        "import sys, resilient_auth.emulator;"
        "print([m for m in sys.modules if m.startswith('resilient_auth.')"
        " and not m.startswith('resilient_auth.emulator')])"
    )
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


def test_a_token_call_takes_a_few_milliseconds(ask):
    """A token is cheap enough for drills with thousands of calls."""
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    # The fastest, because the machine may be busy with others.
    assert min(taken) < 0.02
