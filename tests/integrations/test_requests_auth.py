"""The same rules in a requests session."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from resilient_auth.emulator import Emulator
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.requests import BearerAuth


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def session(idp: Emulator) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.verify = idp.ca_file
        yield made


class Tokens:
    """Asks the emulator, and holds what it gets."""

    def __init__(self, idp: Emulator) -> None:
        self._idp = idp
        self.held: str | None = None
        self.asked: list[str | None] = []

    def get_token(self, *scopes: str, claims: str | None = None) -> str:
        if self.held is None or claims:
            self.asked.append(claims)
            # As an application would: what the challenge wants, and that it can handle challenges.
            wanted = (
                '{"access_token":{"xms_cc":{"values":["cp1"]}' + (',"nbf":{"essential":true}' if claims else "") + "}}"
            )
            form = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "scope": scopes[0]}
            answer = requests.post(
                f"{self._idp.authority('contoso')}/oauth2/v2.0/token",
                data=form | {"claims": wanted},
                verify=self._idp.ca_file,
                timeout=5,
            )
            self.held = answer.json()["access_token"]
        return self.held

    def invalidate(self, token: str) -> None:
        if token == self.held:
            self.held = None


def test_a_refused_token_is_replaced_within_the_call(idp: Emulator, session: requests.Session) -> None:
    """A file goes out again from where it began."""
    tokens = Tokens(idp)
    tokens.held = "no.such.token"
    file = io.BytesIO(b"skipped+body")
    file.seek(8)
    answer = session.put(f"{idp.api_url}/a", data=file, auth=BearerAuth(tokens, "api://x/.default"))
    assert (answer.status_code, answer.json()["received"]) == (200, 4)
    assert [response.status_code for response in answer.history] == [401]


def test_a_claims_challenge_is_met(idp: Emulator, session: requests.Session) -> None:
    """The provider is asked with the API's claims."""
    tokens = Tokens(idp)
    auth = BearerAuth(tokens, "api://x/.default")
    assert session.get(f"{idp.api_url}/a", auth=auth).status_code == 200
    idp.revoke("d")
    session.get(f"{idp.api_url}/a", auth=auth)
    assert len(tokens.asked) == 2
    assert "nbf" in (tokens.asked[1] or "")


def test_a_generator_is_not_sent_again(idp: Emulator, session: requests.Session) -> None:
    """The API's answer is the caller's, and the next request goes out with another token."""
    tokens = Tokens(idp)
    tokens.held = "no.such.token"
    auth = BearerAuth(tokens, "api://x/.default")
    assert session.post(f"{idp.api_url}/a", data=(p for p in [b"x"]), auth=auth).status_code == 401
    assert session.post(f"{idp.api_url}/a", data=(p for p in [b"x"]), auth=auth).status_code == 200


class Wire(requests.adapters.BaseAdapter):
    """Answers without a network."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.seen: list[tuple[str | None, str | None]] = []

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        self.seen.append((request.url, request.headers.get("Authorization")))
        answer = requests.Response()
        answer.status_code, headers = self.answers.pop(0)
        answer.headers.update(headers)
        answer.request, answer.url, answer.raw = request, request.url or "", io.BytesIO(b"")
        answer.connection = self  # type: ignore[attr-defined]
        return answer

    def close(self) -> None:
        return


@pytest.fixture
def wired(session: requests.Session) -> Any:
    def mount(*answers: tuple[int, dict[str, str]]) -> Wire:
        wire = Wire(*answers)
        session.mount("https://", wire)
        session.mount("http://", wire)
        return wire

    return mount


def test_a_redirect_elsewhere_gets_no_token(session: requests.Session, wired: Any) -> None:
    """And its 401 changes nothing."""
    wire = wired((302, {"Location": "https://evil.example/"}), (401, {}))
    assert session.get("https://api.example/", auth=BearerAuth(lambda: "T")).status_code == 401
    assert wire.seen == [("https://api.example/", "Bearer T"), ("https://evil.example/", None)]


def test_two_401s_end_it(session: requests.Session, wired: Any) -> None:
    """There is no loop."""
    tokens = iter(["T1", "T2", "T3"])
    wire = wired((401, {}), (401, {}))
    assert session.get("https://api.example/", auth=BearerAuth(lambda: next(tokens))).status_code == 401
    assert [token for _, token in wire.seen] == ["Bearer T1", "Bearer T2"]


@pytest.mark.parametrize("url", ["http://api.example/", "http://localhost:1/"])
def test_http_is_refused(session: requests.Session, wired: Any, url: str) -> None:
    """Before anything is sent."""
    wire = wired((200, {}))
    with pytest.raises(ConfigurationError, match="https"):
        session.get(url, auth=BearerAuth(lambda: "T"))
    assert wire.seen == []
