"""Django's own habits: `request.user`, authentication backends and permission decorators, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import django_site
import httpx
import pytest
from django.contrib.auth.decorators import login_required, permission_required
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, JsonResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from served import asgi, wsgi
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import testing
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.django import (
    ClaimsUser,
    authenticated,
    claims_middleware,
    from_backends,
    requires,
)
from resilient_auth.integrations.django.backend import ClaimsBackend

Ask = Callable[..., httpx.Response]


class Takeover(ClaimsBackend):
    """An application's backend, which takes a name over."""

    def configure_user(self, request: Any, user: Any, claims: Any, *, created: bool) -> Any:
        user.first_name = claims.name or ""
        user.save()
        return super().configure_user(request, user, claims, created=created)


class Known(ClaimsBackend):
    create_unknown_user = False


BACKEND = f"{__name__}.Takeover"


def who(request: Any) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username(), "in": request.user.is_authenticated})


async def who_async(request: Any) -> JsonResponse:
    user = await request.auser()
    return JsonResponse({"user": user.get_username(), "in": user.is_authenticated})


def never(request: Any, **_: Any) -> HttpResponse:
    raise AssertionError("it got in")


async def one_of_a_task(claims: Any) -> ClaimsUser:
    await asyncio.sleep(0)
    return ClaimsUser(claims)


class Orders(View):
    """A view whose methods ask for more."""

    def get(self, request: Any) -> JsonResponse:
        return who(request)

    @method_decorator(requires(scopes="orders.write"))
    def post(self, request: Any) -> JsonResponse:
        return who(request)


class AsyncOrders(View):
    async def get(self, request: Any) -> JsonResponse:
        return await who_async(request)

    @method_decorator(requires(scopes="orders.write"))
    async def post(self, request: Any) -> JsonResponse:
        return await who_async(request)


def urls(verifier: Any, view: Any, orders: Any) -> list[Any]:
    guard = authenticated(verifier, user=ClaimsUser)
    return [
        path("me", guard(view)),
        path("stored", authenticated(verifier, user=from_backends)(view)),
        path("nobody", authenticated(verifier, user=lambda claims: None)(never)),
        path("login", guard(login_required(view))),
        path("perm", guard(permission_required("orders.read", raise_exception=True)(view))),
        path("role", guard(permission_required(["Orders.Admin"], raise_exception=True)(view))),
        path("requires", guard(requires(scopes=["orders.read"], roles="Orders.Admin", realm="orders")(view))),
        path("any", guard(requires(any_scopes="orders.read", any_roles="Orders.Admin")(view))),
        path("users", guard(requires(app_only=False)(view))),
        path("bare", requires(scopes="orders.read", realm="orders")(view)),
        path("orders", guard(orders.as_view())),
    ]


@pytest.fixture(scope="module")
def users() -> Iterator[None]:
    with django_site.tables():
        yield


@pytest.fixture(params=["threads", "tasks"])
def ask(request: pytest.FixtureRequest, issuer: Issuer, users: None) -> Iterator[Ask]:
    """Ask a site for a path, with a token that says this."""
    threads = request.param == "threads"
    views = (who, Orders) if threads else (who_async, AsyncOrders)
    served = django_site.site(urls(issuer.verifier(), *views), AUTHENTICATION_BACKENDS=[BACKEND])
    with served, wsgi(WSGIHandler()) if threads else asgi(ASGIHandler()) as url:
        client = httpx.Client(base_url=url, trust_env=False, headers={"Connection": "close"})

        def ask(path: str, method: str = "GET", **said: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {testing.token(issuer.idp, **said)}"} if said else {}
            return client.request(method, path, headers=headers)

        yield ask
        client.close()


class TestUsers:
    def test_the_claims_user_is_the_requests(self, issuer: Issuer, ask: Ask) -> None:
        """In `request.user`, and in `request.auser()` for async views."""
        answer = ask("/me", subject="ada")
        assert answer.json() == {"user": f"{issuer.name}|ada", "in": True}
        assert ask("/login", subject="ada").status_code == 200

    def test_a_scope_or_a_role_is_a_permission(self, ask: Ask) -> None:
        """For Django's own decorators."""
        assert ask("/perm", subject="ada", scopes="orders.read").status_code == 200
        assert ask("/perm", subject="ada", scopes="orders.list").status_code == 403
        assert ask("/role", subject="ada", roles="Orders.Admin").status_code == 200
        assert ask("/role", subject="ada", scopes="orders.read").status_code == 403

    def test_the_databases_user_is_made_once(self, issuer: Issuer, ask: Ask) -> None:
        """By issuer and subject; somebody of another tenant is somebody else."""
        from django.contrib.auth.models import User

        User.objects.all().delete()
        for _ in range(2):
            answer = ask("/stored", subject="ada", name="Ada")
            assert answer.json() == {"user": f"{issuer.name}|ada", "in": True}
        user = User.objects.get()
        assert (user.first_name, user.has_usable_password()) == ("Ada", False)
        User.objects.update(is_active=False)
        assert ask("/stored", subject="ada").status_code == 403

    def test_who_isnt_known_is_refused(self, ask: Ask) -> None:
        """With 403: another token of theirs won't help. An application's own token is nobody's."""
        answer = ask("/nobody", subject="ada")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "unknown_user")
        assert ask("/stored", subject="robot", app_only=True).status_code == 403

    def test_without_it_the_user_is_left_alone(self, issuer: Issuer) -> None:
        request = RequestFactory().get("/", headers={"Authorization": f"Bearer {testing.token(issuer.idp, 'ada')}"})
        request.user = "somebody"
        authenticated(issuer.verifier())(lambda request: HttpResponse())(request)
        assert (request.user, request.claims.subject) == ("somebody", "ada")

    def test_a_coroutine_function_makes_one_too(self, issuer: Issuer) -> None:
        """For async views alone."""
        verifier = issuer.verifier()
        request = RequestFactory().get("/", headers={"Authorization": f"Bearer {testing.token(issuer.idp, 'ada')}"})
        answer = asyncio.run(authenticated(verifier, user=one_of_a_task)(who_async)(request))
        assert answer.status_code == 200
        with pytest.raises(ConfigurationError, match="user="):
            authenticated(verifier, user=one_of_a_task)(who)
        with pytest.raises(ConfigurationError, match="user must be"):
            authenticated(verifier, user=True)(who)  # type: ignore[arg-type]

    def test_the_middleware_makes_one_too(self, issuer: Issuer) -> None:
        middleware = claims_middleware(issuer.verifier(), user=ClaimsUser, public=("/open",))(who)
        token = testing.token(issuer.idp, "ada")
        request = RequestFactory().get("/me", headers={"Authorization": f"Bearer {token}"})
        assert b"|ada" in middleware(request).content

    def test_two_of_one_name_are_two(self) -> None:
        """Users are told apart by issuer and subject, whatever they are called."""
        ada = ClaimsUser(testing.claims("1", preferred_username="ada@contoso.com"))
        other = ClaimsUser(testing.claims("1", preferred_username="ada@contoso.com", iss="https://other.example"))
        assert ada != other
        assert {ada, ClaimsUser(testing.claims("1"))} == {ada}
        assert (str(ada), ada.username, ada.get_username()) == ("ada@contoso.com", "ada@contoso.com", ada.pk)
        assert "ada" not in repr(ada)
        reader = ClaimsUser(testing.claims(scopes="orders.read", roles=["x"]))
        assert reader.has_module_perms("orders")
        assert not reader.has_module_perms("order")
        assert not reader.has_perm("orders.read", object())
        assert not asyncio.run(reader.ahas_module_perms("stock"))
        assert asyncio.run(reader.ahas_perms(["x", "orders.read"]))


