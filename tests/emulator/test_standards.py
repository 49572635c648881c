"""What the provider refuses, as the standards and Entra have it: nobody's test may pass because it is lenient."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from resilient_auth.emulator import Emulator

REDIRECT = "https://shop.example/back"
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
VERIFIER = "v" * 43
S256 = {
    "code_challenge": urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("="),
    "code_challenge_method": "S256",
}

Ask = Callable[..., httpx.Response]


@pytest.fixture
def authorize(idp: Emulator) -> Callable[..., dict[str, str]]:
    """Sign ann in; keyword arguments replace parameters, and None leaves one out."""

    def go(tenant: str = "contoso", **given: str | None) -> dict[str, str]:
        asked = {"client_id": "web", "redirect_uri": REDIRECT, "scope": "openid", "response_type": "code"} | given
        query = httpx.QueryParams({name: value for name, value in asked.items() if value is not None})
        return idp.sign_in(f"{idp.authority(tenant)}/oauth2/v2.0/authorize?{query}", "ann@contoso.com")

    return go


@pytest.fixture
def redeem(client: httpx.Client, token_url: str) -> Ask:
    def go(code: str, **given: str | None) -> httpx.Response:
        form = {"grant_type": "authorization_code", "client_id": "web", "redirect_uri": REDIRECT, "code": code} | given
        return client.post(token_url, data={name: value for name, value in form.items() if value is not None})

    return go


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


class TestAuthorizationCodes:
    """RFC 6749, section 4.1; RFC 7636; RFC 9700."""

    def test_the_redirect_uri_is_said_again(self, authorize: Any, redeem: Ask) -> None:
        """Where it was said first (RFC 6749, section 4.1.3)."""
        for wrong in (None, "https://shop.example/back/", "https://evil.example/back"):
            assert refusal(redeem(authorize()["code"], redirect_uri=wrong)) == (400, "invalid_grant")
        assert redeem(authorize()["code"]).status_code == 200

    def test_a_verifier_needs_its_challenge(self, authorize: Any, redeem: Ask) -> None:
        """A code that was asked for without one was asked for by somebody else (RFC 9700, section 2.1.1)."""
        assert refusal(redeem(authorize()["code"], code_verifier=VERIFIER)) == (400, "invalid_grant")

    @pytest.mark.parametrize("verifier", [None, "", "w" * 43, "v" * 42, S256["code_challenge"]])
    def test_a_challenge_needs_its_verifier(self, authorize: Any, redeem: Ask, verifier: str | None) -> None:
        """And no other one (RFC 7636, section 4.6)."""
        assert refusal(redeem(authorize(**S256)["code"], code_verifier=verifier)) == (400, "invalid_grant")
        assert redeem(authorize(**S256)["code"], code_verifier=VERIFIER).status_code == 200

    @pytest.mark.parametrize(
        "challenge",
        [{"code_challenge": "short"}, {"code_challenge": "v" * 129}, {"code_challenge_method": "S512"}],
    )
    def test_a_challenge_is_one_that_is_known(self, authorize: Any, challenge: dict[str, str]) -> None:
        """The redirect says so (RFC 7636, section 4.4.1)."""
        answer = authorize(state="s", **S256 | challenge)
        assert (answer["error"], answer["state"]) == ("invalid_request", "s")
        assert "code" not in answer

    def test_a_plain_challenge_is_its_verifier(self, authorize: Any, redeem: Ask) -> None:
        """That is what the method's name says, and what no method says."""
        for method in ("plain", None):
            code = authorize(code_challenge=VERIFIER, code_challenge_method=method)["code"]
            assert redeem(code, code_verifier=VERIFIER).status_code == 200

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"response_type": "cod"}, "unsupported_response_type"),
            ({"response_type": "id_token"}, "invalid_request"),
            ({"response_type": "code id_token"}, "invalid_request"),
            ({"response_type": "id_token", "nonce": "n", "scope": "api://x/read"}, "invalid_request"),
            ({"response_type": "code id_token", "nonce": "n", "response_mode": "query"}, "invalid_request"),
            ({"response_mode": "email"}, "invalid_request"),
            ({"scope": None}, "invalid_request"),
        ],
    )
    def test_what_is_asked_for_wrongly_is_said(self, authorize: Any, given: dict[str, Any], error: str) -> None:
        """An ID token needs a nonce, the scope openid, and isn't in a query (OpenID Connect Core, 3.3.2.11)."""
        answer = authorize(state="s", **given)
        assert answer.keys() == {"error", "error_description", "state"}
        assert answer["error"] == error

    def test_an_id_token_beside_a_code_vouches_for_it(self, authorize: Any) -> None:
        """By `c_hash` (OpenID Connect Core, section 3.3.2.11)."""
        answer = authorize(response_type="code id_token", nonce="n")
        claims = jwt.decode(answer["id_token"], options={"verify_signature": False})
        digest = sha256(answer["code"].encode()).digest()[:16]
        assert claims["c_hash"] == urlsafe_b64encode(digest).decode().rstrip("=")

    def test_a_registered_client_says_who_it_is(self, idp: Emulator, authorize: Any, redeem: Ask) -> None:
        """With a code and with a refresh token, as with a secret of its own (RFC 6749, sections 4.1.3 and 6)."""
        idp.register("web", secrets=["s3cret"])
        scope = "openid offline_access"
        assert refusal(redeem(authorize(scope=scope)["code"])) == (401, "invalid_client")
        given = redeem(authorize(scope=scope)["code"], client_secret="s3cret").json()
        again = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        assert refusal(redeem("", **again)) == (401, "invalid_client")
        assert redeem("", client_secret="s3cret", **again).status_code == 200


