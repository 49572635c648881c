from __future__ import annotations

import re
import threading
import time
import webbrowser
from html import unescape

import httpx
import jwt
import msal
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from resilient_auth.emulator import Emulator, Fault

GRAPH = ["https://graph.microsoft.com/User.Read"]
DEFAULT = ["https://graph.microsoft.com/.default"]


def claims_of(token: str) -> dict[str, object]:
    return jwt.decode(token, options={"verify_signature": False})


def sign_in(idp: Emulator, app: msal.ClientApplication, username: str = "ann@contoso.com") -> dict[str, object]:
    flow = app.initiate_auth_code_flow(GRAPH, redirect_uri="http://localhost/back", response_mode="form_post")
    return app.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], username))


def test_client_credentials_give_an_app_token(idp, daemon):
    """A daemon gets a token for itself, shaped as Entra shapes app tokens."""
    result = daemon().acquire_token_for_client(DEFAULT)
    claims = claims_of(result["access_token"])
    assert claims["idtyp"] == "app"
    assert claims["azp"] == "daemon"
    assert claims["aud"] == "https://graph.microsoft.com"
    assert claims["roles"]
    assert result["expires_in"] == 3600
    assert "client_info" not in result
    assert "refresh_token" not in result


def test_a_wrong_secret_is_invalid_client(daemon):
    """The secret "wrong" is refused with 401 and Entra's error shape."""
    result = daemon(client_credential="wrong").acquire_token_for_client(DEFAULT)
    assert result["error"] == "invalid_client"
    assert result["error_codes"] == [7000215]
    assert result["error_description"].startswith("AADSTS7000215: ")


def test_a_confidential_grant_needs_a_credential(ask):
    """Without secret or assertion there is no app token."""
    assert ask(client_secret="").status_code == 401


def test_a_certificate_is_a_credential(daemon):
    """A signed client assertion, as MSAL makes from a certificate, is accepted."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    app = daemon(client_credential={"private_key": pem, "thumbprint": "ab" * 20})
    assert "access_token" in app.acquire_token_for_client(DEFAULT)


def test_refresh_in_is_sent_when_set(idp, ask):
    """The lifetime and `refresh_in` are settable while the emulator runs."""
    idp.token_lifetime, idp.refresh_in = 7200, 1800
    result = ask().json()
    assert result["expires_in"] == 7200
    assert result["refresh_in"] == 1800


def test_auth_code_with_pkce_signs_a_user_in(idp, desktop):
    """MSAL's auth code flow with PKCE works without a browser."""
    result = sign_in(idp, desktop())
    assert result["id_token_claims"]["preferred_username"] == "ann@contoso.com"
    assert result["scope"] == "https://graph.microsoft.com/User.Read"
    assert claims_of(result["access_token"])["scp"] == "User.Read"
    assert "refresh_token" in result


def test_an_authorization_code_works_once(idp, client, token_url):
    """A code that was redeemed, or whose verifier is wrong, gives `invalid_grant`."""
    uri = f"{idp.authority('contoso')}/oauth2/v2.0/authorize?client_id=web&scope=openid&redirect_uri=http://x/"
    form = {"grant_type": "authorization_code", "client_id": "web", "redirect_uri": "http://x/"}
    code = idp.sign_in(uri, "ann@contoso.com")["code"]
    assert client.post(token_url, data=form | {"code": code}).status_code == 200
    assert client.post(token_url, data=form | {"code": code}).json()["error_codes"] == [54005]

    code = idp.sign_in(f"{uri}&code_challenge={'x' * 43}&code_challenge_method=S256", "ann@contoso.com")["code"]
    refused = client.post(token_url, data=form | {"code": code, "code_verifier": "x"}).json()
    assert refused["error_codes"] == [501481]


def test_silent_uses_the_refresh_token(idp, desktop):
    """MSAL redeems the refresh token silently, and gets a rotated one."""
    app = desktop()
    sign_in(idp, app)
    [account] = app.get_accounts()
    result = app.acquire_token_silent_with_error(GRAPH, account, force_refresh=True)
    assert result["token_source"] == "identity_provider"
    assert [call.grant_type for call in idp.ledger.token_calls()] == ["authorization_code", "refresh_token"]
    assert len([token for token in idp.ledger.tokens if token.kind == "refresh"]) == 2


def test_refresh_tokens_can_stay_or_be_used_once(idp, client, token_url, desktop):
    """Rotation can be switched off, and used refresh tokens can be refused."""
    first = desktop().client.obtain_token_by_username_password  # the raw answer holds the refresh token
    answer = first("ann@contoso.com", "pw", scope=["openid", "offline_access", *GRAPH])
    form = {"grant_type": "refresh_token", "client_id": "desktop", "refresh_token": answer["refresh_token"]}
    idp.rotate = "never"
    assert client.post(token_url, data=form).json()["refresh_token"] == answer["refresh_token"]
    idp.rotate, idp.one_time_refresh_tokens = "always", True
    assert client.post(token_url, data=form).json()["error"] == "invalid_grant"
    assert client.post(token_url, data=form | {"client_id": "other"}).json()["error"] == "invalid_grant"


