"""Where an answer may lead, and how it may be packed: the same for our wire and for an owner's client."""

from __future__ import annotations

import encodings.aliases
import gzip
import json
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests

from resilient_auth import errors
from resilient_auth._wire.answers import LARGEST_ANSWER, Wire, read
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.failures import as_failure
from resilient_auth._wire.owners_client import OwnersClient
from resilient_auth.clock import SystemClock

CLOCK = SystemClock()
SECRET = {"X-IDENTITY-HEADER": "s3cret"}
FORM = {"grant_type": "client_credentials", "client_secret": "s3cret"}


def soon() -> float:
    return CLOCK.monotonic() + 5


@pytest.fixture(params=["ours", "session", "httpx"])
def wire(request: pytest.FixtureRequest, ca_file: str) -> Iterator[Wire]:
    if request.param == "ours":
        one: Wire = HttpxWire(CLOCK, 2.0, verify=ca_file)
    elif request.param == "session":
        session = requests.Session()
        session.verify = ca_file
        one = OwnersClient(session, CLOCK)
    else:
        trust = ssl.create_default_context(cafile=ca_file)
        one = OwnersClient(httpx.Client(verify=trust, follow_redirects=True, trust_env=False), CLOCK)
    yield one
    one.close()


def moved(to: str, status: int = 307) -> tuple[int, dict[str, str], bytes]:
    return status, {"Location": to}, b""


