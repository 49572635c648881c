"""Whatever happens over some wires and to some tenants, the others notice nothing: a property, over drawn histories."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msal
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._engine.acquire import acquiring
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._engine.steps import run
from resilient_auth._msal.identity import Identity
from resilient_auth._msal.session import Session
from resilient_auth._policy.endpoint import Endpoint, WireIdentity
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._wire.answers import WireResponse
from resilient_auth._wire.exchange_context import ExchangeContext
from resilient_auth._wire.http_client import Transport
from resilient_auth._wire.identity import identity_of, identity_of_client, number_of
from resilient_auth.token import Token, TokenRequest

Kinds = dict[str, Callable[[], WireIdentity]]

TENANTS = ("red", "blue", "green")


class Clock:
    """The real one, which can skip ahead."""

    skipped = 0.0

    def wall(self) -> float:
        return time.time() + self.skipped

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def wait(self, condition: Any, timeout: float | None) -> bool:
        return bool(condition.wait(0.02 if timeout is None else min(timeout, 0.02)))


class Client:
    """An owner's own, of which nothing is known."""


class SaysItsName:
    """A wire whose every answer says over which one it came."""

    def __init__(self, name: str, identity: WireIdentity, modes: dict[str, str]) -> None:
        self.name, self.identity, self._modes = name, identity, modes

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        tenant = url.split("/")[3]
        mode = self._modes.get(self.name, "up")
        if mode == "503":
            return WireResponse(503, "{}", {})
        if self._modes.get(f"{self.name} {tenant}") == "429":
            return WireResponse(429, "{}", {"retry-after": "3600"})
        realm = f"https://login.example/{tenant}"
        if method == "GET":
            told = {
                "authorization_endpoint": f"{realm}/{self.name}/authorize",
                "token_endpoint": f"{realm}/{self.name}/token",
            }
        else:
            told = {"access_token": f"over {self.name} for {tenant}", "expires_in": 3600, "token_type": "Bearer"}
        return WireResponse(200, json.dumps(told), {})

    def close(self) -> None:
        """There is nothing to close."""


class Process:
    """What one process has: its engine, and a wire of each kind. All share a store."""

    def __init__(self, number: int, kinds: Kinds, backend: Any, clock: Clock, modes: dict[str, str]) -> None:
        store = ra.SealedStore(backend, key=bytes(range(32)), clock=clock)
        self.settings = ra.Settings(clock=clock, retry=ra.RetryOptions(attempts=1), wait=5.0, store=store)
        self.wires: dict[str, SaysItsName] = {}
        self.sessions: dict[str, Session] = {}
        self._asked = 0
        self._number = number
        for kind, identity in kinds.items():
            made = identity()
            # An owner's client is nobody else's: the same kind in another process is another wire.
            name = kind if made.fleet is not None else f"{kind}-{number}"
            self.wires[kind] = SaysItsName(name, made, modes)
            session = self.sessions[kind] = Session(self.settings, {"token_cache": msal.TokenCache()})
            session.identify(Identity("https://login.example/any", f"application over {name}"))

    def transport(self, kind: str) -> Transport:
        return Transport(self.sessions[kind].engine, self.wires[kind], "client")

    def document(self, kind: str, tenant: str) -> str:
        url = f"https://login.example/{tenant}/.well-known/openid-configuration"
        endpoint: str = json.loads(self.transport(kind).get(url).text)["token_endpoint"]
        return endpoint

    def token(self, kind: str, tenant: str) -> str:
        """Get one that nobody has asked for."""
        self._asked += 1
        session, transport, url = self.sessions[kind], self.transport(kind), f"https://login.example/{tenant}/token"
        scope = (f"{self._number} {self._asked}",)
        request = TokenRequest("https://login.example", "client", "client_credentials", scope)
        entry = session.memory.entry(request, (Endpoint.of(url, self.wires[kind].identity),))

        def exchange(flight: Flight) -> Outcome:
            with ExchangeContext(flight.deadline, flight=flight).under_way():
                body = json.loads(transport.post(url, data={"grant_type": "client_credentials"}).text)
            clock = session.engine.clock
            return Outcome(Token(body["access_token"], "Bearer", clock.wall(), clock.monotonic(), 3600.0, 1800.0), body)

        served = run(acquiring(session.engine, entry, exchange))
        assert served.token is not None
        return served.token.secret


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """Ways to make a wire, each giving one that is alike where that can be."""
    there = tmp_path_factory.mktemp("trust")
    for name in ("one", "other"):
        trustme.CA().cert_pem.write_to_path(str(there / name))
    clients: list[Client] = []

    def own() -> WireIdentity:
        clients.append(Client())
        return identity_of_client(clients[-1], number_of(clients[-1]))

    return {
        "one": lambda: identity_of(str(there / "one"), {}),
        "other": lambda: identity_of(str(there / "other"), {}),
        "proxied": lambda: identity_of(str(there / "one"), {"https": "http://user:secret@proxy.example:8080"}),
        "unverified": lambda: identity_of(False, {}),
        "own": own,
    }


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["document", "token", "token", "break", "throttle", "later", "crowd"]),
        st.integers(0, 1),
        st.sampled_from(["one", "other", "proxied", "unverified", "own"]),
        st.sampled_from(TENANTS),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_happens_over_one_wire_is_that_wires_own(kinds: Kinds, steps: Any) -> None:
    """Documents, breakers, cool-downs, flights and hints: in threads, and over a store between processes."""
    clock, modes = Clock(), dict[str, str]()
    backend = MemoryBackend(clock=clock)
    processes = [Process(number, kinds, backend, clock, modes) for number in (0, 1)]
    broken: set[str] = set()
    throttled: set[tuple[str, str]] = set()

    def ask(process: Process, kind: str, tenant: str) -> None:
        name = process.wires[kind].name
        try:
            assert process.token(kind, tenant) == f"over {name} for {tenant}"
        except ra.Throttled:
            assert (name, tenant) in throttled
        except ra.ProviderUnavailable:
            assert name in broken or (name, tenant) in throttled

    for what, number, kind, tenant in steps:
        process = processes[number]
        name = process.wires[kind].name
        if what == "document":
            try:
                assert f"/{name}/" in process.document(kind, tenant)
            except ra.ProviderUnavailable:
                assert name in broken or (name, tenant) in throttled
        elif what == "token":
            ask(process, kind, tenant)
        elif what == "break":
            broken.add(name)
            modes[name] = "503"
            for _ in range(3):
                ask(process, kind, tenant)
        elif what == "throttle":
            throttled.add((name, tenant))
            modes[f"{name} {tenant}"] = "429"
            ask(process, kind, tenant)
        elif what == "later":
            clock.skipped += 6.0
        else:
            _together(partial(ask, tenant=tenant), processes, kinds)


def _together(ask: Callable[[Process, str], None], processes: list[Process], kinds: Any) -> None:
    wrong: list[BaseException] = []

    def one(process: Process, kind: str) -> None:
        try:
            ask(process, kind)
        except BaseException as error:
            wrong.append(error)

    crowd = [threading.Thread(target=one, args=(process, kind)) for process in processes for kind in kinds]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not wrong
