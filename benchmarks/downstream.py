"""What the transports cost: a call that succeeds on loopback, over raw httpx; 100 and 500 tasks at once; a refusal."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import httpx2

import resilient_auth as ra
from resilient_auth.downstream import ApiCircuitOpen
from resilient_auth.integrations import httpx2 as of_httpx2

from .measure import in_turns, table

_T = TypeVar("_T")
#: In a process of its own, so that it takes no time from the client's interpreter.
_SERVER = """
import asyncio
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        if b"/slow" in data:
            asyncio.get_running_loop().call_later(0.1, self.answer)
        else:
            self.answer()
    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
#: Batches, and calls in each: single calls in turns would measure each other's cold caches.
_ROUNDS, _BATCH = 60, 40
#: Tasks that call at the same time, and calls of each.
_MANY, _EACH = 100, 4
_OPTIONS = ra.TransportOptions(retry_budget=0)


def run() -> None:
    """Measure against a server on loopback."""
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        _threads(f"{url}/quick")
        asyncio.run(_tasks(f"{url}/quick"))
        asyncio.run(_among_many(url))
        asyncio.run(_at_once(f"{url}/slow"))
    finally:
        server.kill()
        server.wait()
    _refusals()


def _threads(url: str) -> None:
    with (
        httpx.Client(transport=httpx.HTTPTransport()) as raw,
        httpx.Client(transport=ra.ResilientTransport()) as ours,
    ):
        costs = _Costs("httpx", "httpx on ResilientTransport")
        for client in costs.in_turns(raw, ours):
            for _ in range(_BATCH):
                client.get(url)
    costs.tell("a call that succeeds on loopback")


async def _tasks(url: str) -> None:
    async with (
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport()) as raw,
        httpx.AsyncClient(transport=ra.AsyncResilientTransport()) as ours,
    ):
        costs = _Costs("httpx", "httpx on AsyncResilientTransport")
        for client in costs.in_turns(raw, ours):
            for _ in range(_BATCH):
                await client.get(url)
    costs.tell("the same, awaited")


class _Costs:
    """Compare two clients by batches in turns, on the wall and at the processor: the latter counts no neighbour.

    What is added is the median of the differences within each round, which a machine whose speed drifts changes least.
    """

    def __init__(self, raw: str, ours: str) -> None:
        self._names = raw, ours
        #: By round: (wall, processor) of each.
        self._rounds: list[tuple[tuple[float, float], tuple[float, float]]] = []

    def in_turns(self, raw: _T, ours: _T) -> Iterator[_T]:
        """Give the client for each batch; the first round, which connects and warms up, isn't counted."""
        for number in range(_ROUNDS + 1):
            taken = {}
            # Who goes first changes: each would pay for what the other one left behind.
            for which in (0, 1) if number % 2 else (1, 0):
                wall, processor = time.perf_counter(), time.process_time()
                yield (raw, ours)[which]
                taken[which] = (time.perf_counter() - wall) / _BATCH, (time.process_time() - processor) / _BATCH
            if number:
                self._rounds.append((taken[0], taken[1]))

    def tell(self, title: str) -> None:
        for index, by in enumerate(("", " (processor time)")):
            raw = statistics.median(first[index] for first, _ in self._rounds)
            added = statistics.median(second[index] - first[index] for first, second in self._rounds)
            table(title + by, dict(zip(self._names, (raw, raw + added), strict=True)))
            print(f"  added: {added * 1e6:.1f} us (to stay under: 60 us)")


async def _among_many(url: str) -> None:
    """Let 100 tasks call beside each other, as a busy service does: httpcore looks at all connections for each call."""
    options, costs = ra.TransportOptions(), {}
    limits = {"max_connections": options.concurrency, "max_keepalive_connections": 100}
    makes: dict[str, Callable[[], Any]] = {
        "httpx": lambda: httpx.AsyncClient(base_url=url, limits=httpx.Limits(**limits), trust_env=False),
        "aio.api_client, httpx": lambda: ra.aio.api_client(url, None, options=options, allow_http_loopback=True),
        "httpx2": lambda: httpx2.AsyncClient(base_url=url, limits=httpx2.Limits(**limits), trust_env=False),
        "async_api_client, httpx2": lambda: of_httpx2.async_api_client(
            url, None, options=options, allow_http_loopback=True
        ),
    }
    for name, make in makes.items():
        async with make() as client:

            async def several(client: Any = client) -> None:
                for _ in range(_EACH):
                    assert (await client.get("/slow")).status_code == 200

            await asyncio.gather(*(client.get("/slow") for _ in range(_MANY)))  # connects
            processor = time.process_time()
            await asyncio.gather(*(several() for _ in range(_MANY)))
            costs[name] = (time.process_time() - processor) / (_MANY * _EACH)
    table(f"a call among those of {_MANY} tasks (processor time)", costs)
    print("  take httpx2's for many tasks at once: docs/transport.md")


async def _at_once(url: str) -> None:
    """Let 500 tasks call what takes 100 ms: in turn it would take 50 s."""
    limits = httpx.Limits(max_connections=512, max_keepalive_connections=100)
    taken = {}
    for name, transport in (
        ("httpx", httpx.AsyncHTTPTransport(limits=limits)),
        ("httpx on AsyncResilientTransport", ra.AsyncResilientTransport()),
    ):
        async with httpx.AsyncClient(transport=transport, timeout=30) as client:
            begun = time.perf_counter()
            answers = await asyncio.gather(*(client.get(url) for _ in range(500)))
            taken[name] = time.perf_counter() - begun
            assert all(answer.status_code == 200 for answer in answers)
    table("500 tasks at once, each 100 ms at the server", taken, unit="ms", scale=1e3)


def _refusals() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody is there")

    transport = ra.ResilientTransport(httpx.MockTransport(refuse), options=_OPTIONS)
    request = httpx.Request("GET", "https://api.example/orders")
    costs = in_turns({"ApiCircuitOpen": _opened(transport, request)})
    table("a refusal by an open breaker (to stay under: 50 us)", costs)


def _opened(transport: httpx.BaseTransport, request: httpx.Request) -> Callable[[], None]:
    for _ in range(_OPTIONS.breaker.consecutive_failures):
        try:
            transport.handle_request(request)
        except httpx.ConnectError:
            continue

    def ask() -> None:
        try:
            transport.handle_request(request)
        except (ApiCircuitOpen, httpx.ConnectError):
            return

    return ask
