"""An API that speaks HTTP/2 over TLS, for as many streams of one connection as come."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h2.config
import h2.connection
import h2.events

#: Given the Authorization header: the status, and further headers.
Answer = Callable[[str], tuple[int, list[tuple[str, str]]]]


class _Connection(asyncio.Protocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                assert event.stream_id is not None
                self._respond(event.stream_id, dict(event.headers or []))
        self._flush()

    def _respond(self, stream: int, headers: dict[str, str]) -> None:
        status, further = self._answer(headers.get("authorization", ""))
        self._http.send_headers(stream, [(":status", str(status)), *further])
        self._http.send_data(stream, b"so ")
        # The rest of a body comes a while later, and not of each at the same time.
        asyncio.get_running_loop().call_later(stream % 7 * 0.03, self._end, stream)

    def _end(self, stream: int) -> None:
        if not self._transport.is_closing():
            self._http.send_data(stream, b"slow", end_stream=True)
            self._flush()

    def _flush(self) -> None:
        self._transport.write(self._http.data_to_send())


@contextmanager
def serving(answer: Answer, trust: ssl.SSLContext) -> Iterator[str]:
    """Serve on a thread; gives the origin."""
    trust.set_alpn_protocols(["h2"])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: _Connection(answer), "localhost", 0, ssl=trust, family=2
        )

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
