"""What happens to a connection when it arrives: at a site of its own, or at the proxy."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from ..endpoints import HANDSHAKE, Host
from ..faults import REFUSE, TLS_FAILED, Fault
from ..injection import Injections
from ..ledger import Call, Ledger
from .connection import Connection
from .exchange import GONE, Exchange
from .messages import Request, Response, Site
from .network import LOOPBACK, Certificates
from .stream import Stream

METADATA_ADDRESS: Final = "169.254.169.254"

Route = Callable[[str, int], Site]

_LOCAL_NAMES: Final = ("localhost", LOOPBACK)
_CONNECTION_LIMIT: Final = 4000
_BAD_GATEWAY: Final = Response(502, b"Bad gateway", "text/plain; charset=utf-8")

_log = logging.getLogger(__name__)


class Gateway:
    """Lets connections in, over TLS where their site wants it, and kills them when their host breaks."""

    def __init__(self, exchange: Exchange, injections: Injections, ledger: Ledger, certificates: Certificates) -> None:
        self._exchange = exchange
        self._injections = injections
        self._ledger = ledger
        self._certificates = certificates
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)

    def enter(self, site: Site, stream: Stream) -> None:
        """Serve a connection to a site's own port."""
        connection = Connection(next(self._numbers), stream)
        self._attend(connection, partial(self._serve, connection, site, *_LOCAL_NAMES))

    def enter_proxy(self, route: Route, stream: Stream) -> None:
        """Serve a connection to the proxy, which stands in for every host that `route` knows by name and port."""
        connection = Connection(next(self._numbers), stream)
        self._attend(connection, partial(self._serve_as_proxy, connection, route))

    def kill(self, host: Host | None) -> None:
        """Reset the live connections of a host."""
        for connection in self._connections:
            if connection.host == host:
                connection.abort()

    async def close(self) -> None:
        """Reset every connection and wait until nobody serves one."""
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One that was cancelled before its first step has done nothing, not even this.
        for connection in self._connections:
            connection.abort()
        self._connections.clear()

    def _attend(self, connection: Connection, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if len(self._connections) >= _CONNECTION_LIMIT:
            connection.abort()
            return
        self._connections[connection] = asyncio.get_running_loop().create_task(self._finish(connection, work))

    async def _finish(self, connection: Connection, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except GONE:
            # The client left or spoke nonsense; either way nobody is there to tell.
            return
        except Exception:  # noqa: BLE001 (one connection's trouble isn't the others')
            _log.exception("the emulator failed on connection %d", connection.number)
        finally:
            self._connections.pop(connection, None)
            connection.abort()

    async def _serve(self, connection: Connection, site: Site, *names: str) -> None:
        connection.host = site.host
        if self._refuses(site):
            return
        if site.tls:
            fault = self._injections.host_wide(site.host, TLS_FAILED)
            if fault is not None:
                self._record_failed_handshake(connection, names[0], fault)
                await connection.fail_handshake()
                return
            await connection.start_tls(self._certificates.context(*names))
        await self._exchange.serve(connection, site)

    async def _serve_as_proxy(self, connection: Connection, route: Route) -> None:
        while (request := await connection.read_request()) is not None:
            if request.method == "CONNECT":
                name, _, port = request.target.rpartition(":")
                await self._tunnel(connection, route(name, int(port) if port.isdigit() else 443), name.strip("[]"))
                return
            if not await self._forward(connection, route, request):
                return

    async def _tunnel(self, connection: Connection, site: Site, name: str) -> None:
        if self._refuses(site) or not site.tls:
            await connection.send(_BAD_GATEWAY)
            return
        await connection.accept_tunnel()
        await self._serve(connection, site, name)

    async def _forward(self, connection: Connection, route: Route, request: Request) -> bool:
        target = urlsplit(request.target)
        site = route(target.hostname or "", target.port or 80)
        if site.tls or self._refuses(site):
            return await connection.send(_BAD_GATEWAY, to=request)
        connection.host = site.host
        return await self._exchange.answer(connection, site, request)

    def _record_failed_handshake(self, connection: Connection, name: str, fault: Fault) -> None:
        self._ledger.record(
            Call(
                at=time.time(),
                monotonic=time.monotonic(),
                endpoint=HANDSHAKE,
                method="",
                host=name,
                path="",
                fault=fault.name,
                connection=connection.number,
            )
        )

    def _refuses(self, site: Site) -> bool:
        return self._injections.host_wide(site.host, REFUSE) is not None
