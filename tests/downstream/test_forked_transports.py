"""A child that is forked while transports are alive calls APIs as if it had begun with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.downstream import ApiCircuitOpen, BreakerOptions, TransportOptions
from resilient_auth.emulator import Emulator, Fault

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

API = "https://api.example"


def in_a_child(work: Callable[[], None], seconds: float = 10.0) -> None:
    """Run `work` in a forked child, and fail with what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            work()
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    ends = time.monotonic() + seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > ends:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(reading)
            raise AssertionError(f"the child hung for {seconds:g} s")
        time.sleep(0.005)
    with os.fdopen(reading) as said:
        assert done[1] == 0, said.read()


def connection_of(idp: Emulator) -> int:
    """Return over which connection the last call came."""
    return idp.ledger.calls[-1].connection


class Held:
    """An API in whose calls the parent's threads are until `release` is set."""

    def __init__(self) -> None:
        self.holds = True
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.holds:
            self.entered.release()
            self.release.wait(20)
        return httpx.Response(200)


@contextlib.contextmanager
def busy(transport: Any, api: Held, calls: int) -> Iterator[None]:
    """Have so many threads in calls."""
    request = httpx.Request("GET", API)
    threads = [threading.Thread(target=transport.handle_request, args=(request,)) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for _ in range(calls):
        assert api.entered.acquire(timeout=10)
    api.holds = False
    try:
        yield
    finally:
        api.release.set()
        for thread in threads:
            thread.join()


def test_slots_of_the_parents_threads_are_free_in_the_child() -> None:
    """All were taken, and some threads stood in line."""
    api = Held()
    transport = ra.ResilientTransport(
        httpx.MockTransport(api), options=TransportOptions(concurrency=2, queue=2, queue_wait=20.0)
    )
    circuit = transport._pipeline.circuits.find(API)
    with busy(transport, api, 2):
        line = [threading.Thread(target=transport.handle_request, args=(httpx.Request("GET", API),)) for _ in "ab"]
        for thread in line:
            thread.start()
        while circuit.bulkhead.waiting < 2:
            time.sleep(0.001)

        def work() -> None:
            for _ in range(5):
                assert transport.handle_request(httpx.Request("GET", API)).status_code == 200
            assert (circuit.bulkhead.in_use, circuit.bulkhead.waiting) == (0, 0)

        in_a_child(work)
        assert (circuit.bulkhead.in_use, circuit.bulkhead.waiting) == (2, 2)
        api.release.set()
        for thread in line:
            thread.join()
    assert circuit.bulkhead.in_use == 0


def test_a_probe_of_the_parents_is_not_waited_for_in_the_child(clock: Any, options: Any) -> None:
    """The child knows that the API failed, and probes it itself."""
    api, down = Held(), True

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if down else api(request)

    transport = ra.ResilientTransport(
        httpx.MockTransport(answer),
        options=options(attempts=1, breaker=BreakerOptions(consecutive_failures=1, probe_lease=3600.0)),
    )
    request = httpx.Request("GET", API)
    transport.handle_request(request)
    with pytest.raises(ApiCircuitOpen):
        transport.handle_request(request)

    def still_refused() -> None:
        with pytest.raises(ApiCircuitOpen):
            transport.handle_request(request)

    in_a_child(still_refused)
    clock.advance(120)
    down = False
    with busy(transport, api, 1):
        with pytest.raises(ApiCircuitOpen):
            transport.handle_request(request)

        def probed() -> None:
            assert transport.handle_request(request).status_code == 200
            assert [breaker.state for breaker in transport.breakers()] == ["closed"]

        in_a_child(probed)
    assert [breaker.state for breaker in transport.breakers()] == ["closed"]


def test_the_call_that_forks_ends_once_in_parent_and_child() -> None:
    """A body that is half read when its thread forks gives back one slot in each, and not a slot of another call."""
    api = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(b"body")))
    transport = ra.ResilientTransport(api, options=TransportOptions(concurrency=1, queue=0, queue_wait=0.0))
    circuit = transport._pipeline.circuits.find(API)
    with httpx.Client(transport=transport) as client, client.stream("GET", API) as half:

        def work() -> None:
            with client.stream("GET", API):
                half.close()
                assert circuit.bulkhead.in_use == 1
                with pytest.raises(ra.downstream.ApiBulkheadFull):
                    client.get(API)
            assert circuit.bulkhead.in_use == 0

        in_a_child(work)
        assert circuit.bulkhead.in_use == 1
    assert circuit.bulkhead.in_use == 0


def test_parent_and_child_do_not_share_connections(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """Or each would read the other's answers."""
    with ra.api_client(idp.api_url, credential, "api://orders/.default", verify=trust) as client:
        assert client.get("/a").status_code == 200
        parents = connection_of(idp)

        def work() -> None:
            pool = client._transport._wrapped._pool
            assert not pool.connections
            assert client.get("/child").status_code == 200

        in_a_child(work)
        assert connection_of(idp) != parents
        assert client.get("/a").status_code == 200
        assert connection_of(idp) == parents


def test_an_asyncio_client_works_in_a_loop_of_the_childs(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """With a pool of its own, while the parent's connection lives on."""
    client = ra.aio.api_client(idp.api_url, credential, "api://orders/.default", verify=trust)

    async def ask() -> None:
        assert (await client.get("/a")).status_code == 200

    async def main() -> None:
        await ask()
        parents = connection_of(idp)
        await asyncio.to_thread(in_a_child, lambda: asyncio.run(ask()))
        assert connection_of(idp) != parents
        await ask()
        assert connection_of(idp) == parents
        await client.aclose()

    asyncio.run(main())


def test_children_forked_amid_traffic_get_answers(idp: Emulator, trust: ssl.SSLContext, credential: Any) -> None:
    """Ten children, forked at any moment of eight threads' calls, tokens and refusals."""
    over = threading.Event()
    credential.get_token("api://orders/.default")
    auth = ra.BearerAuth(credential, "api://orders/.default", origins=idp.api_url)
    transport = ra.ResilientTransport(httpx.HTTPTransport(verify=trust))
    idp.fail(Fault.status(503), endpoint="api", probability=0.2)
    with httpx.Client(transport=transport, auth=auth) as client:

        def ask() -> None:
            while not over.is_set():
                with contextlib.suppress(httpx.TransportError):
                    client.get(f"{idp.api_url}/a")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()

        def work() -> None:
            transport.reset(idp.api_url)
            assert client.get(f"{idp.api_url}/child").status_code in (200, 503)

        try:
            for _ in range(10):
                in_a_child(work, 5)
        finally:
            over.set()
            for thread in threads:
                thread.join()
