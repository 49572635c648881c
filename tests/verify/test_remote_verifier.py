"""A claims service over TLS that answers, says no, fails and comes back, asked by threads and by tasks."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth.claims_service.decision import Decision, Unavailable
from resilient_auth.downstream import TransportOptions
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import Closed, ConfigurationError, ProviderUnavailable, TokenDenied
from resilient_auth.events import ClaimsServiceRefused, DecisionSubstituted, subscribe
from resilient_auth.testing import CapturedEvents, ManualClock, capture_events, no_jitter

CLAIMS = {"iss": "https://idp.example/t1/v2.0", "sub": "ada", "tid": "t1", "email": "ada@example.com"}
#: Short, for faults that cost their time.
HASTY = TransportOptions(
    deadline=1.5, attempt_timeout=0.3, connect_timeout=0.3, queue_wait=0.3, first_delay=0.02, longest_delay=0.05
)


class Service:
    """The emulator's API, saying what it is told to."""

    def __init__(self, idp: Emulator) -> None:
        self._idp = idp
        self.url = f"{idp.api_url}/decide"

    def says(self, body: Any, status: int = 200) -> None:
        self._idp.heal("api")
        text = body if isinstance(body, str) else json.dumps(body)
        self._idp.fail(Fault.status(status, text), endpoint="api")

    def fails(self, fault: Fault) -> None:
        self._idp.heal("api")
        self._idp.fail(fault, endpoint="api")

    @property
    def calls(self) -> int:
        return sum(call.endpoint == "api" for call in self._idp.ledger.calls)


class Asker:
    """A verifier of either kind."""

    def __init__(self, kind: str, url: str, **arguments: Any) -> None:
        self._runner = asyncio.Runner() if kind == "tasks" else None
        make = ra.aio.RemoteClaimsVerifier if self._runner else ra.RemoteClaimsVerifier
        self.verifier: Any = make(url, **arguments)

    def ask(self, claims: Any = CLAIMS) -> Decision:
        return self._done(self.verifier.verify(claims))

    def end(self) -> None:
        self._done(self.verifier.close())
        if self._runner:
            self._runner.close()

    def _done(self, result: Any) -> Any:
        async def awaited() -> Any:
            return await result

        return self._runner.run(awaited()) if self._runner else result


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def running_idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def idp(running_idp: Emulator) -> Iterator[Emulator]:
    yield running_idp
    running_idp.heal()


@pytest.fixture(scope="module")
def trust(running_idp: Emulator) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=running_idp.ca_file)


@pytest.fixture
def service(idp: Emulator) -> Service:
    return Service(idp)


@pytest.fixture(params=["threads", "tasks"])
def asker(request: pytest.FixtureRequest, service: Service, trust: ssl.SSLContext) -> Iterator[Callable[..., Asker]]:
    made: list[Asker] = []

    def build(**arguments: Any) -> Asker:
        trusts = {} if "transport" in arguments else {"verify": trust}
        given = {"url": service.url, "options": HASTY} | trusts | arguments
        if "request" not in given:
            given.setdefault("sends", ("sub", "tid"))
        made.append(Asker(request.param, **given))
        return made[-1]

    yield build
    for one in made:
        one.end()


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        yield captured


