"""Verified tokens in Flask, by its own test client, with keys that come over TLS."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from token_issuer import WRONG_HEADERS, Issuer
from werkzeug.exceptions import HTTPException

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.flask import Refused, authenticated, challenge, handle_errors
from resilient_auth.verify import InvalidToken, VerificationUnavailable


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def application(verifier: Any) -> Flask:
    app = Flask("orders")

    @app.get("/me")
    @authenticated(verifier, realm="orders")
    def me() -> Any:
        return {"name": g.claims.username, "keys": g.claims.provenance.keys}

    @app.get("/orders/<number>")
    @authenticated(verifier, scopes="orders.read")
    def order(number: str) -> Any:
        return {"number": number, "scopes": sorted(g.claims.scopes)}

    @app.get("/robots")
    @authenticated(verifier, roles=("Tasks.ReadWrite.All",), app_only=True)
    def robots() -> Any:
        return {"app_only": g.claims.app_only}

    @app.get("/patient")
    @authenticated(verifier, grace=True)
    def patient() -> Any:
        return {"grace": g.claims.provenance.grace}

    @app.get("/payments")
    @authenticated(verifier)
    def payments() -> Any:
        raise challenge(g.claims, "c1", realm="orders")

    return app


@pytest.fixture
def verifier(issuer: Issuer) -> Any:
    return issuer.verifier()


@pytest.fixture
def client(verifier: Any) -> FlaskClient:
    return application(verifier).test_client()


class TestDecorator:
    def test_a_good_token_leaves_its_claims(self, issuer: Issuer, client: FlaskClient) -> None:
        """In `g`; the view gets its own arguments."""
        answer = client.get("/me", headers=bearer(issuer.user_token()))
        assert (answer.status_code, answer.json) == (200, {"name": "ada@contoso.com", "keys": "fresh"})
        answer = client.get("/orders/7", headers=bearer(issuer.user_token()))
        assert answer.json == {"number": "7", "scopes": ["orders.read"]}

    def test_an_async_view_may_be_decorated(self, issuer: Issuer, verifier: Any) -> None:
        """Flask runs it in a loop of its own; the token is verified outside of that."""
        app = Flask("tasks")

        @app.get("/me")
        @authenticated(verifier)
        async def me() -> Any:
            return {"name": g.claims.username}

        answer = app.test_client().get("/me", headers=bearer(issuer.user_token()))
        assert answer.json == {"name": "ada@contoso.com"}

    @pytest.mark.parametrize("name", WRONG_HEADERS)
    def test_anything_else_is_challenged(self, client: FlaskClient, name: str) -> None:
        """Who sent no token is told no error (RFC 6750, section 3.1)."""
        header, code = WRONG_HEADERS[name]
        answer = client.get("/me", headers={} if header is None else {"Authorization": header})
        assert answer.status_code == 401
        assert answer.json is not None
        assert answer.json["detail"]["code"] == code
        assert "sign" in answer.json["detail"]["message"]
        told = answer.headers["WWW-Authenticate"]
        assert told == 'Bearer realm="orders"' if code == "missing" else 'error="invalid_token"' in told
        assert answer.headers["Cache-Control"] == "no-store"

    def test_two_headers_are_refused(self, issuer: Issuer, client: FlaskClient) -> None:
        """WSGI servers join them by a comma."""
        token = issuer.user_token()
        headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
        assert client.get("/me", headers=headers).status_code == 401

    def test_what_a_token_lacks_is_a_403(self, issuer: Issuer, client: FlaskClient) -> None:
        """A scope, a role, or a user; an expired token is a 401."""
        token = issuer.user_token("orders.list")
        answer = client.get("/orders/7", headers=bearer(token))
        assert answer.json is not None
        assert (answer.status_code, answer.json["detail"]["code"]) == (403, "insufficient_scope")
        assert 'scope="orders.read"' in answer.headers["WWW-Authenticate"]
        assert client.get("/robots", headers=bearer(token)).status_code == 403
        assert client.get("/robots", headers=bearer(issuer.app_token())).json == {"app_only": True}
        answer = client.get("/me", headers=bearer(issuer.expired_token()))
        assert answer.json is not None
        assert (answer.status_code, answer.json["detail"]["code"]) == (401, "expired")

    def test_a_caller_can_be_asked_for_more(self, issuer: Issuer, client: FlaskClient) -> None:
        """One that never declared `cp1` is told 403 (G17)."""
        answer = client.get("/payments", headers=bearer(issuer.user_token()))
        assert answer.json is not None
        assert (answer.status_code, answer.json["detail"]["code"]) == (403, "insufficient_claims")
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]

    def test_the_claims_of_one_request_are_not_the_nexts(self, issuer: Issuer, verifier: Any) -> None:
        """A refused request has none."""
        app = application(verifier)
        left: list[bool] = []
        app.after_request(lambda response: left.append("claims" in g) or response)  # type: ignore[func-returns-value]
        client = app.test_client()
        client.get("/me", headers=bearer(issuer.user_token()))
        client.get("/me")
        assert left == [True, False]

    def test_an_applications_own_handlers_may_answer(self, client: FlaskClient, verifier: Any) -> None:
        """By status or by class; what to send with it is at hand."""
        app = application(verifier)

        @app.errorhandler(Refused)
        def page(refused: Refused) -> Any:
            return f"<p>{refused.refusal.message}</p>", refused.refusal.status, dict(refused.refusal.headers)

        answer = app.test_client().get("/me")
        assert (answer.status_code, answer.text) == (401, "<p>Please sign in.</p>")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orders"'
        app = application(verifier)
        app.register_error_handler(401, lambda error: ("own", 401))
        assert app.test_client().get("/me").text == "own"

    def test_errors_of_an_applications_own_code_are_answered(self) -> None:
        """Where it verifies a token itself."""
        app = Flask("own")
        handle_errors(app, realm="own")

        @app.get("/bad")
        def bad() -> Any:
            raise InvalidToken("audience", "it is for another API")

        @app.get("/down")
        def down() -> Any:
            raise VerificationUnavailable("no keys", retry_after=7)

        answer = app.test_client().get("/bad")
        assert answer.json is not None
        assert (answer.status_code, answer.json["detail"]["code"]) == (401, "audience")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="own", error="invalid_token"')
        answer = app.test_client().get("/down")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")

    def test_a_refusal_is_werkzeugs_kind_of_exception(self, verifier: Any) -> None:
        """So that what else looks at these sees it."""
        app = application(verifier)
        with app.test_request_context("/me"), pytest.raises(HTTPException) as raised:
            app.view_functions["me"]()
        assert raised.value.code == 401

    def test_asyncios_verifier_is_refused(self, issuer: Issuer) -> None:
        """At once, like other wrong arguments."""
        with pytest.raises(ConfigurationError, match="asyncio"):
            authenticated(issuer.verifier(ra.aio.ClaimsVerifier))


class TestOutage:
    def test_good_tokens_go_on_working(self, issuer: Issuer, client: FlaskClient) -> None:
        """New ones too, whose key is known; bad ones are still bad."""
        fresh = issuer.user_token()
        client.get("/me", headers=bearer(issuer.user_token()))
        issuer.goes_down()
        began = time.monotonic()
        assert client.get("/me", headers=bearer(fresh)).status_code == 200
        assert client.get("/me", headers=bearer(fresh[:-8] + "AAAAAAAA")).status_code == 401
        assert time.monotonic() - began < 0.5

    def test_without_keys_it_is_a_503_and_no_401(self, issuer: Issuer, client: FlaskClient) -> None:
        """A 401 would make every client sign its users in again at once."""
        token = issuer.user_token()
        issuer.goes_down()
        answer = client.get("/me", headers=bearer(token))
        assert answer.json is not None
        assert (answer.status_code, answer.json["detail"]["code"]) == (503, "verification_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert "try again" in answer.json["detail"]["message"]
        assert "WWW-Authenticate" not in answer.headers

    def test_grace_is_a_routes_own(self, issuer: Issuer, patient: dict[str, Any]) -> None:
        """An expired token is accepted where the route asks for that, and nowhere else."""
        client = application(issuer.verifier(**patient)).test_client()

        def see(token: str) -> None:
            assert client.get("/me", headers=bearer(token)).status_code == 200

        def accepted(token: str) -> bool:
            answer = client.get("/patient", headers=bearer(token))
            return answer.status_code == 200 and bool(answer.json["grace"])

        token = issuer.outlive(patient["settings"].clock, see, accepted)
        assert client.get("/me", headers=bearer(token)).status_code == 401


def test_no_token_is_logged(issuer: Issuer, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Good or bad, in an outage or not."""
    good = issuer.user_token()
    with caplog.at_level(logging.DEBUG):
        client.get("/me", headers=bearer(good))
        text = client.get("/me", headers=bearer(good[:-4] + "AAAA")).text
        issuer.goes_down()
        client.get("/me", headers=bearer(good))
    assert good.split(".")[1][:30] not in caplog.text + text
