"""Verified tokens in FastAPI and Starlette, by their own test client, with keys that come over TLS."""

import asyncio
import base64
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse
from token_issuer import WRONG_HEADERS, Issuer

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.fastapi import Authenticated, ClaimsMiddleware, challenge
from resilient_auth.verify import Claims


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def application(verifier: Any) -> FastAPI:
    app = FastAPI()
    signed_in = Authenticated(verifier, realm="orders")
    reader = Authenticated(verifier, scopes="orders.read", scheme_name="entra")
    robot = Authenticated(verifier, roles=("Tasks.ReadWrite.All",), app_only=True)
    step_up = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}

    @app.get("/me")
    async def me(claims: Annotated[Claims, Depends(signed_in)], request: Request) -> dict[str, Any]:
        assert request.state.claims is claims
        return {"name": claims.username, "keys": claims.provenance.keys}

    @app.get("/orders")
    def orders(claims: Annotated[Claims, Depends(reader)]) -> dict[str, Any]:
        return {"scopes": sorted(claims.scopes)}

    @app.post("/orders")
    async def write(claims: Annotated[Claims, Security(reader, scopes=["orders.write"])]) -> dict[str, Any]:
        return {"scopes": sorted(claims.scopes)}

    @app.get("/robots")
    async def robots(claims: Annotated[Claims, Depends(robot)]) -> dict[str, Any]:
        return {"app_only": claims.app_only}

    @app.get("/patient")
    async def patient(claims: Annotated[Claims, Depends(Authenticated(verifier, grace=True))]) -> dict[str, Any]:
        return {"grace": claims.provenance.grace}

    @app.get("/payments")
    async def payments(claims: Annotated[Claims, Depends(signed_in)]) -> None:
        raise challenge(claims, step_up, realm="orders")

    @app.websocket("/live")
    async def live(socket: WebSocket, claims: Annotated[Claims, Depends(signed_in)]) -> None:
        await socket.accept()
        await socket.send_json({"name": claims.username})
        await socket.close()

    return app


@pytest.fixture
def verifier(issuer: Issuer) -> Any:
    return issuer.verifier(ra.aio.ClaimsVerifier)


@pytest.fixture
def client(verifier: Any) -> Iterator[TestClient]:
    with TestClient(application(verifier)) as made:
        yield made


