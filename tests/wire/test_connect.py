"""A time-out is for all of a name's addresses together, and for its look-up too (RFC 8305)."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import httpcore
import httpx
import httpx2
import pytest
from httpcore._backends.sync import SyncStream

from resilient_auth import errors
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.failures import as_failure
from resilient_auth._wire.network.connect import connect, racing
from resilient_auth.clock import SystemClock

CLOCK = SystemClock()
EIGHT = tuple(f"127.0.0.{number}" for number in range(2, 10))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def sockets_towards(port: int) -> set[str]:
    """Return the sockets of this machine that are connected, or on their way, to ``port``."""
    with open("/proc/self/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return {row[1] for row in rows if int(row[2].rpartition(":")[2], 16) == port}


def took(began: float) -> float:
    return time.monotonic() - began


def test_addresses_that_swallow_packets_share_one_time_out(swallowing, resolver):
    """Eight of them take as long as one."""
    port = swallowing(8)
    resolver("eight.example", *EIGHT)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"eight\.example"):
        connect("eight.example", port, 0.6)
    assert 0.5 < took(began) < 1.2


def test_an_attempt_at_such_a_name_ends_in_time(swallowing, resolver):
    """The wire's attempt is over when its time is, whatever the name leads to, and nothing was sent."""
    port = swallowing(8)
    resolver("eight.example", *EIGHT)
    wire = HttpxWire(CLOCK, 2.0, verify=False)
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire.send("POST", f"https://eight.example:{port}/", ends=CLOCK.monotonic() + 0.6, data={})
    assert took(began) < 1.2
    failure = as_failure(caught.value, "https://eight.example")
    assert type(failure) is errors.ConnectionFailed
    assert failure.sent is False
    wire.close()


@pytest.mark.parametrize("per_request", [False, True], ids=["constructor", "request"])
def test_a_time_out_for_connecting_is_one_for_connecting(swallowing, resolver, per_request):
    """The first of a pair, as in requests, in the constructor's `timeout` and in a request's."""
    port = swallowing(2)
    resolver("two.example", *EIGHT[:2])
    pair = (0.4, 20.0)
    wire = HttpxWire(CLOCK, 5.0, verify=False, timeout=None if per_request else pair)
    began = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        wire.send(
            "GET",
            f"https://two.example:{port}/",
            ends=CLOCK.monotonic() + 5.0,
            **({"timeout": pair} if per_request else {}),
        )
    assert 0.3 < took(began) < 1.5
    wire.close()


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_one_address_that_answers_is_enough(swallowing, resolver, seconds):
    """The last of many is reached in time, however little time there is."""
    port = swallowing(7)
    with socket.create_server(("127.0.0.9", port)) as listening:
        resolver("eight.example", *EIGHT)
        began = time.monotonic()
        with connect("eight.example", port, seconds) as one:
            assert one.getpeername() == listening.getsockname()
            assert one.gettimeout() is None
        assert took(began) < seconds


def test_one_that_refuses_is_followed_by_the_next_at_once(listener, resolver):
    """No time is spent on an address at which nobody listens."""
    resolver("two.example", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    began = time.monotonic()
    connect("two.example", listener.getsockname()[1], 5.0).close()
    assert took(began) < 0.2


def test_a_name_at_which_nobody_listens_is_refused(resolver):
    """Where each address says no, that is what is told."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        resolver("two.example", "127.0.0.1", "::1")
        with pytest.raises(ConnectionRefusedError):
            connect("two.example", unused.getsockname()[1], 5.0)


def test_families_take_turns(listener, resolver):
    """Where one family leads nowhere, the other one isn't the last to be tried."""
    resolver("both.example", "::1", "::1", "127.0.0.1")
    with connect("both.example", listener.getsockname()[1], 5.0) as one:
        assert one.family == socket.AF_INET


def test_no_socket_is_left_open(swallowing, resolver):
    """Those that lost, or were given up, are closed."""
    port = swallowing(8)
    resolver("eight.example", *EIGHT)
    before = sockets_towards(port)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            connect("eight.example", port, 0.1)
    assert sockets_towards(port) == before


def test_a_look_up_that_hangs_ends_in_time(resolver, listener):
    """The system's resolver has no time-out that is ours; it isn't waited for longer than the connection may take."""
    back = threading.Event()
    resolver("hangs.example", "127.0.0.1", hangs=back)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"hangs\.example"):
        connect("hangs.example", listener.getsockname()[1], 0.3)
    assert took(began) < 0.8
    back.set()


