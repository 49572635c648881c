"""Whatever is written where a path, an address or a number belongs: it is named, and nothing secret is shown."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resilient_auth.errors import ConfigurationError
from resilient_auth.telemetry.doctor import examine
from resilient_auth.telemetry.doctor.command import main
from resilient_auth.telemetry.doctor.configuration import read_setup

SECRET = "a-secret-that-nobody-may-see"
ODD = [f"http://u:{SECRET}@[::1", f"rediss://:{SECRET}@h:99999999", "/", "x" * 5000, "\udcff", "[::1]", " ", "a\nb"]
VARIABLES = [
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID"),
]
KEYS = ["store", "token_cache", "certificate", "verify", "discovery"]


@pytest.mark.parametrize("value", ODD, ids=["user", "port", "root", "long", "surrogate", "ipv6", "blank", "lines"])
def test_no_check_breaks_and_nothing_secret_is_shown(
    value: str, own_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each variable that is read, and in each key."""
    usual: dict[str, Any] = {"authority": "https://127.0.0.1:9/t", "client_id": "c", "timeout": 0.3}
    for name in (*VARIABLES, *KEYS):
        with monkeypatch.context() as changed:
            options = dict(usual)
            if name in KEYS:
                options[name] = value
            else:
                changed.setenv(name, value)
            with suppress(ConfigurationError):  # which is shown as it is
                setup = read_setup(os.environ, None, options | {"flows": ["client_credentials"]})
                found = list(examine(setup))
                assert not [each for each in found if each.code == "check_failed"], name
                assert SECRET not in repr(found), name


@pytest.mark.parametrize(
    "text",
    [b"a = " + b"[" * 5000, b"a = " + b"{a=" * 5000, b"timeout = " + b"1" * 5000, b"a" * 2_000_000, b"\xff", b"\0"],
    ids=["lists", "tables", "digits", "large", "no text", "null"],
)
def test_a_file_that_nobody_can_read_is_bad_usage(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence says why, and what a program reads is the status of that."""
    file = tmp_path / "app.toml"
    file.write_bytes(text)
    assert main(["--config", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_a_path_that_cant_be_one_is_bad_usage() -> None:
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_setup({}, "a\0b")


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], tuple[int, list[bytes]]]]:
    """Answer whoever connects, whatever they say, and note that."""
    servers: list[socket.socket] = []

    def answer(said: bytes) -> tuple[int, list[bytes]]:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        heard: list[bytes] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        heard.append(connection.recv(65_536))
                        connection.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1], heard

    yield answer
    for server in servers:
        server.close()


def test_a_proxy_is_asked_for_an_address_in_brackets(
    answering: Any, own_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them an address of IPv6 and a port are one text (RFC 3986, 3.2.2), and every proxy refuses it."""
    port, heard = answering(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    found = list(examine(read_setup({}, None, {"authority": "https://[2001:db8::1]/t", "timeout": 1.0})))
    assert any(each.startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n") for each in heard)
    assert any("[2001:db8::1]:443" in each.what for each in found)


def test_another_clouds_metadata_is_no_managed_identity(
    answering: Any, own_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers at the same address, in a form of its own."""
    page = b"<html>latest</html>"
    port, _ = answering(
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(page), page)
    )
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{port}")
    setup = read_setup({}, None, {"flows": ["managed_identity"], "timeout": 2.0})
    (found,) = [each for each in examine(setup) if each.check == "managed_identity"]
    assert (found.severity, found.code) == ("error", "endpoint_foreign")


def test_an_endpoint_that_is_no_url_is_named(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:99999/x")
    setup = read_setup({}, None, {"flows": ["managed_identity"], "timeout": 1.0})
    (found,) = [each for each in examine(setup) if each.check == "managed_identity"]
    assert (found.code, "IDENTITY_ENDPOINT" in found.fix) == ("endpoint_wrong", True)