def test_device_code_waits_for_its_user(idp, desktop):
    """MSAL polls until the user has approved the device."""
    app = desktop()
    flow = app.initiate_device_flow(GRAPH)
    threading.Timer(0.5, idp.approve_device, (flow["user_code"], "bob@contoso.com")).start()
    result = app.acquire_token_by_device_flow(flow)
    assert result["id_token_claims"]["name"] == "Bob"
    assert [call.status for call in idp.ledger.token_calls()] == [400, 200]


def test_device_code_polled_too_fast_is_slowed_down(idp, client, token_url):
    """Polling without a pause earns `slow_down`."""
    idp.device_code_interval = 5
    started = client.post(
        f"{idp.authority('contoso')}/oauth2/v2.0/devicecode", data={"client_id": "tv", "scope": "openid"}
    ).json()
    assert started["interval"] == 5
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "tv",
        "device_code": started["device_code"],
    }
    errors = [client.post(token_url, data=form).json()["error"] for _ in range(2)]
    assert errors == ["authorization_pending", "slow_down"]


def test_passwords_are_checked(idp, desktop, proxied):
    """The password grant works for who knows it; MSAL asks for the user realm first."""
    app = desktop(authority="https://login.microsoftonline.com/contoso", **proxied)
    assert "access_token" in app.acquire_token_by_username_password("ann@contoso.com", "pw", GRAPH)
    assert app.acquire_token_by_username_password("ann@contoso.com", "no", GRAPH)["error"] == "invalid_grant"
    assert "userrealm" in {call.endpoint for call in idp.ledger.calls}


def test_on_behalf_of_keeps_the_user(idp, desktop, daemon):
    """The subject of an OBO token is that of the assertion."""
    incoming = sign_in(idp, desktop())["access_token"]
    result = daemon("middle").acquire_token_on_behalf_of(incoming, ["api://down/read"])
    assert claims_of(result["access_token"])["oid"] == claims_of(incoming)["oid"]
    assert claims_of(result["access_token"])["aud"] == "api://down"
    foreign = daemon("middle").acquire_token_on_behalf_of("no.token.ofours", ["api://down/read"])
    assert claims_of(foreign["access_token"])["oid"] != claims_of(incoming)["oid"]


def test_on_behalf_of_refuses_an_app_and_an_expired_user(idp, daemon, desktop):
    """An app's token names no user, and an expired assertion is none."""
    app_token = daemon().acquire_token_for_client(DEFAULT)["access_token"]
    assert daemon("middle").acquire_token_on_behalf_of(app_token, ["api://down/read"])["error"] == "invalid_grant"
    idp.revoke("ann@contoso.com")
    revoked = sign_in(idp, desktop())["access_token"]
    idp.revoke("ann@contoso.com")
    assert daemon("middle").acquire_token_on_behalf_of(revoked, ["api://down/read"])["error"] == "invalid_grant"


def test_saml_and_federated_credentials_are_grants(idp, client, token_url, daemon):
    """A SAML assertion and a user's federated identity credential give user tokens."""
    saml = {"grant_type": "urn:ietf:params:oauth:grant-type:saml2-bearer", "assertion": "PHNhbWw+", "client_id": "x"}
    answer = client.post(token_url, data=saml | {"scope": "openid api://a/b"}).json()
    assert "id_token" in answer
    result = daemon().acquire_token_by_user_federated_identity_credential(
        ["api://a/b"], "assertion", username="ann@contoso.com"
    )
    assert result["id_token_claims"]["preferred_username"] == "ann@contoso.com"


def test_capabilities_end_in_the_token(idp, daemon):
    """A client that declares `cp1` gets `xms_cc`, and a long life where tokens are revocable."""
    idp.revocable = True
    result = daemon(client_capabilities=["cp1"]).acquire_token_for_client(DEFAULT)
    assert claims_of(result["access_token"])["xms_cc"] == ["cp1"]
    assert 20 * 3600 <= result["expires_in"] <= 28 * 3600
    assert daemon().acquire_token_for_client(DEFAULT)["expires_in"] == 3600


