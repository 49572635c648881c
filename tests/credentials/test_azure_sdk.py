"""A real Azure SDK client reads a real stream of answers through an outage of the identity provider."""

from __future__ import annotations

import copy
import io
import pickle
import time

import pytest
import requests
import requests.adapters
import urllib3
from azure.core import PipelineClient
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import CredentialUnavailableError
from azure.storage.blob import BlobServiceClient
from azure.storage.blob.aio import BlobServiceClient as AwaitedBlobServiceClient

import resilient_auth as ra
from resilient_auth.emulator import Fault

FAULTS = ["refuse", "black_hole", "http_503", "html_200", "http_429"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_blob_client_reads_through_an_outage(idp, blob, app_at, clock, fault):
    """Every read is served, with a token that is due for a refresh the whole time."""
    # azure-core goes by the machine's clock: by that, each token is due as soon as it is there.
    clock.set_wall(-2.0)
    idp.refresh_in = 1.0
    credential = ra.ResilientCredential(app_at(idp))
    with BlobServiceClient(blob.url, credential=credential, connection_verify=blob.ca_file) as client:
        one = client.get_blob_client("container", "blob")
        assert one.download_blob().readall() == b"hello from a blob"
        idp.fail(Fault.all()[fault])
        clock.skip(120)
        for _ in range(10):
            assert one.download_blob().readall() == b"hello from a blob"
        # A new client has no token of its own yet.
        with BlobServiceClient(blob.url, credential=credential, connection_verify=blob.ca_file) as another:
            assert another.get_blob_client("container", "blob").download_blob().readall()
    assert set(blob.answers) == {206}


@pytest.mark.parametrize("fault", ["black_hole", "http_503"])
async def test_an_awaited_blob_client_reads_through_an_outage(idp, blob, app_at, clock, fault):
    """The same with asyncio."""
    # azure-core goes by the machine's clock: by that, each token is due as soon as it is there.
    clock.set_wall(-2.0)
    idp.refresh_in = 1.0
    credential = ra.aio.ResilientCredential(app_at(idp))
    client = AwaitedBlobServiceClient(blob.url, credential=credential, connection_verify=blob.ca_file)
    async with credential, client:
        one = client.get_blob_client("container", "blob")
        assert await (await one.download_blob()).readall() == b"hello from a blob"
        idp.fail(Fault.all()[fault])
        clock.skip(120)
        for _ in range(10):
            assert await (await one.download_blob()).readall() == b"hello from a blob"
    assert set(blob.answers) == {206}


@pytest.fixture
def pipeline(blob, scope):
    """Build azure-core's own pipeline; the storage client's has another retry policy."""

    def build(credential):
        policies = [RetryPolicy(), BearerTokenCredentialPolicy(credential, scope)]
        return PipelineClient(blob.url, policies=policies, transport=RequestsTransport(connection_verify=blob.ca_file))

    return build


def test_a_denial_ends_a_clients_call_at_once(idp, blob, app_at, pipeline):
    """azure-core doesn't retry what can't succeed."""
    idp.deny("client_credentials", "invalid_client")
    with pipeline(ra.ResilientCredential(app_at(idp))) as client:
        begun = time.monotonic()
        with pytest.raises(ClientAuthenticationError) as caught:
            client.send_request(HttpRequest("GET", blob.url))
        assert time.monotonic() - begun < 1.0
    assert isinstance(caught.value, ra.TokenDenied)
    assert len([call for call in idp.ledger.calls if call.endpoint == "token"]) == 1


def test_a_cold_start_in_an_outage_ends_within_one_wait(idp, blob, app_at, settings, pipeline):
    """The retrying is done in one layer: azure-core doesn't multiply it."""
    app = app_at(idp, resilience=settings(wait=1.0))
    idp.fail(Fault.black_hole(), "token")
    with pipeline(ra.ResilientCredential(app)) as client:
        begun = time.monotonic()
        with pytest.raises(CredentialUnavailableError) as caught:
            client.send_request(HttpRequest("GET", blob.url))
        assert time.monotonic() - begun < 2.5
    assert isinstance(caught.value, ra.ProviderUnavailable)


def test_a_storage_client_tells_a_denial_as_its_users_know_it(idp, blob, app_at):
    """Its error handling looks at errors' responses, of which this one has none."""
    idp.deny("client_credentials", "invalid_client")
    credential = ra.ResilientCredential(app_at(idp))
    with (
        BlobServiceClient(blob.url, credential=credential, connection_verify=blob.ca_file, retry_total=0) as client,
        pytest.raises(ClientAuthenticationError, match="invalid_client") as caught,
    ):
        client.get_blob_client("container", "blob").download_blob()
    assert isinstance(caught.value, ra.TokenDenied)


class Challenging(requests.adapters.BaseAdapter):
    """A storage account of another tenant than the credential's."""

    def __init__(self, tenant):
        super().__init__()
        self.tenant = tenant
        self.tokens = []

    def send(self, request, **_):
        self.tokens.append(request.headers.get("Authorization"))
        authority = f"https://login.microsoftonline.com/{self.tenant}/oauth2/authorize"
        told = f"Bearer authorization_uri={authority} resource_id=https://storage.azure.com"
        response = requests.Response()
        response.status_code, response.request, response.connection, response.url = 401, request, self, request.url
        response.headers["WWW-Authenticate"] = told
        response.raw = urllib3.HTTPResponse(io.BytesIO(b""), status=401, preload_content=False)
        return response

    def close(self):
        pass


@pytest.mark.parametrize("tenant", ["fabrikam.example", "72f988bf-86f1-41af-91ab-2d7cd011db47", "%2e%2e", "a b"])
def test_a_challenge_for_another_tenant_ends_in_the_error_of_azure_core(idp, app_at, tenant):
    """Which its users catch, with the fix in it; and nothing is asked of that tenant."""
    credential = ra.ResilientCredential(app_at(idp))
    api = Challenging(tenant)
    with requests.Session() as session:
        session.mount("https://", api)
        client = BlobServiceClient(
            "https://account.blob.core.windows.net",
            credential=credential,
            retry_total=0,
            transport=RequestsTransport(session=session, session_owner=False),
        )
        with client, pytest.raises(ClientAuthenticationError) as caught:
            client.get_blob_client("container", "blob").download_blob()
    assert isinstance(caught.value, ra.ConfigurationError)
    assert "tenant_id" in caught.value.message
    assert len(api.tokens) == 1
    assert len(idp.ledger.token_calls()) == 1
    for again in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(again, ra.ConfigurationError)
        assert str(again) == str(caught.value)


def test_a_wrong_argument_of_the_owners_is_no_error_of_azure_core(idp, app_at):
    """Only what a challenge can bring about is."""
    with pytest.raises(ra.ConfigurationError) as caught:
        ra.ResilientCredential(app_at(idp)).get_token(7)
    assert not isinstance(caught.value, ClientAuthenticationError)
