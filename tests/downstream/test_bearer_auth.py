"""The token is sent where it may go, and replaced where the API wants another one: once, and never in a loop."""

from __future__ import annotations

import asyncio
import base64
import io
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth import BearerAuth
from resilient_auth.downstream import TokenUnavailable
from resilient_auth.emulator import Emulator
from resilient_auth.errors import ConfigurationError

API = "https://api.example"
CLAIMS = '{"access_token":{"nbf":{"value":"1"}}}'
CHALLENGE = f'Bearer error="insufficient_claims", claims="{base64.b64encode(CLAIMS.encode()).decode()}"'


class Tokens:
    """A credential that hands out T1, T2, ... and forgets one when told."""

    def __init__(self) -> None:
        self.number = 1
        self.asked: list[dict[str, Any]] = []
        self.forgotten: list[str] = []

    @property
    def held(self) -> str:
        return f"T{self.number}"

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, enable_cae: bool = False
    ) -> Any:
        self.asked.append({"scopes": scopes, "claims": claims, "tenant_id": tenant_id, "enable_cae": enable_cae})
        if claims:
            self.number += 1
        return type("AccessToken", (), {"token": self.held})()

    def invalidate(self, token: str) -> bool:
        self.forgotten.append(token)
        if token != self.held:
            return False
        self.number += 1
        return True


def refused(challenge: str | None = None, request: httpx.Request | None = None) -> httpx.Response:
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    return httpx.Response(401, headers=headers, request=request)


def sent(request: httpx.Request) -> str | None:
    return request.headers.get("Authorization")


