"""Half-open means exactly the configured probes, whoever asks and whoever gives up."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_auth.downstream import (
    ApiCircuitOpen,
    AsyncResilientTransport,
    BreakerOptions,
    ResilientTransport,
    TransportOptions,
)
from resilient_auth.testing import ManualClock, no_jitter

API = "https://api.example"


class Api:
    """Count who is inside at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.calls = 0

    def enter(self) -> None:
        with self.lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1


def opened(clock: ManualClock, probes: int) -> TransportOptions:
    return TransportOptions(
        clock=clock,
        jitter=no_jitter,
        attempts=1,
        breaker=BreakerOptions(consecutive_failures=1, probes=probes, probe_lease=3600.0),
    )


def stand(transport: Any) -> tuple[str, int, int]:
    circuit = transport._pipeline.circuits.find(API)
    return circuit.breaker.status().state, len(circuit.breaker._probes), circuit.bulkhead.in_use


@settings(max_examples=8, deadline=None)
@given(probes=st.integers(1, 5), works=st.booleans())
def test_200_threads(probes: int, works: bool) -> None:
    """Of 200 threads that come at once, so many get through."""
    clock, api, release = ManualClock(), Api(), threading.Event()
    entered = threading.Semaphore(0)
    down = True

    def answer(request: httpx.Request) -> httpx.Response:
        if down:
            return httpx.Response(503)
        api.enter()
        entered.release()
        release.wait(20)
        api.leave()
        return httpx.Response(200 if works else 503)

    transport = ResilientTransport(httpx.MockTransport(answer), options=opened(clock, probes))
    transport.handle_request(httpx.Request("GET", API))
    clock.advance(120)
    down = False
    start, refused = threading.Barrier(200), threading.Semaphore(0)

    def ask() -> None:
        start.wait()
        try:
            transport.handle_request(httpx.Request("GET", API))
        except ApiCircuitOpen:
            refused.release()

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    for _ in range(200 - probes):
        assert refused.acquire(timeout=20)
    for _ in range(probes):  # who was let through may not have got there yet
        assert entered.acquire(timeout=20)
    release.set()
    for thread in threads:
        thread.join()
    assert (api.calls, api.most) == (probes, probes)
    assert stand(transport) == ("closed" if works else "open", 0, 0)


@settings(max_examples=25, deadline=None)
@given(probes=st.integers(1, 4), seed=st.integers(0, 2**32), works=st.booleans())
def test_200_tasks_some_of_which_are_cancelled(probes: int, seed: int, works: bool) -> None:
    """A cancelled probe makes room for the next one; never are more out than may be, and none is lost."""
    luck = random.Random(seed)
    clock, api = ManualClock(), Api()
    down = True

    async def answer(request: httpx.Request) -> httpx.Response:
        if down:
            return httpx.Response(503)
        api.enter()
        try:
            for _ in range(luck.randrange(1, 6)):
                await asyncio.sleep(0)
        finally:
            api.leave()
        return httpx.Response(200 if works else 503)

    async def main() -> None:
        nonlocal down
        transport = AsyncResilientTransport(httpx.MockTransport(answer), options=opened(clock, probes))
        await transport.handle_async_request(httpx.Request("GET", API))
        clock.advance(120)
        down = False
        tasks = []
        while stand(transport)[0] == "open":
            tasks.append(asyncio.create_task(transport.handle_async_request(httpx.Request("GET", API))))
            await asyncio.sleep(0)
        for _ in range(200):
            tasks.append(asyncio.create_task(transport.handle_async_request(httpx.Request("GET", API))))
            if luck.random() < 0.3:
                await asyncio.sleep(0)
            if luck.random() < 0.5:
                luck.choice(tasks).cancel()
            if stand(transport)[0] == "half-open":
                assert api.inside <= probes
        await asyncio.gather(*tasks, return_exceptions=True)
        state, out, in_use = stand(transport)
        assert (out, in_use, api.inside) == (0, 0, 0)
        if state == "half-open":  # every probe was cancelled: the next one decides
            await transport.handle_async_request(httpx.Request("GET", API))
            assert stand(transport) == ("closed" if works else "open", 0, 0)

    asyncio.run(main())


@pytest.mark.parametrize("after", range(8))
async def test_a_cancelled_probe_leaves_nothing(after: int) -> None:
    """At every await of a call, its body's included."""
    clock = ManualClock()
    down = True

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            for _ in range(3):
                await asyncio.sleep(0)
                yield b"x"

    async def answer(request: httpx.Request) -> httpx.Response:
        if down:
            return httpx.Response(503)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return httpx.Response(200, stream=Slow())

    transport = AsyncResilientTransport(httpx.MockTransport(answer), options=opened(clock, 1))
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get(API)
        clock.advance(120)
        down = False
        task = asyncio.create_task(client.get(API))
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert stand(transport)[1:] == (0, 0)
        assert (await client.get(API)).text == "xxx"
        assert stand(transport) == ("closed", 0, 0)
