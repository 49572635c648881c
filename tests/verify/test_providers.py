"""The page's table of providers, row by row: a stand-in of each, its tokens' shapes, and the options that it wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from arriving import TENANT, Signer, Site

import resilient_auth as ra

CLIENT = "0f9c3c5e-8f5d-4f5c-9f6a-6f3c1c1f3c11"
API = "api://orders"
PAGE = (Path(__file__).parents[2] / "docs" / "verifying-tokens.md").read_text()


@dataclass
class StandIn:
    """A provider of the tests' own, which signs what it is told."""

    site: Site
    signer: Signer
    now: int
    settings: ra.Settings

    @property
    def options(self) -> dict[str, Any]:
        """What has nothing to do with the provider."""
        return {"settings": self.settings, "verify": self.site.trust}

    def provide(self, path: str, issuer: str, **further: Any) -> None:
        """Serve a discovery document at a path, and the keys as this kind of provider lists them."""
        document = {"issuer": issuer, "jwks_uri": f"{self.site.url}/keys"} | further
        self.site.serve(f"{path}/.well-known/openid-configuration", document)
        self.site.serve("/keys", {"keys": [self.signer.jwk | {"alg": "RS256"}]})

    def sign(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign claims that hold for an hour."""
        times = {"iat": self.now, "exp": self.now + 3600}
        return self.signer.token(times | claims, **(header or {}))


@pytest.fixture
def stand_in(site: Site, signer: Signer, clock: Any, settings: Any) -> StandIn:
    return StandIn(site, signer, int(clock.wall()), settings())


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    with pytest.raises(ra.InvalidToken) as caught:
        verifier.verify(token, **asked)
    return caught.value.code


def entra(idp: StandIn) -> None:
    """Version 1 and 2, users, applications and agents; keys of an application with claims mapping."""
    url = idp.site.url
    idp.provide(f"/{TENANT}/v2.0", f"{url}/{TENANT}/v2.0")
    second = {"iss": f"{url}/{TENANT}/v2.0", "aud": CLIENT, "tid": TENANT, "ver": "2.0", "azp": "shop", "azpacr": "1"}
    first = {"iss": f"{url}/{TENANT}/", "aud": API, "tid": TENANT, "ver": "1.0", "appid": "shop", "appidacr": "1"}
    with ra.ClaimsVerifier.for_entra(TENANT, [API, CLIENT], authority=url, **idp.options) as verifier:
        user = {"sub": "pairwise", "oid": "ann", "scp": "Orders.Read", "acrs": ["c1"], "acr": "1"}
        for version in (first, second):
            found = verifier.verify(idp.sign(**version, **user), scopes="Orders.Read", app_only=False)
            assert (found.client_id, found.agent_blueprint, found.policy) == ("shop", None, None)
        robot = idp.sign(**second, sub="robot", oid="robot", idtyp="app", roles=["Orders.Read.All"])
        assert verifier.verify(robot, roles="Orders.Read.All", app_only=True)
        agent = idp.sign(
            **first,
            sub="c",
            oid="b",
            idtyp="app",
            xms_par_app_azp="blueprint",
            xms_act_fct="3 9 11",
            xms_sub_fct="9 3 11",
        )
        assert verifier.verify(agent, app_only=True).agent_blueprint == "blueprint"
    mapped = Signer("mapped")
    address = f"/{TENANT}/v2.0/.well-known/openid-configuration?appid={CLIENT}"
    keys = f"/{TENANT}/discovery/v2.0/keys?appid={CLIENT}"
    idp.site.serve(address, {"issuer": f"{url}/{TENANT}/v2.0", "jwks_uri": f"{url}{keys}"})
    idp.site.serve(keys, {"keys": [mapped.jwk]})
    token = mapped.token({"iat": idp.now, "exp": idp.now + 60, "sub": "ann", "scp": "x"} | second)
    with ra.ClaimsVerifier.for_entra(TENANT, CLIENT, authority=url, **idp.options) as plain:
        assert code_of(plain, token) == "unknown_key"
    with ra.ClaimsVerifier.for_entra(TENANT, CLIENT, authority=url, keys_of=CLIENT.upper(), **idp.options) as own:
        assert own.verify(token).subject == "ann"


def b2c(idp: StandIn) -> None:
    """A user flow's, with lists where other providers have texts."""
    url = idp.site.url
    idp.provide(f"/{TENANT}/b2c_1_signin/v2.0", f"{url}/{TENANT}/v2.0/")
    said = {"iss": f"{url}/{TENANT}/v2.0/", "aud": CLIENT, "sub": "ann", "azp": "shop", "ver": "1.0", "nonce": "n"}
    with ra.ClaimsVerifier.for_b2c(
        "contoso", ["B2C_1_signin"], CLIENT, tenant_id=TENANT, authority=url, **idp.options
    ) as verifier:
        found = verifier.verify(idp.sign(**said, scp="read", tfp="B2C_1_SignIn", emails=["ann@x"], email=["ann@x"]))
        assert (found.policy, found.username, found.raw["email"]) == ("b2c_1_signin", None, ("ann@x",))
        assert code_of(verifier, idp.sign(**said, scp="read", tfp="b2c_1_weak")) == "policy"


def external_id(idp: StandIn) -> None:
    """Its issuer has the tenant in its host."""
    issuer = f"https://{TENANT}.ciamlogin.com/{TENANT}/v2.0"
    idp.provide(f"/{TENANT}/v2.0", issuer)
    token = idp.sign(iss=issuer, aud=CLIENT, tid=TENANT, sub="ann", oid="ann-oid", azp="shop", scp="read")
    with ra.ClaimsVerifier.for_external_id(
        "contoso", CLIENT, tenant_id=TENANT, authority=idp.site.url, **idp.options
    ) as verifier:
        assert verifier.verify(token, scopes="read", app_only=False).tenant_id == TENANT


def adfs(idp: StandIn) -> None:
    """Access tokens of another name than ID tokens, times as texts beside those that count, lists for one mail."""
    url, name = idp.site.url, "http://fs.contoso.com/adfs/services/trust"
    idp.provide("/adfs", f"{url}/adfs", access_token_issuer=name)
    token = idp.sign(
        iss=name,
        aud="microsoft:identityserver:orders",
        sub="ann",
        appid="shop",
        apptype="Confidential",
        authmethod="urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
        auth_time="2026-11-26T12:00:00.000Z",
        scp="openid",
        ver="1.0",
        upn=["ann@contoso.com"],
        email=["ann@contoso.com", "a@contoso.com"],
        role=["Reader", "Writer"],
    )
    with ra.ClaimsVerifier(
        issuer=[f"{url}/adfs", name],
        discovery=f"{url}/adfs/.well-known/openid-configuration",
        audience="microsoft:identityserver:orders",
        roles_claim="role",
        **idp.options,
    ) as verifier:
        found = verifier.verify(token, roles=["Reader"])
        assert (found.client_id, found.username) == ("shop", None)


def keycloak(idp: StandIn) -> None:
    """Roles within a claim, a level of assurance that is no policy, service accounts that no claim tells from users."""
    issuer = f"{idp.site.url}/realms/shop"
    idp.provide("/realms/shop", issuer)
    idp.site.serve(
        "/keys", {"keys": [idp.signer.jwk | {"alg": "RS256"}, idp.signer.jwk | {"kid": "enc", "use": "enc"}]}
    )
    said = {"iss": issuer, "aud": ["orders", "account"], "typ": "Bearer", "scope": "profile email", "acr": 1, "sid": 7}
    roles = {"realm_access": {"roles": ["reader", "offline_access"]}, "resource_access": {"a.b": {"roles": ["clerk"]}}}
    user = idp.sign(**said, **roles, sub="8f1e", azp="shop-ui")
    service = idp.sign(**said, sub="77aa", azp="nightly-export", client_id="nightly-export")
    options: dict[str, Any] = {
        "issuer": issuer, "audience": "orders", "is_application": lambda claims: claims.get("azp") == "nightly-export"
    }  # fmt: skip
    with ra.ClaimsVerifier(**options, roles_claim="realm_access.roles", **idp.options) as verifier:
        assert verifier.verify(user, roles="reader", app_only=False).session_id is None
        assert verifier.verify(service, app_only=True).roles == frozenset()
    with ra.ClaimsVerifier(**options, roles_claim=["resource_access", "a.b", "roles"], **idp.options) as verifier:
        assert verifier.verify(user).roles == {"clerk"}


def auth0(idp: StandIn) -> None:
    """An issuer that ends in a slash, two audiences, applications with scopes; permissions in place of roles."""
    issuer = f"{idp.site.url}/"
    idp.provide("", issuer)
    said = {"iss": issuer, "azp": "shop", "scope": "openid read"}
    user = idp.sign(**said, aud=[API, f"{issuer}userinfo"], sub="auth0|ann", permissions=["read:orders"])
    robot = idp.sign({"typ": "at+jwt"}, **said, aud=API, sub="shop@clients", gty="client-credentials")
    with ra.ClaimsVerifier(issuer=issuer, audience=API, roles_claim="permissions", **idp.options) as verifier:
        assert verifier.verify(user, roles="read:orders", app_only=False)
        assert verifier.verify(robot, app_only=True)
    named = idp.sign(**said, aud=API, sub="auth0|ann", **{"https://orders.example/roles": ["clerk"]})
    with ra.ClaimsVerifier(
        issuer=issuer, audience=API, roles_claim="https://orders.example/roles", **idp.options
    ) as verifier:
        assert verifier.verify(named, roles="clerk")


def okta(idp: StandIn) -> None:
    """The client in `cid`, scopes in a list, no `typ`."""
    issuer = f"{idp.site.url}/oauth2/default"
    idp.provide("/oauth2/default", issuer)
    said = {"iss": issuer, "aud": "api://default", "ver": 1, "jti": "AT.x", "cid": "0oa1", "auth_time": idp.now}
    user = idp.sign(
        {"typ": None}, **said, sub="ann@example.com", uid="00u1", scp=["openid", "orders"], groups=["clerk"]
    )
    robot = idp.sign({"typ": None}, **said, sub="0oa1", scp=["orders"])
    with ra.ClaimsVerifier(
        issuer=issuer, audience="api://default", clients=["0oa1"], roles_claim="groups", **idp.options
    ) as verifier:
        assert verifier.verify(user, scopes="orders", roles="clerk", app_only=False).client_id == "0oa1"
        assert verifier.verify(robot, app_only=True)


def cognito(idp: StandIn) -> None:
    """Access tokens without an audience: the client stands in for it, by the owner's word alone."""
    issuer = f"{idp.site.url}/eu-central-1_Pool"
    idp.provide("/eu-central-1_Pool", issuer)
    said = {
        "iss": issuer,
        "sub": "6f6e",
        "event_id": "e",
        "jti": "j",
        "auth_time": idp.now,
        "cognito:groups": ["clerk"],
    }
    access = {"client_id": "app1", "token_use": "access", "scope": "orders/read", "username": "ann", "origin_jti": "o"}
    options = {"issuer": issuer, "audience": "app1", "roles_claim": "cognito:groups", **idp.options}
    with ra.ClaimsVerifier(**options, client_as_audience=True) as api, ra.ClaimsVerifier(**options) as plain:
        token = idp.sign({"typ": None}, **said, **access)
        assert code_of(plain, token) == "malformed"
        found = api.verify(token, scopes="orders/read", roles="clerk", app_only=False)
        assert found.audience == ("app1",)
        assert code_of(api, idp.sign(**said, **access | {"client_id": "app2"})) == "audience"
        assert api.verify(idp.sign(**said | {"sub": "app1"}, **access), app_only=True)
        # What an audience says isn't overruled, and two clients are none.
        assert code_of(api, idp.sign(**said, **access, aud="other")) == "audience"
        assert code_of(api, idp.sign(**said, **access, aud=None)) == "malformed"
        for two in ({"azp": "app2"}, {"azp": "app1", "client_id": "app2"}, {"cid": "app2"}, {"appid": ["app1"]}):
            assert code_of(api, idp.sign(**said, **access | two)) in ("audience", "malformed")
        identity = idp.sign(**said, aud="app1", token_use="id")
        assert code_of(api, identity) == "token_type"
        with ra.ClaimsVerifier(**options, accepts="id") as site:
            assert site.verify(identity).roles == {"clerk"}
            assert code_of(site, idp.sign(**said, aud="app1", token_use="access")) == "token_type"


def google(idp: StandIn) -> None:
    """ID tokens that a phone's client, or Pub/Sub's service account, got for this audience; keys on another host."""
    idp.site.serve("/oauth2/v3/certs", {"keys": [idp.signer.jwk | {"alg": "RS256"}]})
    said = {"aud": "web.apps", "email": "ann@gmail.com", "email_verified": True}
    phone = idp.sign(**said, iss="https://accounts.google.com", azp="android.apps", sub="1137")
    pushed = idp.sign(**said, iss="accounts.google.com", azp="11377426", sub="11377426")
    options: dict[str, Any] = {
        "issuer": ["https://accounts.google.com", "accounts.google.com"],
        "jwks_uri": f"{idp.site.url}/oauth2/v3/certs",
        "audience": "web.apps",
        "accepts": "id",
        **idp.options,
    }
    with ra.ClaimsVerifier(**options) as plain:
        assert code_of(plain, phone) == "audience"
        assert plain.verify(idp.sign(**said, iss="https://accounts.google.com", azp="web.apps", sub="1"))
    with ra.ClaimsVerifier(**options, clients=["web.apps", "android.apps", "11377426"]) as verifier:
        assert verifier.verify(phone).client_id == "android.apps"
        assert verifier.verify(pushed).username == "ann@gmail.com"
        assert code_of(verifier, idp.sign(**said, iss="accounts.google.com", azp="evil", sub="1")) == "client"
        assert (
            code_of(verifier, idp.sign(**said | {"aud": "other"}, iss="accounts.google.com", azp="web.apps"))
            == "audience"
        )


ROWS: dict[str, Callable[[StandIn], None]] = {
    "Entra ID": entra,
    "Azure AD B2C": b2c,
    "Entra External ID": external_id,
    "ADFS": adfs,
    "Keycloak": keycloak,
    "Auth0": auth0,
    "Okta": okta,
    "Amazon Cognito": cognito,
    "Google": google,
}


@pytest.mark.parametrize("provider", ROWS)
def test_a_provider(provider: str, stand_in: StandIn) -> None:
    """Its tokens are verified with the options of its row, and what isn't meant is refused."""
    ROWS[provider](stand_in)


def test_the_page_has_a_row_for_each() -> None:
    """And none that nobody tries."""
    table = PAGE.split("(providers)=", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| \*\*(.+?)\*\* \|", table, re.MULTILINE)) == set(ROWS)