class TestByHand:
    """The flow, stepped through without a client."""

    def test_a_good_answer_ends_it(self) -> None:
        """One request, one token, asked for with all that the owner said."""
        tokens = Tokens()
        flow = BearerAuth(tokens, "api://x/.default", tenant_id="t").sync_auth_flow(httpx.Request("GET", API))
        assert sent(next(flow)) == "Bearer T1"
        with pytest.raises(StopIteration):
            flow.send(httpx.Response(200))
        assert tokens.asked == [{"scopes": ("api://x/.default",), "claims": None, "tenant_id": "t", "enable_cae": True}]

    def test_a_claims_challenge_is_met_once(self) -> None:
        """The token is forgotten, one with the claims sent, and a second challenge is the caller's."""
        tokens = Tokens()
        request = httpx.Request("GET", API)
        flow = BearerAuth(tokens, "s").sync_auth_flow(request)
        next(flow)
        assert sent(flow.send(refused(CHALLENGE, request))) == "Bearer T3"
        assert (tokens.forgotten, tokens.asked[-1]["claims"]) == (["T1"], CLAIMS)
        with pytest.raises(StopIteration):
            flow.send(refused(CHALLENGE, request))

    def test_a_plain_401_has_that_token_replaced_once(self) -> None:
        """And the answer to the second token is the caller's."""
        tokens = Tokens()
        request = httpx.Request("POST", API, json={"a": 1})
        flow = BearerAuth(tokens, "s").sync_auth_flow(request)
        next(flow)
        assert sent(flow.send(refused(request=request))) == "Bearer T2"
        with pytest.raises(StopIteration):
            flow.send(refused(request=request))
        assert tokens.forgotten == ["T1"]

    def test_a_late_401_leaves_the_successor_alone(self) -> None:
        """Two requests with one token: it is replaced once, and the second one goes on with what the first one got."""
        tokens = Tokens()
        auth = BearerAuth(tokens, "s")
        requests = [httpx.Request("GET", API) for _ in range(2)]
        flows = [auth.sync_auth_flow(request) for request in requests]
        for flow in flows:
            next(flow)
        again = [flow.send(refused(request=request)) for flow, request in zip(flows, requests, strict=True)]
        assert [sent(request) for request in again] == ["Bearer T2", "Bearer T2"]
        assert tokens.forgotten == ["T1"]

    def test_late_challenges_ask_with_the_claims_once(self) -> None:
        """A hundred revoked requests cost one exchange."""
        tokens = Tokens()
        auth = BearerAuth(tokens, "s")
        requests = [httpx.Request("GET", API) for _ in range(100)]
        flows = [auth.sync_auth_flow(request) for request in requests]
        for flow in flows:
            next(flow)
        for flow, request in zip(flows, requests, strict=True):
            assert sent(flow.send(refused(CHALLENGE, request))) == "Bearer T3"
        assert sum(asked["claims"] is not None for asked in tokens.asked) == 1

    def test_a_denial_of_what_is_held_takes_no_claims_away(self) -> None:
        """A refresh was denied while the request was on its way: the provider is asked with the claims all the same."""
        asked: list[str | None] = []

        def credential(claims: str | None = None) -> str:
            asked.append(claims)
            if len(asked) > 1:
                raise PermissionError(f"denied for {claims}")
            return "T1"

        request = httpx.Request("GET", API)
        flow = BearerAuth(credential).sync_auth_flow(request)
        next(flow)
        with pytest.raises(TokenUnavailable, match="nbf"):
            flow.send(refused(CHALLENGE, request))
        assert asked == [None, None, CLAIMS]

    def test_nobody_is_told_the_denial_of_what_others_claims_asked_for(self) -> None:
        """Two requests with one token, of which two APIs want different claims: each is told of its own."""
        others = '{"access_token":{"acrs":{"value":"c1"}}}'
        asking, joined = threading.Event(), threading.Event()

        def credential(claims: str | None = None) -> str:
            if claims is None:
                return "T1"
            if claims == CLAIMS:
                asking.set()
                assert joined.wait(20)
                time.sleep(0.1)  # so that the other one waits for this one's answer
            raise PermissionError(f"denied for {claims}")

        auth, told = BearerAuth(credential), {}

        def send(claims: str, beginning: threading.Event) -> None:
            request = httpx.Request("GET", API)
            flow = auth.sync_auth_flow(request)
            next(flow)
            beginning.set()
            challenge = f'Bearer error="insufficient_claims", claims="{base64.b64encode(claims.encode()).decode()}"'
            with pytest.raises(TokenUnavailable) as error:
                flow.send(refused(challenge, request))
            told[claims] = str(error.value)

        first = threading.Thread(target=send, args=(CLAIMS, threading.Event()))
        first.start()
        assert asking.wait(20)
        send(others, joined)
        first.join(20)
        assert ("nbf" in told[CLAIMS], "acrs" in told[others]) == (True, True)

    def test_when_the_new_token_is_refused_too_none_is_asked_for_for_a_while(self, clock: Any) -> None:
        """It isn't the token then; the provider is left in peace for 30 s."""
        tokens = Tokens()
        auth = BearerAuth(tokens, "s", clock=clock)

        def tokens_sent() -> int:
            request = httpx.Request("GET", API)
            flow = auth.sync_auth_flow(request)
            next(flow)
            count = 1
            while True:
                try:
                    flow.send(refused(request=request))
                except StopIteration:
                    return count
                count += 1

        assert [tokens_sent() for _ in range(3)] == [2, 1, 1]
        clock.advance(31)
        assert tokens_sent() == 2

    @pytest.mark.parametrize("challenge", ['Bearer realm="x', 'Bearer error="insufficient_claims", claims="?"'])
    def test_a_malformed_challenge_is_a_plain_401(self, challenge: str) -> None:
        """What it says is of no account; that it is a 401 is."""
        tokens = Tokens()
        request = httpx.Request("GET", API)
        flow = BearerAuth(tokens, "s").sync_auth_flow(request)
        next(flow)
        assert sent(flow.send(refused(challenge, request))) == "Bearer T2"
        assert [asked["claims"] for asked in tokens.asked] == [None] * 3

    def test_the_same_token_again_is_not_sent_again(self) -> None:
        """A credential that has no other one leaves it at the API's answer."""
        request = httpx.Request("GET", API)
        flow = BearerAuth(lambda: "T").sync_auth_flow(request)
        next(flow)
        with pytest.raises(StopIteration):
            flow.send(refused(request=request))

    def test_a_function_that_takes_no_claims_cannot_meet_a_challenge(self) -> None:
        """The API's answer is the caller's, and the function isn't asked for something else."""
        asked = []
        request = httpx.Request("GET", API)
        flow = BearerAuth(lambda: asked.append(1) or f"T{len(asked)}").sync_auth_flow(request)
        next(flow)
        with pytest.raises(StopIteration):
            flow.send(refused(CHALLENGE, request))
        assert len(asked) == 1

    @pytest.mark.parametrize(
        ("body", "again"),
        [
            ({"content": b"x"}, True),
            ({"json": {}}, True),
            ({"files": {"f": io.BytesIO(b"x")}}, True),
            ({"content": (part for part in [b"x"])}, False),
            ({"content": io.BytesIO(b"x")}, False),
        ],
    )
    def test_only_a_body_that_is_still_there_is_sent_again(self, body: dict[str, Any], again: bool) -> None:
        """Bytes and forms are; a generator is gone, and httpx would send a file's end. The token is replaced anyhow."""
        request = httpx.Request("POST", API, **body)
        tokens = Tokens()
        flow = BearerAuth(tokens, "s").sync_auth_flow(request)
        next(flow)
        if again:
            assert sent(flow.send(refused(request=request))) == "Bearer T2"
        else:
            with pytest.raises(StopIteration):
                flow.send(refused(request=request))
        assert tokens.held == "T2"


