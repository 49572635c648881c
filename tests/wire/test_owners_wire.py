"""An owner's HTTP client, bounded from outside: its time, its number, and what it says of this machine."""

from __future__ import annotations

import contextvars
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from resilient_auth import errors
from resilient_auth._wire.failures import as_failure
from resilient_auth._wire.owners_client import OwnersClient, built_by_msal
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator, Fault

CLOCK = SystemClock()
FORM = {"grant_type": "client_credentials", "client_id": "d", "client_secret": "s", "scope": "https://x/.default"}
COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def soon(seconds: float = 5.0) -> float:
    return CLOCK.monotonic() + seconds


class Hung:
    """A client that comes back when it is let, and says nothing of how it was called."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.calls = 0

    def get(self, url: str, **options: Any) -> Any:
        self.calls += 1
        self.back.wait(30)
        return Said()

    post = get


class Said:
    status_code = 200
    text = "{}"
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


@pytest.fixture
def hung() -> Iterator[Hung]:
    client = Hung()
    yield client
    client.back.set()


@pytest.fixture
def session(idp: Emulator) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.verify = idp.ca_file
        yield made


@pytest.mark.parametrize("fault", [Fault.trickle(20), Fault.slow(20)], ids=lambda fault: fault.name)
def test_a_session_goes_on_no_longer_than_it_is_waited_for(idp: Emulator, session, fault, eventually):
    """One without a time-out has the attempt's, and what it reads ends with that: no thread is left behind."""
    wire = OwnersClient(session, CLOCK)
    idp.fail(fault, "token")
    with pytest.raises((errors.AttemptTimeout, requests.RequestException)):
        wire.send("POST", f"{idp.authority('contoso')}/oauth2/v2.0/token", ends=soon(0.4), data=FORM)
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "resilient-auth-http-client"], 3.0)
    idp.heal()


def test_an_answer_in_chunks_or_read_by_a_hook_is_read_once(echo):
    """A session's hook may have read it already; what is sent in chunks for ever is too large at some time."""
    with requests.Session() as own:
        wire = OwnersClient(own, CLOCK)
        with pytest.raises(errors.MalformedAnswer, match="bytes"):
            wire.send("GET", f"{echo}/huge", ends=soon())
        read: list[str] = []
        own.hooks["response"].append(lambda response, *_, **__: read.append(response.text))
        assert wire.send("GET", f"{echo}/latin", ends=soon()).text == read[0]
        assert "\u00e4" in read[0]


@pytest.mark.parametrize("headers", [False, True], ids=["body", "headers"])
@pytest.mark.parametrize("timeout", [None, 30.0], ids=["no time-out", "a long one"])
def test_a_trickling_answer_holds_nobody(idp: Emulator, session, headers, timeout):
    """However a session's answer dawdles, each byte in time for itself, the attempt is over when its time is."""
    if timeout is not None:
        session.request = partial(session.request, timeout=timeout)
    wire = OwnersClient(session, CLOCK)
    idp.fail(Fault.trickle(20, headers=headers), "token")
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire.send("POST", f"{idp.authority('contoso')}/oauth2/v2.0/token", ends=soon(0.4), data=FORM)
    assert type(as_failure(caught.value, "https://a")) is errors.AttemptTimeout
    assert time.monotonic() - began < 1.0
    idp.heal()


def test_a_client_that_hangs_gives_its_place_back(hung):
    """Who waits for it goes on when the time is over, and what comes later is nobody's."""
    wire = OwnersClient(hung, CLOCK)
    began = time.monotonic()
    with pytest.raises(errors.AttemptTimeout, match="http_client"):
        wire.send("GET", "https://a.example/", ends=soon(0.2))
    assert time.monotonic() - began < 1.0
    hung.back.set()
    assert wire.send("GET", "https://a.example/", ends=soon()).text == "{}"


def test_calls_that_never_come_back_are_counted(hung, eventually):
    """No more than some are left behind, and each that does come back makes room for another."""
    wire = OwnersClient(hung, CLOCK)
    for _ in range(64):
        with pytest.raises(errors.AttemptTimeout):
            wire.send("GET", "https://a.example/", ends=soon(-1))
    eventually(lambda: hung.calls == 64)
    with pytest.raises(errors.Overloaded, match="64 calls"):
        wire.send("GET", "https://a.example/", ends=soon())
    assert hung.calls == 64
    hung.back.set()
    eventually(lambda: wire._overdue == 0)
    assert wire.send("GET", "https://a.example/", ends=soon()).status_code == 200


