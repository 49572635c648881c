"""A route for users and applications asks for a scope or a role, in every framework."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import django_site
import pytest
from django.http import JsonResponse
from django.test import Client, override_settings
from django.urls import path
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth.integrations import django, fastapi, flask

assert django_site.settings.configured

ASKED: dict[str, Any] = {"any_scopes": ["orders.read", "orders.write"], "any_roles": "Tasks.ReadWrite.All"}


def in_flask(issuer: Issuer, headers: dict[str, str]) -> int:
    app = Flask("orders")
    app.get("/")(flask.authenticated(issuer.verifier(), **ASKED)(lambda: "in"))
    return app.test_client().get("/", headers=headers).status_code


def in_fastapi(issuer: Issuer, headers: dict[str, str]) -> int:
    app = FastAPI()
    either = fastapi.Authenticated(issuer.verifier(ra.aio.ClaimsVerifier), **ASKED)

    @app.get("/", dependencies=[Depends(either)])
    async def answer() -> str:
        return "in"

    return TestClient(app).get("/", headers=headers).status_code


def in_django(issuer: Issuer, headers: dict[str, str], *, behind: bool = False) -> int:
    def view(request: Any) -> JsonResponse:
        return JsonResponse({})

    urls: Any = ModuleType("urls_of_either")
    guard = django.authenticated(issuer.verifier(), **({} if behind else ASKED))
    urls.urlpatterns = [path("", guard(django.requires(**ASKED)(view) if behind else view))]
    with override_settings(ROOT_URLCONF=urls):
        return Client().get("/", headers=headers).status_code


def in_a_view_behind(issuer: Issuer, headers: dict[str, str]) -> int:
    return in_django(issuer, headers, behind=True)


@pytest.mark.parametrize("ask", [in_flask, in_fastapi, in_django, in_a_view_behind])
def test_either_will_do(ask: Any, issuer: Issuer) -> None:
    """And neither is enough for nobody."""
    tokens = issuer.user_token(), issuer.app_token(), issuer.user_token("profile.read")
    assert [ask(issuer, {"Authorization": f"Bearer {token}"}) for token in tokens] == [200, 200, 403]
