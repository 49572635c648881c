"""One revocation with many calls under way costs one exchange, whoever makes them, and whoever is told late (G17)."""

from __future__ import annotations

import asyncio
import base64
import ssl

import httpx
import httpx2
import pytest
import requests
import trustme
from h2_api import serving

import resilient_auth as ra
from resilient_auth.emulator import Fault
from resilient_auth.integrations.requests import BearerAuth as RequestsAuth

SCOPE = "api://orders/.default"
CALLS = 24


@pytest.fixture
def trust(idp):
    return ssl.create_default_context(cafile=idp.ca_file)


@pytest.fixture
def revoked(idp):
    """Revoke what was issued; from then on half of the API's bodies arrive slowly."""

    def revoke():
        idp.revoke("daemon")
        idp.fail(Fault.trickle(3000), "api", probability=0.5)

    return revoke


def exchanges(idp):
    return len(idp.ledger.token_calls())


@pytest.mark.parametrize("kind", ["httpx", "httpx2", "api_client"])
async def test_tasks(idp, app_at, trust, revoked, kind):
    """Of one client."""
    async with ra.aio.ResilientCredential(app_at(idp)) as credential:
        if kind == "httpx2":
            from resilient_auth.integrations.httpx2 import BearerAuth

            client = httpx2.AsyncClient(verify=trust, auth=BearerAuth(credential, SCOPE))
        elif kind == "httpx":
            client = httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE))
        else:
            client = ra.aio.api_client(idp.api_url, credential, SCOPE, verify=trust)
        async with client:
            await client.get(f"{idp.api_url}/orders")
            revoked()
            answers = await asyncio.gather(*(client.get(f"{idp.api_url}/orders") for _ in range(CALLS)))
    assert {answer.status_code for answer in answers} == {200}
    assert exchanges(idp) == 2


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_threads(idp, app_at, trust, revoked, together, kind):
    """The same for threads, each of which may have a session of its own."""
    credential = ra.ResilientCredential(app_at(idp))
    auth = (ra.BearerAuth if kind == "httpx" else RequestsAuth)(credential, SCOPE)
    client = httpx.Client(verify=trust, auth=auth, limits=httpx.Limits(max_connections=CALLS))

    def get():
        if kind == "httpx":
            return client.get(f"{idp.api_url}/orders").status_code
        with requests.Session() as session:
            return session.get(f"{idp.api_url}/orders", auth=auth, verify=idp.ca_file).status_code

    with client:
        assert get() == 200
        revoked()
        assert set(together(CALLS, get)) == {200}
    assert exchanges(idp) == 2


@pytest.mark.parametrize("cae", [True, False], ids=["claims", "plain"])
async def test_clients_that_share_a_credential(idp, app_at, trust, cae):
    """A client that learns of it late sends the successor, and has it replaced no more."""
    async with (
        ra.aio.ResilientCredential(app_at(idp)) as credential,
        httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE, cae=cae)) as one,
        httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE, cae=cae)) as other,
    ):
        for client in (one, other):
            await client.get(f"{idp.api_url}/orders")
        idp.revoke("daemon")
        idp.fail(Fault.slow(0.3), "api", count=1)
        late = asyncio.create_task(other.get(f"{idp.api_url}/orders"))
        await asyncio.sleep(0.05)
        assert (await one.get(f"{idp.api_url}/orders")).status_code == 200
        assert (await late).status_code == 200
    assert exchanges(idp) == 2


@pytest.mark.parametrize("kind", ["function", "async function"])
async def test_a_function_around_an_application(idp, app_at, trust, revoked, kind):
    """Which drops what it holds at each challenge."""
    app = app_at(idp, client_capabilities=["cp1"])

    def token(claims=None):
        return app.acquire_token_for_client([SCOPE], claims_challenge=claims)

    async def token_async(claims=None):
        return await asyncio.to_thread(token, claims)

    auth = ra.BearerAuth(token if kind == "function" else token_async)
    async with httpx.AsyncClient(verify=trust, auth=auth) as client:
        await client.get(f"{idp.api_url}/orders")
        revoked()
        answers = await asyncio.gather(*(client.get(f"{idp.api_url}/orders") for _ in range(CALLS)))
    assert {answer.status_code for answer in answers} == {200}
    assert exchanges(idp) == 2


