"""What a requests session does around a replaced token: redirects, hooks, cookies, further sendings."""

from __future__ import annotations

import contextlib
import http.server
import io
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import trustme

from resilient_auth.integrations.requests import BearerAuth
from resilient_auth.testing import ManualClock


class Tokens:
    """A credential whose token is replaced when it is told that one was refused."""

    def __init__(self) -> None:
        self.number = 1
        self.asked = 0

    def get_token(self, *scopes: str, claims: str | None = None) -> str:
        self.asked += 1
        return f"T{self.number}"

    def suspect(self, token: str) -> None:
        if token == f"T{self.number}":
            self.number += 1


class Api(http.server.ThreadingHTTPServer):
    """Takes the tokens in `good`; below `/moved` it leads to `/orders`."""

    daemon_threads = True

    def __init__(self, certificate: trustme.LeafCert) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.good = {"T2"}
        self.seen: list[tuple[str, str, str | None, bytes]] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server.seen.append((self.path, token, self.headers.get("Cookie"), body))
        if token not in self.server.good:
            self.send_response(401)
            self.send_header("Set-Cookie", "affinity=b; Path=/")
        elif self.path.startswith("/moved"):
            self.send_response(307)
            self.send_header("Location", "/orders")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_PUT = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def api(own_environment: None) -> Iterator[Api]:
    authority = trustme.CA()
    server = Api(authority.issue_cert("localhost"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with authority.cert_pem.tempfile() as ca_file:
        server.ca_file = ca_file  # type: ignore[attr-defined]
        yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def session(api: Any) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.verify = api.ca_file
        yield made


def test_a_redirect_after_a_replacement_carries_the_new_token(api: Api, session: requests.Session) -> None:
    """The session builds it of the request that it sent first."""
    answer = session.get(f"{api.url}/moved", auth=BearerAuth(Tokens(), "s"))
    assert answer.status_code == 200
    assert [(path, token) for path, token, _, _ in api.seen] == [("/moved", "T1"), ("/moved", "T2"), ("/orders", "T2")]


def test_the_history_tells_what_was_sent(api: Api, session: requests.Session) -> None:
    """The refused request stays as it was."""
    answer = session.get(f"{api.url}/orders", auth=BearerAuth(Tokens(), "s"))
    assert [told.status_code for told in answer.history] == [401]
    assert answer.history[0].request.headers["Authorization"] == "Bearer T1"
    assert answer.request.headers["Authorization"] == "Bearer T2"


def test_the_owners_response_hooks_stay(api: Api, session: requests.Session) -> None:
    """They see the answer to the second token, and those of redirects."""
    seen: list[tuple[str, int]] = []
    session.hooks["response"].append(lambda told, **_: seen.append((told.url.removeprefix(api.url), told.status_code)))
    assert session.get(f"{api.url}/moved", auth=BearerAuth(Tokens(), "s")).status_code == 200
    assert seen == [("/moved", 307), ("/orders", 200)]


def test_a_hook_that_raises_for_status_sees_no_401_that_was_replaced(api: Api, session: requests.Session) -> None:
    """The auth's hook comes first."""
    session.hooks["response"].append(lambda told, **_: told.raise_for_status())
    assert session.get(f"{api.url}/orders", auth=BearerAuth(Tokens(), "s")).status_code == 200


@pytest.mark.parametrize("copied", [False, True], ids=["itself", "copies"])
def test_a_prepared_request_is_authenticated_each_time(api: Api, session: requests.Session, copied: bool) -> None:
    """However often it is sent, and whichever token it was signed with."""
    tokens = Tokens()
    clock = ManualClock()
    auth = BearerAuth(tokens, "s", clock=clock)
    prepared = session.prepare_request(requests.Request("GET", f"{api.url}/orders", auth=auth))
    for round_ in range(2, 6):
        api.good = {f"T{round_}"}
        if tokens.number >= round_:
            pytest.fail("the credential was told of a token that wasn't refused")
        for _ in range(2):
            assert session.send(prepared.copy() if copied else prepared).status_code == 200
        clock.advance(31)


def test_what_a_401_has_set_is_sent(api: Api, session: requests.Session) -> None:
    """Beside what was sent before, in redirects too, and kept in the session."""
    session.cookies.set("mine", "1")
    session.get(f"{api.url}/moved", auth=BearerAuth(Tokens(), "s"), cookies={"own": "a"})
    sent = [set((cookies or "").split("; ")) for _, _, cookies, _ in api.seen]
    assert sent == [{"mine=1", "own=a"}, *[{"mine=1", "own=a", "affinity=b"}] * 2]
    assert session.cookies["affinity"] == "b"


def test_an_owners_cookie_header_stays(api: Api, session: requests.Session) -> None:
    """One that was given as a header, and isn't in any jar."""
    session.get(f"{api.url}/orders", auth=BearerAuth(Tokens(), "s"), headers={"Cookie": "own=1"})
    assert [cookies for _, _, cookies, _ in api.seen] == ["own=1", "own=1; affinity=b"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(lambda: iter([b"body"]), 401), (lambda: io.BytesIO(b"body"), 200), (lambda: b"body", 200)],
    ids=["a generator", "a file", "bytes"],
)
def test_a_body_that_is_gone_has_the_token_replaced_for_the_next_one(
    api: Api, session: requests.Session, body: Callable[[], Any], status: int
) -> None:
    """Not sending again isn't not replacing."""
    auth = BearerAuth(Tokens(), "s")
    headers = {"Content-Length": "4"}
    with contextlib.suppress(requests.ConnectionError):
        assert session.put(f"{api.url}/orders", data=body(), headers=headers, auth=auth).status_code == status
    assert session.put(f"{api.url}/orders", data=b"body", auth=auth).status_code == 200
    assert api.seen[-1][1:] == ("T2", "affinity=b", b"body")
