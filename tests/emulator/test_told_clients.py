"""What the emulator tells clients unasked: sign-outs and security events, good and forged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest

from resilient_auth.emulator import Emulator

REDIRECT = "http://localhost/signed-in"


class Client:
    """A client's address, which notes what it is sent."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], str]] = []
        client = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                client.heard.append((self.path, dict(self.headers), body))
                self.send_response(200)
                self.send_header("Cache-Control", "no-store")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def told() -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


def signed_in(idp: Emulator, client: httpx.Client, client_id: str = "web", user: str = "ann@contoso.com") -> Any:
    """Sign a user in in this browser; return the ID token's text and its claims."""
    asked = {"client_id": client_id, "redirect_uri": REDIRECT, "scope": "openid", "response_type": "code"}
    page = client.post(f"{idp.authority('contoso')}/oauth2/v2.0/authorize", data={**asked, "emulator_user": user})
    code = httpx.URL(page.headers["location"]).params["code"]
    form = {"grant_type": "authorization_code", "client_id": client_id, "client_secret": "s", "code": code}
    form |= {"scope": "openid", "redirect_uri": REDIRECT}
    token = client.post(f"{idp.authority('contoso')}/oauth2/v2.0/token", data=form).json()
    return token["id_token"], jwt.decode(token["id_token"], options={"verify_signature": False})


def test_a_browser_has_one_session_for_all_clients(idp: Emulator, client: httpx.Client) -> None:
    """`sid` is the browser's, whichever client asks; another user's is another one."""
    _, first = signed_in(idp, client)
    _, second = signed_in(idp, client, "shop")
    _, third = signed_in(idp, client, user="bob@contoso.com")
    assert first["sid"] == second["sid"] != third["sid"]


def test_clients_are_sent_logout_tokens(idp: Emulator, client: httpx.Client, told: Client, eventually: Any) -> None:
    """A sign-out at the provider reaches each client by which the user was signed in, and no other one."""
    for name in ("web", "shop", "elsewhere"):
        idp.register_sign_out(name, backchannel=f"{told.url}/{name}")
    hint, claims = signed_in(idp, client)
    signed_in(idp, client, "shop")
    where = {"id_token_hint": hint, "post_logout_redirect_uri": "http://x/y", "state": "s"}
    answer = client.get(f"{idp.authority('contoso')}/oauth2/v2.0/logout", params=where)
    assert answer.headers["location"] == "http://x/y?state=s"
    eventually(lambda: len(told.heard) == 2)
    [(_, headers, body)] = [one for one in told.heard if one[0] == "/web"]
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    [token] = parse_qs(body)["logout_token"]
    said = jwt.decode(token, options={"verify_signature": False})
    assert (said["iss"], said["aud"], said["sid"], said["sub"]) == (
        claims["iss"],
        "web",
        claims["sid"],
        claims["sub"],
    )
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    assert said["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    eventually(lambda: [one.status for one in idp.deliveries] == [200, 200])


def test_the_sign_out_page_loads_clients_in_frames(idp: Emulator, client: httpx.Client) -> None:
    """With `iss` and `sid`, before it leads back."""
    idp.register_sign_out("web", frontchannel="https://app.example/out?x=1")
    _, claims = signed_in(idp, client)
    page = client.get(
        f"{idp.authority('contoso')}/oauth2/v2.0/logout", params={"post_logout_redirect_uri": "http://x/y"}
    )
    assert page.status_code == 200
    assert "https://app.example/out?x=1&amp;iss=" in page.text
    assert f"sid={claims['sid']}" in page.text
    assert 'href="http://x/y"' in page.text


def test_a_foreign_hint_is_refused(idp: Emulator, client: httpx.Client) -> None:
    """An `id_token_hint` is a token of this provider's."""
    hint = jwt.encode({"sid": "x"}, "k" * 32)
    answer = client.get(f"{idp.authority('contoso')}/oauth2/v2.0/logout", params={"id_token_hint": hint})
    assert answer.status_code == 400


@pytest.mark.parametrize("forge", [None, "none", "hs256", "signature", "payload"])
def test_events_are_pushed_good_and_forged(idp: Emulator, told: Client, forge: str | None) -> None:
    """A forged one verifies with no key of the provider's."""
    token = idp.event_token({"iss": "x", "events": {}}, forge=forge)
    assert idp.transmit(told.url, token, bearer="b").status == 200
    [(_, headers, body)] = told.heard
    assert (headers["Content-Type"], headers["Authorization"]) == ("application/secevent+jwt", "Bearer b")
    signing = idp._running.keys.current.private.public_key()
    good = False
    try:
        jwt.decode(body, signing, algorithms=["RS256"])
        good = True
    except jwt.InvalidTokenError:
        pass
    assert good is (forge is None)


def test_other_programs_have_events_sent(idp: Emulator, told: Client, eventually: Any) -> None:
    """By the control port, which tells what was answered."""
    with httpx.Client(base_url=idp.control_url, timeout=5, trust_env=False) as control:
        assert control.post("/transmit", json={"url": told.url, "claims": {"iss": "x"}}).json() == {"ok": True}
        eventually(lambda: [one["status"] for one in control.get("/deliveries").json()] == [200])
        assert control.post("/register_sign_out", json={"client_id": "web", "backchannel": told.url}).is_success
        assert control.post("/end_sessions", json={"username": "nobody"}).status_code == 400
