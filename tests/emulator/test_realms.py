from __future__ import annotations

import jwt
import msal
import pytest
import requests

from resilient_auth.emulator import Fault
from resilient_auth.emulator.provider.realms import PERSONAL_TENANT_ID, tenant_id

SCOPE = ["https://graph.microsoft.com/.default"]
TID = tenant_id("contoso")


def document(client, url):
    return client.get(f"{url}/.well-known/openid-configuration").json()


@pytest.fixture
def real(idp, proxied):
    """Send requests to real host names, which the proxy stands in for."""
    with requests.Session() as session:
        session.trust_env = False
        session.proxies, session.verify = proxied["proxies"], proxied["verify"]
        yield session


def claims_of(result):
    return jwt.decode(result["access_token"], options={"verify_signature": False})


def test_tenant_names_are_stable_guids():
    """A tenant's names are one GUID, a GUID is itself, and personal accounts have Microsoft's."""
    assert tenant_id("contoso") == tenant_id("Contoso.onmicrosoft.com") == tenant_id("contoso.com")
    assert tenant_id("contoso") != tenant_id("fabrikam")
    assert tenant_id(TID.upper()) == TID
    assert tenant_id("consumers") == PERSONAL_TENANT_ID


def test_v2_discovery_answers_with_the_guid_and_the_host_of_the_request(idp, client):
    """Endpoints carry the tenant's GUID, and lead back to the port that was asked."""
    found = document(client, f"{idp.authority('contoso')}/v2.0")
    assert found["issuer"] == f"{idp.url}/{TID}/v2.0"
    assert found["token_endpoint"] == f"{idp.url}/{TID}/oauth2/v2.0/token"
    [key] = client.get(found["jwks_uri"]).json()["keys"]
    assert key["issuer"] == found["issuer"]


def test_v1_answers_in_strings(idp, client):
    """The v1 endpoints take a resource and answer numbers as strings."""
    found = document(client, idp.authority("contoso"))
    assert found["issuer"] == f"{idp.url}/{TID}/"
    form = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "resource": "https://vault/"}
    answer = client.post(found["token_endpoint"], data=form).json()
    assert answer["expires_in"] == "3600"
    assert answer["resource"] == "https://vault/"
    assert int(answer["expires_on"]) > 0
    claims = claims_of(answer)
    assert (claims["ver"], claims["appid"], claims["aud"]) == ("1.0", "d", "https://vault/")


def test_common_has_a_template_and_signs_users_in_at_home(idp, client):
    """`/common` names no tenant: its issuer is a template, tokens come from the user's own tenant."""
    found = document(client, f"{idp.authority('common')}/v2.0")
    assert found["issuer"].endswith("/{tenantid}/v2.0")
    assert client.get(found["jwks_uri"]).json()["keys"][0]["issuer"].endswith("/{tenantid}/v2.0")
    form = {"grant_type": "password", "client_id": "d", "username": "ann@contoso.com", "password": "pw"}
    answer = client.post(found["token_endpoint"], data=form | {"scope": "api://a/b"}).json()
    assert claims_of(answer)["tid"] == TID
    app_form = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "scope": "api://a/.default"}
    assert client.post(found["token_endpoint"], data=app_form).json()["error"] == "invalid_request"


def test_b2c_policies_have_metadata_of_their_own(idp, client):
    """A policy is in the path or in the query, and in the claim that names it."""
    by_path = document(client, f"{idp.authority('contoso.onmicrosoft.com/B2C_1_susi')}/v2.0")
    assert by_path["token_endpoint"].endswith("/contoso.onmicrosoft.com/b2c_1_susi/oauth2/v2.0/token")
    by_query = client.get(
        f"{idp.authority('contoso.onmicrosoft.com')}/v2.0/.well-known/openid-configuration?p=B2C_1_edit"
    ).json()
    assert by_query["token_endpoint"].endswith("/oauth2/v2.0/token?p=b2c_1_edit")
    assert by_path["issuer"] == f"{idp.url}/{TID}/v2.0/"
    assert "issuer" not in client.get(by_path["jwks_uri"]).json()["keys"][0]
    form = {"grant_type": "password", "client_id": "d", "username": "ann@contoso.com", "password": "pw"}
    form |= {"scope": "openid https://contoso.onmicrosoft.com/api/read"}
    assert claims_of(client.post(by_path["token_endpoint"], data=form).json())["tfp"] == "b2c_1_susi"
    idp.policy_claim = "acr"
    answer = client.post(by_query["token_endpoint"], data=form).json()
    assert claims_of(answer)["acr"] == "b2c_1_edit"
    assert claims_of(answer)["aud"] == "https://contoso.onmicrosoft.com/api"


def test_adfs_and_any_openid_path(idp, client, daemon):
    """ADFS and a generic provider have documents whose issuer is where they were found."""
    adfs = document(client, idp.authority("adfs"))
    assert adfs["issuer"] == idp.authority("adfs")
    assert adfs["access_token_issuer"].endswith("/adfs/services/trust")
    assert "access_token" in daemon(tenant="adfs").acquire_token_for_client(SCOPE)
    for path in ("/realms/acme", ""):
        assert document(client, idp.url + path)["issuer"] == idp.url + path
    for url in (f"{idp.url}/realms/acme", f"{idp.url}/contoso/v2.0"):
        app = daemon(authority=None, oidc_authority=url)
        assert claims_of(app.acquire_token_for_client(SCOPE))["iss"].startswith(idp.url)


