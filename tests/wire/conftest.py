"""A provider that fails on command, and a server that says back what it was told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from resilient_auth.emulator import Emulator


@pytest.fixture(autouse=True)
def _own_environment(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "NO_PROXY", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/there")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/huge"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            try:
                while True:
                    self.wfile.write(piece)
            except OSError:
                return
        said = json.dumps(
            {"said": "ä", "path": self.path, "body": body, "headers": {k.lower(): v for k, v in self.headers.items()}},
            ensure_ascii=False,
        )
        charset = "iso-8859-1" if self.path.startswith("/latin") else "utf-8"
        raw = said.encode(charset)
        self.send_response(200)
        self.send_header(
            "Content-Type",
            "application/json; charset=nonsense" if "odd" in self.path else f"text/plain; charset={charset}",
        )
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a server that answers with what it was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Scripted:
    """A server that gives each path its answer, and keeps what it was sent."""

    url: str = ""
    #: Status, headers and body, by path.
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    #: Method, path, headers with lower-case names, and body.
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    #: Whose certificate it shows may be changed while it runs.
    context: ssl.SSLContext | None = None

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.seen]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """The path of that authority's certificate."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return str(path)


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Callable[..., Scripted]]:
    """Start servers, over TLS with that authority's certificate, or another's, or without TLS."""
    running: list[ThreadingHTTPServer] = []

    def start(*, tls: bool = True, by: trustme.CA | None = None) -> Scripted:
        scripted = Scripted()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {k.lower(): v for k, v in self.headers.items()}
                scripted.seen.append((self.command, self.path, headers, body))
                path = self.path.partition("?")[0]
                status, more, content = scripted.answers.get(path, (200, {}, b"{}"))
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                """Say nothing of clients that hang up."""

        server = Server(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            (by or authority).issue_cert("localhost", "127.0.0.1").configure_cert(context)
            scripted.context = context
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        scripted.url = f"http{'s' if tls else ''}://localhost:{server.server_port}"
        return scripted

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
