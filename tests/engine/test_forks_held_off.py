"""What a library's locks are taken for while no fork can come: a child would wait for ever for one that was held.

OpenSSL has one for a thread's first random numbers, one for a connection's beginning, and calls functions of the C
library's with more; so has the system's resolver. Without this, about one in 800 children that were forked as eight
threads fetched their first tokens hung in its own first handshake.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._process import forks
from resilient_auth._wire.network import connect, handshake
from resilient_auth.downstream import api_client
from resilient_auth.emulator import Emulator

PACKAGE = Path(ra.__file__).parent
#: What isn't part of an application, or ends before anything else goes on.
TOOLS = {"emulator", "drill", "testing", "telemetry/doctor", "_store/conformance.py", "_process/forks.py"}
#: Where threads are begun that use no TLS of ours.
WITHOUT_TLS = {
    "_engine/timers.py", "_wire/network/connect.py", "events/delivery.py", "telemetry/page/serving.py",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


class Amid:
    """A call that is slow, and whether it is over."""

    def __init__(self, call: Callable[..., Any], seconds: float = 0.3) -> None:
        self.call, self.seconds = call, seconds
        self.begun, self.over = threading.Event(), False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.begun.set()
        time.sleep(self.seconds)
        try:
            return self.call(*args, **kwargs)
        finally:
            self.over = True

    def is_over_in_a_child(self) -> bool:
        """Fork once it has begun."""
        assert self.begun.wait(5.0)
        return self._forked() == 0

    def _forked(self) -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if self.over else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestHeldOff:
    def test_a_fork_waits_for_the_block_to_be_over(self) -> None:
        amid = Amid(lambda: None)

        def hold() -> None:
            with forks.held_off():
                amid()

        thread = threading.Thread(target=hold)
        thread.start()
        assert amid.is_over_in_a_child()
        thread.join()

    def test_but_not_for_longer_than_it_may(self) -> None:
        """Nor does one that never ends hold up each fork, once its time is over."""
        amid = Amid(lambda: None, 1.0)

        def hold() -> None:
            with forks.held_off(0.1):
                amid()

        thread = threading.Thread(target=hold)
        thread.start()
        begun = time.monotonic()
        assert not amid.is_over_in_a_child()
        assert time.monotonic() - begun < 0.9
        thread.join()

    def test_one_in_another_counts_from_the_outer_ones_beginning(self) -> None:
        with forks.held_off():
            until = dict(forks._holding)
            with forks.held_off(50.0):
                assert forks._holding == until
            assert forks._holding == until
        assert threading.get_ident() not in forks._holding

    def test_what_comes_meanwhile_lets_the_fork_go_first(self) -> None:
        """Else forks would wait for as long as there is traffic."""
        over, busy = threading.Event(), [threading.Thread() for _ in range(8)]

        def hold() -> None:
            while not over.is_set():
                with forks.held_off():
                    time.sleep(0.01)

        busy = [threading.Thread(target=hold) for _ in busy]
        for thread in busy:
            thread.start()
        try:
            for _ in range(20):
                assert in_a_child(lambda: None) < 0.9
            # Likewise where another thread forks all the time.
            forking = [threading.Thread(target=lambda: [fork() for _ in range(20)]) for _ in range(4)]
            begun = time.monotonic()
            for thread in forking:
                thread.start()
            for thread in forking:
                thread.join()
            assert time.monotonic() - begun < 10.0
            assert not forks._forking
        finally:
            over.set()
            for thread in busy:
                thread.join()

    def test_the_forking_thread_waits_for_no_block_of_its_own(self) -> None:
        def work() -> None:
            with forks.held_off():
                assert list(forks._holding) == [threading.get_ident()]

        with forks.held_off(30.0):
            assert in_a_child(work) < 0.5


class TestThreads:
    def test_one_draws_before_anything_else_while_no_fork_can_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        amid = Amid(ssl.RAND_bytes)
        monkeypatch.setattr(ssl, "RAND_bytes", amid)
        seen: list[bool] = []
        forks.begin_thread(lambda: seen.append(amid.over), name="one")
        assert amid.is_over_in_a_child()
        while not seen:
            time.sleep(0.001)
        assert seen == [True]

    def test_so_does_one_for_a_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """OpenSSL has a generator of its own for what nobody may see."""
        amid = Amid(ssl.SSLObject.do_handshake)
        monkeypatch.setattr(ssl.SSLObject, "do_handshake", lambda itself: amid(itself))
        forks.begin_thread(lambda: None, name="one")
        assert amid.is_over_in_a_child()

    def test_an_emulators_has_drawn_when_it_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A test that forks at its first handshake is no test of OpenSSL."""
        drew: list[str] = []
        for kind, name in ((ssl, "RAND_bytes"), (ssl.SSLObject, "do_handshake")):
            plain = getattr(kind, name)

            def draw(*args: Any, plain: Callable[..., Any] = plain, name: str = name) -> Any:
                drew.append(f"{threading.current_thread().name} {name}")
                return plain(*args)

            monkeypatch.setattr(kind, name, draw)
        with Emulator():
            assert drew == ["resilient-auth-emulator RAND_bytes", "resilient-auth-emulator do_handshake"]

    def test_all_that_speak_tls_are_begun_there(self) -> None:
        """For an owner's client, a store, a provider; not those that look names up, wait, or tell what happened."""
        found = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            if re.search(r"\bThread\(", path.read_text())
        }
        assert {name for name in found if not any(name.startswith(tool) for tool in TOOLS)} == WITHOUT_TLS
        assert "_process/forks.py" in found