async def test_who_asks_for_all_may_be_cancelled(idp, app_at, trust):
    """Another one goes on in its place."""
    async with (
        ra.aio.ResilientCredential(app_at(idp)) as credential,
        httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE)) as client,
    ):
        await client.get(f"{idp.api_url}/orders")
        idp.revoke("daemon")
        idp.fail(Fault.slow(0.3), "token", count=1)
        calls = [asyncio.create_task(client.get(f"{idp.api_url}/orders")) for _ in range(8)]
        await asyncio.sleep(0.15)
        for call in calls[:4]:
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer.status_code for answer in ended[4:]] == [200] * 4
    assert exchanges(idp) <= 3
    assert not credential._core._challenges._flights


async def test_who_has_less_time_takes_none_from_the_others(idp, app_at, trust):
    """The first one asks for all; when its time is over, the others go on, and no second exchange is begun."""
    async with (
        ra.aio.ResilientCredential(app_at(idp)) as credential,
        httpx.AsyncClient(verify=trust, auth=ra.BearerAuth(credential, SCOPE)) as client,
    ):
        await client.get(f"{idp.api_url}/orders")
        idp.revoke("daemon")
        idp.fail(Fault.slow(0.5), "token", count=1)

        async def hurried():
            with ra.downstream.deadline(0.25):
                return await client.get(f"{idp.api_url}/orders")

        first = asyncio.create_task(hurried())
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(client.get(f"{idp.api_url}/orders")) for _ in range(4)]
        with pytest.raises(httpx.TransportError):
            await first
        assert {answer.status_code for answer in await asyncio.gather(*others)} == {200}
    assert exchanges(idp) == 2


@pytest.mark.parametrize("kind", ["httpx", "httpx2"])
async def test_streams_of_one_connection(idp, app_at, kind):
    """Tasks over HTTP/2: they are told at once, and the bodies of their answers end one after the other."""
    authority = trustme.CA()
    server, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(trust)
    claims = base64.b64encode(b'{"access_token":{"nbf":{"essential":true,"value":"1"}}}').decode()

    def answer(authorization):
        issued = idp.ledger.lookup(authorization.removeprefix("Bearer "))
        if issued is not None and not idp.ledger.is_revoked(issued):
            return 200, []
        return 401, [("www-authenticate", f'Bearer error="insufficient_claims", claims="{claims}"')]

    async with ra.aio.ResilientCredential(app_at(idp)) as credential:
        with serving(answer, server) as origin:
            if kind == "httpx2":
                from resilient_auth.integrations.httpx2 import BearerAuth

                client = httpx2.AsyncClient(verify=trust, http2=True, auth=BearerAuth(credential, SCOPE))
            else:
                client = httpx.AsyncClient(verify=trust, http2=True, auth=ra.BearerAuth(credential, SCOPE))
            async with client:
                assert (await client.get(f"{origin}/orders")).http_version == "HTTP/2"
                idp.revoke("daemon")
                answers = await asyncio.gather(*(client.get(f"{origin}/orders") for _ in range(CALLS)))
    assert {answer.status_code for answer in answers} == {200}
    assert exchanges(idp) == 2


