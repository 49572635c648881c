"""The same application in Starlette, whose requests are cancelled at one of their awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any
from urllib.parse import urlencode

from failing_site import AUDIENCE, World
from signin_site import BASE, SCOPE
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import resilient_auth as ra
from resilient_auth.integrations.fastapi import SignIn, install, mount_signals
from resilient_auth.signin import SignalsReceiver

__all__ = ["Awaiting", "Visitor"]


class Awaiting:
    """One more process of the application's."""

    def __init__(self, world: World) -> None:
        self.world, like = world, world.one
        self.store = ra.SealedStore(world.medium, key=world.key, clock=world.clock)
        self.app = Starlette()
        settings = ra.Settings(clock=world.clock, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0)
        self.auth = SignIn(
            self.app, like.provider(), base_url=BASE, store=self.store, options=like.options, settings=settings
        )
        self.transmitter = ra.ClaimsVerifier(
            issuer=world.issuer, audience=AUDIENCE, settings=ra.Settings(clock=world.clock), **like.wire()
        )
        mount_signals(
            self.app,
            SignalsReceiver(
                self.transmitter, store=self.store, sign_in=self.auth, revocations=like.revocations, clock=world.clock
            ),
        )
        install(self.app)

        @self.auth.login_required(scopes=[SCOPE])
        async def me(_: Request) -> PlainTextResponse:
            user = await self.auth.current_user()
            return PlainTextResponse(f"me {user.name}{' extended' if user.extended else ''}" if user else "")

        @self.auth.login_required(scopes=[SCOPE])
        async def token(_: Request) -> PlainTextResponse:
            return PlainTextResponse(await self.auth.token())

        self.app.add_route("/me", me)
        self.app.add_route("/token", token)

    def close(self) -> None:
        self.auth.close()
        self.transmitter.close()
        self.store.close()


class _CancelledAt:
    """Await something, and have it cancelled at its n-th await: before what is awaited is there, or as it comes."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, *, late: bool) -> None:
        self._steps, self._number, self._late = coroutine.__await__(), number, late
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, error = self._steps, False
        while True:
            try:
                awaited = steps.throw(asyncio.CancelledError()) if error else next(steps)
            except StopIteration as end:
                return end.value
            error = False
            self.awaits += 1
            if self.awaits == self._number:
                error = True
                if awaited is not None and not self._late:
                    awaited._asyncio_future_blocking = False
                    awaited.cancel()
                    continue
            try:
                yield awaited
            except asyncio.CancelledError:
                error = True


class Visitor:
    """A browser of one person's."""

    def __init__(self, site: Awaiting, cookie: str | None = None) -> None:
        self.site = site
        self.cookies: dict[str, str] = {} if cookie is None else {"__Host-session": cookie}
        self.awaits = 0

    async def ask(
        self, method: str, path: str, form: dict[str, str] | None = None, *, body: bytes = b"",
        kind: str = "application/x-www-form-urlencoded", number: int = 0, late: bool = False, **headers: str,
    ) -> tuple[int, str, str] | None:  # fmt: skip
        """Return the status, the text and where it leads; None where it was cancelled at this await."""
        sent = {"accept": "text/html", "content-type": kind, "cookie": "; ".join(map("=".join, self.cookies.items()))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        bare, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": bare, "raw_path": bare.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()], "scheme": "https",
            "server": ("app.example", 443), "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        content, messages = urlencode(form).encode() if form else body, list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        serving = self.site.auth._serving
        cancelled = _CancelledAt(self.site.app(scope, receive, send), number, late=late)
        try:
            await cancelled
        except asyncio.CancelledError:
            return None
        finally:
            self.awaits = cancelled.awaits
            assert serving.get() is None, "a request's user is left behind"
        start, text = messages[0], b"".join(each.get("body", b"") for each in messages[1:]).decode()
        location = ""
        for name, value in start["headers"]:
            if name == b"set-cookie":
                named, _, rest = value.decode().partition("=")
                self.cookies[named] = rest.partition(";")[0]
                if "Max-Age=0" in rest:
                    del self.cookies[named]
            location = value.decode() if name == b"location" else location
        return start["status"], text, location
