"""Whose request it is stays known while a body is streamed and in what runs behind the answer; a web socket is none."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import django_site  # which configures Django
import pytest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.test import RequestFactory
from fastapi import BackgroundTasks, FastAPI, WebSocket
from flask import Flask, stream_with_context
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from test_users_looked_up_twice import BASE, COOKIE, Site
from token_issuer import Issuer

from resilient_auth.integrations.django import SignIn as DjangoSignIn
from resilient_auth.integrations.fastapi import SignIn as StarletteSignIn
from resilient_auth.integrations.flask import SignIn as FlaskSignIn

assert django_site.settings.configured


@pytest.fixture
def site(issuer: Issuer, tmp_path: Path) -> Iterator[Site]:
    made = Site(issuer, tmp_path)
    yield made
    made.close()


def name_of(auth: Any) -> str:
    return auth.user.name if auth.user else "nobody"


def of_flask(site: Site) -> str:
    app = Flask(__name__)
    site.auth = auth = FlaskSignIn(app, **site.given)

    @app.get("/me")
    @auth.login_required
    def me() -> Any:
        return app.response_class(stream_with_context(f"{name_of(auth)} " for _ in range(2)))

    return str(app.test_client(use_cookies=False).get("/me", base_url=BASE, headers=cookie(site)).text)


def of_fastapi(site: Site) -> str:
    app, behind = FastAPI(), []
    site.auth = auth = StarletteSignIn(app, **site.given)

    async def parts() -> AsyncIterator[str]:
        for _ in range(2):
            yield f"{name_of(auth)} "

    @app.get("/me")
    @auth.login_required
    async def me(tasks: BackgroundTasks) -> Any:
        tasks.add_task(lambda: behind.append(name_of(auth)))
        return StreamingResponse(parts(), background=tasks)

    text = TestClient(app, base_url=BASE).get("/me", headers=cookie(site)).text
    assert behind == ["ada"]
    return str(text)


def django_view(site: Site, view: Callable[..., Any]) -> Any:
    site.auth = DjangoSignIn(None, **site.given)
    return site.auth.login_required(view)


def django_request(site: Site, name: str = "ada") -> HttpRequest:
    return RequestFactory().get("/me", secure=True, headers=cookie(site, name))


def of_django(site: Site) -> str:
    def me(_: HttpRequest) -> Any:
        return StreamingHttpResponse(f"{name_of(site.auth)} " for _ in range(2))

    answer = django_view(site, me)(django_request(site))
    return b"".join(answer.streaming_content).decode()


def of_django_by_tasks(site: Site) -> str:
    async def parts() -> AsyncIterator[str]:
        for _ in range(2):
            yield f"{name_of(site.auth)} "

    async def me(_: HttpRequest) -> Any:
        return StreamingHttpResponse(parts())

    async def ask() -> str:
        answer = await guarded(django_request(site))
        return b"".join([part async for part in answer.streaming_content]).decode()

    guarded = django_view(site, me)
    return asyncio.run(ask())


def cookie(site: Site, name: str = "ada") -> dict[str, str]:
    return {"cookie": f"{COOKIE}={site.begin(name)}"}


@pytest.mark.parametrize("framework", [of_flask, of_fastapi, of_django, of_django_by_tasks])
def test_a_body_that_is_streamed_knows_its_user(site: Site, framework: Callable[[Site], str]) -> None:
    """Part by part, after the view has returned; and nobody stays behind."""
    assert framework(site) == "ada ada "
    if isinstance(site.auth, DjangoSignIn):
        assert site.auth.user is None


def test_two_bodies_that_are_streamed_by_turns_know_each_its_own(site: Site) -> None:
    """A server may have one thread for both."""

    def me(_: HttpRequest) -> Any:
        return StreamingHttpResponse(f"{name_of(site.auth)} " for _ in range(2))

    view = django_view(site, me)
    bodies = [iter(view(django_request(site, name)).streaming_content) for name in ("ada", "bob")]
    assert [next(body) for _ in range(2) for body in bodies] == [b"ada ", b"bob "] * 2


def test_a_file_stays_the_servers_to_send(site: Site) -> None:
    """Which may be quicker than Python, and nobody asks there who it is for."""
    file = io.BytesIO(b"report")
    answer = django_view(site, lambda _: FileResponse(file))(django_request(site))
    assert answer.file_to_stream is file
    assert b"".join(answer.streaming_content) == b"report"


def test_nobody_is_said_to_be_at_a_web_socket(site: Site) -> None:
    """A browser that is signed in would be taken for a stranger's without a word."""
    app, said = FastAPI(), []
    site.auth = auth = StarletteSignIn(app, **site.given)

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        for ask in (auth.current_user, auth.token):
            with pytest.raises(RuntimeError, match="sign-in serves HTTP requests"):
                await ask()
            said.append(ask)
        await socket.close()

    headers = cookie(site)
    with TestClient(app, base_url=BASE) as client, client.websocket_connect("/talk", headers=headers) as talking:
        assert talking.receive()["type"] == "websocket.close"
    assert len(said) == 2
