"""An application that is mounted in the one that signs users in, and one below a path that a proxy takes away."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import Depends, FastAPI
from flask import Flask
from starlette.testclient import TestClient
from test_users_looked_up_twice import BASE, COOKIE, Site
from token_issuer import Issuer

from resilient_auth.integrations.fastapi import SignIn
from resilient_auth.integrations.flask import SignIn as FlaskSignIn
from resilient_auth.signin import SignInNeeded, User
from resilient_auth.signin.messages import Arrival

PAGE = {"accept": "text/html"}


@pytest.fixture
def site(issuer: Issuer, tmp_path: Path) -> Iterator[Site]:
    made = Site(issuer, tmp_path)
    yield made
    made.close()


@pytest.fixture
def mounted(site: Site) -> TestClient:
    """A FastAPI application in another one, with handlers for errors of its own."""
    app, inner = FastAPI(), FastAPI()
    site.auth = auth = SignIn(app, **site.given)
    # Annotations are texts here, and FastAPI doesn't find a function's own names in them.
    signed_in, guarded = Depends(auth.signed_in()), auth.login_required

    @inner.get("/me")
    async def me(user: User = signed_in) -> str:
        return f"me {user.name}"

    @app.get("/dependent")
    async def dependent(user: User = signed_in) -> str:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [SignInNeeded()])

    @inner.get("/again")
    @guarded
    async def again() -> str:
        raise SignInNeeded

    @inner.get("/blocking")
    @guarded
    def blocking() -> str:
        raise SignInNeeded

    app.mount("/inner", inner)
    return TestClient(app, base_url=BASE, follow_redirects=False)


def test_a_dependency_leads_to_the_provider_from_there_too(site: Site, mounted: TestClient) -> None:
    """With the cookie by which the answer is known."""
    answer = mounted.get("/inner/me", headers=PAGE)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(site.issuer)
    assert "__Host-sign-in-" in answer.headers["Set-Cookie"]
    assert answer.text == ""
    script = mounted.get("/inner/me", headers={"accept": "application/json"})
    assert (script.status_code, script.json()["detail"]["code"]) == (401, "sign_in_needed")
    cookie = f"{COOKIE}={site.begin('ada')}"
    assert mounted.get("/inner/me", headers={**PAGE, "cookie": cookie}).json() == "me ada"


@pytest.mark.parametrize("path", ["/inner/again", "/inner/blocking", "/dependent"])
def test_so_does_who_must_sign_in_again(site: Site, mounted: TestClient, path: str) -> None:
    cookie = f"{COOKIE}={site.begin('ada')}"
    site.clock.advance(60.0)
    answer = mounted.get(path, headers={**PAGE, "cookie": cookie})
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(site.issuer)


def flask_below(site: Site) -> Any:
    app = Flask(__name__)
    site.auth = FlaskSignIn(app, **site.given)
    app.add_url_rule("/me", "me", site.auth.login_required(lambda: "me"))
    return app.test_client(use_cookies=False).get("/me", base_url=BASE, headers=PAGE)


def fastapi_below(site: Site) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old applications do so still
        app = FastAPI(root_path="/shop")
    site.auth = SignIn(app, **site.given)

    @app.get("/me")
    @site.auth.login_required
    async def me() -> str:
        return "me"

    return TestClient(app, base_url=BASE, follow_redirects=False).get("/me", headers=PAGE)


@pytest.mark.parametrize("framework", [flask_below, fastapi_below])
def test_users_come_back_below_the_path_that_a_proxy_takes_away(site: Site, framework: Callable[[Site], Any]) -> None:
    """What is beside it is another application's."""
    site.given["base_url"] = f"{BASE}/shop"
    answer = framework(site)
    name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
    state = parse_qs(urlsplit(answer.headers["Location"]).query)["state"][0]
    begun, _ = site.auth.engine.site.flows.open(Arrival("GET", "/", cookies={name: value}), state)
    assert begun is not None
    assert begun["next"] == "/shop/me"
