from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import httpx
import msal
import pytest

from resilient_auth.emulator import Emulator

GRAPH = "https://graph.microsoft.com/.default"


@pytest.fixture(autouse=True)
def _own_ca_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "REGION_NAME", "MSAL_FORCE_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def client(idp: Emulator) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=idp.ca_file)
    with httpx.Client(verify=trust, timeout=5, trust_env=False) as http:
        yield http


@pytest.fixture
def token_url(idp: Emulator) -> str:
    return f"{idp.authority('contoso')}/oauth2/v2.0/token"


@pytest.fixture
def ask(client: httpx.Client, token_url: str) -> Callable[..., httpx.Response]:
    """Ask for an app token; keyword arguments replace form fields."""

    def post(**fields: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", "client_id": "daemon", "client_secret": "s", "scope": GRAPH}
        return client.post(token_url, data=form | fields)

    return post


@pytest.fixture
def daemon(idp: Emulator) -> Callable[..., msal.ConfidentialClientApplication]:
    """Build a confidential MSAL app at the emulator."""

    def build(client_id: str = "daemon", tenant: str = "contoso", **options: object) -> msal.ClientApplication:
        return msal.ConfidentialClientApplication(
            client_id,
            **{
                "authority": idp.authority(tenant),
                "client_credential": "secret",
                "instance_discovery": False,
                "verify": idp.ca_file,
            }
            | options,
        )

    return build


@pytest.fixture
def desktop(idp: Emulator) -> Callable[..., msal.PublicClientApplication]:
    """Build a public MSAL app at the emulator."""

    def build(client_id: str = "desktop", tenant: str = "contoso", **options: object) -> msal.ClientApplication:
        return msal.PublicClientApplication(
            client_id,
            **{"authority": idp.authority(tenant), "instance_discovery": False, "verify": idp.ca_file} | options,
        )

    return build


@pytest.fixture
def proxied(idp: Emulator) -> dict[str, object]:
    """What an MSAL app needs to reach real host names through the emulator's proxy."""
    return {"proxies": {"https": idp.proxy_url, "http": idp.proxy_url}, "verify": idp.ca_file}