class TestHandshake:
    def test_a_fork_waits_for_a_step(self, idp: Emulator) -> None:
        amid = Amid(ssl.SSLSocket.do_handshake)

        class Slow(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                amid(self, block)

        context = ssl.create_default_context(cafile=idp.ca_file)
        context.sslsocket_class = Slow
        thread = threading.Thread(target=self._greet, args=(idp, context))
        thread.start()
        assert amid.is_over_in_a_child()
        thread.join()

    def _greet(self, idp: Emulator, context: ssl.SSLContext) -> None:
        host, _, port = idp.url.removeprefix("https://").partition(":")
        handshake.secure(connect.connect(host, int(port), 5.0), context, host, 5.0).close()

    def test_but_not_for_the_other_end(self) -> None:
        """One that accepts and never says a word; it ends in time."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            ended: list[BaseException] = []

            def greet() -> None:
                one = socket.create_connection(silent.getsockname())
                try:
                    handshake.secure(one, ssl.create_default_context(), "localhost", 2.0)
                except TimeoutError as error:
                    ended.append(error)
                assert one.fileno() == -1

            thread = threading.Thread(target=greet)
            begun = time.monotonic()
            thread.start()
            time.sleep(0.1)
            assert in_a_child(lambda: None) < 0.9  # a step would be waited for this long
            assert not ended
            thread.join()
            assert ended
            assert 1.9 < time.monotonic() - begun < 10.0

    def test_one_that_trickles_ends_in_time(self) -> None:
        """There is always something to read, and never enough."""
        with socket.create_server(("127.0.0.1", 0)) as trickling:

            def trickle() -> None:
                other, _ = trickling.accept()
                with other:
                    try:
                        other.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
                        while True:
                            other.sendall(b"\x02")
                            time.sleep(0.001)
                    except OSError:
                        return

            thread = threading.Thread(target=trickle)
            thread.start()
            one, begun = socket.create_connection(trickling.getsockname()), time.monotonic()
            with pytest.raises(TimeoutError):
                handshake.secure(one, ssl.create_default_context(), "localhost", 0.5)
            assert 0.4 < time.monotonic() - begun < 10.0
            thread.join()

    def test_nothing_is_read_past_its_end(self) -> None:
        """Were there always something to read, it would go on."""
        one, other = socket.socketpair()
        with one, other:
            other.send(b"\x16")
            handshake._wait(one, selectors.EVENT_READ, time.monotonic() + 1.0)
            with pytest.raises(TimeoutError):
                handshake._wait(one, selectors.EVENT_READ, time.monotonic())

    @pytest.mark.parametrize("named", ["a client for tokens", "a client for an API"])
    def test_all_clients_are_made_so(self, idp: Emulator, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
        steps: list[bool] = []
        plain = ssl.SSLSocket.do_handshake

        def step(itself: ssl.SSLSocket, block: bool = False) -> None:
            steps.append(threading.get_ident() in forks._holding)
            plain(itself, block)

        words: dict[int, bool] = {}
        hear = ssl.SSLSocket.recv

        def heard(itself: ssl.SSLSocket, *args: Any) -> bytes:
            words.setdefault(id(itself), threading.get_ident() in forks._holding)
            return hear(itself, *args)

        monkeypatch.setattr(ssl.SSLSocket, "do_handshake", step)
        monkeypatch.setattr(ssl.SSLSocket, "recv", heard)
        with msal.ConfidentialClientApplication(
            "daemon", "s3cret", authority=idp.authority("contoso"), instance_discovery=False, verify=idp.ca_file,
            resilience=ra.Settings(),
        ) as app:  # fmt: skip
            if named == "a client for tokens":
                app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
            else:
                with api_client(idp.url, app, "https://graph.microsoft.com/.default", verify=idp.ca_file) as client:
                    client.get("/api/things")
        assert steps
        assert all(steps)
        # Tickets come before them.
        assert words
        assert all(words.values())
