"""A random state of an application at a provider, the forecast for it, and what happens once the provider is dead."""

from __future__ import annotations

import contextlib
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._engine.cache import memories
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._wire import documents
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.health import Forecast, GoesDark
from resilient_auth.testing import ManualClock
from resilient_auth.verify import KeyOptions

#: Seconds by which the forecast may be off.
OFF = 5.0
SECRET = "s3cret-of-the-daemon"
AUDIENCE = "api://orders"
SCOPES = [["https://graph.microsoft.com/.default"], ["api://billing/.default"], ["api://stock/.default"]]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
USERS = ["ann@contoso.com", "bob@contoso.com", "cid@contoso.com"]


class Driver:
    """Moves a manual clock from event to event, and lets all threads of the package come to rest in between."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.engines: list[Any] = []
        self.asking: list[threading.Thread] = []

    def rest(self) -> None:
        """Wait until nobody has anything to do before the clock moves."""
        ends = time.monotonic() + 3.0
        while not self._resting() and time.monotonic() < ends:
            time.sleep(0.0005)

    def _resting(self) -> bool:
        now = self.clock.monotonic()
        for engine in self.engines:
            flights = list(engine.flights._flights.values())
            if any(flight.next_attempt is None or flight.next_attempt <= now for flight in flights):
                return False
            if any(timer.pending and when <= now for when, _, timer in list(engine.timers._heap)):
                return False
        self.asking = [thread for thread in self.asking if thread.is_alive()]
        waits = list(self.clock._waiting.values())
        waiting = {wait.name for wait in waits if wait.ends is not None and wait.ends > now}
        return all(thread.name in waiting for thread in self.asking)

    def until(self, moment: float) -> None:
        """Let time pass until then."""
        self.rest()
        while (now := self.clock.monotonic()) < moment:
            coming = [moment]
            for engine in self.engines:
                coming += [when for when, _, timer in list(engine.timers._heap) if timer.pending and when > now]
                coming += [flight.next_attempt for flight in list(engine.flights._flights.values())
                           if flight.next_attempt is not None and flight.next_attempt > now]  # fmt: skip
            coming += [wait.ends for wait in list(self.clock._waiting.values()) if (wait.ends or 0.0) > now]
            self.clock.advance(min(coming) - now + 1e-6)
            self.rest()

    def ask(self, call: Callable[[], bool], told: list[tuple[float, bool]]) -> threading.Thread:
        """Ask on a thread of its own; what comes of it is noted, and when."""
        thread = threading.Thread(
            target=lambda: told.append((call(), self.clock.monotonic())[::-1]), daemon=True
        )  # fmt: skip
        self.asking.append(thread)
        thread.start()
        return thread


@dataclass
class Thing:
    """What goes dark: how to ask for it, and whether somebody goes on asking."""

    part: Callable[[Forecast], list[GoesDark]]
    call: Callable[[], bool]
    asked: bool
    asked_at: float
    ends: float = 0.0
    told: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)


class State:
    """An application whose tokens, keys, users, settings and failures are drawn by a seed."""

    def __init__(self, idp: Emulator, seed: int) -> None:
        self.idp, self.luck = idp, random.Random(seed)
        self.issuer = _issuer(idp)
        self.clock = ManualClock()
        self.driver = Driver(self.clock)
        self.backend, self.key = MemoryBackend(clock=self.clock), os.urandom(32)
        self.things: dict[str, Thing] = {}
        self.told: list[str] = []
        self.kept_trying = ra.Settings().keep_trying
        self._open = contextlib.ExitStack()
        luck = self.luck
        grace = luck.choice([0.0, 0.0, 300.0, 1500.0])
        outage = grace * luck.choice([1.0, 1.5, 4.0]) + luck.choice([0.0, 200.0]) if grace else 3600.0
        self.fallback = ra.FallbackOptions(grace=grace, grace_outage=outage)
        self.stored = luck.random() < 0.5
        self.told.append(f"seed {seed}: grace {grace:g} of {outage:g}, store {self.stored}")

    def settings(self, **more: Any) -> ra.Settings:
        store = ra.SealedStore(self.backend, key=self.key, clock=self.clock) if self.stored else None
        jitter = random.Random(self.luck.random()).uniform
        return ra.Settings(clock=self.clock, jitter=jitter, store=store, fallback=self.fallback, **more)

    def app(self, kind: Any, client_id: str, settings: ra.Settings, **more: Any) -> Any:
        made = kind(
            client_id, authority=self.idp.authority("contoso"), instance_discovery=False, verify=self.idp.ca_file,
            resilience=settings, **more,
        )  # fmt: skip
        self._open.callback(made.close)
        self.driver.engines.append(made._ra_session.engine)
        return made

    def life(self) -> None:
        """Draw how long the tokens live that come from now on."""
        life = self.luck.choice([400.0, 900.0, 1800.0, 3600.0])
        self.idp.change({"token_lifetime": life, "refresh_in": self.luck.choice([None, life / 2, life / 3])})

    def passes(self, least: float, most: float) -> None:
        """Let time pass, in which those that are asked for are."""
        ends = self.clock.monotonic() + self.luck.uniform(least, most)
        while self.clock.monotonic() < ends:
            self.driver.until(min(ends, self.clock.monotonic() + 120.0))
            self.ask_on()

    def ask_on(self) -> None:
        for thing in self.things.values():
            if thing.asked:
                thing.asked_at = self.clock.monotonic()
                self.driver.ask(thing.call, [])
        self.driver.rest()

    def done(self, call: Callable[[], Any]) -> Any:
        """Make a call that the provider answers."""
        found: list[Any] = []
        thread = self.driver.ask(lambda: bool(found.append(call())), [])
        while thread.is_alive():
            self.driver.rest()
            thread.join(0.01)
            if thread.is_alive() and self.driver._resting():
                self.driver.until(self.clock.monotonic() + 0.1)
        return found[0]

    def build(self) -> None:
        """Come to where the forecast is made."""
        luck, settings = self.luck, self.settings()
        documents.last_good = documents.Documents()
        daemon = self.app(msal.ConfidentialClientApplication, "daemon", settings, client_credential=SECRET)
        for scopes in SCOPES[: luck.randint(1, 3)]:
            self.life()
            if luck.random() < 0.4:
                daemon.keep_fresh(scopes)
            self.done(lambda scopes=scopes: daemon.acquire_token_for_client(scopes))
            self.add(scopes[0], "scope", lambda scopes=scopes: served(daemon.acquire_token_for_client, scopes))
            self.passes(0, 300)
        if luck.random() < 0.5:
            self._users(self.app(msal.PublicClientApplication, "desktop", settings))
        if luck.random() < 0.5:
            self._keys(settings)
        self.life()
        self.passes(0, 2500)
        if self.stored and luck.random() < 0.6:
            self._sibling()
        if luck.random() < 0.4:
            self.idp.fail(Fault.refuse())
            self.passes(1, 500)
        if luck.random() < 0.3:
            self.passes(1, 30)
        self.driver.rest()

    def add(self, name: str, kind: str, call: Callable[[], bool]) -> None:
        part = lambda seen: [  # noqa: E731
            part for part in seen.parts
            if part.reach == "process" and part.kind == kind and part.name == name
            and self.idp.url.startswith(part.authority)
        ]  # fmt: skip
        self.things[name] = Thing(part, call, self.luck.random() < 0.6, self.clock.monotonic())

    def _users(self, app: Any) -> None:
        """Sign one user in: of a population it is told when the first and the last goes dark."""
        user = self.luck.choice(USERS)
        self.idp.add_user(user)
        flow = app.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/back", response_mode="form_post")
        answer = self.idp.sign_in(flow["auth_uri"], user)
        self.done(lambda: app.acquire_token_by_auth_code_flow(flow, answer))
        account = self.done(lambda: app.get_accounts(user))[0]
        self.done(lambda: app.acquire_token_silent(USER_SCOPE, account))
        self.add(USER_SCOPE[0], "users", lambda: served(app.acquire_token_silent, USER_SCOPE, account))

    def verifier(self, options: KeyOptions, settings: ra.Settings | None = None) -> ra.ClaimsVerifier:
        made = ra.ClaimsVerifier(
            issuer=self.issuer, audience=AUDIENCE, settings=settings or self.settings(), keys=options,
            verify=self.idp.ca_file,
        )  # fmt: skip
        self._open.callback(made.close)
        return made

    def keys(self) -> list[GoesDark]:
        """Return what is foretold of the issuer's keys, without another look into the store."""
        parts = ra.health().forecast.parts  # type: ignore[union-attr]
        return [part for part in parts if (part.kind, part.name) == ("keys", self.issuer)]

    def _keys(self, settings: ra.Settings) -> None:
        options = KeyOptions(refresh_every=600.0, last_known_good=self.luck.choice([300.0, 1500.0]))
        verifier = self.verifier(options, settings)
        assert self.done(lambda: verified(self, verifier))
        self.add(self.issuer, "keys", lambda: verified(self, verifier))

    def _sibling(self) -> None:
        """Have another process of the fleet renew what it finds due, and end."""
        self.life()
        other = self.app(msal.ConfidentialClientApplication, "daemon", self.settings(), client_credential=SECRET)
        for scopes in SCOPES[: self.luck.randint(1, 3)]:
            self.done(lambda scopes=scopes: other.acquire_token_for_client(scopes))
        self.driver.rest()
        other.close()
        self.driver.engines.pop()

    def what_happens(self) -> Forecast:
        """Kill the provider, and see what is served when; returns the forecast that was made before."""
        seen = ra.forecast()
        began = self.clock.monotonic()
        self.idp.fail(Fault.refuse())
        # What is fresh, and what was asked for lately, goes on being asked for: that is what the forecast says.
        fresh = {entry.request.scopes for entry in self.entries() if entry.token and entry.token.due_after > (
            entry.token.age(self.clock.wall(), began))}  # fmt: skip
        for name, thing in self.things.items():
            thing.asked = (name,) in fresh or began - thing.asked_at <= self.kept_trying
        events: list[tuple[float, Callable[[], object]]] = []
        for name, thing in self.things.items():
            parts = thing.part(seen)
            self.told.append(f"{name}: {parts[0].first if parts else 'gone'}, asked {thing.asked}")
            ends = parts[0].first if parts else None
            thing.ends = began + (ends or 0.0)  # of what is over, and not missed, nothing is foretold
            for side, off in (("before", -OFF), ("after", OFF)):
                told = thing.told[side] = []
                if ends is not None and ends + off >= 0:
                    events.append((ends + off, lambda call=thing.call, told=told: self.driver.ask(call, told)))
        last = max((when for when, _ in events), default=0.0)
        # Whatever is due is noticed at once.
        events += [(when, self.ask_on) for when in (*self.dues(began), *map(float, range(0, int(last), 60)))]
        for when, happens in sorted(events, key=lambda event: event[0]):
            self.driver.until(began + when)
            happens()
        while any(thread.is_alive() for thread in self.driver.asking):
            self.driver.until(self.clock.monotonic() + 1.0)
        return seen

    def dues(self, began: float) -> Iterator[float]:
        """Yield the moments at which a token becomes due."""
        for entry in self.entries():
            if entry.token is not None and entry.token.obtained_at + entry.token.due_after >= began:
                yield entry.token.obtained_at + entry.token.due_after - began + 0.01

    def entries(self) -> list[Any]:
        return [entry for memory in memories() if memory.engine in self.driver.engines for entry in memory]

    def wrong(self) -> Iterator[str]:
        """Yield what came otherwise than it was forecast."""
        for name, thing in self.things.items():
            # One that has begun to wait in time may be refused when it is over.
            if any(not good and at < thing.ends - OFF for at, good in thing.told["before"]):
                yield f"{name} went dark sooner"
            if any(good for _, good in thing.told["after"]):
                yield f"{name} lasted longer"

    def close(self) -> None:
        self.idp.heal()
        self._open.close()


