"""A user's own application in the drill: by a test of theirs, and by `--app`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from drilled_apps import a_number, careless, shop

from resilient_auth.drill import main
from resilient_auth.drill.client.rehearsed import token_of
from resilient_auth.errors import ConfigurationError

SHORT: dict[str, Any] = {"faults": ("503",), "outage": 4.0, "recovery": 1.0}


@pytest.mark.slow
def test_an_application_that_keeps_its_token_comes_through(outage_drill: Any) -> None:
    """Each of its requests to an API was made with a token that the provider's ledger calls valid."""
    found = outage_drill(shop, **SHORT)["http_503"]
    assert found.client == "drilled_apps:shop"
    assert found.flawless
    assert found.served == found.requests > 40
    # The API's calls are none of the provider's.
    assert found.calls <= 3


@pytest.mark.slow
def test_one_that_does_not_fails_its_test(outage_drill: Any) -> None:
    """The error says under which fault, how often and why."""
    with pytest.raises(AssertionError) as raised:
        outage_drill(careless, **SHORT)
    assert "drilled_apps:careless came through 0 of 1 fault only" in str(raised.value)
    assert "requests with a valid token in hand" in str(raised.value)
    assert "HTTPStatusError" in str(raised.value)


def test_what_is_no_application_is_refused(outage_drill: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is broken, by a message that says what is wanted."""
    with pytest.raises(ConfigurationError, match="must return a function that makes one request, not int"):
        outage_drill(a_number, **SHORT)
    with pytest.raises(ConfigurationError, match="must be a function of a module"):
        outage_drill(lambda provider: shop(provider), **SHORT)
    with pytest.raises(ConfigurationError, match="there is no fault 'flood'"):
        outage_drill(shop, faults=("flood",))
    assert main(["--app", "drilled_apps:nobody", "--fault", "503", "--no-report"]) == 2
    assert "drilled_apps:nobody isn't a function" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("faults", wrong) for wrong in ("503", (), None, (5,), 503)),
        *((name, wrong) for name in ("outage", "recovery", "rate") for wrong in ("5", -1, float("nan"), None, True)),
        *(("threads", wrong) for wrong in ("4", 0, 2.5, None, True)),
        *(("app", wrong) for wrong in (5, None, "shop", "")),
    ],
)
def test_a_drill_that_can_not_be_is_refused(outage_drill: Any, name: str, wrong: Any) -> None:
    """By the argument's name, before a process is started."""
    with pytest.raises(ConfigurationError, match="fault" if name == "faults" else name):
        outage_drill(**{"app": shop, "faults": ("503",), name: wrong})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shop", "--app must be module:callable"),
        ("shop:", "--app must be module:callable"),
        ("shop/rehearsal.py:build", "--app must be module:callable"),
        ("nowhere.at.all:build", "--app: there is no module nowhere.at.all"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the way to write it."""
    assert main(["--app", name]) == 2
    assert hint in capsys.readouterr().err


def asked(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://api.example", headers=headers))


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ("a", ("a", None)),
        ({"access_token": "a"}, ("a", None)),
        ({"error": "invalid_client", "error_description": "secret"}, (None, "invalid_client")),
        ({}, (None, "no token in a dict")),
        (SimpleNamespace(token="a", expires_on=0), ("a", None)),
        (asked(200, Authorization="Bearer a"), ("a", None)),
        (asked(401, Authorization="Bearer a"), (None, "status 401")),
        (asked(200), (None, "no token in Response")),
        (None, (None, "no token in NoneType")),
    ],
)
def test_the_token_is_found_in_what_a_request_came_to(result: object, found: tuple[str | None, str | None]) -> None:
    """A token, MSAL's result, a credential's, or an API's answer; of others only the kind is told."""
    assert token_of(result) == found