@pytest.mark.parametrize("claims", ["{", "[]", '{"access_token": 1}', '{"access_token": {"xms_cc": []}}'])
def test_malformed_claims_are_refused(ask, claims):
    """A claims request must be a JSON object of the right shape."""
    assert ask(claims=claims).json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"client_id": ""}, "invalid_request"),
        ({"scope": ""}, "invalid_request"),
        ({"scope": "https://graph.microsoft.com/User.Read"}, "invalid_scope"),
    ],
)
def test_bad_requests_get_entra_shaped_errors(ask, fields, error):
    """Every refusal carries what Entra's carry, the client's correlation included."""
    answer = ask(**fields)
    assert answer.status_code == 400
    body = answer.json()
    assert body["error"] == error
    assert {"error_codes", "timestamp", "trace_id", "correlation_id", "error_description"} <= body.keys()


def test_denials_come_on_command(idp, ask):
    """A grant can be denied by type with any OAuth error, and allowed again."""
    idp.deny("refresh_token", suberror="bad_token")
    assert ask().status_code == 200
    idp.deny("client_credentials", error="unauthorized_client", description="Not today.", status=401)
    refused = ask()
    assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized_client")
    assert "Not today." in refused.json()["error_description"]
    idp.allow()
    idp.deny("*", suberror="consent_required")
    assert ask().json()["suberror"] == "consent_required"
    idp.allow("*")
    assert ask().status_code == 200


def test_revoking_refresh_tokens_sends_the_user_back(idp, client, token_url):
    """`revoke(..., refresh_tokens=True)` makes silent refresh fail as well."""
    form = {"grant_type": "password", "client_id": "d", "username": "ann@contoso.com", "password": "pw"}
    answer = client.post(token_url, data=form | {"scope": "offline_access api://a/b"}).json()
    idp.revoke("ann@contoso.com", refresh_tokens=True)
    refresh = {"grant_type": "refresh_token", "client_id": "d", "refresh_token": answer["refresh_token"]}
    assert client.post(token_url, data=refresh).json()["error"] == "invalid_grant"


def test_a_browser_can_sign_in(idp, client, desktop):
    """The authorize page lists the users, and choosing one posts or redirects the code back."""
    flow = desktop().initiate_auth_code_flow(
        GRAPH, redirect_uri="http://localhost/back", state="<s>", response_mode="form_post"
    )
    page = client.get(flow["auth_uri"])
    assert "ann@contoso.com" in page.text
    assert "<s>" not in page.text
    chosen = {"emulator_user": "ann@contoso.com"}
    posted = client.post(flow["auth_uri"], data=chosen)
    assert 'action="http://localhost/back"' in posted.text
    assert 'name="code"' in posted.text
    by_query = flow["auth_uri"].replace("response_mode=form_post", "response_mode=query")
    redirected = client.post(by_query, data=chosen)
    assert redirected.status_code == 302
    assert httpx.URL(redirected.headers["location"]).params["state"] == "<s>"
    assert "code" in httpx.URL(client.get(f"{by_query}&prompt=none").headers["location"]).params
    client.cookies.clear()
    silent = client.get(f"{by_query}&prompt=none")
    assert httpx.URL(silent.headers["location"]).params["error"] == "login_required"


def test_a_browser_can_approve_a_device_and_sign_out(idp, client, desktop):
    """The device page takes code and user; the sign-out page leads back."""
    flow = desktop().initiate_device_flow(GRAPH)
    assert "ann@contoso.com" in client.get(flow["verification_uri"]).text
    form = {"user_code": flow["user_code"], "emulator_user": "ann@contoso.com"}
    assert "Signed in" in client.post(flow["verification_uri"], data=form).text
    assert "work" in client.post(flow["verification_uri"], data=form | {"user_code": "NONE"}).text
    logout = client.get(f"{idp.authority('contoso')}/oauth2/v2.0/logout?post_logout_redirect_uri=http://x/y&state=1")
    assert logout.headers["location"] == "http://x/y?state=1"


def test_interactive_sign_in_through_the_real_page(idp, desktop, client, monkeypatch):
    """MSAL's interactive flow ends at its loopback port once the page was answered."""

    def browse(url: str, *args: object, **kwargs: object) -> bool:
        page = client.post(url, data={"emulator_user": "ann@contoso.com"}).text
        fields = {name: unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', page)}
        [target] = re.findall(r'action="([^"]+)"', page)
        threading.Thread(target=httpx.post, args=(target,), kwargs={"data": fields}, daemon=True).start()
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(webbrowser, "get", lambda *_: type("Browser", (), {"open": staticmethod(browse)}))
    result = desktop().acquire_token_interactive(GRAPH, timeout=10)
    assert result["id_token_claims"]["preferred_username"] == "ann@contoso.com"


def test_expired_tokens_are_issued_on_command(idp, ask):
    """The fault `expired_tokens` issues tokens whose life is over."""
    idp.fail(Fault.expired_tokens())
    answer = ask().json()
    assert answer["expires_in"] == 0
    assert claims_of(answer["access_token"])["exp"] < time.time()
    assert not idp.ledger.is_valid(answer["access_token"])
