"""Every error of ours is answered by every framework alike, over real sockets, once the application asks for that."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import django_site
import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI, WebSocket
from flask import Blueprint, Flask, g, jsonify
from rest_framework.views import APIView
from served import asgi, wsgi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.testclient import TestClient
from token_issuer import Issuer
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import resilient_auth as ra
from resilient_auth import errors, testing
from resilient_auth.callouts import Undeliverable, WritesFull
from resilient_auth.callouts.caller import Stranger
from resilient_auth.callouts.contract import MalformedCallout, UnfitAnswer
from resilient_auth.callouts.handling import _Unanswered as Unanswered
from resilient_auth.claims_service.decision import Decision, DecisionDenied
from resilient_auth.downstream import errors as downstream
from resilient_auth.emulator import Fault
from resilient_auth.integrations import django as for_django
from resilient_auth.integrations import fastapi as for_fastapi
from resilient_auth.integrations import flask as for_flask
from resilient_auth.integrations.django.rest import BearerAuthentication, exception_handler
from resilient_auth.verify import InvalidToken, VerificationUnavailable, refused


def denial(**about: Any) -> DecisionDenied:
    return DecisionDenied(Decision(allowed=False, **about))


def led_to(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def outage(seconds: float) -> errors.CircuitOpen:
    return errors.CircuitOpen("x", retry_after=seconds)


def several(*raised: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("unhandled errors in a TaskGroup", raised)


#: What a view raises, and the status, code and `Retry-After` that it is answered with.
RAISED: dict[str, tuple[Exception, int, str, str | None]] = {
    "a bad token": (InvalidToken("expired", "it has expired"), 401, "expired", None),
    "a lacking scope": (InvalidToken("insufficient_scope", "x", scope=("a",)), 403, "insufficient_scope", None),
    "no keys": (VerificationUnavailable("x", retry_after=7.2), 503, "verification_unavailable", "8"),
    "a closed object": (errors.Closed("x"), 503, "closed", "5"),
    "a denial": (errors.TokenDenied("invalid_client"), 502, "token_denied", None),
    "no store": (errors.StoreUnavailable("redis", "timeout", retry_after=3.0), 503, "store_unavailable", "3"),
    "a token that can't be had": (
        led_to(downstream.TokenUnavailable("x"), errors.CircuitOpen("x", retry_after=11.0)),
        503,
        "token_unavailable",
        "11",
    ),
    "a token that was denied": (
        led_to(downstream.TokenUnavailable("x"), errors.TokenDenied("invalid_grant")),
        502,
        "token_unavailable",
        None,
    ),
    "a no of the service": (denial(reason="You left."), 403, "denied", None),
    "no service": (
        denial(provenance="denied", code="api_circuit_open", retry_after=4.0), 503, "api_circuit_open", "4"
    ),
    "a service that refuses": (denial(provenance="denied", code="claims_service_refused"), 502,
                               "claims_service_refused", None),
    "too many writes": (WritesFull("x"), 503, "writes_full", "5"),
    "an endless break": (errors.CircuitOpen("x", retry_after=1e12), 503, "circuit_open", "86400"),
    # As `asyncio.TaskGroup` raises them.
    "outages at once": (several(outage(3.0), several(outage(11.0), outage(7.0))), 503, "circuit_open", "11"),
    "a denial at once": (several(outage(3.0), errors.TokenDenied("invalid_client")), 502, "token_denied", None),
    "a bad token at once": (
        several(errors.TokenDenied("x"), InvalidToken("expired", "x"), outage(3.0)), 401, "expired", None
    ),
}  # fmt: skip

#: What a view raises that is no outage, or not only one.
MISTAKES: dict[str, Exception] = {
    "a mistake": errors.ConfigurationError("a mistake of the owner's"),
    "one at once": several(errors.ConfigurationError("a mistake of the owner's"), outage(3.0)),
    "another's at once": several(outage(3.0), several(ValueError("a mistake of the owner's"))),
}


#: What never gets to a framework's handlers: `SignIn` answers the first one, callouts and writes their own.
INSIDE = {
    "sign_in_needed",
    *(kind.code for kind in (MalformedCallout, UnfitAnswer, Stranger, Undeliverable, Unanswered)),
}


def below(kind: type[Any]) -> Iterator[type[Any]]:
    """Every kind of an error that this package has."""
    for each in kind.__subclasses__():
        if each.__module__.startswith("resilient_auth."):
            yield each
            yield from below(each)


RAISED |= {
    kind.code: (kind("x", retry_after=9.0), 503, kind.code, "9")
    for base in (errors.ProviderUnavailable, downstream.ApiUnavailable)
    for kind in (base, *below(base))
    if kind is not VerificationUnavailable
}


def raising(name: str) -> Any:
    """Raise it, freshly made, as a view would."""
    error = RAISED[name][0] if name in RAISED else MISTAKES[name]
    made = pickle.loads(pickle.dumps(error))
    raise led_to(made, error.__cause__) if error.__cause__ else made


def in_flask() -> Any:
    app, orders = Flask("orders"), Blueprint("orders", "orders")
    app.get("/raise/<name>")(raising)
    for_flask.install(app, realm="orders")
    app.register_blueprint(orders)
    return wsgi(app)


def in_a_blueprint() -> Any:
    app, orders = Flask("shop"), Blueprint("orders", "orders")
    orders.get("/raise/<name>")(raising)
    for_flask.handle_errors(orders, realm="orders")
    app.register_blueprint(orders)
    return wsgi(app)


def in_fastapi() -> Any:
    app = FastAPI()
    for_fastapi.install(app, realm="orders")

    @app.get("/raise/{name:path}")
    async def fails(name: str) -> None:
        raising(name)

    return asgi(app)


def in_starlette() -> Any:
    inner = Starlette()
    for_fastapi.handle_errors(inner, realm="orders")
    inner.add_route("/raise/{name:path}", lambda request: raising(request.path_params["name"]))
    return asgi(Starlette(routes=[Mount("/", inner)]))


class _Served:
    """A Django site with the middleware, as long as it is served."""

    def __init__(self, urls: list[Any], serve: Callable[[], Any], middleware: str, guard: Any = None) -> None:
        self._made = ExitStack()
        self._urls, self._serve, self._middleware, self._guard = urls, serve, middleware, guard

    def __enter__(self) -> str:
        module: Any = self._made.enter_context(django_site.site(self._urls, MIDDLEWARE=[self._middleware]))

        def with_realm(get_response: Any) -> Any:
            return for_django.install(get_response, realm="orders")

        with_realm.async_capable = True  # type: ignore[attr-defined]
        module.with_realm, module.guard = with_realm, self._guard
        return str(self._made.enter_context(self._serve()))

    def __exit__(self, *_: object) -> None:
        self._made.close()


def django_urls(*, asynchronous: bool) -> list[Any]:
    async def fails_async(request: Any, name: str) -> None:
        raising(name)

    fails = fails_async if asynchronous else lambda request, name: raising(name)
    return [path("raise/<path:name>", fails)]


def in_django() -> Any:
    return _Served(django_urls(asynchronous=False), lambda: wsgi(WSGIHandler()), "the_site.with_realm")


def in_django_asgi() -> Any:
    return _Served(django_urls(asynchronous=True), lambda: asgi(ASGIHandler()), "the_site.with_realm")


def in_rest_framework() -> Any:
    class Fails(APIView):
        authentication_classes = ()

        def get(self, request: Any, name: str) -> Any:
            return raising(name)

    urls = [path("raise/<path:name>", Fails.as_view())]
    return _Served(urls, lambda: wsgi(WSGIHandler()), "the_site.with_realm")


SITES: dict[str, Callable[[], Any]] = {
    "flask": in_flask,
    "a blueprint": in_a_blueprint,
    "fastapi": in_fastapi,
    "starlette, mounted": in_starlette,
    "django": in_django,
    "django, asgi": in_django_asgi,
    "django rest framework": in_rest_framework,
}


@pytest.fixture(scope="module", params=SITES)
def ask(request: pytest.FixtureRequest) -> Iterator[Callable[[str], httpx.Response]]:
    # Kept connections would wait for acknowledgements that the kernel puts off.
    closing = {"Connection": "close"}
    with SITES[request.param]() as url, httpx.Client(base_url=url, trust_env=False, headers=closing) as client:
        yield client.get


def test_every_error_is_answered(ask: Callable[[str], httpx.Response]) -> None:
    """With its status, its code, a message for the user, and when to come again."""
    for name, (_, status, code, after) in RAISED.items():
        answer = ask(f"/raise/{name}")
        assert (name, answer.status_code, answer.headers.get("Retry-After")) == (name, status, after)
        assert answer.json()["detail"]["code"] == code, name
        assert answer.json()["detail"]["message"]
        assert answer.headers["Cache-Control"] == "no-store"
        challenge = answer.headers.get("WWW-Authenticate")
        assert (challenge or "").startswith('Bearer realm="orders"' if status == 401 else ""), name
    assert ask("/raise/a no of the service").json()["detail"]["message"] == "You left."


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_of_the_owners_is_no_outage(ask: Callable[[str], httpx.Response]) -> None:
    """It is logged by the framework as any other error of the application's is."""
    for name in MISTAKES:
        assert (name, ask(f"/raise/{name}").status_code) == (name, 500)