class TestAsking:
    def test_its_decision_is_the_decision(self, service: Service, asker: Callable[..., Asker]) -> None:
        """With what it said, who said it, and when."""
        service.says({"allowed": True, "attributes": {"tier": "gold"}})
        decision = asker().ask()
        assert (decision.allowed, decision.provenance, decision.code, decision.age) == (True, "service", "", 0.0)
        assert decision.attributes["tier"] == "gold"
        assert time.time() - 5 < decision.decided_at <= time.time()
        service.says({"allowed": False, "reason": "Your account is closed."})
        decision = asker().ask()
        assert (decision.allowed, decision.reason, decision.provenance) == (False, "Your account is closed.", "service")

    def test_an_endless_answer_is_not_read_to_its_end(self, asker: Callable[..., Asker]) -> None:
        """Nor kept: a little more than a decision can have is read."""
        read: list[int] = []

        class Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                for _ in range(1000):
                    read.append(1000)
                    yield b" " * 1000

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for part in self:
                    yield part

        class Talker(httpx.BaseTransport, httpx.AsyncBaseTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                return httpx.Response(200, stream=Endless())

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                return httpx.Response(200, stream=Endless())

        assert asker(transport=Talker()).ask().code == "malformed_decision"
        assert sum(read) < 20_000

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 499])
    def test_a_no_may_come_with_a_status_that_says_no(
        self, service: Service, asker: Callable[..., Asker], status: int
    ) -> None:
        """As B2C's REST services do it, here in their own shape."""
        service.says({"version": "1.0", "status": status, "userMessage": "This address doesn't exist."}, status)
        decision = asker(parse=lambda body: {"allowed": body["status"] == 200, "reason": body["userMessage"]}).ask()
        assert (decision.allowed, decision.provenance) == (False, "service")
        assert decision.reason == "This address doesn't exist."

    def test_only_the_named_claims_are_sent(self, asker: Callable[..., Asker]) -> None:
        """Neither the others nor cookies of an earlier answer; each question has a key of its own."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={"allowed": True}, headers={"Set-Cookie": "who=ada; Path=/"})

        one = asker(
            transport=httpx.MockTransport(answer), headers={"X-Api-Key": "K-4711"}, sends=("sub", "tid", "nope")
        )
        one.ask()
        one.ask(CLAIMS | {"sub": "bob"})
        assert [json.loads(request.content) for request in seen] == [
            {"sub": "ada", "tid": "t1"},
            {"sub": "bob", "tid": "t1"},
        ]
        assert all("cookie" not in request.headers and "authorization" not in request.headers for request in seen)
        assert all(request.headers["x-api-key"] == "K-4711" for request in seen)
        assert len({request.headers["idempotency-key"] for request in seen}) == 2
        assert "4711" not in repr(one.verifier)

    def test_the_owner_may_make_the_question(self, asker: Callable[..., Asker]) -> None:
        """Of immutable claims too."""
        seen: list[Any] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(json.loads(request.content))
            return httpx.Response(200, json={"allowed": True})

        claims = MappingProxyType({"groups": ("a", "b"), "address": MappingProxyType({"city": "Zürich"})})
        asker(
            transport=httpx.MockTransport(answer),
            request=lambda claims: {"groups": claims["groups"], "where": claims["address"], "ids": frozenset("x")},
        ).ask(claims)
        assert seen == [{"groups": ["a", "b"], "where": {"city": "Zürich"}, "ids": ["x"]}]

    def test_verified_claims_are_what_it_is_asked_about(
        self, asker: Callable[..., Asker], idp: Emulator, trust: ssl.SSLContext
    ) -> None:
        """As they come from a `ClaimsVerifier`, and their last decision is found again under a renewed token."""
        down = threading.Event()
        seen: list[Any] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(json.loads(request.content))
            return httpx.Response(503 if down.is_set() else 200, json={"allowed": True})

        one = asker(
            transport=httpx.MockTransport(answer), when_unavailable="last_decision", sends=("iss", "sub", "roles")
        )
        with httpx.Client(verify=trust, trust_env=False) as client:

            def token() -> str:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": "d",
                    "client_secret": "s",
                    "scope": "api://x/.default",
                }
                return str(
                    client.post(f"{idp.authority('contoso')}/oauth2/v2.0/token", data=form).json()["access_token"]
                )

            document = client.get(f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration").json()
            with ra.ClaimsVerifier(issuer=document["issuer"], audience="api://x", verify=trust) as verifier:
                claims, renewed = verifier.verify(token()), verifier.verify(token())
        assert one.ask(claims).provenance == "service"
        assert seen == [{"iss": document["issuer"], "sub": claims.subject, "roles": ["Tasks.ReadWrite.All"]}]
        down.set()
        assert claims.token_id != renewed.token_id
        assert one.ask(renewed).provenance == "last_decision"

    def test_it_is_asked_with_a_token(
        self, service: Service, asker: Callable[..., Asker], idp: Emulator, trust: ssl.SSLContext
    ) -> None:
        """Of a credential that gets them from the provider; one that is refused is replaced."""
        asked: list[str] = []

        def token() -> str:
            asked.append("no.such.token")
            if len(asked) == 1:
                return asked[0]
            form = {
                "grant_type": "client_credentials",
                "client_id": "d",
                "client_secret": "s",
                "scope": "api://x/.default",
            }
            url = f"{idp.authority('contoso')}/oauth2/v2.0/token"
            return str(httpx.post(url, data=form, verify=trust, trust_env=False).json()["access_token"])

        decision = asker(
            credential=token, parse=lambda body: {"allowed": body["received"] == len(b'{"sub":"ada","tid":"t1"}')}
        ).ask()
        assert (decision.allowed, len(asked)) == (True, 2)

    def test_a_moments_fault_is_not_seen(self, service: Service, asker: Callable[..., Asker], idp: Emulator) -> None:
        """The question is asked again."""
        service.says({"allowed": True})
        idp.fail(Fault.http_503(), endpoint="api", count=1)
        assert asker().ask().provenance == "service"


OUTAGES: dict[str, tuple[Fault, str, str]] = {
    "refuse": (Fault.refuse(), "api_connection_refused", "isn't running"),
    "black_hole": (Fault.black_hole(), "api_attempt_timeout", "didn't answer in time"),
    "trickled body": (Fault.trickle(5), "api_deadline_passed", "took too long"),
    "reset": (Fault.reset(), "api_unavailable", "can't be reached"),
    "tls": (Fault.tls_failed(), "api_unavailable", "can't be reached"),
    "503": (Fault.http_503(), "api_answered_error", "has a problem"),
    "429": (Fault.http_429(20), "api_answered_error", "try again in 20 seconds"),
    "html": (Fault.html_200(), "malformed_decision", "has a problem"),
    "empty object": (Fault.json_object(), "malformed_decision", "has a problem"),
    "cut off": (Fault.truncated_json(), "malformed_decision", "has a problem"),
    "cut body": (Fault.wrong_content_length(), "api_unavailable", "can't be reached"),
    "too long": (Fault.status(200, '{"allowed": true, "x": "' + "x" * 20_000 + '"}'), "malformed_decision", "problem"),
    "no content": (Fault.status(202, '{"allowed": true}'), "malformed_decision", "has a problem"),
}


class TestOutage:
    @pytest.mark.parametrize("name", OUTAGES)
    def test_each_kind_is_denied_in_time_with_its_own_message(
        self, service: Service, asker: Callable[..., Asker], name: str, events: CapturedEvents
    ) -> None:
        """By default; the user is told what to do, and listeners what happened."""
        fault, code, told = OUTAGES[name]
        service.fails(fault)
        one = asker()
        began = time.monotonic()
        decision = one.ask()
        assert time.monotonic() - began < 2.5
        assert (decision.allowed, decision.provenance, decision.code) == (False, "denied", code)
        assert told in decision.reason
        assert "try again" in decision.reason
        (event,) = events.wait_for(DecisionSubstituted)
        assert (event.provenance, event.allowed, event.code) == ("denied", False, code)
        assert event.target == service.url.removesuffix("/decide")

    def test_a_name_that_is_not_resolved_has_its_own_message(self, asker: Callable[..., Asker]) -> None:
        """G20."""
        decision = asker(url="https://no-such-host.invalid/decide").ask()
        assert (decision.code, decision.provenance) == ("api_name_not_resolved", "denied")
        assert "address can't be found" in decision.reason

    def test_an_open_circuit_answers_at_once_until_the_service_is_back(
        self, service: Service, asker: Callable[..., Asker]
    ) -> None:
        """With its own message, the time to come back, and no connection made."""
        clock = ManualClock()
        one = asker(options=TransportOptions(clock=clock, jitter=no_jitter, attempts=1))
        service.fails(Fault.reset())
        for _ in range(5):
            assert one.ask().code == "api_unavailable"
        before = service.calls
        began = time.monotonic()
        for _ in range(20):
            decision = one.ask()
        assert time.monotonic() - began < 1.0
        assert service.calls == before
        assert decision.code == "api_circuit_open"
        assert "is given a moment to recover" in decision.reason
        assert decision.retry_after is not None
        service.says({"allowed": True})
        clock.advance(decision.retry_after + 1)
        assert one.ask().provenance == "service"

    def test_the_callers_own_deadline_holds(self, service: Service, asker: Callable[..., Asker]) -> None:
        """Where it is nearer than the verifier's."""
        service.fails(Fault.black_hole())
        one = asker(options=None, deadline=30.0)
        began = time.monotonic()
        with ra.downstream.deadline(0.3):
            decision = one.ask()
        assert time.monotonic() - began < 1.5
        assert not decision.allowed

    def test_a_provider_that_gives_no_token_is_an_outage(self, asker: Callable[..., Asker]) -> None:
        """And one that refuses is not: nothing stands in then."""

        def down() -> str:
            raise ProviderUnavailable("the provider is gone", retry_after=7.0)

        def denies() -> str:
            raise TokenDenied("invalid_client", "AADSTS7000215")

        reduced = {"when_unavailable": "reduced", "reduced": lambda claims, failed: {"allowed": True}}
        decision = asker(credential=down, **reduced).ask()
        assert (decision.provenance, decision.code, decision.retry_after) == ("reduced", "provider_unavailable", 7.0)
        for credential in (denies, lambda: {"error": "invalid_client"}):
            decision = asker(credential=credential, **reduced).ask()
            assert (decision.provenance, decision.code) == ("denied", "claims_service_refused")


