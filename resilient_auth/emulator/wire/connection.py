"""One TCP connection: reads requests, writes answers, and breaks in the ways that faults ask for."""

from __future__ import annotations

import asyncio
import ssl
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

from ..endpoints import Host
from .messages import Request, Response
from .stream import Stream

_IDLE_LIMIT: Final = 300.0
_BODY_LIMIT: Final = 1_000_000
_HEADER_LIMIT: Final = 65_536
_MISSING_BYTES: Final = 64
_FASTEST_TRICKLE_STEP: Final = 0.05
# A fatal alert, handshake_failure (RFC 8446, section 6).
_TLS_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"


class Connection:
    """A client's connection, before and after TLS."""

    def __init__(self, number: int, stream: Stream) -> None:
        self.number = number
        self.host: Host | None = None
        self._stream = stream
        self._http = self._new_http()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Become a TLS server, and expect a new HTTP conversation inside."""
        await self._stream.start_tls(context)
        self._http = self._new_http()

    async def fail_handshake(self) -> None:
        """Answer the client's hello with a fatal alert, and close."""
        async with asyncio.timeout(_IDLE_LIMIT):
            await self._stream.read()
        await self._stream.write(_TLS_ALERT)
        await self.close()

    async def read_request(self) -> Request | None:
        """Return the next request, or None when there won't be one."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        body = bytearray()
        while isinstance(part := await self._next_event(), h11.Data):
            body += part.data
            if len(body) > _BODY_LIMIT:
                await self.send(Response(413))
                return None
        if not isinstance(part, h11.EndOfMessage):
            return None
        headers: dict[str, str] = {}
        for name, value in ((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Request(event.method.decode("ascii"), event.target.decode("latin-1"), headers, bytes(body))

    async def send(self, response: Response, *, to: Request | None = None) -> bool:
        """Send an answer; tell whether another request may follow."""
        head, body = self._encode(response, to)
        await self._stream.write(head + body)
        return await self._finish()

    async def send_slowly(
        self, response: Response, to: Request, bytes_per_second: float, headers: bool, ended: asyncio.Event
    ) -> bool:
        """Send an answer a few bytes at a time until the fault has ended, and then the rest at once."""
        head, body = self._encode(response, to)
        if not headers:
            await self._stream.write(head)
        rest = head + body if headers else body
        step = max(1 / bytes_per_second, _FASTEST_TRICKLE_STEP)
        size = max(1, int(bytes_per_second * step))
        while rest and not ended.is_set():
            await self._stream.write(rest[:size])
            rest = rest[size:]
            if rest and not await self.linger(ended, step):
                return False
        await self._stream.write(rest)
        return await self._finish()

    async def send_short(self, response: Response) -> None:
        """Promise more bytes than are sent, and close."""
        length = len(response.body) + _MISSING_BYTES
        head = self._http.send(_head_of(response, length)) or b""
        await self._stream.write(head + (self._http.send(h11.Data(data=response.body)) or b""))
        await self.close()

    async def accept_tunnel(self) -> None:
        """Tell the client of a proxy that its tunnel stands."""
        accepted = h11.Response(status_code=200, headers=[], reason="Connection established")
        await self._stream.write(self._http.send(accepted) or b"")

    async def linger(self, ended: asyncio.Event, seconds: float | None) -> bool:
        """Wait until the time is up or the fault has ended; tell whether the client is still there."""
        gone = asyncio.ensure_future(self._client_gone())
        over = asyncio.ensure_future(ended.wait())
        try:
            done, _ = await asyncio.wait({gone, over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return gone not in done
        finally:
            gone.cancel()
            over.cancel()
            await asyncio.gather(gone, over, return_exceptions=True)

    def abort(self) -> None:
        """Reset the connection: the client sees RST, not a close."""
        self._stream.abort()

    async def close(self) -> None:
        """Close the connection after what was written."""
        await self._stream.close()

    async def _finish(self) -> bool:
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            await self.close()
            return False
        self._http.start_next_cycle()
        return True

    async def _next_event(self) -> h11.Event | None:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event if isinstance(event, h11.Event) else None
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.write(self._http.send(go_on) or b"")
            async with asyncio.timeout(_IDLE_LIMIT):
                self._http.receive_data(await self._stream.read())

    async def _client_gone(self) -> None:
        received = 0
        while received < _BODY_LIMIT:
            data = await self._stream.read()
            if not data:
                return
            received += len(data)
            self._http.receive_data(data)

    def _encode(self, response: Response, to: Request | None) -> tuple[bytes, bytes]:
        head = self._http.send(_head_of(response, len(response.body))) or b""
        body = b""
        if to is None or to.method != "HEAD":
            body = self._http.send(h11.Data(data=response.body)) or b""
        return head, body + (self._http.send(h11.EndOfMessage()) or b"")

    @staticmethod
    def _new_http() -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_LIMIT)


def _head_of(response: Response, length: int) -> h11.Response:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(length)),
        ("Date", formatdate(usegmt=True)),
        *response.headers,
    ]
    try:
        reason = HTTPStatus(response.status).phrase
    except ValueError:
        reason = ""
    return h11.Response(status_code=response.status, headers=headers, reason=reason)