def test_no_error_is_left_out() -> None:
    """Whatever class there is: it is in the table above, or a mistake of the owner's."""
    # By code: other tests of this process import the package anew, and one class is also MSAL's.
    tried = {getattr(type(error), "code", "several") for error, *_ in RAISED.values()}
    assert {kind.code for kind in below(errors.ResilientAuthError)} - tried - INSIDE == {"configuration"}
    with pytest.raises(errors.ConfigurationError, match="the owner's"):
        refused(errors.ConfigurationError("the owner's"))


class TestInFlask:
    def test_an_applications_own_handlers_come_first(self) -> None:
        """By class or by status."""
        app = Flask("orders")
        app.get("/raise/<name>")(raising)
        for_flask.install(app)
        app.register_error_handler(errors.CircuitOpen, lambda error: ("own", 418))
        app.register_error_handler(502, lambda error: (f"page {error.refusal.code}", 502))
        client = app.test_client()
        assert client.get("/raise/an endless break").status_code == 418
        assert client.get("/raise/outages at once").status_code == 418
        assert client.get("/raise/a denial").text == "page token_denied"

    def test_jsonify_takes_claims(self) -> None:
        """And decisions; other values as before."""
        app = Flask("orders")
        for_flask.install(app)
        with app.test_request_context():
            g.claims = testing.claims("ada", scopes="b a", address={"city": "Zürich"})
            told = jsonify({"user": g.claims, "decision": Decision(allowed=True)}).json
            assert told["user"]["scopes"] == ["a", "b"]
            assert told["user"]["raw"]["address"] == {"city": "Zürich"}
            assert told["decision"]["allowed"] is True
            with pytest.raises(TypeError):
                jsonify(object())