def test_a_missing_tenant_is_told_so(idp, client, daemon):
    """Tenants that don't exist are 400, as MSAL expects."""
    with pytest.raises(ValueError, match="authority configuration"):
        daemon(tenant="nonexistent")
    assert client.get(f"{idp.url}/nowhere/at/all").status_code == 404


def test_instance_discovery_knows_entra_and_no_others(idp, client):
    """Aliases are those of Entra's clouds; unknown hosts are `invalid_instance`."""
    url = f"{idp.url}/common/discovery/instance"
    asked = {"authorization_endpoint": "https://login.windows.net/contoso/oauth2/v2.0/authorize"}
    found = client.get(url, params=asked).json()
    assert found["tenant_discovery_endpoint"].endswith("/contoso/v2.0/.well-known/openid-configuration")
    assert "login.windows.net" in found["metadata"][0]["aliases"]
    asked = {"authorization_endpoint": "https://evil.example/contoso/oauth2/v2.0/authorize"}
    assert client.get(url, params=asked).json()["error"] == "invalid_instance"


def test_the_proxy_stands_in_for_entra(idp, daemon, proxied):
    """MSAL at login.microsoftonline.com, by its real name over real TLS."""
    app = daemon(authority="https://login.microsoftonline.com/contoso.com", instance_discovery=None, **proxied)
    result = app.acquire_token_for_client(SCOPE)
    assert claims_of(result)["iss"] == f"https://login.microsoftonline.com/{TID}/v2.0"
    assert {call.host for call in idp.ledger.calls} == {"login.microsoftonline.com"}
    app.remove_tokens_for_client()
    assert "/common/discovery/instance" in {call.path for call in idp.ledger.calls}


def test_the_proxy_stands_in_for_regions(idp, daemon, proxied):
    """MSAL finds its region at the metadata address, and goes to the regional host."""
    app = daemon(authority="https://login.microsoftonline.com/contoso.com", azure_region=True, **proxied)
    result = app.acquire_token_for_client(SCOPE)
    assert claims_of(result)["iss"] == f"https://login.microsoftonline.com/{TID}/v2.0"
    assert [call.host for call in idp.ledger.token_calls()] == ["westus2.login.microsoft.com"]
    assert "imds_compute" in {call.endpoint for call in idp.ledger.calls}


def test_the_proxy_stands_in_for_b2c_and_external_id(idp, desktop, proxied, real):
    """MSAL at b2clogin.com and ciamlogin.com, the latter without a path too."""
    b2c = desktop(authority="https://contoso.b2clogin.com/contoso.onmicrosoft.com/B2C_1_susi", **proxied)
    assert b2c.authority.token_endpoint.startswith("https://contoso.b2clogin.com/contoso.onmicrosoft.com/b2c_1_susi/")
    for authority in ("https://contoso.ciamlogin.com", "https://contoso.ciamlogin.com/contoso.onmicrosoft.com"):
        app = desktop(authority=authority, **proxied)
        assert app.authority.token_endpoint == f"https://contoso.ciamlogin.com/{TID}/oauth2/v2.0/token"
    found = real.get("https://contoso.ciamlogin.com/v2.0/.well-known/openid-configuration").json()
    assert found["issuer"] == f"https://{TID}.ciamlogin.com/{TID}/v2.0"
    v1 = real.get("https://sts.windows.net/contoso/.well-known/openid-configuration").json()
    assert v1["issuer"] == f"https://sts.windows.net/{TID}/"


def test_faults_reach_through_the_proxy(idp, real):
    """A host that is down is a bad gateway at the proxy; TLS that fails, fails in the tunnel."""
    url = "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration"
    assert real.get(url).status_code == 200
    idp.fail(Fault.refuse())
    with pytest.raises(requests.exceptions.ConnectionError):
        real.get(url)
    idp.heal()
    idp.fail(Fault.tls_failed())
    with pytest.raises(requests.exceptions.SSLError):
        real.get(url)
    idp.heal()
    assert real.get(url).status_code == 200
    assert [call.fault for call in idp.ledger.calls] == [None, "tls_failed", None]


def test_the_proxy_leads_nowhere_else(idp, real):
    """Plain requests get through to the metadata address alone; the API keeps its own address."""
    assert real.get("http://example.org/").status_code == 502
    assert real.get("http://169.254.169.254/metadata/instance/compute").status_code == 400
    assert real.get(f"{idp.api_url}/api/x").status_code == 401


def test_msal_asks_the_emulator_about_localhost(idp, proxied):
    """With instance discovery left on, MSAL's question about an unknown host is answered through the proxy."""
    app = msal.ConfidentialClientApplication(
        "d", authority="https://localhost/contoso", client_credential="s", **proxied
    )
    assert "access_token" in app.acquire_token_for_client(SCOPE)