class TestRefusal:
    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 415])
    def test_a_service_that_does_not_take_the_question_is_no_outage(
        self, service: Service, asker: Callable[..., Asker], status: int, events: CapturedEvents
    ) -> None:
        """It is denied whatever the owner chose for outages, and said loudly."""
        service.says({"error": "whatever"}, status)
        decision = asker(when_unavailable="reduced", reduced=lambda claims, failed: {"allowed": True}).ask()
        assert (decision.allowed, decision.provenance, decision.code) == (False, "denied", "claims_service_refused")
        assert "contact support" in decision.reason
        (event,) = events.wait_for(ClaimsServiceRefused)
        assert (event.status, event.level) == (status, logging.ERROR)
        assert events.of(DecisionSubstituted) == []

    def test_a_redirect_leads_the_question_nowhere(self, asker: Callable[..., Asker]) -> None:
        """What is asked about a user is for the service that the owner has named."""
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.host)
            there = request.url.host == "elsewhere.example"
            moved = {"Location": "https://elsewhere.example/decide"}
            return httpx.Response(200, json={"allowed": True}) if there else httpx.Response(307, headers=moved)

        decision = asker(transport=httpx.MockTransport(answer)).ask()
        assert (decision.allowed, decision.code) == (False, "claims_service_refused")
        assert asked
        assert "elsewhere.example" not in asked

    def test_a_yes_with_a_status_that_says_no_is_no_yes(self, service: Service, asker: Callable[..., Asker]) -> None:
        """One of both is wrong."""
        service.says({"allowed": True}, 403)
        assert asker().ask().allowed is False