@pytest.mark.parametrize("to", ["/there", "https://localhost:{port}/there", "there?x=1"])
def test_a_document_may_move_at_its_origin(serve, wire, to):
    """A GET follows a redirect that stays with https and the host and port that was asked."""
    server = serve()
    server.answers["/a/here"] = moved(to.replace("{port}", server.url.rpartition(":")[2]))
    server.answers["/there"] = server.answers["/a/there"] = (200, {}, b'{"it": "is"}')
    answer = wire.send("GET", f"{server.url}/a/here", ends=soon(), params={"v": "1"}, headers=SECRET)
    assert json.loads(answer.text) == {"it": "is"}
    assert server.paths()[0] == "/a/here?v=1"
    assert server.paths()[1].startswith(("/there", "/a/there?x=1"))
    assert "v=1" not in server.paths()[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("tls", [True, False], ids=["another origin", "http"])
def test_a_get_that_is_led_away_ends_there(serve, wire, status, tls):
    """What it carries, a managed identity's secret among it, goes to no other origin, and nothing goes over http."""
    server, elsewhere = serve(), serve(tls=tls)
    server.answers["/here"] = moved(f"{elsewhere.url}/there", status)
    with pytest.raises(errors.MalformedAnswer, match="leads away") as caught:
        wire.send("GET", f"{server.url}/here", ends=soon(), headers=SECRET)
    assert str(status) in str(caught.value)
    assert elsewhere.seen == []


def test_another_host_is_another_origin_at_the_same_port_too(serve, wire):
    """Though it shows a certificate that is trusted."""
    server = serve()
    server.answers["/here"] = moved(f"{server.url.replace('localhost', '127.0.0.1')}/there")
    with pytest.raises(errors.MalformedAnswer, match="leads away"):
        wire.send("GET", f"{server.url}/here", ends=soon(), headers=SECRET)
    assert server.paths() == ["/here"]


def test_what_is_asked_over_http_is_led_nowhere(serve, wire):
    """A managed identity's endpoint on this machine answers itself, or not at all."""
    server = serve(tls=False)
    server.answers["/here"] = moved("/there")
    with pytest.raises(errors.MalformedAnswer):
        wire.send("GET", f"{server.url}/here", ends=soon(), headers=SECRET)
    assert server.paths() == ["/here"]


def test_redirects_that_go_in_circles_end(serve, wire):
    """After a few hops it is given up."""
    server = serve()
    server.answers["/here"] = moved("/here")
    with pytest.raises(errors.MalformedAnswer, match="redirects"):
        wire.send("GET", f"{server.url}/here", ends=soon())
    assert len(server.seen) == 4


@pytest.mark.parametrize("to", ["https://[", "https://localhost:port/", "ftp://localhost/"])
def test_a_redirect_to_nowhere_is_a_failure(serve, wire, to):
    """A location that is no URL is an answer that can't be used, whether the client or we find out."""
    server = serve()
    server.answers["/here"] = moved(to)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire.send("GET", f"{server.url}/here", ends=soon())
    assert isinstance(as_failure(caught.value, server.url), (errors.MalformedAnswer, errors.ConnectionFailed))
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_form_is_sent_once_and_nowhere_else(serve, wire, status):
    """A POST, which carries secrets, follows no redirect, at its own origin neither."""
    server, elsewhere = serve(), serve(tls=False)
    server.answers["/token"] = moved(f"{elsewhere.url}/token", status)
    assert wire.send("POST", f"{server.url}/token", ends=soon(), data=FORM).status_code == status
    assert len(server.seen) == 1
    assert elsewhere.seen == []


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A few bytes that unpack to fifty million."""
    packed = gzip.compress(gzip.compress(b" " * 50_000_000))
    assert len(packed) < 1000
    return packed


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "x-gzip", "deflate", "br", "zstd", "aes128gcm"])
def test_an_encoding_that_was_not_asked_for_is_refused(serve, wire, bomb, method, encoding):
    """No answer is packed: what a few bytes unpack to would only be known when it is there."""
    server = serve()
    server.answers["/"] = (200, {"Content-Encoding": encoding}, bomb)
    tracemalloc.start()
    try:
        with pytest.raises(errors.MalformedAnswer, match="encoding"):
            wire.send(method, f"{server.url}/", ends=soon())
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert server.seen[0][2]["accept-encoding"] == "identity"


def test_an_answer_that_is_called_what_it_is_is_read(serve, wire):
    """`identity` is no encoding."""
    server = serve()
    server.answers["/"] = (200, {"Content-Encoding": "Identity"}, '{"said": "ä"}'.encode())
    assert json.loads(wire.send("GET", f"{server.url}/", ends=soon()).text) == {"said": "ä"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_large_answer_is_refused(serve, wire, method):
    """Twenty megabytes aren't taken, and fewer where the caller says so."""
    server = serve()
    server.answers["/"] = (200, {}, b" " * 20 * 1024 * 1024)
    server.answers["/small"] = (200, {}, b" " * 2000)
    with pytest.raises(errors.MalformedAnswer, match=str(LARGEST_ANSWER)):
        wire.send(method, f"{server.url}/", ends=soon())
    with pytest.raises(errors.MalformedAnswer, match="1000"):
        wire.send(method, f"{server.url}/small", ends=soon(), largest=1000)


class Anything:
    """A client of an owner's of which nothing is known: it follows every redirect."""

    def __init__(self, ca_file: str) -> None:
        self._session = requests.Session()
        self._session.verify = ca_file

    def get(self, url: str, params: Any = None, headers: Any = None) -> requests.Response:
        return self._session.get(url, params=params, headers=headers)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None) -> requests.Response:
        return self._session.post(url, params=params, data=data, headers=headers)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_from_elsewhere_is_not_taken_from_any_client(serve, ca_file, method):
    """A client that can't be told to stay is judged by where its answer came from, and by its size."""
    server, elsewhere = serve(), serve()
    server.answers["/here"] = moved(f"{elsewhere.url}/there")
    server.answers["/large"] = (200, {}, b" " * 5_000_000)
    wire = OwnersClient(Anything(ca_file), CLOCK)
    with pytest.raises(errors.MalformedAnswer, match="redirected"):
        wire.send(method, f"{server.url}/here", ends=soon())
    with pytest.raises(errors.MalformedAnswer, match=str(LARGEST_ANSWER)):
        wire.send(method, f"{server.url}/large", ends=soon())
    assert wire.send(method, f"{server.url}/", ends=soon()).status_code == 200


def test_a_form_that_any_client_has_sent_on_at_its_origin_is_not_taken(serve, ca_file):
    """A token that a redirected form brought isn't used."""
    server = serve()
    server.answers["/here"] = moved("/there")
    with pytest.raises(errors.MalformedAnswer, match="redirected"):
        OwnersClient(Anything(ca_file), CLOCK).send("POST", f"{server.url}/here", ends=soon(), data=FORM)


@pytest.mark.parametrize(
    "charset", sorted({*encodings.aliases.aliases.values(), "idna", "punycode", "undefined", "no such thing"})
)
def test_whatever_charset_is_claimed_an_answer_is_read(charset):
    """In time that grows as it does, though it be one that isn't for texts at all; JSON is UTF-8 anyway (RFC 8259)."""
    body = b"-" + b"a0" * 100_000
    began = time.process_time()
    answer, _ = read(200, {"content-type": f'application/json; charset="{charset}"'}, [body], {})
    assert answer.text
    assert time.process_time() - began < 0.5
