from __future__ import annotations

import time

import httpx
import jwt
import msal
import pytest
import requests

from resilient_auth.emulator import Fault

VAULT = "https://vault.azure.net"


@pytest.fixture
def identity():
    with requests.Session() as session:
        session.trust_env = False
        yield lambda kind=None: msal.ManagedIdentityClient(
            kind or msal.SystemAssignedManagedIdentity(), http_client=session
        )


def test_imds_gives_msal_a_token(idp, identity, monkeypatch):
    """MSAL on a virtual machine gets a token whose audience is the resource."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)
    result = identity().acquire_token_for_client(resource=VAULT)
    claims = jwt.decode(result["access_token"], options={"verify_signature": False})
    assert claims["aud"] == VAULT
    assert result["expires_in"] == 3600
    assert idp.ledger.is_valid(result["access_token"])
    assert idp.ledger.calls[0].endpoint == "managed_identity"


def test_app_service_gives_msal_a_token(idp, identity, monkeypatch):
    """MSAL on App Service gets a token for the identity that it names."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{idp.metadata_url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    result = identity(msal.UserAssignedManagedIdentity(client_id="mine")).acquire_token_for_client(resource=VAULT)
    assert 3598 <= result["expires_in"] <= 3601
    assert idp.ledger.lookup(result["access_token"]).client_id == "mine"


def test_what_is_missing_is_refused(idp):
    """The metadata header, the identity header and the resource are required."""
    token = f"{idp.metadata_url}/metadata/identity/oauth2/token"
    assert httpx.get(token, params={"resource": VAULT}).json()["error"] == "invalid_request"
    assert httpx.get(token, headers={"Metadata": "true"}).status_code == 400
    assert httpx.get(f"{idp.metadata_url}/msi/token", params={"resource": VAULT}).status_code == 401
    assert httpx.get(f"{idp.metadata_url}/msi/token", headers={"X-IDENTITY-HEADER": "x"}).status_code == 400
    assert httpx.get(f"{idp.metadata_url}/metadata/instance/compute").status_code == 400
    assert httpx.get(f"{idp.metadata_url}/metadata/else").status_code == 404
    assert httpx.post(token).status_code == 405


def test_compute_metadata_tells_the_region(idp):
    """The region is where `azure_region` probing finds it, and settable."""
    idp.region = "northeurope"
    compute = f"{idp.metadata_url}/metadata/instance/compute"
    assert httpx.get(compute, headers={"Metadata": "true"}).json()["location"] == "northeurope"
    assert httpx.get(f"{compute}/location", headers={"Metadata": "true"}).text == "northeurope"


def test_its_faults_are_its_own(idp):
    """Breaking managed identity leaves compute metadata alone, and tokens can come expired."""
    headers, params = {"Metadata": "true", "X-IDENTITY-HEADER": "x"}, {"resource": VAULT, "api-version": "2019-08-01"}
    idp.fail(Fault.http_503(), "managed_identity")
    token = f"{idp.metadata_url}/msi/token"
    assert httpx.get(token, headers=headers, params=params).status_code == 503
    assert httpx.get(f"{idp.metadata_url}/metadata/instance/compute", headers=headers).status_code == 200
    idp.heal("managed_identity")
    idp.fail(Fault.expired_tokens(), "managed_identity")
    assert int(httpx.get(token, headers=headers, params=params).json()["expires_on"]) < time.time()
    idp.fail(Fault.refuse(), "imds_compute")
    with pytest.raises(httpx.ConnectError):
        httpx.get(token)
