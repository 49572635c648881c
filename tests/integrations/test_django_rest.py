"""Django REST framework: its own classes for authentication and permissions, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import django_site
import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.urls import path
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView
from served import wsgi
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import errors, testing
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.django import ClaimsUser
from resilient_auth.integrations.django.rest import BearerAuthentication, exception_handler, has_roles, has_scopes
from resilient_auth.verify import TokenCookie

Ask = Callable[..., httpx.Response]


class Me(APIView):
    permission_classes: Any = (IsAuthenticated,)

    def get(self, request: Any) -> Response:
        claims = request.auth
        return Response({"user": str(request.user), "scopes": sorted(claims.scopes), "raw": claims.raw})

    post = get


class Fails(APIView):
    def get(self, request: Any) -> Response:
        raise errors.CircuitOpen("x", retry_after=7.0)


class Told(Me):
    """With the handler that answers as other frameworks do."""

    def get_exception_handler(self) -> Any:
        return exception_handler


def permitted(*classes: Any, base: type = Me) -> type[APIView]:
    return type("Permitted", (base,), {"permission_classes": classes})


class NotAtAll(BasePermission):  # type: ignore[misc]
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


@pytest.fixture
def ask(issuer: Issuer) -> Iterator[Ask]:
    class Entra(BearerAuthentication):
        verifier = issuer.verifier()
        realm = "orders"

    class Cookies(Entra):
        token_in = TokenCookie("token")

    class Nobody(Entra):
        def user_of(self, claims: Any) -> Any:
            return None

    class Readers(Entra):
        scopes = "orders.read"

    def view(kind: type[APIView], *authenticators: Any) -> Any:
        return kind.as_view(authentication_classes=authenticators or (Entra,))

    either = has_scopes("orders.read") | has_roles("Orders.Admin")
    urls = [
        path("me", view(Me)),
        path("told", view(Told)),
        path("open", view(permitted(AllowAny), Entra)),
        path("behind", view(Me, SessionAuthentication, Entra)),
        path("beside", view(Me, BasicAuthentication, Entra)),
        path("cookie", view(Me, Cookies)),
        path("nobody", view(Me, Nobody)),
        path("readers", view(Me, Readers)),
        path("scope", view(permitted(has_scopes("orders.read", "orders.list")))),
        path("scope-told", view(permitted(has_scopes("orders.read"), base=Told))),
        path("role-told", view(permitted(has_roles("Orders.Admin"), base=Told))),
        path("never-told", view(permitted(NotAtAll, base=Told))),
        path("either", view(permitted(either))),
        path("fails", view(Fails)),
        path("fails-told", view(type("FailsTold", (Fails, Told), {}))),
    ]
    rest = {"UNAUTHENTICATED_USER": None}
    with django_site.site(urls, REST_FRAMEWORK=rest), wsgi(WSGIHandler()) as url:
        api_settings.reload()
        with httpx.Client(base_url=url, trust_env=False, headers={"Connection": "close"}) as client:

            def ask(path: str, headers: dict[str, str] | None = None, **said: Any) -> httpx.Response:
                if said:
                    headers = {"Authorization": f"Bearer {testing.token(issuer.idp, **said)}"}
                return client.get(path, headers=headers)

            yield ask
    api_settings.reload()


class TestAuthentication:
    def test_a_good_token_gives_user_and_claims(self, ask: Ask) -> None:
        """The claims, nested ones too, are what the framework renders as JSON."""
        address = {"city": "Zürich", "lines": ["a"]}
        answer = ask("/me", subject="1", scopes="a", preferred_username="ada@x", address=address)
        assert answer.status_code == 200
        assert answer.json()["user"] == "ada@x"
        assert answer.json()["raw"]["address"] == address

    def test_no_token_is_challenged(self, ask: Ask) -> None:
        """And told no error; a bad one is told which, in the body that other frameworks send."""
        answer = ask("/me")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="orders"')
        bad = ask("/me", subject="ada", expires_in=-120)
        assert (bad.status_code, bad.json()["detail"]["code"]) == (401, "expired")
        assert bad.headers["WWW-Authenticate"].startswith('Bearer realm="orders", error="invalid_token"')
        assert ask("/open", subject="ada", audience="other").status_code == 401

    def test_other_classes_may_stand_beside_it(self, ask: Ask) -> None:
        """A bad token is a 401 even behind one that makes everything a 403."""
        for where in ("/behind", "/beside"):
            assert ask(where, subject="ada").status_code == 200
            assert ask(where, subject="ada", expires_in=-120).json()["detail"]["code"] == "expired"
        assert ask("/behind").status_code == 403
        assert ask("/beside").headers["WWW-Authenticate"].startswith("Basic")

    def test_an_outage_is_a_503(self, issuer: Issuer, ask: Ask) -> None:
        token = issuer.user_token()
        issuer.goes_down()
        answer = ask("/me", {"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "verification_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1

    def test_attributes_say_the_rest(self, issuer: Issuer, ask: Ask) -> None:
        """Where the token is, what it must have, and who its user is."""
        token = testing.token(issuer.idp, "ada")
        assert ask("/cookie", {"Cookie": f"token={token}"}).status_code == 200
        assert ask("/cookie", subject="ada").status_code == 401
        answer = ask("/nobody", subject="ada")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "unknown_user")
        assert ask("/readers", subject="ada", scopes="orders.read").status_code == 200
        answer = ask("/readers", subject="ada", scopes="orders.list")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "insufficient_scope")
        assert 'scope="orders.read"' in answer.headers["WWW-Authenticate"]

    def test_a_wrong_attribute_is_said_with_the_class(self, issuer: Issuer) -> None:
        for wrong, says in (
            ({"verifier": object()}, "ClaimsVerifier"),
            ({"verifier": issuer.verifier(ra.aio.ClaimsVerifier)}, "asyncio"),
            ({"verifier": issuer.verifier(), "scopes": "a b"}, "scopes"),
            ({"verifier": issuer.verifier(), "token_in": "cookie"}, "token_in"),
        ):
            with pytest.raises(ConfigurationError, match=says):
                type("Wrong", (BearerAuthentication,), wrong)
        with pytest.raises(ConfigurationError, match="set it in a subclass"):
            BearerAuthentication().authenticate(None)

    def test_a_view_is_tested_without_any_provider(self) -> None:
        """By the framework's own way."""
        request = APIRequestFactory().get("/me")
        claims = testing.claims("ada", scopes="orders.read")
        force_authenticate(request, user=ClaimsUser(claims), token=claims)
        view = permitted(has_scopes("orders.read")).as_view()
        assert view(request).data["user"] == "ada"


