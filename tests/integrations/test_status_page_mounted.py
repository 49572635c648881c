"""The status page in each framework: who is let in, what is sent with it, and readers that come, stay and hang."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import django_site
import httpx
import pytest
from fastapi import Request
from served import asgi, wsgi

from resilient_auth import ConfigurationError
from resilient_auth.integrations.status_page import starlette as streaming
from resilient_auth.telemetry.page import serving
from resilient_auth.telemetry.page.history import history

assert django_site.settings.configured

OPERATOR = {"X-Operator": "yes"}
ROUTES = ["/ops/status", "/ops/status/now", "/ops/status/events"]
Mount = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Streams end soon, and nothing is kept of other tests' circuits."""
    monkeypatch.setattr(streaming, "STREAM_SECONDS", 1.0)
    monkeypatch.setattr(streaming, "_EVERY", 0.05)
    yield
    history.end()


def in_fastapi(path: str = "/ops/status", **options: Any) -> Any:
    from fastapi import FastAPI, HTTPException

    from resilient_auth.integrations.fastapi import mount_status_page

    def operator(request: Request) -> None:
        if "x-operator" not in request.headers:
            raise HTTPException(401)

    app = FastAPI()

    @app.get("/{everything:path}")
    def everything(everything: str) -> str:
        return everything

    mount_status_page(app, path, **(options or {"guard": operator}))
    assert not any("status" in path for path in app.openapi()["paths"])
    return asgi(app)


