"""An API that refuses every token with the same claims challenge costs two exchanges, not one a request (G17)."""

from __future__ import annotations

import base64
import contextvars
import io
import json

import httpx
import pytest
import requests
import requests.adapters
import urllib3

import resilient_auth as ra
from resilient_auth.integrations.requests import BearerAuth as RequestsAuth
from resilient_auth.testing import ManualClock

CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
#: The same claims, written in another way.
AGAIN = json.dumps(json.loads(CLAIMS), indent=1)
SCOPE = "api://orders/.default"
API = "https://api.example"


def challenge(claims=CLAIMS):
    return f'Bearer error="insufficient_claims", claims="{base64.b64encode(claims.encode()).decode()}"'


class Api:
    """Answers as told, to whichever library asks."""

    def __init__(self, header=None):
        self.header = header or (lambda token: challenge())
        self.tokens = []

    def answer(self, token):
        self.tokens.append(token)
        header = self.header(token)
        return (200, {}) if header is None else (401, {"WWW-Authenticate": header} if header else {})

    def httpx(self, request):
        status, headers = self.answer(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx.Response(status, headers=headers)


class Wire(requests.adapters.BaseAdapter):
    """The same for requests."""

    def __init__(self, api):
        super().__init__()
        self.api = api

    def send(self, request, **_):
        response = requests.Response()
        status, headers = self.api.answer(request.headers["Authorization"].removeprefix("Bearer "))
        response.status_code, response.request, response.connection = status, request, self
        response.headers.update(headers)
        response.raw = urllib3.HTTPResponse(io.BytesIO(b""), headers=headers, status=status, preload_content=False)
        return response

    def close(self):
        pass


@pytest.fixture
def credential(idp, app_at):
    with ra.ResilientCredential(app_at(idp, client_capabilities=["cp1"])) as made:
        yield made


def exchanges(idp):
    return len(idp.ledger.token_calls())


def test_forty_requests_of_httpx_cost_two_exchanges(idp, credential):
    """And each has the API's own 401 for an answer."""
    api = Api()
    with httpx.Client(auth=ra.BearerAuth(credential, SCOPE), transport=httpx.MockTransport(api.httpx)) as client:
        assert {client.get(API).status_code for _ in range(40)} == {401}
    assert exchanges(idp) == 2
    assert len(api.tokens) == 41


async def test_forty_tasks_cost_two_exchanges(idp, app_at):
    """The same when awaited, one after the other."""
    async with ra.aio.ResilientCredential(app_at(idp, client_capabilities=["cp1"])) as credential:
        auth, api = ra.BearerAuth(credential, SCOPE), Api()
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(api.httpx)) as client:
            assert {(await client.get(API)).status_code for _ in range(40)} == {401}
    assert exchanges(idp) == 2


def test_forty_requests_of_httpx2_cost_two_exchanges(idp, credential):
    """The fork's clients share the rules."""
    httpx2 = pytest.importorskip("httpx2")
    from resilient_auth.integrations.httpx2 import BearerAuth

    def answer(request):
        return httpx2.Response(401, headers={"WWW-Authenticate": challenge()})

    with httpx2.Client(auth=BearerAuth(credential, SCOPE), transport=httpx2.MockTransport(answer)) as client:
        assert {client.get(API).status_code for _ in range(40)} == {401}
    assert exchanges(idp) == 2


def test_forty_requests_of_requests_cost_two_exchanges(idp, credential):
    """So do its sessions."""
    with requests.Session() as session:
        session.mount("https://", Wire(Api()))
        session.auth = RequestsAuth(credential, SCOPE)
        assert {session.get(API).status_code for _ in range(40)} == {401}
    assert exchanges(idp) == 2


def test_forty_requests_of_an_azure_client_cost_two_exchanges(idp, credential):
    """azure-core's policy asks the credential with the claims each time; the credential knows that it was in vain."""
    from azure.core.pipeline import Pipeline
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy
    from azure.core.pipeline.transport import RequestsTransport
    from azure.core.rest import HttpRequest

    with requests.Session() as session:
        session.mount("https://", Wire(Api()))
        policy = BearerTokenCredentialPolicy(credential, SCOPE)
        with Pipeline(RequestsTransport(session=session, session_owner=False), policies=[policy]) as pipeline:
            statuses = {pipeline.run(HttpRequest("GET", API)).http_response.status_code for _ in range(40)}
    assert statuses == {401}
    assert exchanges(idp) <= 3


@pytest.mark.parametrize("ask", ["get_token", "get_token_info"])
def test_a_credential_asked_with_the_same_claims_again_gives_what_they_brought(idp, credential, clock, ask):
    """For 30 s, however the claims are written; other claims and later ones are asked for."""

    def get(claims):
        if ask == "get_token":
            return credential.get_token(SCOPE, claims=claims).token
        return credential.get_token_info(SCOPE, options={"claims": claims}).token

    credential.get_token(SCOPE)
    brought = get(CLAIMS)
    assert {get(claims) for claims in (CLAIMS, AGAIN) * 20} == {brought}
    assert exchanges(idp) == 2
    assert get('{"access_token":{"nbf":{"essential":true,"value":"2"}}}') != brought
    clock.skip(31)
    assert get(CLAIMS) != brought
    assert exchanges(idp) == 4