class TestPermissions:
    def test_a_view_may_ask_for_more(self, ask: Ask) -> None:
        """A scope and a role; users alone; or one method of a view."""
        both = {"scopes": "orders.read", "roles": "Orders.Admin"}
        assert ask("/requires", subject="ada", **both).status_code == 200
        answer = ask("/requires", subject="ada", scopes="orders.read")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_role")
        answer = ask("/requires", subject="ada", roles="Orders.Admin")
        assert 'realm="orders", error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert ask("/any", subject="ada", scopes="orders.read").status_code == 200
        assert ask("/any", subject="ada", roles="Orders.Admin").status_code == 200
        assert ask("/any", subject="ada", scopes="x", roles="x").status_code == 403
        assert ask("/users", subject="robot", app_only=True).json()["detail"]["code"] == "user_only"
        assert ask("/orders", subject="ada").status_code == 200
        assert ask("/orders", "POST", subject="ada", scopes="orders.read").status_code == 403
        assert ask("/orders", "POST", subject="ada", scopes="orders.write").status_code == 200

    def test_without_a_verified_token_nothing_is_enough(self, ask: Ask) -> None:
        """A decorator that was forgotten lets nobody in."""
        answer = ask("/bare", subject="ada", scopes="orders.read")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="orders"')

    @pytest.mark.parametrize("wrong", [{}, {"scopes": "a b"}, {"roles": [5]}, {"app_only": 5}], ids=str)
    def test_a_wrong_argument_is_said_at_once(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            requires(**wrong)


class TestBackend:
    def test_passwords_and_other_credentials_are_others(self, users: None) -> None:
        """A claims backend says nothing to them, so that the next one is asked."""
        from django.contrib.auth import authenticate

        with django_site.override_settings(AUTHENTICATION_BACKENDS=[BACKEND]):
            assert authenticate(None, username="ada", password="pw") is None
            assert authenticate(None, claims={"sub": "ada"}) is None
        found = asyncio.run(ClaimsBackend().aauthenticate(None, claims=None))
        assert found is None

    def test_a_session_finds_its_user(self, users: None) -> None:
        """While they are there and active."""
        from django.contrib.auth.models import User

        backend = ClaimsBackend()
        user = backend.authenticate(None, testing.claims("bob"))
        assert backend.get_user(user.pk) == user
        User.objects.filter(pk=user.pk).update(is_active=False)
        assert backend.get_user(user.pk) is None
        assert asyncio.run(backend.aget_user(0)) is None

    def test_strangers_may_be_refused(self, users: None) -> None:
        from django.contrib.auth.models import User

        claims = testing.claims("eve")
        assert Known().authenticate(None, claims) is None
        User.objects.create(username=Known().username_of(claims))
        assert Known().authenticate(None, claims).username.endswith("|eve")

    def test_a_long_name_becomes_a_hash_of_its_own(self) -> None:
        """No two users share one by being cut off."""
        names = {ClaimsBackend().username_of(testing.claims("x" * 200 + end)) for end in "ab"}
        assert {len(name) for name in names} == {64}
        assert len(names) == 2


def test_the_verifier_of_tasks_makes_users_too(issuer: Issuer) -> None:
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    request = RequestFactory().get("/", headers={"Authorization": f"Bearer {testing.token(issuer.idp, 'ada')}"})
    answer = asyncio.run(authenticated(verifier, user=ClaimsUser)(who_async)(request))
    assert b"|ada" in answer.content
