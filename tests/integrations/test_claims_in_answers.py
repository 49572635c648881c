"""Claims and decisions in the answers and sessions of ordinary applications, for users with nested claims too."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Annotated, Any, Optional

import django_site
import httpx
import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.core import signing
from django.core.serializers.json import DjangoJSONEncoder
from django.http import JsonResponse
from fastapi import Depends, FastAPI
from fastapi.encoders import jsonable_encoder
from flask import Flask, g, jsonify, session
from rest_framework.renderers import JSONRenderer
from served import asgi
from starlette.responses import JSONResponse
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth import testing
from resilient_auth.integrations.fastapi import Authenticated
from resilient_auth.integrations.flask import authenticated
from resilient_auth.verify import Claims

assert django_site.settings.configured

FURTHER: dict[str, dict[str, Any]] = {
    "flat": {},
    "nested": {"address": {"city": "Zürich", "lines": ["a", {"b": [1]}]}, "realm_access": {"roles": ["admin"]}},
}


@pytest.fixture(params=FURTHER)
def claims(request: pytest.FixtureRequest) -> Claims:
    return testing.claims("ada", scopes="b a", roles=["admin"], **FURTHER[request.param])


def answered(body: bytes) -> Any:
    return json.loads(body)


#: What an application does with claims; each gives JSON that says whose they are.
WAYS: dict[str, Callable[[Claims], Any]] = {
    "json, raw": lambda c: json.loads(json.dumps(c.raw)),
    "json, to_dict": lambda c: json.loads(json.dumps(c.to_dict()))["raw"],
    "json, dict": lambda c: json.loads(json.dumps(dict(c.raw))),
    "json of a copy": lambda c: json.loads(json.dumps(copy.deepcopy(c.raw))),
    "json of asdict": lambda c: json.loads(json.dumps(dataclasses.asdict(c)["raw"])),
    "json of a pickle": lambda c: json.loads(json.dumps(pickle.loads(pickle.dumps(c)).raw)),
    "fastapi's encoder": lambda c: jsonable_encoder(c)["raw"],
    "fastapi's encoder, raw": lambda c: jsonable_encoder(c.raw),
    "starlette": lambda c: answered(JSONResponse(c.to_dict()).body)["raw"],
    "starlette, raw": lambda c: answered(JSONResponse(c.raw).body),
    "django": lambda c: answered(JsonResponse(c.to_dict()).content)["raw"],
    "django, raw": lambda c: answered(JsonResponse(c.raw).content),
    "django's encoder": lambda c: json.loads(json.dumps(c.raw, cls=DjangoJSONEncoder)),
    "django's session": lambda c: JSONSerializer().loads(JSONSerializer().dumps({"u": dict(c.raw)}))["u"],
    "django's signing": lambda c: signing.loads(signing.dumps(c.raw)),
    "rest framework": lambda c: answered(JSONRenderer().render(c.raw)),
    "rest framework, to_dict": lambda c: answered(JSONRenderer().render(c.to_dict()))["raw"],
}


@pytest.mark.parametrize("way", WAYS)
def test_they_become_json(claims: Claims, way: str) -> None:
    """Whatever writes it."""
    assert WAYS[way](claims) == json.loads(json.dumps(claims.to_dict()["raw"]))


def test_flask_takes_them(issuer: Issuer) -> None:
    """In `jsonify`, as what a view returns, and in a session."""
    app = Flask("orders", static_folder=None)
    app.secret_key = "x"
    guard = authenticated(issuer.verifier())
    app.get("/jsonify")(guard(lambda: jsonify(g.claims.raw)))
    app.add_url_rule("/raw", "raw", guard(lambda: g.claims.raw))
    app.add_url_rule("/dict", "dict", guard(lambda: g.claims.to_dict()["raw"]))

    def sign_in() -> Any:
        session["user"] = dict(g.claims.raw)
        return {}

    app.add_url_rule("/in", "in", guard(sign_in))
    app.add_url_rule("/session", "session", lambda: session["user"])
    client = app.test_client()
    token = testing.token(issuer.idp, "ada", scopes="a", **FURTHER["nested"])
    for path in ("/jsonify", "/raw", "/dict", "/in"):
        answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, path
        assert path == "/in" or answer.json["address"] == FURTHER["nested"]["address"]
    assert client.get("/session").json["realm_access"] == {"roles": ["admin"]}


def test_fastapi_takes_them(issuer: Issuer) -> None:
    """As what an endpoint returns: with its type, without, and inside of something."""
    app = FastAPI()
    who = Annotated[Claims, Depends(Authenticated(issuer.verifier(ra.aio.ClaimsVerifier)))]

    @app.get("/typed")
    async def typed(claims: who) -> Claims:
        return claims

    @app.get("/untyped")
    async def untyped(claims: who):  # type: ignore[no-untyped-def]
        return claims

    @app.get("/inside")
    async def inside(claims: who) -> dict[str, Any]:
        return {"raw": claims.raw, "user": claims}

    @app.get("/decision")
    async def decision() -> ra.Decision:
        return ra.Decision(allowed=True, attributes=testing.claims(**FURTHER["nested"]).raw)

    headers = {"Authorization": f"Bearer {testing.token(issuer.idp, 'ada', scopes='a', **FURTHER['nested'])}"}
    with asgi(app) as url, httpx.Client(base_url=url, trust_env=False, headers=headers) as client:
        for path in ("/typed", "/untyped", "/inside"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert answer.json()["raw"]["address"] == FURTHER["nested"]["address"]
        assert client.get("/typed").json()["scopes"] == ["a"]
        assert client.get("/decision").json()["attributes"]["realm_access"] == {"roles": ["admin"]}
        assert client.get("/openapi.json").status_code == 200


class TestAnonymousUsers:
    @pytest.fixture
    def ask(self, issuer: Issuer) -> Any:
        app = FastAPI()
        known = Authenticated(issuer.verifier(ra.aio.ClaimsVerifier), auto_error=False)

        @app.get("/me")
        async def me(claims: Annotated[Optional[Claims], Depends(known)]) -> dict[str, Any]:  # noqa: UP045
            return {"name": None if claims is None else claims.subject}

        with asgi(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
            yield lambda header=None: client.get("/me", headers={"Authorization": header} if header else {})

    def test_they_are_let_in_where_a_route_says_so(self, issuer: Issuer, ask: Any) -> None:
        """And those who sign in another way."""
        assert ask().json() == ask("Basic dTpw").json() == {"name": None}
        assert ask(f"Bearer {testing.token(issuer.idp, 'ada')}").json() == {"name": "ada"}

    def test_a_bad_token_is_refused_all_the_same(self, issuer: Issuer, ask: Any) -> None:
        """Nobody becomes anonymous by that their sign-in expired, or can't be checked."""
        expired = ask(f"Bearer {testing.token(issuer.idp, expires_in=-120)}")
        assert (expired.status_code, expired.json()["detail"]["code"]) == (401, "expired")
        assert ask("Bearer").status_code == 401
        issuer.goes_down()
        assert ask(f"Bearer {testing.token(issuer.idp, 'bob')}").status_code == 503

    def test_it_is_true_or_false(self, issuer: Issuer) -> None:
        with pytest.raises(ra.ConfigurationError, match="auto_error"):
            Authenticated(issuer.verifier(ra.aio.ClaimsVerifier), auto_error="no")  # type: ignore[arg-type]


