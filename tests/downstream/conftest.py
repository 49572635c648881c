"""An API that fails on command, and clients of it with credentials of the test's own."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from resilient_auth.downstream import BreakerOptions, TransportOptions
from resilient_auth.emulator import Emulator
from resilient_auth.testing import ManualClock, no_jitter

CP1 = '{"access_token": {"xms_cc": {"values": ["cp1"]}}}'


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def trust(idp: Emulator) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=idp.ca_file)


class EmulatorCredential:
    """A credential in azure-core's shape that holds one token, asked of the emulator."""

    def __init__(self, idp: Emulator, trust: ssl.SSLContext) -> None:
        self._http = httpx.Client(verify=trust, trust_env=False)
        self._url = f"{idp.authority('contoso')}/oauth2/v2.0/token"
        self.held: str | None = None
        self.asked: list[str | None] = []
        self.invalidated: list[str] = []

    def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> Any:
        if self.held is None or claims is not None:
            self.asked.append(claims)
            form = {
                "grant_type": "client_credentials",
                "client_id": "daemon",
                "client_secret": "s",
                "scope": " ".join(scopes),
                "claims": CP1 if claims is None else _with_cp1(claims),
            }
            self.held = self._http.post(self._url, data=form).json()["access_token"]
        return self.held

    def invalidate(self, token: str) -> None:
        self.invalidated.append(token)
        if self.held == token:
            self.held = None

    def close(self) -> None:
        self._http.close()


def _with_cp1(claims: str) -> str:
    wanted = json.loads(claims)
    wanted.setdefault("access_token", {})["xms_cc"] = {"values": ["cp1"]}
    return json.dumps(wanted)


@pytest.fixture
def credential(idp: Emulator, trust: ssl.SSLContext) -> Iterator[EmulatorCredential]:
    made = EmulatorCredential(idp, trust)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def options(clock: ManualClock) -> Callable[..., TransportOptions]:
    """Build options on the test's own clock, without luck."""

    def build(**changed: Any) -> TransportOptions:
        return TransportOptions(**{"clock": clock, "jitter": no_jitter} | changed)

    return build


@pytest.fixture
def never_opens() -> BreakerOptions:
    return BreakerOptions(consecutive_failures=10_000, minimum_throughput=10_000)
