"""Readiness and liveness, in each framework; what they tell, and to whom; and who asks them in a terminal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import django_site
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth import ConfigurationError
from resilient_auth.cli import main
from resilient_auth.health import Health
from resilient_auth.health.foreseen import foresee
from resilient_auth.integrations.health_routes import routes
from resilient_auth.integrations.route_names import route_name

assert django_site.settings.configured

Ask = Callable[[str], tuple[int, dict[str, Any], dict[str, str]]]
REASON = "https://login.example has failed since 02:13 UTC"


def of_fastapi(**options: Any) -> Ask:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import mount_health

    app = FastAPI()

    @app.get("/{everything:path}")
    def everything(everything: str) -> str:
        return everything

    mount_health(app, **options)
    assert not any("health" in path for path in app.openapi()["paths"])
    client = TestClient(app)

    def ask(path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = client.get(path)
        return answer.status_code, answer.json(), dict(answer.headers)

    return ask


def of_starlette(**options: Any) -> Ask:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from resilient_auth.integrations.fastapi import mount_health

    app = Starlette()
    mount_health(app, **options)
    client = TestClient(app)

    def ask(path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = client.get(path)
        return answer.status_code, answer.json(), dict(answer.headers)

    return ask


def of_flask(**options: Any) -> Ask:
    from flask import Flask

    from resilient_auth.integrations.flask import mount_health

    app = Flask(__name__)
    mount_health(app, **options)
    mount_health(app, "/second.place", **options)
    client = app.test_client()

    def ask(path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = client.get(path)
        return answer.status_code, json.loads(answer.data), {k.lower(): v for k, v in answer.headers.items()}

    return ask


def of_django(**options: Any) -> Ask:
    from django.test import RequestFactory
    from django.urls import re_path
    from django.urls.resolvers import RegexPattern, URLResolver

    from resilient_auth.integrations.django import mount_health

    patterns: list[Any] = [re_path("", lambda request: None)]
    mount_health(patterns, **options)
    resolver = URLResolver(RegexPattern(r"^/"), patterns)

    def ask(path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        answer = resolver.resolve(path).func(RequestFactory().get(path))
        return answer.status_code, json.loads(answer.content), {k.lower(): v for k, v in answer.headers.items()}

    return ask


FRAMEWORKS = [of_fastapi, of_starlette, of_flask, of_django]


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Have the process stand as a test wants it, and count the looks at it."""

    def stand(verdict: str, **more: Any) -> list[int]:
        looks: list[int] = []

        def look() -> Health:
            looks.append(1)
            known: dict[str, Any] = {"time_to_dark": 60.4, "tokens": (), "breakers": (), "reasons": (REASON,)}
            return Health(verdict=verdict, **known | more)  # type: ignore[arg-type]

        monkeypatch.setattr(routes, "health", look)
        return looks

    return stand


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("verdict", "status"), [("ok", 200), ("degraded", 200), ("at risk", 200), ("down", 503)], ids=lambda v: str(v)
)
def test_readiness_fails_where_nobody_would_be_served(
    framework: Callable[..., Ask], standing: Callable[..., list[int]], verdict: str, status: int
) -> None:
    """An outage with tokens in hand is no reason to stop, and liveness is no matter of the provider's."""
    standing(verdict)
    ask = framework()
    ready = status == 200
    assert ask("/health/ready")[:2] == (status, {"ready": ready})
    assert ask("/health/live")[:2] == (200, {"live": True})
    told, body, headers = ask("/health")
    assert (told, body) == (200, {"verdict": verdict, "ready": ready})
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_reasons_are_for_those_who_may_know_them(
    framework: Callable[..., Ask], standing: Callable[..., list[int]]
) -> None:
    """They name authorities; whoever mounts the routes says so."""
    standing("degraded")
    assert "login.example" not in json.dumps(framework()("/health")[1])
    body = framework(details=True)("/health")[1]
    assert (body["reasons"], body["time_to_dark"]) == ([REASON], 60)
    assert framework(details=True)("/health/ready")[1] == {"ready": True}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_forecast_is_for_those_who_may_know_it(
    framework: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names scopes and authorities; a flood of questions is one look into the stores."""
    looks: list[int] = []
    seen = foresee((), (), at=1_800_066_600.0)
    monkeypatch.setattr(routes, "forecast", lambda: looks.append(1) or seen)
    ask = framework(details=True)
    for _ in range(3):
        status, body, _ = ask("/health/forecast")
    assert (status, body) == (200, {"report": str(seen)} | seen.to_dict())
    assert looks == [1]
    assert "/health/forecast" not in [path for path, _ in routes.health_routes("/health", details=False)]


def test_a_flood_of_requests_is_one_look(standing: Callable[..., list[int]]) -> None:
    """Within a second, whichever route they are for."""
    looks = standing("ok")
    ask = of_flask()
    for _ in range(50):
        ask("/health")
        ask("/health/ready")
    assert len(looks) <= 3


@pytest.mark.parametrize("path", ["health", "/health/", "", 3, "/a\n", "/<who>", "/{who}", "/a?b"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    """When the routes are mounted."""
    with pytest.raises(ConfigurationError, match="path must be a path"):
        routes.health_routes(path, details=False)


@given(st.text("ab/._%-2E"), st.text("ab/._%-2E"))
def test_routes_at_paths_that_are_alike_have_names_of_their_own(one: str, other: str) -> None:
    """Flask refuses a second one of a name, and a name with a dot."""
    assert (route_name(one) == route_name(other)) is (one == other)
    assert "." not in route_name(one)


def test_flask_has_them_side_by_side() -> None:
    from flask import Flask

    from resilient_auth.integrations.flask import mount_health

    app = Flask(__name__)
    for path in ("/a.b", "/a_b", "/a/b"):
        mount_health(app, path)
    assert all(app.test_client().get(path).status_code == 200 for path in ("/a.b/live", "/a_b/live", "/a/b/live"))


def test_django_takes_its_list() -> None:
    """A tuple can't be added to."""
    from resilient_auth.integrations.django import mount_health

    with pytest.raises(ConfigurationError, match="urlpatterns"):
        mount_health(())  # type: ignore[arg-type]


@pytest.fixture
def served(own_environment: None) -> Any:
    """A server on loopback that answers as it is told."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield answers, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("verdict", "status"), [("ok", 0), ("degraded", 0), ("at risk", 1), ("down", 3)])
def test_the_terminal_tells_what_an_application_says(
    served: Any, verdict: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its HTTP status; what it says steers no terminal."""
    answers, url = served
    answers["/health"] = (503, json.dumps({"verdict": verdict, "reasons": ["one\x1b[2J"]}).encode())
    assert main(["health", f"{url}/health"]) == status
    assert capsys.readouterr().out == f"{verdict.upper()}\n  one\\x1b[2J\n"
    assert main(["health", f"{url}/health", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict


def test_the_terminal_tells_what_is_forecast(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """At the URL of the health routes; what it says steers no terminal."""
    answers, url = served
    answers["/health/forecast"] = (200, json.dumps({"report": "IF\n  one\x1b[2J", "parts": []}).encode())
    answers["/open/forecast"] = (404, b"{}")
    assert main(["forecast", f"{url}/health"]) == 0
    assert capsys.readouterr().out == "IF\n  one\\x1b[2J\n"
    assert main(["forecast", f"{url}/health/forecast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"] == []
    assert main(["forecast", f"{url}/open"]) == 3
    assert "details=True" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[" * 100_000, b" " * 2_000_000])
def test_what_is_no_health_is_told(served: Any, body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """With where to look; and it is bounded."""
    answers, url = served
    answers["/"] = (200, body)
    assert main(["health", url]) == 3
    assert capsys.readouterr().err.startswith("resilient-auth health: ")


@pytest.mark.parametrize("reasons", [5, "abc", {"a": 1}, None, [{"a": 1}], True])
def test_reasons_that_are_none_are_left_out(served: Any, reasons: Any) -> None:
    """And the exit status is that of the verdict, and not of a program that broke, which would be that of `at risk`."""
    answers, url = served
    answers["/health"] = (200, json.dumps({"verdict": "ok", "reasons": reasons}).encode())
    assert main(["health", f"{url}/health"]) == 0


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e400", "-1", "0", "soon"])
def test_a_time_out_that_is_none_is_bad_usage(seconds: str, served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, url = served
    assert main(["health", url, f"--timeout={seconds}"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_an_application_that_is_gone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line; and so is what is no URL."""
    assert main(["health", "http://127.0.0.1:1/health", "--timeout", "2"]) == 3
    assert capsys.readouterr().err == "resilient-auth health: nothing can be reached there: Connection refused\n"
    assert main(["health", "nothing"]) == 3
    assert capsys.readouterr().err.count("\n") == 1
