"""Two processes of an application over one medium, of whose calls one fails, or all from one on."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from signin_site import Site

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator
from resilient_auth.integrations.flask import mount_signals
from resilient_auth.signin import (
    IdentityProvider,
    OneTimeCodes,
    SessionOptions,
    SignalsReceiver,
    SignInOptions,
    SignOutOptions,
    Who,
)
from resilient_auth.store import BackendFailed
from resilient_auth.verify import Revocations

__all__ = ["AUDIENCE", "HOW", "Medium", "Process", "World"]

AUDIENCE = "https://receiver.example"
#: It wasn't done; it was done, and nobody hears of it; the medium dies in the middle.
HOW = ("fails", "is lost", "dies")


class Medium(MemoryBackend):
    """Fails the n-th call, as it is told to."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock)
        self._number, self._how, self._counting = 0, "", threading.Lock()
        self.calls = 0

    @contextmanager
    def failing(self, number: int, how: str) -> Iterator[None]:
        """Fail this call of those that are made meanwhile; `calls` says how many there were."""
        self.calls, self._number, self._how = 0, number, how
        try:
            yield
        finally:
            self._number = 0

    def _called(self, call: Any) -> Any:
        with self._counting:
            self.calls += 1
            fails = self._number and (self.calls == self._number or (self._how == "dies" and self.calls > self._number))
        if fails and self._how == "is lost":
            call()
        if fails:
            raise BackendFailed("timeout")
        return call()

    def get(self, key: str) -> Any:
        return self._called(lambda: MemoryBackend.get(self, key))

    def get_many(self, keys: Any) -> Any:
        return self._called(lambda: MemoryBackend.get_many(self, keys))

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        return self._called(lambda: MemoryBackend.put(self, key, value, **options))

    def delete(self, key: str, **options: Any) -> Any:
        return self._called(lambda: MemoryBackend.delete(self, key, **options))

    def lock(self, *args: Any) -> Any:
        return self._called(lambda: MemoryBackend.lock(self, *args))


class Process(Site):
    """One of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        super().__init__(world.emulator, Path(), options=None)

    def provider(self, **more: Any) -> IdentityProvider:
        given = {"client_id": "web", "client_credential": "s", "scopes": self.more["scopes"], **self.wire(), **more}
        return IdentityProvider.for_openid(self.world.issuer, **given)

    def open_store(self) -> Any:
        self.clock, self.tenant = self.world.clock, self.world.tenant
        store = ra.SealedStore(self.world.medium, key=self.world.key, clock=self.clock)
        self.revocations = Revocations(store, look_every=1.5, clock=self.clock)
        codes = OneTimeCodes(find=self.world.find, send=self.world.send, per_address=20)
        self.options = SignInOptions(
            sessions=SessionOptions(recheck=0.0), codes=codes, guests=True,
            sign_out=SignOutOptions(revocations=self.revocations),
        )  # fmt: skip
        return store

    def start(self) -> None:
        super().start()
        self.transmitter = ra.ClaimsVerifier(
            issuer=self.world.issuer, audience=AUDIENCE, settings=ra.Settings(clock=self.clock), **self.wire()
        )
        receiver = SignalsReceiver(
            self.transmitter, store=self.store, sign_in=self.auth, revocations=self.revocations, clock=self.clock
        )
        mount_signals(self.app, receiver)

    def stop(self) -> None:
        self.transmitter.close()
        self.revocations.close()
        super().stop()

    def in_as(self, cookie: str | None) -> str:
        """Return who has a cookie here: a page's text."""
        browser = self.another_browser()
        if cookie:
            browser.set_cookie("__Host-session", cookie, domain="app.example", secure=True)
        answer = self.get("/me", browser)
        assert answer.status_code in (200, 303, 503), answer.text
        return str(answer.text) if answer.status_code == 200 else str(answer.status_code)


class World:
    """A provider, and an application's two processes."""

    def __init__(self, emulator: Emulator, clock: Any) -> None:
        self.emulator, self.clock = emulator, clock
        self.tenant = f"failing{uuid.uuid4().hex[:8]}"
        self.issuer = f"https://{self.tenant}.example/realms/x"
        self.medium, self.key = Medium(clock), os.urandom(32)
        self.sent: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.one, self.other = Process(self), Process(self)

    def find(self, address: str) -> dict[str, str]:
        return {"sub": "coded", "name": "Coded", "iss": self.issuer}

    def send(self, address: str, code: str) -> None:
        self.sent.append(code)
        self.arrived.release()

    def begin(self, name: str, sid: str | None = None) -> str:
        """Begin a session of somebody's without the provider; return its cookie."""
        account = {"home_account_id": name, "local_account_id": name, "environment": f"{self.tenant}.example"}
        who = Who(provider="openid", issuer=self.issuer, subject=name, sid=sid, name=name.title(), account=account)
        return self.one.auth.engine.site.sessions.create(who)[1]

    def form(self, address: str, name: str) -> dict[str, str]:
        """Have somebody sign in at the provider; return the form that comes back."""
        self.emulator.add_user(f"{name}@contoso.com")
        return self.emulator.sign_in(address, f"{name}@contoso.com")

    def token(self, kind: str, **claims: Any) -> str:
        """Make a logout or an event token of the provider's, as of now."""
        now = int(self.clock.wall())
        given = {"iss": self.issuer, "iat": now, "jti": uuid.uuid4().hex}
        if kind == "logout+jwt":
            given["exp"] = now + 60
        return self.emulator.event_token({**given, **claims}, {"typ": kind})

    def calm(self) -> None:
        """Have the breakers forget, and what waits for the store written."""
        self.clock.advance(11.0)
        ends = time.monotonic() + 20.0
        kept = [process.auth.engine.site.sessions._ends for process in (self.one, self.other)]
        while any(each._pending or each._unproved for each in kept):
            assert time.monotonic() < ends, "what was ended is never written"
            self.clock.advance(1.0)
            time.sleep(0.002)

    def stop(self) -> None:
        self.one.stop()
        self.other.stop()
