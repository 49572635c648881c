"""Contoso's web application in Django: its users stay signed in while nobody can sign in."""

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import resilient_auth as ra
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_safe
from django.views.static import serve
from resilient_auth.integrations.django import SignIn, mount_health, mount_status_page
from resilient_auth.signin import IdentityProvider, SignInOptions

import contoso

log = logging.getLogger("web")

# Sessions and tokens, sealed: a restart in an outage signs nobody out (G3).
store = ra.FileStore(Path(os.environ["DATA"]) / "users.db")
auth = SignIn(
    None,
    IdentityProvider.for_entra(
        os.environ["TENANT_ID"],
        client_id=os.environ["CLIENT_ID"],
        client_credential=os.environ["CLIENT_SECRET"],
        scopes=[os.environ["API_SCOPE"]],
        # `api_client` meets claims challenges; only who does that may say so (G17).
        client_capabilities=["cp1"],
        label="Our sign-in service",
    ),
    base_url=os.environ["BASE_URL"],
    store=store,
    options=SignInOptions(sessions=contoso.SESSIONS, render=contoso.sign_in_page),
)
api = auth.api_client(os.environ["API_URL"], [os.environ["API_SCOPE"]], options=contoso.API_WAITS)
profiles = contoso.Profiles()
operators = contoso.Operators(os.environ.get("OPERATOR_PASSWORD"))


def close() -> None:
    """Let go of connections and files, in order."""
    api.close()
    auth.close()
    store.close()


def shown(page: str | bytes, status: int, headers: dict[str, str]) -> HttpResponse:
    return HttpResponse(page, status=status, headers=headers)


@require_safe
@auth.login_optional
def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse(contoso.page("home", auth.user))


@require_safe
@auth.login_required(scopes=[os.environ["API_SCOPE"]])
def profile(request: HttpRequest) -> HttpResponse:
    assert auth.user is not None  # who isn't signed in doesn't come here
    fresh = True
    try:
        profiles.keep(auth.user, api.get("/api/me").raise_for_status().json()["claims"])
    except (httpx.HTTPError, ra.ProviderUnavailable) as error:
        log.warning("no profile: %s", contoso.one_line(error))
        fresh = False
    return shown(*contoso.profile_page(auth.user, profiles.of(auth.user), fresh=fresh))


@require_safe
# An authentication context, which Entra's conditional access gives a meaning: here it is one more proof.
@auth.login_required(acrs="c1")
def account(request: HttpRequest) -> HttpResponse:
    assert auth.user is not None  # who isn't signed in doesn't come here
    return shown(*contoso.account_page(auth.user))


def for_operators(view: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if operators.know(request.headers.get("Authorization")):
            return view(request, *args, **kwargs)
        return shown("For operators.", 401, operators.ASKED)

    return guarded


@for_operators
def metrics(request: HttpRequest) -> HttpResponse:
    return shown(*operators.metrics())


def protect(answer_to: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give each answer our headers; a middleware."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = answer_to(request)
        for name, value in contoso.HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return answer


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return HttpResponse(contoso.error_page(404), status=404)


def failed(request: HttpRequest) -> HttpResponse:
    return HttpResponse(contoso.error_page(500), status=500)


handler404, handler500 = not_found, failed

urlpatterns = [
    *auth.urlpatterns,
    path("", home),
    path("profile", profile),
    path("account", account),
    path("metrics", metrics),
    # On one machine, to try it out. Elsewhere: WhiteNoise, or the server in front.
    path("static/<path:path>", serve, {"document_root": settings.STATIC_ROOT}),
]
# For probes: /health/ready fails where nobody would be served, /health/live never for the provider's sake.
mount_health(urlpatterns)
mount_status_page(urlpatterns, guard=for_operators, title="Contoso")
