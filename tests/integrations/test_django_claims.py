"""Verified tokens in Django, by its own test clients, with keys that come over TLS."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import django_site
import pytest
from django.http import JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from token_issuer import WRONG_HEADERS, Issuer

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.django import authenticated, challenge, claims_middleware

assert django_site.settings.configured


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def me(request: Any) -> JsonResponse:
    """Return who it is."""
    return JsonResponse({"name": request.claims.username, "keys": request.claims.provenance.keys})


async def me_async(request: Any) -> JsonResponse:
    return me(request)


def patterns(verifier: Any, view: Callable[..., Any]) -> list[Any]:
    """URLs of an application whose views are of one kind."""
    asynchronous = asyncio.iscoroutinefunction(view)

    def of(answer: Callable[[Any], JsonResponse]) -> Callable[..., Any]:
        async def answered(request: Any) -> JsonResponse:
            return answer(request)

        return answered if asynchronous else answer

    return [
        path("me", authenticated(verifier, realm="orders")(view)),
        path("orders", authenticated(verifier, scopes="orders.read")(view)),
        path("robots", authenticated(verifier, roles=("Tasks.ReadWrite.All",), app_only=True)(view)),
        path(
            "patient",
            authenticated(verifier, grace=True)(of(lambda r: JsonResponse({"grace": r.claims.provenance.grace}))),
        ),
        path("payments", authenticated(verifier)(of(lambda request: challenge(request.claims, "c1", realm="orders")))),
        path("open", of(lambda request: JsonResponse({"claims": hasattr(request, "claims")}))),
        path("bare", view),
    ]


class Site:
    """A Django application and a client of its kind."""

    def __init__(self, client: Any, runner: asyncio.Runner | None) -> None:
        self._client, self._runner = client, runner

    def get(self, url: str, headers: Any = None) -> Any:
        answer = self._client.get(url, headers=headers or {})
        if self._runner is None:
            return answer

        async def awaited() -> Any:
            return await answer

        return self._runner.run(awaited())


#: Views and a verifier of either kind: an async view does with both.
KINDS = {
    "threads": (me, ra.ClaimsVerifier),
    "tasks": (me_async, ra.aio.ClaimsVerifier),
    "tasks and a blocking verifier": (me_async, ra.ClaimsVerifier),
}


@pytest.fixture(params=KINDS)
def build(request: pytest.FixtureRequest, issuer: Issuer) -> Iterator[Callable[..., Site]]:
    view, make = KINDS[request.param]
    runner = asyncio.Runner() if view is me_async else None
    made: list[Any] = []

    def build(*, middleware: dict[str, Any] | None = None, **options: Any) -> Site:
        verifier = issuer.verifier(make, **options)
        urls: Any = ModuleType("urls_of_this_test")
        urls.urlpatterns = patterns(verifier, view)
        changed: dict[str, Any] = {"ROOT_URLCONF": urls}
        if middleware is not None:
            urls.require_token = claims_middleware(verifier, **middleware)
            sys.modules[urls.__name__] = urls
            changed["MIDDLEWARE"] = [f"{urls.__name__}.require_token"]
        override = override_settings(**changed)
        override.enable()
        made.append(override)
        return Site(Client() if runner is None else AsyncClient(), runner)

    yield build
    for override in made:
        override.disable()
    sys.modules.pop("urls_of_this_test", None)
    if runner is not None:
        runner.close()


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


class TestDecorator:
    def test_a_good_token_leaves_its_claims(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """In the request."""
        answer = build().get("/me", bearer(issuer.user_token()))
        assert (answer.status_code, answer.json()) == (200, {"name": "ada@contoso.com", "keys": "fresh"})

    @pytest.mark.parametrize("name", WRONG_HEADERS)
    def test_anything_else_is_challenged(self, build: Callable[..., Site], name: str) -> None:
        """Who sent no token is told no error (RFC 6750, section 3.1)."""
        header, code = WRONG_HEADERS[name]
        answer = build().get("/me", {} if header is None else {"Authorization": header})
        assert answer.status_code == 401
        assert answer.json()["detail"]["code"] == code
        assert "sign" in answer.json()["detail"]["message"]
        told = answer.headers["WWW-Authenticate"]
        assert told == 'Bearer realm="orders"' if code == "missing" else 'error="invalid_token"' in told
        assert answer.headers["Cache-Control"] == "no-store"

    def test_what_a_token_lacks_is_a_403(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """A scope, a role, or a user; an expired token is a 401."""
        site = build()
        token = issuer.user_token("orders.list")
        answer = site.get("/orders", bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_scope")
        assert 'scope="orders.read"' in answer.headers["WWW-Authenticate"]
        assert site.get("/robots", bearer(token)).status_code == 403
        assert site.get("/robots", bearer(issuer.app_token())).status_code == 200
        answer = site.get("/me", bearer(issuer.expired_token()))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (401, "expired")

    def test_a_caller_can_be_asked_for_more(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """One that never declared `cp1` is told 403 (G17)."""
        answer = build().get("/payments", bearer(issuer.user_token()))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_claims")

    def test_a_view_keeps_its_name(self, issuer: Issuer) -> None:
        """And its documentation."""
        guarded = authenticated(issuer.verifier())(me)
        assert (guarded.__name__, guarded.__doc__) == ("me", me.__doc__)

    def test_a_blocking_view_never_sees_asyncio(self, issuer: Issuer) -> None:
        """Nor does a blocking middleware."""
        verifier = issuer.verifier(ra.aio.ClaimsVerifier)
        for decorate in (authenticated(verifier), claims_middleware(verifier)):
            with pytest.raises(ConfigurationError, match="asyncio"):
                decorate(me)


class TestClassBasedViews:
    class Who(View):
        def get(self, request: Any) -> JsonResponse:
            return me(request)

    class AsyncWho(View):
        async def get(self, request: Any) -> JsonResponse:
            return me(request)

    @pytest.fixture
    def ask(self, issuer: Issuer) -> Callable[[Any, Any], Any]:
        def ask(client: Any, view: Any) -> Any:
            urls: Any = ModuleType("urls_of_this_test")
            urls.urlpatterns = [path("me", view)]
            headers = bearer(issuer.user_token())
            with override_settings(ROOT_URLCONF=urls):
                answer = client.get("/me", headers=headers)
                return asyncio.run(_awaited(answer)) if isinstance(client, AsyncClient) else answer

        return ask

    def test_they_are_decorated_as_a_whole(self, issuer: Issuer, ask: Any) -> None:
        """Both kinds; a blocking one by a method as well."""
        guard = authenticated(issuer.verifier())
        assert ask(Client(), guard(self.Who.as_view())).json()["name"] == "ada@contoso.com"
        assert ask(AsyncClient(), guard(self.AsyncWho.as_view())).json()["name"] == "ada@contoso.com"
        by_method = method_decorator(guard, name="dispatch")(type("ByMethod", (self.Who,), {}))
        assert ask(Client(), by_method.as_view()).json()["name"] == "ada@contoso.com"

    def test_a_loop_is_never_blocked_by_mistake(self, issuer: Issuer, ask: Any) -> None:
        """Django calls an async class's methods in the loop."""
        guard = authenticated(issuer.verifier())
        by_method = method_decorator(guard, name="dispatch")(type("Wrong", (self.AsyncWho,), {}))
        with pytest.raises(ConfigurationError, match="block the event loop"):
            ask(AsyncClient(), by_method.as_view())


