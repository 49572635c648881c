"""From a request to its answer, by way of the faults in force and the ledger."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import replace

import h11

from ..faults import EXPIRED_TOKENS, Fault, Slow, Trickle, WrongAnswer
from ..injection import Injection, Injections
from ..ledger import Call, Ledger
from .connection import Connection
from .messages import Request, Response, Site, basic_credentials, json_response

GONE = (ConnectionError, TimeoutError, ssl.SSLError, h11.RemoteProtocolError, asyncio.IncompleteReadError)

_log = logging.getLogger(__name__)


class Exchange:
    """Serves connections and keeps the books."""

    def __init__(self, ledger: Ledger, injections: Injections) -> None:
        self._ledger = ledger
        self._injections = injections

    async def serve(self, connection: Connection, site: Site) -> None:
        """Answer requests until the connection ends."""
        connection.host = site.host
        while (request := await connection.read_request()) is not None:
            if not await self.answer(connection, site, request):
                return
        await connection.close()

    async def answer(self, connection: Connection, site: Site, request: Request) -> bool:
        """Answer one request or fail as told; tell whether another one may follow."""
        if site.host is None:
            return await connection.send(_respond(site, request), to=request)
        call = describe(request, site.endpoint_of(request), connection.number)
        injection = self._injections.pick(call)
        if injection is None:
            number = self._ledger.record(call)
            response = _respond(site, request)
            self._enter_answer(number, response)
            return await connection.send(response, to=request)
        number = self._ledger.record(replace(call, fault=injection.fault.name))
        return await self._fail(connection, site, request, injection, number)

    async def _fail(
        self, connection: Connection, site: Site, request: Request, injection: Injection, number: int
    ) -> bool:
        fault = injection.effective
        match fault:
            case Fault(name="reset"):
                connection.abort()
                return False
            case Fault(name="black_hole"):
                await connection.linger(injection.ended, None)
                connection.abort()
                return False
            case Slow(seconds=seconds):
                if not await connection.linger(injection.ended, seconds):
                    connection.abort()
                    return False
        response = _faulty_response(fault, site, request)
        self._enter_answer(number, response)
        match fault:
            case Fault(name="wrong_content_length"):
                await connection.send_short(response)
                return False
            case Trickle(bytes_per_second=rate, headers=headers):
                return await connection.send_slowly(response, request, rate, headers, injection.ended)
        return await connection.send(response, to=request)

    def _enter_answer(self, number: int, response: Response) -> None:
        # Before the first byte goes out, so that a client which has its answer finds it in the ledger.
        retry_after = next((value for name, value in response.headers if name == "Retry-After"), None)
        self._ledger.amend(number, status=response.status, token_id=response.token_id, retry_after=retry_after)


def describe(request: Request, endpoint: str, connection: int) -> Call:
    """Return the ledger's entry for a request, without anything secret in it."""
    form = request.form if request.method == "POST" and endpoint in ("token", "devicecode") else {}
    basic = basic_credentials(request.headers.get("authorization", ""))
    client_id = form.get("client_id") or request.query.get("client_id") or (basic[0] if basic else None)
    return Call(
        at=time.time(),
        monotonic=time.monotonic(),
        endpoint=endpoint,
        method=request.method,
        host=request.host[:300],
        path=request.path[:300],
        grant_type=_shortened(form.get("grant_type")),
        client_id=_shortened(client_id),
        scope=_shortened(form.get("scope")),
        client=_shortened(request.headers.get("x-test-client") or request.headers.get("x-app-name")),
        connection=connection,
    )


def _faulty_response(fault: Fault | None, site: Site, request: Request) -> Response:
    if isinstance(fault, WrongAnswer):
        retry_after = fault.retry_after_header(time.time())
        headers = () if retry_after is None else (("Retry-After", retry_after),)
        body = b"" if fault.code in (204, 304) else fault.body.encode()
        return Response(fault.code, body, fault.content_type, headers)
    if fault == Fault(EXPIRED_TOKENS):
        request = replace(request, expired_tokens=True)
    return _respond(site, request)


def _respond(site: Site, request: Request) -> Response:
    try:
        return site.respond(request)
    except Exception:  # noqa: BLE001 (see below)
        # The client sees a plain 500, and whoever debugs the emulator sees why.
        _log.exception("the emulator failed to answer %s %s", request.method, request.path)
        return json_response({"error": "server_error", "error_description": "The emulator itself failed."}, 500)


def _shortened(value: str | None) -> str | None:
    return value[:1000] if value else None
