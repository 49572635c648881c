"""Sign-out, logout tokens and security events in each framework, by one line each."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django_site
import pytest
from token_issuer import Issuer

import resilient_auth as ra
from resilient_auth.signin import IdentityProvider, SignalsReceiver, Who
from resilient_auth.verify import Revocations

assert django_site.settings.configured

BASE = "https://testserver"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
#: Sends a request; returns the status, the headers in lower case, and the body.
Ask = Callable[..., tuple[int, dict[str, str], str]]


class Site:
    """What an application has, whichever its framework."""

    def __init__(self, issuer: Issuer, folder: Path) -> None:
        self.idp = issuer.idp
        self.issuer = f"{issuer.idp.url}/tenants/routes"
        self.store = ra.FileStore(folder / "store.db")
        self.revocations = Revocations(self.store)
        self.verifier = ra.ClaimsVerifier(
            issuer=self.issuer, audience="https://receiver.example", verify=issuer.idp.ca_file
        )
        self.auth: Any = None

    def given(self) -> tuple[IdentityProvider, dict[str, Any]]:
        provider = IdentityProvider.for_openid(
            self.issuer, client_id="web", client_credential="s", verify=self.idp.ca_file, response_mode="form_post"
        )
        return provider, {"base_url": BASE, "store": self.store}

    def receiver(self, auth: Any) -> SignalsReceiver:
        self.auth = auth
        return SignalsReceiver(self.verifier, store=self.store, sign_in=auth, revocations=self.revocations)

    def begin(self, subject: str) -> str:
        """Begin a user's session; return the browser's cookie."""
        who = Who(provider="openid", issuer=self.issuer, subject=subject, sid=f"sid of {subject}")
        return str(self.auth.engine.site.sessions.create(who)[1])

    def is_in(self, cookie: str) -> bool:
        return self.auth.engine.site.sessions.find(cookie) is not None

    def token(self, kind: str = "logout+jwt", **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "exp": now + 60, "jti": uuid.uuid4().hex} | changes
        return self.idp.event_token(claims, {"typ": kind})

    def close(self) -> None:
        self.auth.close()
        self.verifier.close()
        self.revocations.close()
        self.store.close()


def of_flask(site: Site) -> Ask:
    from flask import Flask

    from resilient_auth.integrations.flask import SignIn, mount_signals

    app = Flask(__name__)
    provider, options = site.given()
    mount_signals(app, site.receiver(SignIn(app, provider, **options)))
    client = app.test_client(use_cookies=False)

    def ask(method: str, path: str, body: bytes = b"", kind: str = "", **headers: str) -> Any:
        answer = client.open(path, method=method, base_url=BASE, data=body, headers=headers, content_type=kind or None)
        return answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.text

    return ask


def of_starlette(site: Site) -> Ask:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import SignIn, mount_signals

    return _asgi(Starlette(), site, TestClient, SignIn, mount_signals)


def of_fastapi(site: Site) -> Ask:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import SignIn, mount_signals

    app = FastAPI()

    @app.post("/{everything:path}")
    def everything(everything: str) -> str:
        return everything

    return _asgi(app, site, TestClient, SignIn, mount_signals)


def _asgi(app: Any, site: Site, client_of: Any, sign_in: Any, mount: Any) -> Ask:
    provider, options = site.given()
    mount(app, site.receiver(sign_in(app, provider, **options)))
    client = client_of(app, base_url=BASE, follow_redirects=False)

    def ask(method: str, path: str, body: bytes = b"", kind: str = "", **headers: str) -> Any:
        sent = headers | ({"content-type": kind} if kind else {})
        answer = client.request(method, path, content=body, headers=sent)
        return answer.status_code, dict(answer.headers), answer.text

    return ask


def of_django(site: Site) -> Ask:
    from django.test import RequestFactory
    from django.urls import re_path
    from django.urls.resolvers import RegexPattern, URLResolver

    from resilient_auth.integrations.django import SignIn, mount_signals

    patterns: list[Any] = [re_path("", lambda request: None)]
    provider, options = site.given()
    mount_signals(patterns, site.receiver(SignIn(patterns, provider, **options)))
    resolver = URLResolver(RegexPattern(r"^/"), patterns)

    def ask(method: str, path: str, body: bytes = b"", kind: str = "", **headers: str) -> Any:
        sent = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        request = RequestFactory().generic(method, path, body, kind or "text/plain", secure=True, **sent)
        if "cookie" in headers:
            name, _, value = headers["cookie"].partition("=")
            request.COOKIES[name] = value
        view = resolver.resolve(path.partition("?")[0])
        answer = view.func(request, *view.args, **view.kwargs)
        return answer.status_code, {name.lower(): value for name, value in answer.items()}, answer.content.decode()

    return ask


@pytest.fixture
def site(issuer: Issuer, tmp_path: Path) -> Iterator[Site]:
    made = Site(issuer, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("framework", [of_flask, of_fastapi, of_starlette, of_django])
def test_all_of_it_is_there(site: Site, framework: Callable[[Site], Ask]) -> None:
    """Each route answers as its specification has it, in whichever framework."""
    ask = framework(site)
    form = "application/x-www-form-urlencoded"

    cookie, another = site.begin("ann"), site.begin("bob")
    status, headers, page = ask("GET", "/sign-out", cookie=f"__Host-session={cookie}", accept="text/html")
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert f"form-action 'self' {site.idp.url}" in headers["content-security-policy"]
    assert "Sign out?" in page
    same = {"sec-fetch-site": "same-origin", "cookie": f"__Host-session={cookie}", "accept": "text/html"}
    status, headers, _ = ask("POST", "/sign-out", b"", form, **same)
    assert (status, headers["location"].partition("?")[0]) == (303, f"{site.issuer}/logout")
    assert not site.is_in(cookie)

    cookie = site.begin("ann")
    logout = site.token(aud="web", sub="ann", events={LOGOUT: {}})
    status, headers, body = ask("POST", "/sign-out/back-channel", f"logout_token={logout}".encode(), form)
    assert (status, body, headers["cache-control"]) == (200, "", "no-store")
    status, headers, body = ask("POST", "/sign-out/back-channel", f"logout_token={logout}".encode(), form)
    assert (status, json.loads(body)["error"]) == (400, "invalid_request")
    assert headers["cache-control"] == "no-store"
    assert ask("POST", "/sign-out/back-channel", b"logout_token=" + b"x" * 300_000, form)[0] == 400
    assert ask("POST", "/sign-out/back-channel", b"\xff\x00", "application/json")[0] == 400
    assert not site.is_in(cookie)

    cookie = site.begin("ann")
    status, headers, _ = ask("GET", f"/sign-out/front-channel?iss={site.issuer}&sid=sid+of+ann")
    assert status == 200
    assert headers["content-security-policy"].endswith(f"frame-ancestors {site.idp.url}")
    assert not site.is_in(cookie)

    cookie = site.begin("ann")
    subject = {"format": "iss_sub", "iss": site.issuer, "sub": "ann"}
    event = site.token("secevent+jwt", aud="https://receiver.example", sub_id=subject, events={REVOKED: {}}).encode()
    status, headers, body = ask("POST", "/signals", event, "application/secevent+jwt")
    assert (status, body) == (202, "")
    assert not site.is_in(cookie)
    status, headers, body = ask("POST", "/signals", event[:-4] + b"AAAA", "application/secevent+jwt")
    assert (status, json.loads(body)["err"]) == (400, "authentication_failed")
    assert headers["content-type"] == "application/json"
    assert ask("POST", "/signals", event + b"x" * 300_000, "application/secevent+jwt")[0] == 400
    assert ask("POST", "/signals", event, "text/plain")[0] == 400
    assert site.is_in(another)