class TestOrigins:
    def test_another_origin_gets_no_token(self) -> None:
        """Not by name, not by port, and not by the userinfo trick."""
        auth = BearerAuth(Tokens(), "s", origins=API)
        for url in ("https://evil.example", f"{API}:8443", "https://api.example@evil.example/", "http://other.example"):
            assert sent(next(auth.sync_auth_flow(httpx.Request("GET", url)))) is None
        assert sent(next(auth.sync_auth_flow(httpx.Request("GET", "https://API.example:443/x")))) == "Bearer T1"

    def test_the_first_origin_is_the_one_when_none_was_named(self) -> None:
        """The second one gets nothing."""
        auth = BearerAuth(Tokens(), "s")
        assert sent(next(auth.sync_auth_flow(httpx.Request("GET", API)))) == "Bearer T1"
        assert sent(next(auth.sync_auth_flow(httpx.Request("GET", "https://other.example")))) is None

    @pytest.mark.parametrize("url", ["http://api.example", "http://localhost:1", "http://127.0.0.1"])
    def test_http_is_refused(self, url: str) -> None:
        """As a first origin, as a named one, and as the other side of a named one."""
        with pytest.raises(ConfigurationError, match="https"):
            next(BearerAuth(Tokens(), "s").sync_auth_flow(httpx.Request("GET", url)))
        with pytest.raises(ConfigurationError, match="https"):
            BearerAuth(Tokens(), "s", origins=url)
        with pytest.raises(ConfigurationError, match="read"):
            next(BearerAuth(Tokens(), "s", origins=API).sync_auth_flow(httpx.Request("GET", "http://api.example/")))

    def test_http_to_this_machine_needs_a_word(self) -> None:
        """And that word doesn't open other hosts."""
        auth = BearerAuth(Tokens(), "s", allow_http_loopback=True)
        assert sent(next(auth.sync_auth_flow(httpx.Request("GET", "http://localhost:1")))) == "Bearer T1"
        with pytest.raises(ConfigurationError):
            BearerAuth(Tokens(), "s", origins="http://api.example", allow_http_loopback=True)

    @pytest.mark.parametrize(
        "origin", ["", "api.example", f"{API}/path", "ftp://x", f"{API}?q", "https://u:p@x", 5, []]
    )
    def test_what_is_no_origin_is_refused(self, origin: Any) -> None:
        """With an error that names the argument."""
        with pytest.raises(ConfigurationError, match="origins"):
            BearerAuth(Tokens(), "s", origins=origin)

    def test_a_redirect_elsewhere_gets_no_token_and_its_401_changes_nothing(self) -> None:
        """A host that we were led to can neither see a token nor have one thrown away."""
        tokens, seen = Tokens(), []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append((request.url.host, sent(request)))
            if request.url.host == "api.example":
                return httpx.Response(307, headers={"Location": "https://evil.example/"})
            return refused(CHALLENGE)

        with httpx.Client(
            transport=httpx.MockTransport(answer), auth=BearerAuth(tokens, "s"), follow_redirects=True
        ) as client:
            assert client.get(API).status_code == 401
        assert seen == [("api.example", "Bearer T1"), ("evil.example", None)]
        assert (tokens.forgotten, len(tokens.asked)) == ([], 1)

    def test_a_redirect_to_http_gets_no_token(self) -> None:
        """A downgrade is another origin."""
        seen = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(sent(request))
            return (
                httpx.Response(302, headers={"Location": "http://api.example/"})
                if len(seen) == 1
                else httpx.Response(200)
            )

        with httpx.Client(
            transport=httpx.MockTransport(answer), auth=BearerAuth(Tokens(), "s"), follow_redirects=True
        ) as client:
            client.get(API)
        assert seen == ["Bearer T1", None]