class TestLastDecision:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def keeping(self, asker: Callable[..., Asker], clock: ManualClock) -> Asker:
        options = TransportOptions(
            clock=clock, jitter=no_jitter, attempts=1, breaker=ra.BreakerOptions(consecutive_failures=1000)
        )
        return asker(when_unavailable="last_decision", decision_age=600.0, options=options)

    def test_it_stands_in_for_the_same_subject_and_claims(
        self, service: Service, keeping: Asker, clock: ManualClock, events: CapturedEvents
    ) -> None:
        """For as long as the owner allows, and marked; nobody else gets it."""
        service.says({"allowed": True, "attributes": {"tier": "gold"}})
        said = keeping.ask()
        service.fails(Fault.http_503())
        clock.advance(300)
        decision = keeping.ask()
        assert (decision.allowed, decision.provenance, decision.age) == (True, "last_decision", 300.0)
        assert (decision.attributes, decision.decided_at) == (said.attributes, said.decided_at)
        assert decision.code == "api_answered_error"
        (event,) = events.wait_for(DecisionSubstituted)
        assert (event.provenance, event.allowed, event.age) == ("last_decision", True, 300.0)
        for other in ({"sub": "bob"}, {"iss": "https://idp.example/t2/v2.0"}, {"tid": "t2"}):
            assert keeping.ask(CLAIMS | other).provenance == "denied"
        clock.advance(301)
        assert keeping.ask().provenance == "denied"

    def test_claims_that_are_not_sent_do_not_matter(self, service: Service, keeping: Asker) -> None:
        """A renewed token has other times, and says the same."""
        service.says({"allowed": True})
        keeping.ask(CLAIMS | {"iat": 1, "exp": 2})
        service.fails(Fault.http_503())
        assert keeping.ask(CLAIMS | {"iat": 3, "exp": 4}).provenance == "last_decision"

    @pytest.mark.parametrize("no", [({"allowed": False, "reason": "Closed."}, 200), ({}, 403)])
    def test_a_no_is_the_end_of_every_earlier_yes(self, service: Service, keeping: Asker, no: tuple[Any, int]) -> None:
        """To other claims of the same subject too."""
        service.says({"allowed": True})
        keeping.ask()
        keeping.ask(CLAIMS | {"tid": "t2"})
        service.says(*no)
        keeping.ask()
        service.fails(Fault.http_503())
        assert keeping.ask().allowed is False
        assert keeping.ask(CLAIMS | {"tid": "t2"}).allowed is False

    def test_a_last_no_stands_in_too(self, service: Service, keeping: Asker) -> None:
        """With the service's own reason."""
        service.says({"allowed": False, "reason": "Closed."})
        keeping.ask()
        service.fails(Fault.http_503())
        decision = keeping.ask()
        assert (decision.allowed, decision.provenance, decision.reason) == (False, "last_decision", "Closed.")

    def test_a_credential_that_is_refused_ends_nobodys_yes(self, service: Service, keeping: Asker) -> None:
        """A 401 is about us, not about the user; but it lets nobody in either."""
        service.says({"allowed": True})
        keeping.ask()
        service.says({}, 401)
        assert keeping.ask().provenance == "denied"
        service.fails(Fault.http_503())
        assert keeping.ask().provenance == "last_decision"

    def test_claims_without_a_subject_are_nobodys(self, service: Service, keeping: Asker) -> None:
        """What was said about one such user isn't said about the next."""
        service.says({"allowed": True})
        keeping.ask({"tid": "t1"})
        service.fails(Fault.http_503())
        assert keeping.ask({"tid": "t1"}).provenance == "denied"

    def test_an_applications_yes_is_no_users(
        self, service: Service, asker: Callable[..., Asker], offline: Any, signer: Any, claims: Any
    ) -> None:
        """An application without a subject goes by its client id; a user whose subject reads so is another one."""
        verifier = offline()
        application = verifier.verify(signer.token(claims(sub=None, oid=None)))
        user = verifier.verify(signer.token(claims(sub="shop", azp="till")))
        assert application.subject == user.subject
        keeping = asker(when_unavailable="last_decision", decision_age=600.0, sends=("tid",))
        service.says({"allowed": True})
        keeping.ask(application)
        service.fails(Fault.http_503())
        assert keeping.ask(application).provenance == "last_decision"
        assert keeping.ask(user).provenance == "denied"