class TestTokensOfTests:
    def test_a_token_says_what_its_test_asked_for(self, issuer: Issuer) -> None:
        """A user's or an application's, of any tenant or policy."""
        verifier = issuer.verifier()
        user = verifier.verify(testing.token(issuer.idp, "ada", scopes="a b", roles="admin", name="Ada"))
        assert (user.subject, user.scopes, user.roles, user.name) == ("ada", {"a", "b"}, {"admin"}, "Ada")
        assert not user.app_only
        assert verifier.verify(testing.token(issuer.idp, "robot", roles=["r"], app_only=True)).app_only
        with pytest.raises(ra.InvalidToken, match="expired"):
            verifier.verify(testing.token(issuer.idp, expires_in=-120))
        with pytest.raises(ra.InvalidToken, match="audience"):
            verifier.verify(testing.token(issuer.idp, audience="api://stock"))
        with pytest.raises(ra.InvalidToken, match="issuer"):
            verifier.verify(testing.token(issuer.idp, tenant="fabrikam"))
        b2c = ra.ClaimsVerifier.for_b2c(
            "contoso", ["b2c_1_x"], "api://orders", authority=issuer.idp.url, verify=issuer.idp.ca_file
        )
        with b2c:
            policy = b2c.verify(testing.token(issuer.idp, tenant="contoso.onmicrosoft.com/b2c_1_x")).policy
        assert policy == "b2c_1_x"

    @pytest.mark.parametrize("tenant", ["common", "organizations", "", "/"])
    def test_a_token_is_one_tenants(self, issuer: Issuer, tenant: str) -> None:
        with pytest.raises(ra.ConfigurationError, match="tenant"):
            testing.token(issuer.idp, tenant=tenant)

    def test_claims_are_what_a_verifier_gives(self, issuer: Issuer) -> None:
        """Field by field, for the same arguments."""
        about: dict[str, Any] = {
            "scopes": "a b",
            "roles": ["r"],
            "name": "Ada",
            "preferred_username": "ada@x",
            "sid": "1",
        }
        made = testing.claims("ada", **about)
        verified = issuer.verifier().verify(testing.token(issuer.idp, "ada", **about))
        own = {"issuer", "tenant_id", "token_id", "raw", "issued_at", "not_before", "expires_at", "provenance"}
        for field in dataclasses.fields(Claims):
            if field.name not in own:
                assert getattr(made, field.name) == getattr(verified, field.name), field.name
        assert {*made.raw} == {*verified.raw}
        assert testing.claims(app_only=True).app_only
        late = testing.claims(expires_in=-60).provenance
        assert (late.grace, late.past_expiry) == (True, 60.0)

    @pytest.mark.parametrize("wrong", [{"scopes": 5}, {"roles": [5]}, {"subject": ""}, {"expires_in": "1"}], ids=str)
    def test_a_wrong_argument_is_said(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ra.ConfigurationError, match=next(iter(wrong))):
            testing.claims(**wrong)

    def test_an_endpoint_is_tested_without_any_provider(self) -> None:
        """By FastAPI's own way to replace a dependency."""
        from fastapi.testclient import TestClient

        app = FastAPI()
        signed_in = Authenticated(ra.aio.ClaimsVerifier.for_entra("contoso.com", "api://orders"))

        @app.get("/me")
        async def me(claims: Annotated[Claims, Depends(signed_in)]) -> dict[str, Any]:
            return {"name": claims.subject}

        app.dependency_overrides[signed_in] = lambda: testing.claims("ada")
        assert TestClient(app).get("/me").json() == {"name": "ada"}