def test_in_starlette_an_applications_own_handlers_come_first() -> None:
    """Of groups too, and of one error in a group."""
    app, grouped = FastAPI(), FastAPI()
    grouped.add_exception_handler(ExceptionGroup, lambda request, error: JSONResponse({}, 418))
    for each in (app, grouped):
        for_fastapi.install(each)
        each.get("/raise/{name:path}")(raising)
    app.add_exception_handler(errors.CircuitOpen, lambda request, error: JSONResponse({}, 418))
    assert TestClient(app).get("/raise/outages at once").status_code == 418
    assert TestClient(app).get("/raise/a denial at once").status_code == 502
    assert TestClient(grouped).get("/raise/outages at once").status_code == 418
    assert TestClient(grouped).get("/raise/an endless break").status_code == 503


@pytest.fixture(scope="module")
def live() -> Iterator[str]:
    app = FastAPI()
    for_fastapi.install(app)

    @app.websocket("/before/{name:path}")
    async def before(socket: WebSocket, name: str) -> None:
        raising(name)

    @app.websocket("/after/{name:path}")
    async def after(socket: WebSocket, name: str) -> None:
        await socket.accept()
        raising(name)

    with asgi(app) as url:
        yield url.replace("http", "ws")


class TestWebSockets:
    def test_one_that_isnt_accepted_is_answered(self, live: str) -> None:
        with pytest.raises(InvalidStatus) as answered:
            connect(f"{live}/before/no%20keys")
        response = answered.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "8")

    @pytest.mark.parametrize(("name", "code"), [("no keys", 1013), ("a denial", 1008)])
    def test_one_that_was_accepted_is_closed(self, live: str, name: str, code: int) -> None:
        """Try again later (1013), or don't."""
        with connect(f"{live}/after/{quote(name)}") as socket, pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