def test_a_forked_child_waits_for_none_of_its_parents_calls(hung):
    """What the parent left behind isn't counted in the child, where it doesn't run."""
    wire = OwnersClient(hung, CLOCK)
    for _ in range(64):
        with pytest.raises(errors.AttemptTimeout):
            wire.send("GET", "https://a.example/", ends=soon(-1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            hung.back = threading.Event()
            hung.back.set()
            code = 0 if wire.send("GET", "https://a.example/", ends=soon()).status_code == 200 else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_the_client_sees_its_callers_context():
    """What a tracing library keeps for the caller is there in the call."""
    seen: list[str] = []

    class Tracing(Hung):
        def get(self, url: str, **options: Any) -> Any:
            seen.append(COLOUR.get())
            return Said()

    COLOUR.set("blue")
    OwnersClient(Tracing(), CLOCK).send("GET", "https://a.example/", ends=soon())
    assert seen == ["blue"]


def test_what_the_client_raises_is_raised():
    """Its error is the caller's, whatever it is."""

    class Broken(Hung):
        def get(self, url: str, **options: Any) -> Any:
            raise LookupError("of its own")

    with pytest.raises(LookupError, match="of its own"):
        OwnersClient(Broken(), CLOCK).send("GET", "https://a.example/", ends=soon())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "REQUESTS_CA_BUNDLE"),
        ("ALL_PROXY", "socks5://127.0.0.1:1", "ALL_PROXY"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:1", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://no.such.host.invalid:3128", "HTTPS_PROXY"),
    ],
)
def test_a_session_that_cannot_work_here_says_so(session, monkeypatch, name, value, told):
    """What is wrong with this machine's settings is no failure of the provider, and names the setting."""
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.ConfigurationError, match=told) as caught:
        OwnersClient(session, CLOCK).send("POST", "https://a.example/", ends=soon(), data={"client_secret": "s3cret"})
    assert caught.value.__context__ is None


def test_a_proxy_that_wants_a_password_is_this_machines_matter(session, monkeypatch):
    """407 is told as what it is."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            connection = proxy.accept()[0]
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(errors.ConfigurationError, match="HTTPS_PROXY"):
            OwnersClient(session, CLOCK).send("GET", "https://a.example/", ends=soon())


def made_like_msals() -> Any:
    """A session as MSAL's constructor makes it."""
    session: Any = requests.Session()
    session.verify, session.proxies = "/ca.pem", {"https": "http://proxy"}
    session.request = partial(session.request, timeout=7)
    adapter = HTTPAdapter(max_retries=1)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def test_a_session_that_msal_made_is_known():
    """What was given to MSAL is read from the session that it made."""
    assert built_by_msal(made_like_msals()) == {"verify": "/ca.pem", "proxies": {"https": "http://proxy"}, "timeout": 7}


def changed(how: str) -> Any:
    session = made_like_msals()
    if how == "a header":
        session.headers["x"] = "y"
    elif how == "a hook":
        session.hooks["response"].append(print)
    elif how == "an adapter":
        session.mount("https://a.example", HTTPAdapter())
    elif how == "retries":
        session.mount("https://", HTTPAdapter(max_retries=3))
    elif how == "a certificate":
        session.cert = "/client.pem"
    elif how == "an attribute":
        session.get = print
    elif how == "trust_env":
        session.trust_env = False
    elif how == "another's request":
        session.request = partial(requests.Session().request, timeout=7)
    elif how == "more options":
        session.request = partial(session.request, timeout=7, stream=True)
    elif how == "a subclass":
        session.__class__ = type("Own", (requests.Session,), {})
    elif how == "plain":
        session = requests.Session()
    elif how == "no session":
        session = object()
    return session


@pytest.mark.parametrize(
    "how",
    [
        "a header", "a hook", "an adapter", "retries", "a certificate", "an attribute", "trust_env",
        "another's request", "more options", "a subclass", "plain", "no session",
    ],
)  # fmt: skip
def test_a_session_with_anything_of_its_owners_stays_theirs(how):
    """Whatever an owner has changed about it would be lost."""
    assert built_by_msal(changed(how)) is None


def test_a_client_whose_calls_never_came_back_is_tried_again(clock: Any, eventually: Any) -> None:
    """However many are left behind: after pauses that grow, so that it is about as long as it hung."""
    client = Hung()
    wire = OwnersClient(client, clock)
    sent = 0
    for _ in range(200):
        with pytest.raises((errors.AttemptTimeout, errors.Overloaded)) as ended:
            wire.send("GET", "https://login.example/x", ends=clock.monotonic() - 1.0)
        sent += ended.type is errors.AttemptTimeout
        clock.skip(10.0)
    assert 64 < sent < 80
    clock.skip(2000.0)
    with pytest.raises(errors.AttemptTimeout):
        wire.send("GET", "https://login.example/x", ends=clock.monotonic() - 1.0)
    eventually(lambda: client.calls == sent + 1)
    client.back.set()