def test_a_token_that_was_refused_meanwhile_is_not_given_again(idp, credential):
    """What claims have brought is forgotten like any other token."""
    brought = credential.get_token(SCOPE, claims=CLAIMS).token
    credential.invalidate(brought)
    assert credential.get_token(SCOPE, claims=CLAIMS).token != brought


class Counting:
    """A credential that gives another token each time that it is asked with claims, or after a refusal."""

    def __init__(self):
        self.number = 0

    def get_token(self, *scopes, claims=None, **_):
        self.number += claims is not None
        return type("AccessToken", (), {"token": f"T{self.number}"})()

    def invalidate(self, token):
        self.number += token == f"T{self.number}"


def test_it_is_asked_for_again_after_a_while():
    """The API may have come to its senses, or the user have met the policy."""
    clock, api, credential = ManualClock(), Api(), Counting()
    auth = ra.BearerAuth(credential, SCOPE, clock=clock)
    with httpx.Client(auth=auth, transport=httpx.MockTransport(api.httpx)) as client:
        for _ in range(10):
            client.get(API)
        assert len(api.tokens) == 11
        clock.advance(31)
        for _ in range(10):
            client.get(API)
    assert len(api.tokens) == 22


def test_other_claims_are_met_at_once():
    """A step-up behind a revocation: each is asked for."""
    step_up = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    headers = iter([challenge(), challenge(), challenge(step_up), None])
    api = Api(lambda token: next(headers))
    with httpx.Client(auth=ra.BearerAuth(Counting(), SCOPE), transport=httpx.MockTransport(api.httpx)) as client:
        assert client.get(API).status_code == 401
        assert client.get(API).status_code == 200


user = contextvars.ContextVar("user", default=None)


@pytest.mark.parametrize("header", ["", challenge()])
def test_one_users_refusals_keep_no_other_user_from_a_new_token(header):
    """Ada is refused whatever she sends; the first token of Bob and of each other user is replaced all the same."""
    numbers = dict.fromkeys(["ada", *(f"bob{n}" for n in range(20))], 0)
    asked = []

    def token(claims=None):
        asked.append(user.get())
        numbers[user.get()] += 1  # another one each time
        return f"{user.get()}-{numbers[user.get()]}"

    def refuse(sent):
        name, number = sent.split("-")
        return header if name == "ada" or number == "1" else None

    api = Api(refuse)
    with httpx.Client(auth=ra.BearerAuth(token, subject=user.get), transport=httpx.MockTransport(api.httpx)) as client:
        for n in range(20):
            user.set("ada")
            assert client.get(API).status_code == 401
            user.set(f"bob{n}")
            assert client.get(API).status_code == 200
    # Each request asks, since this function holds nothing; in vain it asks once more for the first alone, and before it
    # asks with claims, whether there is another token already.
    assert asked.count("ada") == (22 if header else 21)


def test_a_function_for_the_current_user_is_asked_at_each_request_and_in_the_callers_context():
    """A client of an API holds no token: whose it is, is decided request by request."""
    api = Api(lambda token: None)
    with ra.api_client(
        API, lambda: f"token-of-{user.get()}", subject=user.get, transport=httpx.MockTransport(api.httpx)
    ) as client:
        for name in ("ada", "bob") * 3:
            user.set(name)
            client.get("/")
    assert api.tokens == ["token-of-ada", "token-of-bob"] * 3


async def test_the_same_for_tasks():
    """A blocking function is asked on a thread, with the task's variables; an awaited one in the task."""
    import asyncio

    async def awaited():
        await asyncio.sleep(0)
        return f"token-of-{user.get()}"

    for function in (awaited, lambda: f"token-of-{user.get()}"):
        wrong = []

        def answer(request, wrong=wrong):
            if request.headers["Authorization"] != f"Bearer token-of-{request.url.path[1:]}":
                wrong.append(request.url.path)
            return httpx.Response(200)

        async with ra.aio.api_client(API, function, subject=user.get, transport=httpx.MockTransport(answer)) as client:

            async def serve(n, client=client):
                user.set(f"user{n % 7}")
                await client.get(f"/user{n % 7}")

            await asyncio.gather(*(serve(n) for n in range(100)))
        assert not wrong


@pytest.mark.parametrize("subject", ["ada", 7])
def test_a_subject_is_a_function(subject):
    """Told at construction, in each face."""
    for make in (ra.BearerAuth, RequestsAuth):
        with pytest.raises(ra.ConfigurationError, match="a function of no argument"):
            make(lambda: "t", subject=subject)
    with pytest.raises(ra.ConfigurationError, match="a function of no argument"):
        ra.api_client(API, lambda: "t", subject=subject)


def test_what_is_remembered_is_bounded():
    """A flood of tokens and claims takes no more memory than a thousand do."""
    numbers = iter(range(10_000))
    api = Api(lambda token: challenge(json.dumps({"access_token": {"nbf": {"value": str(next(numbers))}}})))
    auth = ra.BearerAuth(Counting(), SCOPE)
    with httpx.Client(auth=auth, transport=httpx.MockTransport(api.httpx)) as client:
        while len(api.tokens) < 1800:  # two in three are remembered
            client.get(API)
    assert len(auth._rules._met) <= 1024
    assert len(auth._rules._in_vain) <= 1024