class TestSilentSignIn:
    """`prompt=none`: OpenID Connect Core, section 3.1.2.1."""

    @pytest.fixture
    def browse(self, idp: Emulator, client: httpx.Client) -> Callable[..., dict[str, str]]:
        def go(**given: str) -> dict[str, str]:
            asked = {"client_id": "web", "redirect_uri": REDIRECT, "scope": "openid", "response_type": "code"} | given
            answer = client.get(f"{idp.authority('contoso')}/oauth2/v2.0/authorize", params=asked)
            return dict(parse_qsl(urlsplit(answer.headers.get("location", "")).query))

        return go

    def test_nobody_is_signed_in_by_a_hint_alone(self, browse: Any) -> None:
        """The browser has no session, whoever it names."""
        assert browse(prompt="none", login_hint="ann@contoso.com")["error"] == "login_required"

    def test_the_browsers_session_is_enough(self, browse: Any) -> None:
        """Without a hint, and with that user's."""
        assert "code" in browse(emulator_user="ann@contoso.com")
        assert "code" in browse(prompt="none")
        assert "code" in browse(prompt="none", login_hint="ann@contoso.com")
        assert browse(prompt="none", login_hint="bob@contoso.com")["error"] == "login_required"


class TestRequestsForTokens:
    """RFC 6749, sections 2.3 and 3.2."""

    def test_they_are_forms(self, client: httpx.Client, token_url: str) -> None:
        """And no JSON."""
        form = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "scope": "api://x/.default"}
        assert client.post(token_url, json=form).json()["error"] == "invalid_request"
        body = str(httpx.QueryParams(form))
        assert client.post(token_url, content=body).json()["error"] == "invalid_request"

    def test_a_parameter_comes_once(self, client: httpx.Client, token_url: str) -> None:
        """Nobody knows which one is meant (RFC 6749, section 3.2)."""
        form = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s"}
        answer = client.post(token_url, data=form | {"scope": ["api://x/.default", "api://y/.default"]})
        assert refusal(answer) == (400, "invalid_request")

    def test_a_client_proves_itself_one_way(self, client: httpx.Client, token_url: str) -> None:
        """By Basic, by a secret in the form, or by an assertion (RFC 6749, section 2.3)."""
        form = {"grant_type": "client_credentials", "scope": "api://x/.default"}
        basic = httpx.BasicAuth("d", "s")
        assert client.post(token_url, data=form, auth=basic).status_code == 200
        twice = form | {"client_id": "d", "client_secret": "s"}
        assert refusal(client.post(token_url, data=twice, auth=basic)) == (400, "invalid_request")
        both = twice | {"client_assertion": "a.b.c", "client_assertion_type": BEARER}
        assert refusal(client.post(token_url, data=both)) == (400, "invalid_request")
        another = form | {"client_id": "other"}
        assert refusal(client.post(token_url, data=another, auth=basic)) == (400, "invalid_request")

    @pytest.mark.parametrize("kind", [None, "", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"])
    def test_an_assertion_says_of_what_type_it_is(self, ask: Ask, kind: str | None) -> None:
        """RFC 7521, section 4.2."""
        typed = {} if kind is None else {"client_assertion_type": kind}
        assert refusal(ask(client_secret="", client_assertion="a.b.c", **typed)) == (400, "invalid_request")
        assert ask(client_secret="", client_assertion="a.b.c", client_assertion_type=BEARER).status_code == 200


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def certificate(key: RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daemon")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    return made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(1)).sign(key, SHA256())


class TestAssertionsOfRegisteredClients:
    """RFC 7523, section 3: each of them is refused as a denial, and never by a failure of the provider's."""

    @pytest.fixture
    def send(self, idp: Emulator, ask: Ask, key: Any, certificate: Any, token_url: str) -> Callable[..., Any]:
        idp.register("daemon", certificates=[certificate.public_bytes(Encoding.PEM)])
        shown = urlsafe_b64encode(certificate.fingerprint(SHA256())).decode()

        def go(signed_by: Any = key, **given: Any) -> httpx.Response:
            now = int(time.time())
            claims = {"iss": "daemon", "sub": "daemon", "aud": token_url, "exp": now + 60, "nbf": now, "jti": "1"}
            said = {name: value for name, value in (claims | given).items() if value is not None}
            text = jwt.encode(said, signed_by, algorithm="PS256", headers={"x5t#S256": shown})
            return ask(client_secret="", client_assertion=text, client_assertion_type=BEARER)

        return go

    def test_its_own_is_taken(self, send: Any) -> None:
        """Signed with the registered certificate's key, for this provider."""
        assert send().status_code == 200

    @pytest.mark.parametrize(
        "given",
        [
            {"aud": "https://login.example/token"},
            {"aud": None},
            {"aud": 5},
            {"sub": "another"},
            {"sub": None},
            {"exp": None},
            {"exp": "soon"},
            {"exp": 1},
            {"nbf": 4_000_000_000},
            {"nbf": "soon"},
        ],
        ids=str,
    )
    def test_another_one_is_denied(self, send: Any, given: dict[str, Any]) -> None:
        """As it names another audience or subject, or another time."""
        assert refusal(send(**given)) == (401, "invalid_client")

    def test_a_strangers_signature_is_denied(self, send: Any) -> None:
        """Under the thumbprint of the certificate that is registered."""
        assert refusal(send(generate_private_key(public_exponent=65537, key_size=2048))) == (401, "invalid_client")

    def test_a_federated_one_of_another_time_is_denied(self, idp: Emulator, ask: Ask) -> None:
        """Before its time, too."""
        record = {"iss": "https://k8s.example", "sub": "pod", "aud": "api://AzureADTokenExchange"}
        idp.register("daemon", federated=[record])
        for late in ({"exp": "soon"}, {"exp": 1}, {"exp": 4_000_000_000, "nbf": 3_900_000_000}, {}):
            text = idp.sign(record | late)
            answer = ask(client_secret="", client_assertion=text, client_assertion_type=BEARER)
            assert refusal(answer) == (401, "invalid_client")
        text = idp.sign(record | {"exp": time.time() + 60})
        assert ask(client_secret="", client_assertion=text, client_assertion_type=BEARER).status_code == 200


def test_a_header_that_comes_twice_is_both(idp: Emulator, client: httpx.Client, ask: Ask) -> None:
    """And no token that anybody has issued (RFC 9110, section 5.3)."""
    token = ask().json()["access_token"]
    good, other = ("Authorization", f"Bearer {token}"), ("Authorization", "Bearer another")
    assert client.get(f"{idp.api_url}/api/me", headers=[good]).status_code == 200
    for both in ([good, other], [other, good], [good, good]):
        assert client.get(f"{idp.api_url}/api/me", headers=both).status_code == 401


def test_a_device_code_is_redeemed_where_it_was_asked_for(idp: Emulator, client: httpx.Client) -> None:
    """Another policy hasn't handed it out."""
    here, there = (f"{idp.authority(f'contoso/b2c_1_{one}')}/oauth2/v2.0" for one in ("a", "b"))
    told = client.post(f"{here}/devicecode", data={"client_id": "tv", "scope": "openid"}).json()
    idp.approve_device(told["user_code"], "ann@contoso.com")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "tv",
        "device_code": told["device_code"],
    }
    assert refusal(client.post(f"{there}/token", data=form)) == (400, "invalid_grant")
    assert client.post(f"{here}/token", data=form).status_code == 200


def test_managed_identity_wants_its_version_and_one_identity(idp: Emulator) -> None:
    """As the endpoints of virtual machines and of App Service do."""
    places = (
        (f"{idp.metadata_url}/metadata/identity/oauth2/token", {"Metadata": "true"}),
        (f"{idp.metadata_url}/msi/token", {"X-IDENTITY-HEADER": "x"}),
    )
    for url, headers in places:
        whole = {"resource": "https://vault.azure.net", "api-version": "2019-08-01"}
        assert httpx.get(url, params=whole, headers=headers).status_code == 200
        assert httpx.get(url, params={"resource": "https://vault.azure.net"}, headers=headers).status_code == 400
        two = whole | {"client_id": "a", "object_id": "b"}
        assert httpx.get(url, params=two, headers=headers).status_code == 400
