"""One asyncio client in several event loops: jobs that are an `asyncio.run` each, and loops of several threads."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.integrations import httpx2

#: asyncio warns of each connection that its owner hasn't closed before the loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["httpx", "httpx2", "transport"])
def client(request: pytest.FixtureRequest, idp: Emulator, trust: ssl.SSLContext, credential: Any) -> Iterator[Any]:
    """A client of each kind, made outside of any loop."""
    scope = "api://orders/.default"
    made: Any
    if request.param == "httpx":
        made = ra.aio.api_client(idp.api_url, credential, scope, verify=trust)
    elif request.param == "httpx2":
        made = httpx2.async_api_client(idp.api_url, credential, scope, verify=trust)
    else:
        auth = ra.BearerAuth(credential, scope, origins=idp.api_url)
        transport = ra.AsyncResilientTransport(httpx.AsyncHTTPTransport(verify=trust))
        made = httpx.AsyncClient(base_url=idp.api_url, auth=auth, transport=transport)
    yield made
    asyncio.run(made.aclose())
    gc.collect()  # asyncio's warnings come here, and not in another test


async def status(client: Any, path: str = "/a") -> int:
    answer: int = (await client.get(path)).status_code
    return answer


def test_one_client_serves_loop_after_loop(client: Any, idp: Emulator) -> None:
    """Over new connections each time: those of a loop that is closed can't be used any more, nor closed."""

    async def several() -> list[int]:
        return await asyncio.gather(*(status(client, f"/{n}") for n in range(3)))

    for _ in range(4):
        assert asyncio.run(status(client)) == 200
        assert asyncio.run(several()) == [200] * 3
    asyncio.run(client.aclose())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(status(client))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system doesn't tell a process's descriptors")
def test_loops_that_are_closed_leave_no_connection_open(client: Any) -> None:
    """However many jobs there were, and without a collection."""
    assert asyncio.run(status(client)) == 200
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert asyncio.run(status(client)) == 200
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_one_client_serves_loops_of_several_threads(client: Any) -> None:
    """At the same time, each over its own connections."""
    together = threading.Barrier(4)

    async def job() -> list[int]:
        answers = []
        for n in range(5):
            await asyncio.to_thread(together.wait, 10)
            answers.append(await status(client, f"/{n}"))
        return answers

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(asyncio.run, job()) for _ in range(4)]
        assert [one.result(30) for one in jobs] == [[200] * 5] * 4


def test_a_connection_is_kept_within_a_loop(client: Any, idp: Emulator) -> None:
    """As without us."""

    async def twice() -> set[int]:
        found = set()
        for _ in range(2):
            assert await status(client) == 200
            found.add(idp.ledger.calls[-1].connection)
        return found

    first, second = asyncio.run(twice()), asyncio.run(twice())
    assert len(first) == len(second) == 1
    assert first != second


def test_a_loop_that_is_closed_amid_a_call_harms_no_other(client: Any, idp: Emulator) -> None:
    """Its call ends with it, and the next one is made in the next loop."""
    assert asyncio.run(status(client)) == 200

    async def leave() -> None:
        task = asyncio.create_task(status(client))
        while not [call for call in idp.ledger.calls if call.endpoint == "api"][1:]:
            await asyncio.sleep(0.01)
        assert not task.done()

    with idp_that_hangs(idp):
        asyncio.run(leave())
    assert asyncio.run(status(client)) == 200


class idp_that_hangs:  # noqa: N801 - read as a statement
    """An API that takes calls and never answers."""

    def __init__(self, idp: Emulator) -> None:
        self._idp = idp

    def __enter__(self) -> None:
        self._fault = self._idp.fail(Fault.black_hole(), "api")

    def __exit__(self, *_: object) -> None:
        self._fault.stop()