class TestReduced:
    def test_the_owners_function_decides(
        self, service: Service, asker: Callable[..., Asker], events: CapturedEvents
    ) -> None:
        """Told what failed, and marked."""
        told: list[Any] = []

        def reduced(claims: Any, failed: Unavailable) -> Any:
            told.append((claims, failed))
            return {"allowed": True, "reason": "Read only for now.", "attributes": {"mode": "read"}}

        service.fails(Fault.http_503(retry_after=30))
        decision = asker(when_unavailable="reduced", reduced=reduced).ask()
        assert (decision.allowed, decision.provenance, decision.code) == (True, "reduced", "api_answered_error")
        assert decision.attributes["mode"] == "read"
        ((claims, failed),) = told
        assert claims is CLAIMS
        assert (failed.code, failed.retry_after) == ("api_answered_error", 30.0)
        assert events.wait_for(DecisionSubstituted)[0].allowed is True

    def test_a_decision_may_be_returned_whole(self, service: Service, asker: Callable[..., Asker]) -> None:
        """It is marked all the same."""
        service.fails(Fault.http_503())
        made = Decision(allowed=True, provenance="service", age=5.0)
        decision = asker(when_unavailable="reduced", reduced=lambda claims, failed: made).ask()
        assert (decision.provenance, decision.age) == ("reduced", 0.0)

    @pytest.mark.parametrize("made", [True, None, {}, {"allowed": "yes"}, "yes"])
    def test_what_is_no_decision_lets_nobody_in(self, service: Service, asker: Callable[..., Asker], made: Any) -> None:
        """It is the owner's slip, and told to the owner."""
        service.fails(Fault.http_503())
        with pytest.raises(ConfigurationError, match="reduced"):
            asker(when_unavailable="reduced", reduced=lambda claims, failed: made).ask()

    def test_what_the_function_raises_is_raised(self, service: Service, asker: Callable[..., Asker]) -> None:
        """Nobody gets in by a bug."""

        def breaks(claims: Any, failed: Unavailable) -> Any:
            raise LookupError("a bug")

        service.fails(Fault.http_503())
        with pytest.raises(LookupError, match="a bug"):
            asker(when_unavailable="reduced", reduced=breaks).ask()

    async def test_it_may_be_a_coroutine_function(self, service: Service, trust: ssl.SSLContext) -> None:
        """In asyncio's verifier."""

        async def reduced(claims: Any, failed: Unavailable) -> Any:
            await asyncio.sleep(0)
            return {"allowed": True}

        service.fails(Fault.http_503())
        async with ra.aio.RemoteClaimsVerifier(
            service.url, sends="sub", verify=trust, options=HASTY, when_unavailable="reduced", reduced=reduced
        ) as one:
            assert (await one.verify(CLAIMS)).provenance == "reduced"


