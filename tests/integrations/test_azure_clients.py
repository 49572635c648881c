"""Azure's released clients with a credential of ours: Key Vault by its challenges, PostgreSQL by Azure's own helper."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from azure.core.credentials import AccessToken
from azure.keyvault.secrets import SecretClient
from azure_postgresql_auth.psycopg3 import AsyncEntraConnection, EntraConnection
from login_server import Server
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import msal

SCOPE = "https://vault.azure.net/.default"
KEY = "a key of 32 bytes or more, for HS256"


class Vault:
    """So much of a key vault as it takes to read one secret; it says in which tenant to ask for a token."""

    def __init__(self, issuer: Issuer) -> None:
        self.tenant = "contoso"
        #: The id of `contoso`.
        self.home = ""
        self._folder = tempfile.TemporaryDirectory()
        authority = trustme.CA()
        self.ca_file = str(Path(self._folder.name) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        vault = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                issued = issuer.idp.ledger.lookup(token)
                allowed = issued is not None and (issued.tenant == vault.home) is (vault.tenant == "contoso")
                body = json.dumps({"value": "s3cret", "id": f"{vault.url}/secrets/a/1", "attributes": {}}).encode()
                self.send_response(200 if allowed else 401)
                if not allowed:
                    where = f"https://login.microsoftonline.com/{vault.tenant}"
                    challenge = f'Bearer authorization="{where}", resource="https://vault.azure.net"'
                    self.send_header("WWW-Authenticate", challenge)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"https://localhost:{self._server.server_port}"

    def client(self, credential: Any) -> SecretClient:
        return SecretClient(
            self.url,
            credential,
            verify_challenge_resource=False,
            connection_verify=self.ca_file,
            retry_total=0,
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


@pytest.fixture
def vault(issuer: Issuer) -> Iterator[Vault]:
    vault = Vault(issuer)
    yield vault
    vault.close()


@pytest.fixture
def app(issuer: Issuer) -> Iterator[Any]:
    app = msal.ConfidentialClientApplication(
        "daemon",
        authority=issuer.idp.authority("contoso"),
        client_credential="s3cret-of-the-daemon",
        instance_discovery=False,
        verify=issuer.idp.ca_file,
    )
    yield app
    app.close()


def test_key_vault_gets_a_token_of_the_tenant_that_it_names(vault: Vault, app: Any) -> None:
    """Its own, and another one that may be asked for."""
    token = app.acquire_token_for_client([SCOPE])["access_token"]
    vault.home = jwt.decode(token, options={"verify_signature": False})["tid"]
    credential = ra.ResilientCredential(app, additionally_allowed_tenants=["fabrikam"])
    for tenant in ("contoso", "fabrikam"):
        vault.tenant = tenant
        with vault.client(credential) as client:
            assert client.get_secret("a").value == "s3cret"


@pytest.mark.parametrize("user", [None, "orders-app"])
async def test_azures_own_helper_for_postgresql_takes_it(user: str | None) -> None:
    """Both kinds; it takes the user's name from the token where none is given."""
    server = Server()

    def give(scopes: tuple[str, ...]) -> AccessToken:
        expires_on = int(time.time()) + 3600
        return AccessToken(jwt.encode({"upn": "ann@contoso.com", "exp": expires_on}, KEY), expires_on)

    options: dict[str, Any] = {"host": "127.0.0.1", "port": server.port} | ({"user": user} if user else {})
    EntraConnection.connect(**options, credential=ra.ResilientCredential(give)).close()
    awaited = await AsyncEntraConnection.connect(**options, credential=ra.aio.ResilientCredential(give))
    await awaited.close()
    server.close()
    assert [name for name, _ in server.logins] == [user or "ann@contoso.com"] * 2
    assert all(jwt.decode(token, KEY, algorithms=["HS256"]) for _, token in server.logins)