class TestDependency:
    def test_a_good_token_gives_its_claims(self, issuer: Issuer, client: TestClient) -> None:
        """To the endpoint, coroutine or not, and to whoever looks at the request."""
        answer = client.get("/me", headers=bearer(issuer.user_token()))
        assert (answer.status_code, answer.json()) == (200, {"name": "ada@contoso.com", "keys": "fresh"})
        assert client.get("/orders", headers=bearer(issuer.user_token())).json() == {"scopes": ["orders.read"]}

    @pytest.mark.parametrize("name", WRONG_HEADERS)
    def test_anything_else_is_challenged(self, client: TestClient, name: str) -> None:
        """Who sent no token is told no error (RFC 6750, section 3.1)."""
        header, code = WRONG_HEADERS[name]
        answer = client.get("/me", headers={} if header is None else {"Authorization": header})
        assert answer.status_code == 401
        assert answer.json()["detail"]["code"] == code
        assert "sign" in answer.json()["detail"]["message"]
        told = answer.headers["WWW-Authenticate"]
        assert told == 'Bearer realm="orders"' if code == "missing" else 'error="invalid_token"' in told
        assert answer.headers["Cache-Control"] == "no-store"

    def test_two_headers_are_refused(self, issuer: Issuer, client: TestClient) -> None:
        """Even where the first one is good."""
        headers = [("Authorization", f"Bearer {issuer.user_token()}"), ("Authorization", "Bearer a.b.c")]
        answer = client.get("/me", headers=headers)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (401, "duplicated_header")

    def test_an_expired_token_says_so(self, issuer: Issuer, client: TestClient) -> None:
        """With a message that a user understands."""
        answer = client.get("/me", headers=bearer(issuer.expired_token()))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (401, "expired")
        assert "expired" in answer.json()["detail"]["message"]

    def test_what_a_token_lacks_is_a_403(self, issuer: Issuer, client: TestClient) -> None:
        """A scope of the dependency, one of the route, a role, or a user."""
        token = issuer.user_token("orders.list")
        answer = client.get("/orders", headers=bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert 'scope="orders.read"' in answer.headers["WWW-Authenticate"]
        for half in ("orders.read", "orders.write"):
            assert client.post("/orders", headers=bearer(issuer.user_token(half))).status_code == 403
        assert client.get("/robots", headers=bearer(token)).status_code == 403
        assert client.get("/robots", headers=bearer(issuer.app_token())).json() == {"app_only": True}

    def test_a_route_may_ask_for_more(self, issuer: Issuer, client: TestClient) -> None:
        """By `Security` and its scopes, on top of the dependency's."""
        token = issuer.user_token("orders.read api://orders/orders.write")
        answer = client.post("/orders", headers=bearer(token))
        assert answer.json() == {"scopes": ["orders.read", "orders.write"]}

    def test_a_caller_can_be_asked_for_more(self, issuer: Issuer, client: TestClient) -> None:
        """One that never declared `cp1` is told 403, not a challenge that it would not understand (G17)."""
        answer = client.get("/payments", headers=bearer(issuer.user_token()))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_claims")
        capable = issuer._token(
            grant_type="password",
            username="ada@contoso.com",
            password="pw",
            scope="api://orders/orders.read",
            claims='{"access_token": {"xms_cc": {"values": ["cp1"]}}}',
        )
        answer = client.get("/payments", headers=bearer(capable))
        assert answer.status_code == 401
        found = re.search(r'claims="([^"]+)"', answer.headers["WWW-Authenticate"])
        assert found is not None
        assert json.loads(base64.b64decode(found[1]))["access_token"]["acrs"]["value"] == "c1"

    def test_web_sockets_too(self, issuer: Issuer, client: TestClient) -> None:
        """One without a token is refused before it is accepted."""
        with client.websocket_connect("/live", headers=bearer(issuer.user_token())) as socket:
            assert socket.receive_json() == {"name": "ada@contoso.com"}
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/live"):
            pass
        assert refused.value.status_code == 401
        assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="orders"'

    def test_the_openapi_document_shows_the_scheme(self, verifier: Any) -> None:
        """For each route its scheme, and scopes where `Security` names them."""
        document = application(verifier).openapi()
        assert document["components"]["securitySchemes"]["entra"] == {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
        }
        assert document["paths"]["/me"]["get"]["security"] == [{"bearer": []}]
        assert document["paths"]["/orders"]["post"]["security"] == [{"entra": ["orders.write"]}]
        app = FastAPI()
        discovery = "https://idp.example/.well-known/openid-configuration"
        scheme = Authenticated(verifier, scheme_name="oidc", openid_connect_url=discovery, description="Sign in.")
        app.get("/", dependencies=[Depends(scheme)])(lambda: None)
        shown = app.openapi()["components"]["securitySchemes"]["oidc"]
        assert shown == {"type": "openIdConnect", "openIdConnectUrl": discovery, "description": "Sign in."}


class TestOutage:
    def test_good_tokens_go_on_working(self, issuer: Issuer, client: TestClient) -> None:
        """New ones too, whose key is known; bad ones are still bad."""
        fresh = issuer.user_token()
        client.get("/me", headers=bearer(issuer.user_token()))
        issuer.goes_down()
        began = time.monotonic()
        assert client.get("/me", headers=bearer(fresh)).status_code == 200
        header, _, rest = fresh.partition(".")
        assert client.get("/me", headers=bearer(f"{header}.{rest[:-8]}AAAAAAAA")).status_code == 401
        assert time.monotonic() - began < 0.5

    def test_without_keys_it_is_a_503_and_no_401(self, issuer: Issuer, client: TestClient) -> None:
        """A 401 would make every client sign its users in again at once."""
        token = issuer.user_token()
        issuer.goes_down()
        answer = client.get("/me", headers=bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "verification_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert "try again" in answer.json()["detail"]["message"]
        assert "WWW-Authenticate" not in answer.headers
        assert client.get("/me").status_code == 401

    def test_grace_is_a_routes_own(self, issuer: Issuer, patient: dict[str, Any]) -> None:
        """An expired token is accepted where the route asks for that, and nowhere else."""
        verifier = issuer.verifier(ra.aio.ClaimsVerifier, **patient)
        with TestClient(application(verifier)) as client:

            def see(token: str) -> None:
                assert client.get("/me", headers=bearer(token)).status_code == 200

            def accepted(token: str) -> bool:
                answer = client.get("/patient", headers=bearer(token))
                return answer.status_code == 200 and bool(answer.json()["grace"])

            token = issuer.outlive(patient["settings"].clock, see, accepted)
            answer = client.get("/me", headers=bearer(token))
            assert (answer.status_code, answer.json()["detail"]["code"]) == (401, "expired")

    async def test_the_loop_is_not_blocked_meanwhile(self, issuer: Issuer, verifier: Any) -> None:
        """Waiting for keys is awaited."""
        token = issuer.user_token()
        issuer.goes_down()
        app = application(verifier)
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/me",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
        }

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        serving = asyncio.create_task(app(scope, receive, send))
        ticks = 0
        while not serving.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert sent[0]["status"] == 503
        assert ticks > 15


class TestMiddleware:
    @pytest.fixture
    def wrapped(self, verifier: Any) -> Iterator[TestClient]:
        async def who(request: Any) -> JSONResponse:
            return JSONResponse({"name": request.state.claims.username})

        async def health(request: Any) -> PlainTextResponse:
            return PlainTextResponse(str(hasattr(request.state, "claims")))

        async def live(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_json({"name": socket.state.claims.username})
            await socket.close()

        writes = Middleware(ClaimsMiddleware, verifier=verifier, scopes=("orders.write",))
        app = Starlette(
            routes=[
                Route("/me", who),
                Route("/write", who, middleware=[writes]),
                Route("/health", health),
                WebSocketRoute("/live", live),
                Mount("/sub", Starlette(routes=[Route("/me", who)])),
            ],
            middleware=[Middleware(ClaimsMiddleware, verifier=verifier, realm="shop", public=("/health",))],
        )
        with TestClient(app) as made:
            yield made

    def test_only_verified_requests_pass(self, issuer: Issuer, wrapped: TestClient) -> None:
        """And public paths, which are compared as a whole; one route may ask for more."""
        good = bearer(issuer.user_token())
        assert wrapped.get("/me", headers=good).json() == {"name": "ada@contoso.com"}
        assert wrapped.get("/sub/me", headers=good).json() == {"name": "ada@contoso.com"}
        refused = wrapped.get("/me")
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="shop"')
        assert refused.json()["detail"]["code"] == "missing"
        assert wrapped.get("/health").text == "False"
        for path in ("/health/", "/healthy", "/Health", "//health", "/nowhere"):
            assert wrapped.get(path).status_code == 401
        assert wrapped.get("/write", headers=good).status_code == 403

    def test_web_sockets_are_no_way_around(self, issuer: Issuer, wrapped: TestClient) -> None:
        """They are answered like other requests, or closed where a server can't do that."""
        with wrapped.websocket_connect("/live", headers=bearer(issuer.user_token())) as socket:
            assert socket.receive_json() == {"name": "ada@contoso.com"}
        with pytest.raises(WebSocketDenialResponse) as refused, wrapped.websocket_connect("/live"):
            pass
        assert refused.value.json()["detail"]["code"] == "missing"

    async def test_a_server_without_answers_to_web_sockets_closes_them(self, verifier: Any) -> None:
        """Before they are accepted."""
        sent: list[Any] = []

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("it got in")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/live", "headers": []}
        await ClaimsMiddleware(inside, verifier)(scope, None, send)  # type: ignore[arg-type]
        assert sent == [{"type": "websocket.close", "code": 1008}]

    def test_an_outage_is_a_503(self, issuer: Issuer, wrapped: TestClient) -> None:
        """As in the dependency."""
        token = issuer.user_token()
        issuer.goes_down()
        answer = wrapped.get("/me", headers=bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "verification_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("make", [Authenticated, lambda verifier, **about: ClaimsMiddleware(None, verifier, **about)])
def test_a_wrong_argument_is_said_at_once(issuer: Issuer, verifier: Any, make: Callable[..., Any]) -> None:
    """A blocking verifier above all."""
    with pytest.raises(ConfigurationError, match="block the event loop"):
        make(issuer.verifier())
    for wrong in ({"scopes": "a b"}, {"roles": [5]}, {"scopes": 5}, {"app_only": "yes"}, {"grace": 5}, {"realm": 5}):
        with pytest.raises(ConfigurationError):
            make(verifier, **wrong)
    with pytest.raises(ConfigurationError, match="ClaimsVerifier"):
        make(object())
    for public in ("/health", ("health",), (5,)):
        with pytest.raises(ConfigurationError, match="public"):
            ClaimsMiddleware(None, verifier, public=public)  # type: ignore[arg-type]


def test_no_token_is_logged(issuer: Issuer, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Good or bad, in an outage or not."""
    good = issuer.user_token()
    with caplog.at_level(logging.DEBUG):
        client.get("/me", headers=bearer(good))
        answers = [
            client.get("/me", headers=bearer(good[:-4] + "AAAA")).text,
            client.get("/me", headers=bearer("x")).text,
        ]
        issuer.goes_down()
        client.get("/me", headers=bearer(good))
    assert good.split(".")[1][:30] not in caplog.text + "".join(answers)
