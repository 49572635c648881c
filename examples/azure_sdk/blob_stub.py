"""One blob of Azure Storage on this machine, over TLS, for whoever brings a token that is said to be valid."""

import ssl
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

CONTENT = b"hello from a blob"


class BlobStub:
    """Serve the blob; `is_valid` says of each bearer token whether it opens it. A context manager."""

    def __init__(self, is_valid: Callable[[str], bool]) -> None:
        #: The status of every answer, in order.
        self.answers: list[int] = []
        self._folder = tempfile.TemporaryDirectory()
        authority = trustme.CA()
        self.ca_file = str(Path(self._folder.name) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                scheme, _, token = self.headers.get("Authorization", "").partition(" ")
                allowed = scheme == "Bearer" and is_valid(token)
                stub.answers.append(206 if allowed else 403)
                body = CONTENT if allowed else b""
                self.send_response(stub.answers[-1])
                if allowed:
                    self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
                    self.send_header("ETag", '"1"')
                    self.send_header("x-ms-blob-type", "BlockBlob")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}/account"

    def __enter__(self) -> "BlobStub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()
