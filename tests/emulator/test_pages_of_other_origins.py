"""Pages of other origins may ask for what single-page applications need, as Entra lets them, and for nothing else."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from resilient_auth.emulator import Emulator

FROM_A_PAGE = {"Origin": "http://localhost:8000"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with Emulator() as idp:
        trust = ssl.create_default_context(cafile=idp.ca_file)
        with httpx.Client(base_url=idp.authority("contoso"), verify=trust, trust_env=False) as made:
            yield made


@pytest.mark.parametrize(
    "path", ["/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys", "/oauth2/v2.0/token"]
)
def test_a_page_may_read_the_answer(client: httpx.Client, path: str) -> None:
    """An error too; and ask beforehand whether it may."""
    asked = client.options(path, headers=FROM_A_PAGE | {"Access-Control-Request-Method": "POST"})
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert client.get(path, headers=FROM_A_PAGE).headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in client.get(path).headers


def test_other_endpoints_are_for_no_page(client: httpx.Client) -> None:
    answer = client.get(
        "/oauth2/v2.0/authorize?client_id=x&scope=openid&redirect_uri=https://x.example", headers=FROM_A_PAGE
    )
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