class TestCredentials:
    @pytest.mark.parametrize("scope", [5, "", "a b", None, ["s"]])
    def test_a_scope_must_be_a_string(self, scope: Any) -> None:
        """The error shows what was given."""
        with pytest.raises(ConfigurationError, match="scope"):
            BearerAuth(Tokens(), scope)

    def test_a_credential_needs_a_scope_and_a_way_to_be_asked(self) -> None:
        """Both are said when the auth is made."""
        with pytest.raises(ConfigurationError, match="scope"):
            BearerAuth(Tokens())
        with pytest.raises(ConfigurationError, match="get_token"):
            BearerAuth(object(), "s")

    def test_azure_cores_newer_shape_is_preferred(self) -> None:
        """`get_token_info` takes its options as a dict."""
        asked: list[Any] = []

        class Credential(Tokens):
            def get_token_info(self, *scopes: str, options: Any = None) -> Any:
                asked.append((scopes, options))
                return type("Info", (), {"token": "I1"})()

        assert sent(next(BearerAuth(Credential(), "s").sync_auth_flow(httpx.Request("GET", API)))) == "Bearer I1"
        assert asked == [(("s",), {"enable_cae": True})]

    def test_a_credential_that_knows_scopes_only_will_do(self) -> None:
        """It isn't given what it doesn't take."""

        class Credential:
            def get_token(self, *scopes: str) -> str:
                return "T"

        assert sent(next(BearerAuth(Credential(), "s").sync_auth_flow(httpx.Request("GET", API)))) == "Bearer T"

    def test_a_result_of_msal_will_do_and_its_error_is_raised(self) -> None:
        """With what the provider said."""
        assert (
            sent(next(BearerAuth(lambda: {"access_token": "M"}).sync_auth_flow(httpx.Request("GET", API))))
            == "Bearer M"
        )
        denied = BearerAuth(lambda: {"error": "invalid_client", "error_description": "no"})
        with pytest.raises(TokenUnavailable, match="invalid_client: no") as raised:
            next(denied.sync_auth_flow(httpx.Request("GET", API)))
        assert isinstance(raised.value, httpx.TransportError)

    @pytest.mark.parametrize("token", ["", None, "a b", "a\r\nb", "a\x00b", "a\x7fb", 5, "ü"])
    def test_what_cannot_be_a_token_is_refused_and_not_shown(self, token: Any) -> None:
        """A header can't be smuggled in by it either."""
        with pytest.raises(TokenUnavailable) as raised:
            next(BearerAuth(lambda: token).sync_auth_flow(httpx.Request("GET", API)))
        assert not token or str(token) not in str(raised.value)

    def test_a_credential_of_asyncio_is_refused_in_a_blocking_client(self) -> None:
        """Also where it shows in the answer alone."""

        async def token() -> str:
            return "T"

        for credential in (token, lambda: token()):
            with pytest.raises(ConfigurationError, match="AsyncClient"):
                next(BearerAuth(credential).sync_auth_flow(httpx.Request("GET", API)))

    async def test_both_kinds_of_credential_work_in_a_task(self) -> None:
        """A blocking one is asked on a thread, so that the loop goes on."""
        threads: list[int] = []

        async def awaited() -> str:
            return "T"

        def blocking() -> str:
            threads.append(threading.get_ident())
            return "T"

        for credential in (awaited, blocking):
            transport = httpx.MockTransport(lambda request: httpx.Response(200, text=sent(request) or ""))
            async with httpx.AsyncClient(transport=transport, auth=BearerAuth(credential)) as client:
                assert (await client.get(API)).text == "Bearer T"
        assert threads
        assert threads[0] != threading.get_ident()

    def test_the_wait_for_a_token_is_bounded_by_the_deadline(self) -> None:
        """Our applications see in their context how long this caller waits."""
        from resilient_auth._engine import acquire

        seen: list[float | None] = []

        def token() -> str:
            seen.append(acquire.patience_of(100.0))
            return "T"

        next(BearerAuth(token, deadline=2.0).sync_auth_flow(httpx.Request("GET", API)))
        with ra.downstream.deadline(1.0):
            next(BearerAuth(token, deadline=2.0).sync_auth_flow(httpx.Request("GET", API)))
        assert seen[0] is not None
        assert 1.9 < seen[0] <= 2.0
        assert seen[1] is not None
        assert 0.9 < seen[1] <= 1.0