class TestConcurrency:
    def test_many_threads_get_their_own_answers(self, service: Service, trust: ssl.SSLContext) -> None:
        """One verifier serves them all, through an outage."""

        def answer(request: httpx.Request) -> httpx.Response:
            who = json.loads(request.content)["sub"]
            return httpx.Response(503 if down.is_set() else 200, json={"allowed": True, "reason": who})

        down = threading.Event()
        options = TransportOptions(attempts=1, breaker=ra.BreakerOptions(consecutive_failures=3))
        with (
            ra.RemoteClaimsVerifier(
                service.url,
                sends="sub",
                transport=httpx.MockTransport(answer),
                options=options,
                when_unavailable="last_decision",
            ) as one,
            ThreadPoolExecutor(16) as pool,
        ):

            def check(number: int) -> bool:
                return one.verify(CLAIMS | {"sub": f"u{number % 50}"}).reason == f"u{number % 50}"

            assert all(pool.map(check, range(500)))
            down.set()
            assert all(pool.map(check, range(500)))

    def test_closing_leaves_calls_under_way_alone(self, service: Service, trust: ssl.SSLContext) -> None:
        """Their connection is closed by the last of them, and not under a thread that reads from it."""
        inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

        class Wire(httpx.BaseTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                inside.set()
                go_on.wait(5)
                return httpx.Response(200, json={"allowed": not closed.is_set()})

            def close(self) -> None:
                closed.set()

        one = ra.RemoteClaimsVerifier(service.url, sends="sub", transport=Wire())
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(one.verify, CLAIMS)
            assert inside.wait(5)
            one.close()
            assert not closed.is_set()
            with pytest.raises(Closed):
                one.verify(CLAIMS)
            go_on.set()
            assert asked.result(5).allowed
        assert closed.is_set()

    async def test_many_tasks_do_not_wait_for_each_other(self, service: Service, trust: ssl.SSLContext) -> None:
        """Nor does the loop."""
        service.fails(Fault.black_hole())
        options = TransportOptions(deadline=1.0, attempt_timeout=1.0, connect_timeout=1.0, queue_wait=1.0, attempts=1)
        async with ra.aio.RemoteClaimsVerifier(service.url, sends="sub", verify=trust, options=options) as one:
            ticks, began = 0, time.monotonic()
            # One after the other they would take twenty seconds; a loop that waits with them ticks a few times.
            asked = asyncio.gather(*(one.verify(CLAIMS) for _ in range(20)))
            while not asked.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert time.monotonic() - began < 2.5
            assert ticks > 15
            assert {decision.allowed for decision in await asked} == {False}

    async def test_a_cancelled_task_gets_no_decision(self, service: Service, trust: ssl.SSLContext) -> None:
        """Not even a substitute, and the next one is answered."""
        service.fails(Fault.black_hole())
        async with ra.aio.RemoteClaimsVerifier(service.url, sends="sub", verify=trust) as one:
            task = asyncio.create_task(one.verify(CLAIMS))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            service.says({"allowed": True})
            assert (await one.verify(CLAIMS)).allowed

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_one_verifier_serves_loop_after_loop(self, service: Service, trust: ssl.SSLContext) -> None:
        """As in a framework that runs each async view in a loop of its own."""
        service.says({"allowed": True})
        one = ra.aio.RemoteClaimsVerifier(service.url, sends="sub", verify=trust)

        async def ask() -> bool:
            return (await one.verify(CLAIMS)).allowed

        assert [asyncio.run(ask()) for _ in range(3)] == [True] * 3
        asyncio.run(one.close())
        gc.collect()  # asyncio warns of what its loops have left open

    def test_a_forked_child_asks_too(self, service: Service, trust: ssl.SSLContext) -> None:
        """Beside the parent, which goes on."""
        service.says({"allowed": True})

        def work() -> None:
            assert one.verify(CLAIMS).provenance == "service"

        with ra.RemoteClaimsVerifier(service.url, sends="sub", verify=trust, when_unavailable="last_decision") as one:
            work()
            in_a_child(work)
            work()


class TestSecrets:
    def test_nothing_of_the_user_is_told(
        self, service: Service, asker: Callable[..., Asker], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither in logs nor in events, whatever happens."""
        heard: list[str] = []
        end = subscribe(lambda event: heard.append(f"{event!r} {event}"))
        try:
            with caplog.at_level(logging.DEBUG, "resilient_auth"):
                one = asker(sends=("sub", "email"), when_unavailable="last_decision")
                for fault in (Fault.status(200, '{"allowed": true, "reason": "ada"}'), Fault.http_503(), Fault.reset()):
                    service.fails(fault)
                    one.ask()
                service.says({"why": "ada@example.com"}, 400)
                one.ask()
        finally:
            end()
        text = caplog.text + "".join(heard)
        assert "DecisionSubstituted" in text
        assert "ada" not in text.replace("metadata", "")

    def test_it_can_not_be_pickled(self, asker: Callable[..., Asker]) -> None:
        """It may hold a key."""
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(asker().verifier)


class TestConstruction:
    @pytest.mark.parametrize("make", [ra.RemoteClaimsVerifier, ra.aio.RemoteClaimsVerifier])
    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"url": "http://claims.example/decide"}, "https"),
            ({"url": "claims.example"}, "url"),
            ({"url": "https://user:pw@claims.example"}, "password"),
            ({"sends": None}, "sends"),
            ({"sends": ()}, "sends"),
            ({"sends": (5,)}, "sends"),
            ({"request": lambda claims: {}}, "either"),
            ({"sends": None, "request": 5}, "request"),
            ({"parse": 5}, "parse"),
            ({"when_unavailable": "allow"}, "when_unavailable"),
            ({"when_unavailable": "reduced"}, "go together"),
            ({"reduced": lambda claims, failed: None}, "go together"),
            ({"when_unavailable": "last_decision", "decision_age": 0}, "decision_age"),
            ({"when_unavailable": "last_decision", "decision_age": 1e6}, "decision_age"),
            ({"when_unavailable": "last_decision", "most_decisions": 0}, "most_decisions"),
            ({"decision_age": 60.0}, "decision_age has no effect"),
            ({"most_decisions": 10}, "most_decisions has no effect"),
            ({"scopes": "s"}, "scopes has no effect"),
            (
                {"transport": httpx.MockTransport(lambda _: httpx.Response(200)), "verify": False},
                "verify has no effect",
            ),
            ({"deadline": 0}, "deadline"),
            ({"deadline": 1.0, "options": TransportOptions()}, "deadline"),
            ({"options": 5}, "options"),
            ({"headers": 5}, "headers"),
            ({"headers": {"Authorization": "Basic x"}, "credential": lambda: "T"}, "Authorization"),
            ({"credential": object(), "scopes": "s"}, "get_token"),
        ],
    )
    def test_a_wrong_argument_is_said_at_once(self, make: Any, wrong: dict[str, Any], says: str) -> None:
        """Before any network call."""
        with pytest.raises(ConfigurationError, match=says):
            make(**{"url": "https://claims.example/decide", "sends": ("sub",)} | wrong)

    def test_an_async_function_has_no_place_in_the_blocking_one(self) -> None:
        """It is told when it is made, and not in the first outage."""

        async def reduced(claims: Any, failed: Unavailable) -> Decision:
            return Decision(allowed=True)

        with pytest.raises(ConfigurationError, match="an async reduced in a sync verifier"):
            ra.RemoteClaimsVerifier("https://x.example", sends="sub", when_unavailable="reduced", reduced=reduced)

    @pytest.mark.parametrize("claims", ["eyJ.eyJ.x", None, 5, ["sub"]])
    def test_what_is_no_set_of_claims_is_refused(self, asker: Callable[..., Asker], claims: Any) -> None:
        """A token above all, and it isn't shown."""
        with pytest.raises(ConfigurationError, match="mapping") as raised:
            asker().ask(claims)
        assert "eyJ" not in str(raised.value)

    @pytest.mark.parametrize("body", [{"x": object()}, {"x": float("nan")}, {"x": "y" * 70_000}, [], {5: {}, "a": 1}])
    def test_a_question_that_can_not_be_sent_is_refused(self, asker: Callable[..., Asker], body: Any) -> None:
        """It is the owner's slip."""
        with pytest.raises(ConfigurationError):
            asker(request=lambda claims: body).ask()

    def test_a_closed_one_is_not_asked(self) -> None:
        """It says so; closing twice does nothing."""
        one = ra.RemoteClaimsVerifier("https://claims.example/decide", sends="sub")
        one.close()
        one.close()
        with pytest.raises(Closed):
            one.verify(CLAIMS)

    async def test_a_closed_one_is_not_asked_by_tasks(self) -> None:
        """Nor awaited for long."""
        one = ra.aio.RemoteClaimsVerifier("https://claims.example/decide", sends="sub")
        await one.close()
        await one.close()
        with pytest.raises(Closed):
            await one.verify(CLAIMS)