def test_look_ups_that_hang_are_few(resolver, listener, together):
    """Many who ask for the same name share a look-up, and others' names aren't held up."""
    back = threading.Event()
    resolver("hangs.example", "127.0.0.1", hangs=back)
    before = threading.active_count()
    port = listener.getsockname()[1]
    failed = together(40, lambda: connect("hangs.example", port, 0.3))
    assert all(isinstance(each, TimeoutError) for each in failed)
    assert threading.active_count() <= before + 4
    connect("localhost", port, 1.0).close()
    back.set()


def test_a_resolver_that_is_back_is_asked_again(resolver, listener):
    """One look-up that hangs doesn't hold up those that come later."""
    back, port = threading.Event(), listener.getsockname()[1]
    resolver("flaky.example", "127.0.0.1", hangs=back)
    with pytest.raises(TimeoutError):
        connect("flaky.example", port, 1.1)
    resolver("flaky.example", "127.0.0.1")
    connect("flaky.example", port, 1.0).close()
    back.set()


def test_a_forked_child_looks_names_up_itself(resolver, listener):
    """A look-up that the parent is in the middle of isn't the child's to wait for."""
    back, port = threading.Event(), listener.getsockname()[1]
    resolver("forked.example", "127.0.0.1", hangs=back)
    with pytest.raises(TimeoutError):
        connect("forked.example", port, 0.1)
    resolver("forked.example", "127.0.0.1")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connect("forked.example", port, 2.0).close()
            code = 0
        finally:
            os._exit(code)
    back.set()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("code", "heals"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)], ids=["no such name", "no answer"]
)
def test_a_name_is_called_unresolved_only_where_the_resolver_says_so(resolver, code, heals):
    """A name that isn't there isn't asked for again; a resolver that fails is."""
    resolver("lost.example", error=socket.gaierror(code, "told"))
    wire = HttpxWire(CLOCK, 2.0, verify=False)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire.send("GET", "https://lost.example/", ends=CLOCK.monotonic() + 2)
    failure = as_failure(caught.value, "https://lost.example")
    assert type(failure) is errors.NameNotResolved
    assert (failure.sent, failure.heals) == (False, heals)
    wire.close()


def test_a_label_that_is_no_name_is_not_resolved():
    """What the encoding of names refuses is told as any other name that isn't there."""
    with pytest.raises(socket.gaierror) as caught:
        connect("a" * 70 + ".example", 443, 1.0)
    assert caught.value.errno == socket.EAI_NONAME


def test_a_socket_that_cannot_be_had_is_told(listener):
    """A local address that isn't this machine's is the error that it is."""
    with pytest.raises(OSError, match="address") as caught:
        connect("127.0.0.1", listener.getsockname()[1], 1.0, local_address="192.0.2.1")
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_what_we_rely_on_in_httpcore_is_there():
    """Neither library shows how to make a stream of a socket: this pins what we use."""
    for transport, library in ((httpx2.HTTPTransport(), "httpcore2"), (None, "httpcore")):
        backend = httpcore.SyncBackend() if transport is None else transport._pool._network_backend
        raced = racing(backend)
        assert raced is not backend
        assert raced._library.__name__ == library
        for name in ("connect_tcp", "connect_unix_socket", "sleep"):
            assert hasattr(backend, name)
            assert hasattr(raced, name)
    with socket.socket() as one:
        assert SyncStream(one).get_extra_info("socket") is one
    own = httpcore.MockBackend([])
    assert racing(own) is own