class TestAtTheApi:
    """Over TLS, at the emulator's API."""

    def test_a_revoked_token_is_replaced_within_the_call(
        self, idp: Emulator, trust: ssl.SSLContext, credential: Any
    ) -> None:
        """The caller sees a 200, and the body of a POST arrives twice as it was."""
        with httpx.Client(verify=trust, auth=BearerAuth(credential, "api://x/.default")) as client:
            assert client.get(f"{idp.api_url}/a").status_code == 200
            idp.revoke("daemon")
            answer = client.post(f"{idp.api_url}/a", json={"a": 1})
        assert (answer.status_code, answer.json()["received"]) == (200, 7)
        assert [response.status_code for response in answer.history] == [401]
        assert credential.asked[0] is None
        assert "nbf" in credential.asked[1]

    async def test_the_same_in_a_task(self, idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
        """Twenty tasks with a revoked token cost one new one."""
        async with httpx.AsyncClient(verify=trust, auth=BearerAuth(credential, "api://x/.default")) as client:
            await client.get(f"{idp.api_url}/a")
            idp.revoke("daemon")
            first = await client.get(f"{idp.api_url}/a")
            answers = await asyncio.gather(*(client.get(f"{idp.api_url}/a") for _ in range(20)))
        assert first.status_code == 200
        assert {answer.status_code for answer in answers} == {200}
        assert len(credential.asked) == 2

    def test_an_expired_token_is_replaced(self, idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
        """A plain 401 has that token forgotten."""
        credential.held = "no.such.token"
        with httpx.Client(verify=trust, auth=BearerAuth(credential, "api://x/.default")) as client:
            assert client.get(f"{idp.api_url}/a").status_code == 200
        assert credential.invalidated == ["no.such.token"]

    def test_a_stream_that_is_gone_leaves_it_at_the_answer(
        self, idp: Emulator, trust: ssl.SSLContext, credential: Any
    ) -> None:
        """The 401 is the caller's, and nothing is sent again."""
        credential.held = "no.such.token"

        def body() -> Iterator[bytes]:
            yield b"once"

        with httpx.Client(verify=trust, auth=BearerAuth(credential, "api://x/.default")) as client:
            assert client.post(f"{idp.api_url}/a", content=body()).status_code == 401
        assert len([call for call in idp.ledger.calls if call.endpoint == "api"]) == 1


@pytest.mark.parametrize("after", range(6))
async def test_a_task_may_be_cancelled_anywhere(after: int) -> None:
    """At whichever await it is: the next call works."""
    tokens = Tokens()
    steps = 0

    async def pause() -> None:
        nonlocal steps
        steps += 1
        await asyncio.sleep(0.05 if steps == after + 1 else 0)

    class Credential:
        async def get_token(self, *scopes: str, claims: str | None = None) -> Any:
            await pause()
            return tokens.get_token(*scopes, claims=claims)

        async def invalidate(self, token: str) -> None:
            await pause()
            tokens.invalidate(token)

    async def answer(request: httpx.Request) -> httpx.Response:
        await pause()
        return httpx.Response(200) if sent(request) != "Bearer T1" else refused()

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=BearerAuth(Credential(), "s")) as client:
        task = asyncio.create_task(client.get(API))
        await asyncio.sleep(0.02)
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended[0], (asyncio.CancelledError, httpx.Response))
        assert (await client.get(API)).status_code == 200