class TestPermissions:
    def test_scopes_and_roles(self, ask: Ask) -> None:
        """All of those that are named; and put together as the framework's own are."""
        assert ask("/scope", subject="a", scopes="orders.read orders.list").status_code == 200
        answer = ask("/scope", subject="a", scopes="orders.read")
        assert (answer.status_code, answer.json()) == (
            403,
            {"detail": "This application isn't allowed to do this for you."},
        )
        assert ask("/scope").status_code == 401
        assert ask("/either", subject="a", scopes="orders.read").status_code == 200
        assert ask("/either", subject="a", roles="Orders.Admin").status_code == 200
        assert ask("/either", subject="a", scopes="other", roles="other").status_code == 403

    @pytest.mark.parametrize("make", [has_scopes, has_roles])
    def test_nothing_is_no_permission(self, make: Any) -> None:
        for wrong in ((), ("a b",), (5,), ("",)):
            with pytest.raises(ConfigurationError):
                make(*wrong)


class TestHandler:
    def test_what_is_lacking_is_told_as_elsewhere(self, ask: Ask) -> None:
        for where, code in (("/scope-told", "insufficient_scope"), ("/role-told", "insufficient_role")):
            answer = ask(where, subject="a")
            assert (answer.status_code, answer.json()["detail"]["code"]) == (403, code)
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
            assert answer.headers["Cache-Control"] == "no-store"
        assert "code" not in ask("/never-told", subject="a").json()

    def test_every_error_of_ours_is_answered(self, ask: Ask) -> None:
        answer = ask("/fails-told", subject="a")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        assert answer.json()["detail"]["code"] == "circuit_open"
        assert ask("/fails", subject="a").status_code == 500