def in_starlette(path: str = "/ops/status", **options: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse

    from resilient_auth.integrations.fastapi import mount_status_page

    def operator(request: Request) -> PlainTextResponse | None:
        return None if "x-operator" in request.headers else PlainTextResponse("who are you?", 401)

    app = Starlette()
    mount_status_page(app, path, **(options or {"guard": operator}))
    return asgi(app)


def in_starlette_awaiting(path: str = "/ops/status", **options: Any) -> Any:
    from starlette.exceptions import HTTPException

    async def operator(request: Request) -> None:
        if "x-operator" not in request.headers:
            raise HTTPException(401)

    return in_starlette(path, **(options or {"guard": operator}))


def in_flask(path: str = "/ops/status", **options: Any) -> Any:
    from flask import Flask, abort, request

    from resilient_auth.integrations.flask import mount_status_page

    def operator(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def guarded(*args: Any, **named: Any) -> Any:
            return view(*args, **named) if "X-Operator" in request.headers else abort(401)

        return guarded

    app = Flask(__name__)
    mount_status_page(app, path, **(options or {"guard": operator}))
    return wsgi(app)


def in_django(path: str = "/ops/status", **options: Any) -> Any:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import re_path

    from resilient_auth.integrations.django import mount_status_page

    def operator(view: Callable[..., Any]) -> Callable[..., Any]:
        return lambda request, *args, **named: (
            view(request, *args, **named) if "X-Operator" in request.headers else HttpResponse(status=401)
        )

    patterns: list[Any] = [re_path("", lambda request: HttpResponse(status=418))]
    mount_status_page(patterns, path, **(options or {"guard": operator}))
    urls = type("Urls", (), {"urlpatterns": patterns})
    return _with(override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[], ALLOWED_HOSTS=["*"]), lambda: wsgi(WSGIHandler()))


class _with:  # noqa: N801 - it is used as a function
    """Serve within other settings."""

    def __init__(self, settings: Any, serve: Callable[[], Any]) -> None:
        self._settings, self._serve = settings, serve

    def __enter__(self) -> str:
        self._settings.enable()
        self._served = self._serve()
        url: str = self._served.__enter__()
        return url

    def __exit__(self, *error: object) -> None:
        self._served.__exit__(None, None, None)
        self._settings.disable()


async def _refuse(request: Request) -> None:
    from starlette.exceptions import HTTPException

    raise HTTPException(401)


class _Refusing:
    """A guard that is an object."""

    async def __call__(self, request: Request) -> None:
        await _refuse(request)


def _handing_on(request: Request) -> Any:
    return _refuse(request)


def _is_operator(request: Request) -> bool:
    return "x-operator" in request.headers


async def _is_operator_awaited(request: Request) -> bool:
    return _is_operator(request)


@pytest.mark.parametrize("framework", [in_fastapi, in_starlette])
@pytest.mark.parametrize(
    "guard",
    [
        _refuse,
        _handing_on,
        _Refusing(),
        partial(_refuse),
        wraps(_is_operator)(_handing_on),
        _is_operator,
        _is_operator_awaited,
    ],
    ids=["coroutine", "hands on", "object", "partial", "decorated", "says False", "says False later"],
)
def test_a_guard_of_any_form_refuses(framework: Mount, guard: Any) -> None:
    """One that nobody awaits has checked nothing, and one that answers False has said no."""
    with framework(guard=guard) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for route in ROUTES:
            answer = client.get(route)
            assert answer.status_code in (401, 403), route
            assert "sections" not in answer.text
            assert "<main>" not in answer.text
        if guard in (_is_operator, _is_operator_awaited):
            assert client.get(ROUTES[0], headers=OPERATOR).status_code == 200


FRAMEWORKS: list[Mount] = [in_fastapi, in_starlette, in_starlette_awaiting, in_flask, in_django]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_who_the_guard_refuses_sees_nothing(framework: Mount) -> None:
    """On no route of the three; who passes has the page, its JSON and its events, each with a strict policy."""
    with framework() as url, httpx.Client(base_url=url, timeout=20.0, trust_env=False) as client:
        for route in ROUTES:
            refused = client.get(route)
            assert refused.status_code == 401
            assert "Time to dark" not in refused.text
        page, now, events = (client.get(route, headers=OPERATOR) for route in ROUTES)
        assert "<h1>Sign-in and tokens</h1>" in page.text
        assert set(now.json()) == {"sections", "title", "time"}
        assert "data: {" in events.text
        assert events.headers["content-type"].startswith("text/event-stream")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for answer in (page, now, events):
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_isnt_mounted_unguarded_by_mistake(framework: Mount) -> None:
    """Whoever wants that says so; and not beside a guard."""
    with pytest.raises(ConfigurationError, match="give a guard"):
        framework(guard=None)
    with pytest.raises(ConfigurationError, match="not both"):
        framework(guard=lambda view: view, unprotected=True)
    with pytest.raises(ConfigurationError, match="callable"):
        framework(guard="login_required")
    with pytest.raises(ConfigurationError, match="True or False"):
        framework(unprotected="yes")
    with framework(unprotected=True) as url:
        assert httpx.get(f"{url}/ops/status", trust_env=False).status_code == 200


@pytest.mark.parametrize("framework", [in_flask, in_django])
def test_a_decorator_that_makes_no_view_is_refused(framework: Mount) -> None:
    """When the page is mounted: such as one that was to be called first."""
    with pytest.raises(ConfigurationError, match="decorator"):
        framework(guard=lambda view: None)


def test_a_dependency_may_be_given_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Depends(...)` as FastAPI has it, and what a test overrides."""
    from fastapi import Depends, FastAPI, HTTPException
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import mount_status_page

    def nobody() -> None:
        raise HTTPException(403)

    app = FastAPI()
    mount_status_page(app, guard=Depends(nobody))
    client = TestClient(app)
    assert [client.get(f"/status{route}").status_code for route in ("", "/now", "/events")] == [403] * 3
    app.dependency_overrides[nobody] = lambda: None
    assert client.get("/status").status_code == 200


def test_streams_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later is told to ask again and again, by a 204; a stream ends by itself, and its place is free."""
    monkeypatch.setattr(serving, "_MOST_STREAMS", 2)
    with in_fastapi() as url, httpx.Client(base_url=url, headers=OPERATOR, timeout=20.0, trust_env=False) as client:
        with client.stream("GET", ROUTES[2]) as one, client.stream("GET", ROUTES[2]) as two:
            lines = [one.iter_lines(), two.iter_lines()]
            assert [next(each) for each in lines] == ["retry: 3000"] * 2
            began = time.monotonic()
            assert client.get(ROUTES[2]).status_code == 204
            assert client.get(ROUTES[1]).status_code == 200
            for each in lines:
                assert any(line.startswith("data: ") for line in each)
            assert time.monotonic() - began < 15
        assert client.get(ROUTES[2]).status_code == 200


def test_a_reader_that_reads_nothing_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are answered meanwhile, and it is let go: what it holds is one place, for seconds."""
    monkeypatch.setattr(streaming, "STREAM_SECONDS", 60.0)
    monkeypatch.setattr(streaming, "_EVERY", 0.001)
    monkeypatch.setattr(streaming, "_SLOWEST", 0.3)
    pages: list[serving.StatusPage] = []
    monkeypatch.setattr(serving.StatusPage, "changes", lambda page: pages.append(page) or iter(["x" * 100_000] * 10**6))
    with in_fastapi() as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(f"GET {ROUTES[2]} HTTP/1.1\r\nHost: x\r\nX-Operator: yes\r\n\r\n".encode())
            ends = time.monotonic() + 15
            while not (pages and not pages[0]._streams):
                assert httpx.get(f"{url}{ROUTES[1]}", headers=OPERATOR, timeout=9, trust_env=False).status_code == 200
                assert time.monotonic() < ends, "its place wasn't given back"