def _issuer(idp: Emulator) -> str:
    trust = ssl.create_default_context(cafile=idp.ca_file)
    document = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    found: str = httpx.get(document, verify=trust, trust_env=False).json()["issuer"]
    return found


def verified(state: State, verifier: ra.ClaimsVerifier) -> bool:
    """Return whether a token that nobody has seen yet is verified."""
    wall = int(state.clock.wall())
    claims = {"iss": state.issuer, "aud": AUDIENCE, "sub": "s", "scp": "a", "iat": wall, "nbf": wall}
    try:
        verifier.verify(state.idp.sign(claims | {"exp": wall + 900_000, "jti": uuid4().hex}))
    except ra.VerificationUnavailable:
        return False
    return True


def served(ask: Callable[..., Any], *arguments: Any) -> bool:
    """Return whether a caller gets a token."""
    try:
        result = ask(*arguments)
    except ra.ProviderUnavailable:
        return False
    return result is not None and "access_token" in result


def run(idp: Emulator, seed: int) -> list[str]:
    """Return what was wrong with the forecast of a state, with what is known of that."""
    state = State(idp, seed)
    try:
        state.build()
        state.what_happens()
        wrong = list(state.wrong())
        return [*wrong, *state.told] if wrong else []
    finally:
        state.close()
