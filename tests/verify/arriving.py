"""Tokens of every kind, and a provider that answers as it is told."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from resilient_auth.emulator.provider.realms import tenant_id

AUDIENCE = "api://orders"
TENANT = tenant_id("contoso")
#: Nothing listens there.
NOWHERE = "https://localhost:9"


def b64(raw: bytes | str | dict[str, Any]) -> str:
    """Encode as a token's segments are."""
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    data = raw.encode() if isinstance(raw, str) else raw
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """A key of the tests' own, whose tokens may be as wrong as is wanted."""

    def __init__(self, kid: str = "own", bits: int = 2048) -> None:
        self.kid = kid
        self.private = rsa.generate_private_key(65537, bits)
        numbers = self.private.public_key().public_numbers()
        self.jwk = {
            "kty": "RSA",
            "kid": kid,
            "use": "sig",
            "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
            "e": b64(numbers.e.to_bytes(3)),
        }

    def sign(self, header: dict[str, Any] | str | bytes, payload: dict[str, Any] | str | bytes) -> str:
        """Sign segments as they are."""
        signed = f"{b64(header)}.{b64(payload)}"
        return f"{signed}.{b64(self.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def token(self, payload: dict[str, Any] | str | bytes, **header: Any) -> str:
        """Sign claims with a good header, but for what is changed; None takes a member away."""
        members = {"alg": "RS256", "typ": "JWT", "kid": self.kid} | header
        return self.sign({k: v for k, v in members.items() if v is not None}, payload)


def access_claims(clock: Any, authority: str = NOWHERE, **changes: Any) -> dict[str, Any]:
    """Make the claims of a user's access token of Entra; None takes a claim away."""
    now = int(clock.wall())
    claims = {
        "iss": f"{authority}/{TENANT}/v2.0",
        "aud": AUDIENCE,
        "tid": TENANT,
        "sub": "pairwise-of-ann",
        "oid": "6f6e2c3a-ann",
        "azp": "shop",
        "azpacr": "1",
        "scp": "Orders.Read Orders.Write",
        "name": "Ann",
        "preferred_username": "ann@contoso.com",
        "sid": "session-of-ann",
        "uti": "token-of-ann",
        "ver": "2.0",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


class Site:
    """A provider of the tests' own over TLS: each path answers what the test says."""

    def __init__(self) -> None:
        #: By path: status, body, further headers.
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        #: Cleared, answers are held back that were decided upon already.
        self.gate = threading.Event()
        self.gate.set()
        authority = trustme.CA()
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                status, body, headers = site.answers.get(self.path, (404, b"{}", {}))
                site.gate.wait(5.0)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that hangs up early is what some tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def serve(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """Answer a path with this from now on."""
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.answers[path] = (status, raw, {name.replace("_", "-"): value for name, value in headers.items()})

    def provide(self, keys: Any, **changes: Any) -> None:
        """Be an OpenID provider with these keys."""
        self.serve("/.well-known/openid-configuration", {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | changes)
        self.serve("/keys", keys)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