class TestAzureCore:
    """Its policies know nothing of each other's calls: each asks the credential with the challenge's claims."""

    async def test_its_tasks(self, idp, app_at, revoked):
        """Whose waiting tasks ask one after the other."""
        from azure.core.pipeline import AsyncPipeline
        from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
        from azure.core.pipeline.transport import AioHttpTransport
        from azure.core.rest import HttpRequest

        async with ra.aio.ResilientCredential(app_at(idp)) as credential:
            policies = [AsyncBearerTokenCredentialPolicy(credential, SCOPE, enable_cae=True) for _ in range(2)]
            pipelines = [
                AsyncPipeline(AioHttpTransport(connection_verify=idp.ca_file), policies=[policy]) for policy in policies
            ]

            async def get(pipeline):
                request = HttpRequest("GET", f"{idp.api_url}/orders")
                return (await pipeline.run(request)).http_response.status_code

            async with pipelines[0], pipelines[1]:
                for pipeline in pipelines:
                    await get(pipeline)
                revoked()
                answers = await asyncio.gather(*(get(pipelines[n % 2]) for n in range(CALLS)))
        assert set(answers) == {200}
        assert exchanges(idp) == 2

    def test_its_threads(self, idp, app_at, revoked, together):
        """Which have no lock."""
        from azure.core.pipeline import Pipeline
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy
        from azure.core.pipeline.transport import RequestsTransport
        from azure.core.rest import HttpRequest

        credential = ra.ResilientCredential(app_at(idp))
        policy = BearerTokenCredentialPolicy(credential, SCOPE, enable_cae=True)
        with Pipeline(RequestsTransport(connection_verify=idp.ca_file), policies=[policy]) as pipeline:

            def get():
                return pipeline.run(HttpRequest("GET", f"{idp.api_url}/orders")).http_response.status_code

            get()
            revoked()
            assert set(together(CALLS, get)) == {200}
        assert exchanges(idp) == 2

    @pytest.mark.parametrize("application", ["ours", "MSAL's"])
    def test_the_same_claims_from_many_threads(self, idp, app_at, settings, together, application):
        """Straight from the credential; also where MSAL's own cache is the owner's."""
        if application == "ours":
            app, options = app_at(idp), {}
        else:
            import msal as plain

            session = requests.Session()
            session.verify = idp.ca_file
            app = plain.ConfidentialClientApplication(
                "daemon", authority=idp.authority("contoso"), client_credential="s", http_client=session,
                instance_discovery=False, token_cache=plain.SerializableTokenCache(),
            )  # fmt: skip
            options = {"settings": settings()}
        credential = ra.ResilientCredential(app, **options)
        first = credential.get_token(SCOPE).token
        claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
        brought = set(together(CALLS, lambda: credential.get_token(SCOPE, claims=claims).token))
        assert len(brought) == 1
        assert brought != {first}
        assert exchanges(idp) == 2
        assert credential.get_token(SCOPE).token in brought

    async def test_the_same_claims_from_many_tasks(self, idp, app_at):
        """Some of which ask while the first one's token comes."""
        async with ra.aio.ResilientCredential(app_at(idp)) as credential:
            await credential.get_token(SCOPE)
            claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'

            async def get(n):
                await asyncio.sleep(n / 2000)
                return (await credential.get_token(SCOPE, claims=claims)).token

            brought = set(await asyncio.gather(*(get(n) for n in range(100))))
            assert len(brought) == 1
            assert exchanges(idp) == 2
            assert (await credential.get_token(SCOPE)).token in brought

    async def test_less_time_for_one_of_them(self, idp, app_at):
        """It is over for that one alone."""
        async with ra.aio.ResilientCredential(app_at(idp)) as credential:
            await credential.get_token(SCOPE)
            idp.fail(Fault.slow(0.4), "token", count=1)
            claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'

            async def hurried():
                with ra.wait_at_most(0.15):
                    return await credential.get_token(SCOPE, claims=claims)

            first = asyncio.create_task(hurried())
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(credential.get_token(SCOPE, claims=claims)) for _ in range(4)]
            with pytest.raises(ra.AcquisitionTimeout):
                await first
            assert len({answer.token for answer in await asyncio.gather(*others)}) == 1
        assert exchanges(idp) == 2

    def test_their_failure_is_each_callers_own(self, idp, app_at, settings, together):
        """One error for each, after one wait."""
        credential = ra.ResilientCredential(app_at(idp, resilience=settings(wait=0.3)))
        credential.get_token(SCOPE)
        idp.fail(Fault.http_503(), "token")
        claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
        ended = together(10, lambda: credential.get_token(SCOPE, claims=claims))
        assert all(isinstance(error, ra.ProviderUnavailable) for error in ended)
        assert len({id(error) for error in ended}) == 10