async def test_blocking_credentials_do_not_wait_for_each_other() -> None:
    """Each has a thread of its own, for which the end of the process doesn't wait."""
    together = threading.Barrier(40)
    daemons: list[bool] = []

    def blocking() -> str:
        daemons.append(threading.current_thread().daemon)
        together.wait(10)
        return "T"

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: httpx.Response(200)), auth=BearerAuth(blocking)
    ) as client:
        answers = await asyncio.gather(*(client.get(API) for _ in range(40)))
    assert [answer.status_code for answer in answers] == [200] * 40
    assert all(daemons)


@pytest.mark.parametrize("kind", ["awaited", "blocking"])
async def test_a_credential_that_hangs_ends_with_the_deadline(kind: str) -> None:
    """Whoever wrote it, and though it knows of no deadline."""
    release = threading.Event()

    async def awaited() -> str:
        await asyncio.sleep(60)
        return "T"

    def blocking() -> str:
        release.wait(60)
        return "T"

    auth = BearerAuth(awaited if kind == "awaited" else blocking, deadline=0.05)
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: httpx.Response(200)), auth=auth
    ) as client:
        with pytest.raises(TokenUnavailable, match="deadline exceeded"):
            await client.get(API)
    release.set()


class _WithoutTenants:
    def get_token(self, *scopes: str, claims: str | None = None) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("credential", "scopes", "options", "says"),
    [
        (lambda: "T", ["scope"], {}, "scopes means nothing"),
        (lambda: "T", [], {"tenant_id": "t"}, "tenant_id means nothing"),
        (lambda: "T", [], {"cae": False}, "cae=False means nothing"),
        (_WithoutTenants(), ["scope"], {"tenant_id": "t"}, "takes no tenant_id"),
        (Tokens, ["scope"], {}, "is a class"),
    ],
    ids=["scopes-of-a-function", "tenant-of-a-function", "cae-of-a-function", "tenant-of-one-without", "a-class"],
)
def test_what_the_credential_could_not_be_told_is_refused(
    credential: Any, scopes: list[str], options: dict[str, Any], says: str
) -> None:
    """A token of another tenant, or for other scopes, than the owner named would be sent otherwise."""
    with pytest.raises(ConfigurationError, match=says):
        BearerAuth(credential, *scopes, **options)
