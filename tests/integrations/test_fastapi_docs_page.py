"""The docs page of a FastAPI application signs a user in at the provider's own pages, in Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import flask_swagger_ui
import pytest
from fastapi import FastAPI, Security
from playwright.sync_api import Page, Route, expect, sync_playwright
from served import asgi
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.fastapi import Authenticated, AuthorizationCode
from resilient_auth.verify import Claims

SCOPES = {"api://orders/orders.read": "Read orders", "api://orders/orders.write": "Change orders"}
#: Milliseconds that a browser may take on a busy machine.
PATIENCE = 20_000
#: What FastAPI's docs page fetches from a content network.
ASSETS = Path(flask_swagger_ui.__file__).parent / "dist"


def application(issuer: Issuer) -> FastAPI:
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    code = AuthorizationCode.of_authority(issuer.idp.authority("contoso"), SCOPES)
    signed_in = Authenticated(verifier, scheme_name="entra", authorization_code=code)
    app = FastAPI(swagger_ui_init_oauth=code.docs_page("docs-page"))

    @app.get("/me")
    async def me(claims: Annotated[Claims, Security(signed_in, scopes=["orders.read"])]) -> dict[str, Any]:
        return {"name": claims.username, "scopes": sorted(claims.scopes)}

    return app


@pytest.fixture
def page() -> Iterator[Page]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=os.geteuid() != 0)
        context = browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(PATIENCE)

        def asset(route: Route) -> None:
            route.fulfill(path=ASSETS / route.request.url.rpartition("/")[2])

        context.route("https://cdn.jsdelivr.net/**", asset)
        context.route("https://fastapi.tiangolo.com/**", lambda route: route.fulfill(path=ASSETS / "favicon-32x32.png"))
        yield context.new_page()
        browser.close()


@pytest.mark.xdist_group("chromium")
def test_the_authorize_button_ends_in_a_200(issuer: Issuer, page: Page) -> None:
    """By the authorization code with PKCE, with the scopes that its user chose; without it a call is a 401."""
    with asgi(application(issuer)) as url:
        page.goto(f"{url.replace('127.0.0.1', 'localhost')}/docs")

        status = page.locator(".live-responses-table .response .response-col_status")
        page.locator(".opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(status).to_contain_text("401", timeout=PATIENCE)

        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".modal-ux")
        expect(dialog).to_contain_text("Change orders", timeout=PATIENCE)
        dialog.get_by_text("orders.write").last.click()
        with page.expect_popup() as popup:
            dialog.locator("button.authorize").first.click()
        asked = popup.value.url
        popup.value.get_by_role("button", name="ada@contoso.com").click()
        expect(dialog.get_by_text("Logout")).to_be_visible(timeout=PATIENCE)
        dialog.get_by_text("Close").last.click()

        page.get_by_role("button", name="Execute").click()
        expect(status).to_contain_text("200", timeout=PATIENCE)
        expect(page.locator(".live-responses-table")).to_contain_text("ada@contoso.com")
    assert "code_challenge_method=S256" in asked


def test_the_openapi_document_describes_it(issuer: Issuer) -> None:
    """With its addresses and scopes, each with what it allows."""
    document = application(issuer).openapi()
    base = f"{issuer.idp.authority('contoso')}/oauth2/v2.0"
    flow = {"authorizationUrl": f"{base}/authorize", "tokenUrl": f"{base}/token", "scopes": SCOPES}
    shown = document["components"]["securitySchemes"]["entra"]
    assert shown == {"type": "oauth2", "flows": {"authorizationCode": flow}}
    assert document["paths"]["/me"]["get"]["security"] == [{"entra": ["orders.read"]}]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"authorization_url": "idp.example"}, "authorization_url"),
        ({"token_url": "http://idp.example/token"}, "token_url"),
        ({"token_url": None}, "token_url"),
        ({"refresh_url": 5}, "refresh_url"),
        ({"scopes": ["orders.read"]}, "scopes"),
        ({"scopes": {"orders read": "x"}}, "scopes"),
        ({"scopes": {"orders.read": ""}}, "scopes"),
    ],
)
def test_a_wrong_description_is_said_at_once(wrong: dict[str, Any], says: str) -> None:
    right = {"authorization_url": "https://idp.example/a", "token_url": "https://idp.example/t", "scopes": {}}
    with pytest.raises(ConfigurationError, match=says):
        AuthorizationCode(**right | wrong)


def test_two_schemes_at_once_are_refused(issuer: Issuer) -> None:
    code = AuthorizationCode.of_authority("https://idp.example/contoso", SCOPES)
    verifier = issuer.verifier(ra.aio.ClaimsVerifier)
    with pytest.raises(ConfigurationError, match="one of them"):
        Authenticated(verifier, authorization_code=code, openid_connect_url="https://idp.example/d")
    with pytest.raises(ConfigurationError, match="AuthorizationCode"):
        Authenticated(verifier, authorization_code="https://idp.example")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="authorization_url"):
        AuthorizationCode.of_authority(None, SCOPES)  # type: ignore[arg-type]