def test_an_outage_behind_a_view_is_a_503(issuer: Issuer) -> None:
    """The provider's, in Flask; an API's, in FastAPI."""
    app = Flask("orders")
    for_flask.install(app)
    daemon = ra.msal.ConfidentialClientApplication(
        "daemon",
        authority=issuer.idp.authority("contoso"),
        client_credential="x",
        instance_discovery=False,
        verify=issuer.idp.ca_file,
        resilience=ra.Settings(clock=testing.ManualClock(), wait=0.2, retry=ra.RetryOptions(attempts=1)),
    )
    app.get("/orders")(lambda: daemon.acquire_token_for_client(["api://stock/.default"]))
    issuer.idp.fail(Fault.reset(), "token")
    answer = app.test_client().get("/orders")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    daemon.close()

    api = FastAPI()
    for_fastapi.install(api)

    @api.get("/orders")
    async def orders() -> None:
        async with ra.aio.api_client("http://127.0.0.1:9", None, allow_http_loopback=True) as stock:
            await stock.post("/")

    with asgi(api) as url:
        answer = httpx.get(f"{url}/orders", trust_env=False)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "api_connection_refused")


def guarded_sites(blocking: Any, asynchronous: Any, **asked: Any) -> Iterator[tuple[str, Any]]:
    """Sites that guard everything, each in its framework's way, without `install`."""

    def nothing() -> dict[str, Any]:
        return {}

    orders = Flask("guarded")
    orders.get("/me")(for_flask.authenticated(blocking, **asked)(nothing))
    yield "flask", wsgi(orders)
    api = FastAPI(dependencies=[Depends(for_fastapi.Authenticated(asynchronous, **asked))])
    api.get("/me")(nothing)
    yield "fastapi", asgi(api)
    yield (
        "starlette",
        asgi(Starlette(middleware=[Middleware(for_fastapi.ClaimsMiddleware, verifier=asynchronous, **asked)])),
    )

    def me(request: Any) -> JsonResponse:
        return JsonResponse({})

    class Me(APIView):
        authentication_classes = (type("Ours", (BearerAuthentication,), {"verifier": blocking, **asked}),)
        permission_classes = ()
        get = staticmethod(me)

        def get_exception_handler(self) -> Any:
            return exception_handler

    middleware = for_django.claims_middleware(blocking, **asked)
    urls = [path("me", me)]
    for name, serve in (("django", lambda: wsgi(WSGIHandler())), ("django, asgi", lambda: asgi(ASGIHandler()))):
        yield name, _Served(urls, serve, "the_site.guard", guard=middleware)
    yield (
        "django rest framework",
        _Served([path("me", Me.as_view())], lambda: wsgi(WSGIHandler()), "the_site.with_realm"),
    )


def test_a_guard_answers_whatever_its_verifier_raises(issuer: Issuer) -> None:
    """One that was closed says so with a 503; a middleware's errors meet no handler."""
    blocking, asynchronous = issuer.verifier(), issuer.verifier(ra.aio.ClaimsVerifier)
    blocking.close()
    asyncio.run(asynchronous.close())
    headers = {"Authorization": f"Bearer {issuer.user_token()}", "Connection": "close"}
    for name, served in guarded_sites(blocking, asynchronous):
        with served as url:
            answer = httpx.get(f"{url}/me", headers=headers, trust_env=False)
        assert (name, answer.status_code, answer.json()["detail"]["code"]) == (name, 503, "closed")
        assert answer.headers["Retry-After"] == "5"


def test_one_of_several_is_enough_in_every_framework(issuer: Issuer) -> None:
    """A scope, or a role."""
    enough: dict[str, Any] = {"any_scopes": ("orders.read", "orders.list"), "any_roles": "Orders.Admin"}
    blocking, asynchronous = issuer.verifier(), issuer.verifier(ra.aio.ClaimsVerifier)
    about = {
        name: {"Authorization": f"Bearer {testing.token(issuer.idp, **said)}", "Connection": "close"}
        for name, said in {"a": {"scopes": "orders.list"}, "b": {"roles": "Orders.Admin"}, "c": {"scopes": "x"}}.items()
    }
    for name, served in guarded_sites(blocking, asynchronous, **enough):
        with served as url, httpx.Client(base_url=url, trust_env=False) as client:
            found = [client.get("/me", headers=headers).status_code for headers in about.values()]
        # The bare Starlette site has no such route; it is guarded all the same.
        assert (name, found) == (name, [404, 404, 403] if name == "starlette" else [200, 200, 403])
