"""What Entra and B2C send, as their pages show it, and the frameworks in which it is answered."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilient_auth.callouts import AUTHENTICATION_EVENTS, Callout
from resilient_auth.callouts.caller import Arriving
from resilient_auth.callouts.contract import Reply
from resilient_auth.emulator import Emulator

TENANT = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
AUDIENCE = "api://callouts.example/11112222-bbbb-3333-cccc-4444dddd5555"

Answered = tuple[int, dict[str, Any], dict[str, str]]
Ask = Callable[..., Answered]

_NAMED = {"emailOtpSend": "OtpSend"}


def event(
    kind: str = "tokenIssuanceStart", *, tenant: str = TENANT, user: str | None = "u-1", **data: Any
) -> dict[str, Any]:
    """Make an event of Entra's, of a sign-in of its own."""
    context: dict[str, Any] = {
        "correlationId": str(uuid.uuid4()),
        "client": {"ip": "127.0.0.1", "locale": "de-at", "market": "en-us"},
        "protocol": "OAUTH2.0",
        "clientServicePrincipal": {"id": "c", "appId": "app-1", "appDisplayName": "Shop", "displayName": "Shop"},
        "resourceServicePrincipal": {"id": "r", "appId": "app-2", "appDisplayName": "Shop", "displayName": "Shop"},
    }
    if user is not None:
        context["user"] = {"id": user, "displayName": "Ada", "mail": "ada@contoso.com", "userType": "Member"}
    named = _NAMED.get(kind, kind[0].upper() + kind[1:])
    return {
        "type": f"microsoft.graph.authenticationEvent.{kind}",
        "source": f"/tenants/{tenant}/applications/app-2",
        "data": {
            "@odata.type": f"microsoft.graph.on{named}CalloutData",
            "tenantId": tenant,
            "authenticationEventListenerId": "listener",
            "customAuthenticationExtensionId": "extension",
            "authenticationContext": context,
            **copy.deepcopy(data),
        },
    }


def store_was_told(callout: Callout[Any]) -> None:
    """Wait until the store was told what it is told behind an answer."""
    ends = time.monotonic() + 8.0
    while callout._handling._workers.status():
        assert time.monotonic() < ends, "the store is still told"
        time.sleep(0.005)


def events_token(idp: Emulator, *, issuer: str, **claims: Any) -> str:
    """Sign a token as Entra's authentication events come with."""
    now = int(time.time())
    said = {
        "aud": AUDIENCE,
        "iss": issuer,
        "tid": TENANT,
        "sub": "events",
        "oid": "events",
        "azp": AUTHENTICATION_EVENTS,
        "azpacr": "2",
        "uti": "u" * 22,
        "ver": "2.0",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    }
    return idp.sign({name: value for name, value in (said | claims).items() if value is not None})


def in_fastapi(callout: Callout[Any], **_: Any) -> Ask:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import mount_callout

    app = FastAPI()
    mount_callout(app, "/callouts/token", callout)
    client = TestClient(app)

    def ask(body: Any, headers: dict[str, str] | None = None) -> Answered:
        answer = client.post("/callouts/token", content=_written(body), headers=_headers(headers))
        return answer.status_code, answer.json(), {name.lower(): value for name, value in answer.headers.items()}

    return ask


def in_flask(callout: Callout[Any], **_: Any) -> Ask:
    from flask import Flask

    from resilient_auth.integrations.flask import mount_callout

    app = Flask("answering")
    mount_callout(app, "/callouts/token", callout)
    client = app.test_client()

    def ask(body: Any, headers: dict[str, str] | None = None) -> Answered:
        answer = client.post("/callouts/token", data=_written(body), headers=_headers(headers))
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status_code, json.loads(answer.data), found

    return ask


def in_django(callout: Callout[Any], **options: Any) -> Ask:
    # The one that configures Django for all tests of this process.
    sys.path.append(str(Path(__file__).parents[1] / "integrations"))
    import django_site
    from django.test import AsyncClient, Client

    from resilient_auth.integrations.django import mount_callout

    patterns: list[Any] = []
    mount_callout(patterns, "/callouts/token", callout, **options)

    def ask(body: Any, headers: dict[str, str] | None = None) -> Answered:
        sent = _headers(headers)
        kind = sent.pop("Content-Type", "")
        with django_site.site(patterns):
            if options.get("asynchronous"):
                answer: Any = asyncio.run(
                    AsyncClient().post("/callouts/token", _written(body), content_type=kind, headers=sent)
                )
            else:
                answer = Client().post("/callouts/token", _written(body), content_type=kind, headers=sent)
        return answer.status_code, json.loads(answer.content), {n.lower(): v for n, v in answer.headers.items()}

    return ask


def in_django_asgi(callout: Callout[Any], **_: Any) -> Ask:
    return in_django(callout, asynchronous=True)


FRAMEWORKS = {"fastapi": in_fastapi, "flask": in_flask, "django": in_django, "django-asgi": in_django_asgi}


def _written(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _headers(given: dict[str, str] | None) -> dict[str, str]:
    return {"Content-Type": "application/json", **(given or {})}


def posed(callout: Callout[Any], body: Any, headers: dict[str, str] | None = None, peer: str = "127.0.0.1") -> Reply:
    """Send a request to a callout itself, with the name and password that tests use."""
    sent = {"Authorization": f"Basic {base64.b64encode(b'entra:a password, in tests').decode()}"}
    named = {name.lower(): value for name, value in (_headers(sent | (headers or {}))).items()}
    text = _written(body)

    def header(name: str) -> list[str]:
        return [named[name.lower()]] if name.lower() in named else []

    return callout.answer(Arriving(header, peer), lambda most, seconds: text[:most])
