"""What a proxy does wrong is never the provider's doing, and what a setting has to mend opens no breaker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

import resilient_auth as ra
from resilient_auth import errors, msal
from resilient_auth._policy.breaker import breakers
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.failures import as_failure
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator

CLOCK = SystemClock()


@pytest.fixture
def proxy() -> Iterator[Callable[[bytes], str]]:
    """Start proxies that give each connection the same bytes; returns host and port."""
    servers: list[socket.socket] = []

    def start(says: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    with connection, suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(says)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def answer(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


def send(**options: Any) -> None:
    wire = HttpxWire(CLOCK, 2.0, verify=False, **options)
    try:
        wire.send("GET", "https://a.example/", ends=CLOCK.monotonic() + 5)
    finally:
        wire.close()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (answer("407 Proxy Authentication Required"), "wants a user"),
        (answer("403 Forbidden"), r"doesn't let this through \(it answered 403\)"),
        (answer("400 Bad Request"), "doesn't let this through"),
        (answer("405 Method Not Allowed"), "doesn't let this through"),
    ],
)
@pytest.mark.parametrize("setting", ["HTTPS_PROXY", "ALL_PROXY", "proxies['https']"])
def test_what_a_proxy_refuses_for_good_names_the_setting(monkeypatch, proxy, says, told, setting):
    """Waiting mends none of these."""
    at = proxy(says)
    if setting.isupper():
        monkeypatch.setenv(setting, at)
    with pytest.raises(errors.ConfigurationError, match=told) as caught:
        send(**({} if setting.isupper() else {"proxies": {"https": at}}))
    assert setting in str(caught.value)


def test_a_proxy_that_speaks_no_tls_says_the_fix(proxy):
    """It is the `https://` in front of it that is wrong."""
    with pytest.raises(errors.ConfigurationError, match=r"proxies\['https'\] .*write http://"):
        send(proxies={"https": f"https://{proxy(answer('400 Bad Request'))}"})


@pytest.mark.parametrize("says", [answer("502 Bad Gateway"), answer("429 Too Many Requests"), None])
def test_what_may_be_over_soon_is_the_networks_and_named(proxy, says):
    """A failure that was never sent, and that doesn't say that the provider refused anything."""
    at = "127.0.0.1:9" if says is None else proxy(says)
    with pytest.raises(
        errors.ConnectionFailed, match=r"proxies\['https'\] names a proxy that .* can't be reached"
    ) as e:
        send(proxies={"https": at})
    assert e.value.sent is False
    assert e.value.authority == "https://a.example"
    assert "https://a.example refused" not in str(e.value)


def test_a_session_of_the_owners_that_cannot_reach_its_proxy_says_so():
    """requests tells it apart."""
    session = requests.Session()
    session.proxies = {"https": "http://127.0.0.1:9"}
    with pytest.raises(requests.exceptions.ProxyError) as caught:
        session.get("https://a.example/", timeout=2)
    told = as_failure(caught.value, "https://a.example")
    assert type(told) is errors.ConnectionFailed
    assert "the proxy on the way to https://a.example refused the connection" in str(told)


@pytest.mark.parametrize("owners", [False, True], ids=["ours", "session"])
def test_an_application_behind_a_wrong_proxy_opens_no_breaker(idp: Emulator, proxy, owners):
    """Its own error each time, at construction or at the first question; never the authority's."""
    at = proxy(answer("403 Forbidden"))
    authority = idp.authority("behind-a-proxy")
    wire: dict[str, Any] = {"proxies": {"https": at}}
    if owners:
        session = requests.Session()
        session.proxies = {"https": f"http://{at}"}
        wire = {"http_client": session}

    def ask() -> None:
        app = msal.ConfidentialClientApplication(
            "d", authority=authority, client_credential="s", instance_discovery=False, **wire
        )
        app.acquire_token_for_client(["api://x/.default"])

    for _ in range(5):
        with pytest.raises(errors.ConfigurationError, match=r"prox.* doesn't let this through") as caught:
            ask()
        assert "Unable to get authority" not in str(caught.value)
    origin = authority.rpartition("/")[0]
    asked = [one for one in breakers() if one.dependency.authority == origin]
    assert asked
    assert {one.status().state for one in asked} == {"closed"}
    assert {one.failing()[0] for one in asked} == {False}


def test_a_constructor_tells_the_setting_that_is_wrong(monkeypatch):
    """MSAL takes every ValueError for an authority that isn't there."""
    monkeypatch.setenv("HTTPS_PROXY", "socks://p:1")
    with pytest.raises(ra.ConfigurationError, match="HTTPS_PROXY names a proxy of an unsupported kind"):
        msal.ConfidentialClientApplication("d", authority="https://login.microsoftonline.com/c", client_credential="s")


@pytest.mark.parametrize("no_proxy", ["localhost", "other.example"])
def test_a_key_no_proxy_means_what_it_means_to_msal(idp: Emulator, no_proxy: str):
    """Beside a proxy that is given it excepts nothing: requests has it for the environment's proxies alone."""
    bare = idp.proxy_url.removeprefix("http://").rstrip("/")
    app = msal.ConfidentialClientApplication(
        "d",
        authority="https://login.microsoftonline.com/contoso",
        client_credential="s",
        instance_discovery=False,
        verify=idp.ca_file,
        proxies={"https": bare, "no_proxy": f"{no_proxy},login.microsoftonline.com"},
    )
    assert "access_token" in app.acquire_token_for_client(["api://x/.default"])
    app.close()