class TestMiddleware:
    def test_only_verified_requests_pass(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """And public paths, which are compared as a whole."""
        site = build(middleware={"public": ("/open",), "scopes": "orders.read", "realm": "shop"})
        assert site.get("/bare", bearer(issuer.user_token())).json()["name"] == "ada@contoso.com"
        refused = site.get("/bare")
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="shop"')
        assert site.get("/bare", bearer(issuer.user_token("other"))).status_code == 403
        assert site.get("/open").json() == {"claims": False}
        for url in ("/open/", "/opened", "/Open", "/nowhere"):
            assert site.get(url).status_code == 401

    def test_an_outage_is_a_503(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """As in the decorator."""
        site = build(middleware={})
        token = issuer.user_token()
        issuer.goes_down()
        answer = site.get("/bare", bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "verification_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1

    @pytest.mark.parametrize("public", ["/open", ("open",), (5,)])
    def test_wrong_paths_are_said_at_once(self, issuer: Issuer, public: Any) -> None:
        """Before there is an application."""
        with pytest.raises(ConfigurationError, match="public"):
            claims_middleware(issuer.verifier(), public=public)


class TestOutage:
    def test_good_tokens_go_on_working(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """New ones too, whose key is known; bad ones are still bad."""
        site, fresh = build(), issuer.user_token()
        site.get("/me", bearer(issuer.user_token()))
        issuer.goes_down()
        began = time.monotonic()
        assert site.get("/me", bearer(fresh)).status_code == 200
        assert site.get("/me", bearer(fresh[:-8] + "AAAAAAAA")).status_code == 401
        assert time.monotonic() - began < 0.5

    def test_without_keys_it_is_a_503_and_no_401(self, issuer: Issuer, build: Callable[..., Site]) -> None:
        """A 401 would make every client sign its users in again at once."""
        site, token = build(), issuer.user_token()
        issuer.goes_down()
        answer = site.get("/me", bearer(token))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "verification_unavailable")
        assert "try again" in answer.json()["detail"]["message"]
        assert "WWW-Authenticate" not in answer.headers

    @pytest.mark.parametrize("make", [ra.ClaimsVerifier, ra.aio.ClaimsVerifier])
    def test_the_loop_is_not_blocked_meanwhile(self, issuer: Issuer, make: Any) -> None:
        """Whichever verifier waits for keys."""
        verifier = issuer.verifier(make)
        token = issuer.user_token()
        issuer.goes_down()
        view = authenticated(verifier)(me_async)

        async def serve() -> tuple[int, int]:
            from django.test import AsyncRequestFactory

            request = AsyncRequestFactory().get("/me", headers=bearer(token))
            serving, ticks = asyncio.create_task(view(request)), 0
            while not serving.done():
                await asyncio.sleep(0.01)
                ticks += 1
            return serving.result().status_code, ticks

        status, ticks = asyncio.run(serve())
        assert status == 503
        assert ticks > 15

    def test_grace_is_a_views_own(self, issuer: Issuer, patient: dict[str, Any], build: Callable[..., Site]) -> None:
        """An expired token is accepted where the view asks for that, and nowhere else."""
        site = build(**patient)

        def see(token: str) -> None:
            assert site.get("/me", bearer(token)).status_code == 200

        def accepted(token: str) -> bool:
            answer = site.get("/patient", bearer(token))
            return answer.status_code == 200 and bool(answer.json()["grace"])

        token = issuer.outlive(patient["settings"].clock, see, accepted)
        assert site.get("/me", bearer(token)).status_code == 401


def test_no_token_is_logged(issuer: Issuer, build: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    """Good or bad, in an outage or not."""
    site, good = build(), issuer.user_token()
    with caplog.at_level(logging.DEBUG):
        site.get("/me", bearer(good))
        text = site.get("/me", bearer(good[:-4] + "AAAA")).content.decode()
        issuer.goes_down()
        site.get("/me", bearer(good))
    assert good.split(".")[1][:30] not in caplog.text + text
