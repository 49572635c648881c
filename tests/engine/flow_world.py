"""A world in which time passes in steps: jobs run one at a time, in order, and nobody waits for real.

`World` is a clock, the workers and the timers of any number of engines. A job runs on a thread of its own, but only
while the world lets it: when it sleeps, the next one in the order of time goes on. So a nine-minute outage of two
hundred processes takes seconds, and the same seconds each time.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resilient_auth._engine import schedule
from resilient_auth._engine.acquire import Acquisition, Served, acquiring
from resilient_auth._engine.cache import CacheEntry, Memory
from resilient_auth._engine.engine import Engine
from resilient_auth._engine.lanes import Job
from resilient_auth._engine.single_flight import Exchange, Flight, Outcome, WaitFor
from resilient_auth._policy.endpoint import Endpoint, WireIdentity
from resilient_auth._policy.freshness import due_after
from resilient_auth._wire.answers import WireResponse
from resilient_auth._wire.exchange_context import ExchangeContext
from resilient_auth._wire.http_client import Transport
from resilient_auth.clock import Jitter
from resilient_auth.errors import AttemptTimeout, ConnectionFailed
from resilient_auth.settings import Settings
from resilient_auth.testing import no_jitter
from resilient_auth.token import Token, TokenRequest

HOST = "https://login.example"
HERE = Endpoint(HOST)
START = 1_700_000_000.0


class _Entry:
    """Something that is to happen, unless it is cancelled."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    @property
    def pending(self) -> bool:
        return self.call is not None


class _Job:
    """A job that runs while the world lets it, on a thread that earlier jobs may have had."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._thread: _JobThread | None = None
        self.error: BaseException | None = None

    def step(self) -> None:
        """Let it run until it sleeps or ends."""
        if self._thread is None:
            self._thread = _idle.pop() if _idle else _JobThread()
            self._thread.job = self
        self._thread.go.release()
        self._thread.rest.acquire()
        if self._thread.job is None:
            _idle.append(self._thread)
        if self.error is not None:
            raise self.error

    def rest(self) -> None:
        """Give way, on the job's own thread."""
        assert self._thread is not None
        self._thread.rest.release()
        self._thread.go.acquire()

    def live(self) -> None:
        """Run to its end."""
        _running.job = self
        try:
            self._run()
        except BaseException as error:
            self.error = error
        _running.job = None  # the thread lives on, and what the job was about needn't


class _JobThread:
    """A thread that takes turns with the world's: of two locks, each is let go by who gives way."""

    def __init__(self) -> None:
        self.go, self.rest = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.rest.acquire()
        self.job: _Job | None = None
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while True:
            self.go.acquire()
            assert self.job is not None
            self.job.live()
            self.job = None
            self.rest.release()


#: Threads whose jobs have ended.
_idle: list[_JobThread] = []
_running = threading.local()


class World:
    """Clock, workers and timers in one."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._ahead = START - self.now
        self._agenda: list[tuple[float, int, _Entry]] = []
        self._order = itertools.count()
        self._callers: list[Caller] = []
        self.jobs = 0
        self.entries = 0

    def wall(self) -> float:
        return self.now + self._ahead

    def monotonic(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self._ahead += seconds

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        assert timeout is not None
        condition.release()
        try:
            self.sleep(timeout)
        finally:
            condition.acquire()
        return True

    def sleep(self, seconds: float) -> None:
        """Sleep, in a job."""
        job: _Job = _running.job
        self.call_at(self.now + seconds, job.step)
        job.rest()

    def take(self, job: Job) -> None:
        """Be the workers."""
        run, job.call = job.call, None
        assert run is not None
        self.jobs += 1
        self.call_at(self.now, _Job(run).step)

    def hurry(self, job: Job) -> None:
        """Be workers with a place for everybody."""

    def call_at(self, when: float, call: Callable[[], None]) -> _Entry:
        """Be the timers."""
        entry = _Entry(when, call)
        heapq.heappush(self._agenda, (when, next(self._order), entry))
        return entry

    def revive(self) -> None:
        """Be timers that run."""

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile."""
        self.until(self.now + seconds)

    def abandon(self) -> None:
        """Let every caller who still waits give up."""
        self._callers.clear()

    def until(self, end: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Go on until then, or until `stop` says so."""
        self._poll()
        while self._agenda and self._agenda[0][0] <= end and not stop():
            when, _, msal_entry = heapq.heappop(self._agenda)
            self.now = max(self.now, when)
            call, msal_entry.call = msal_entry.call, None
            if call is not None:
                self.entries += 1
                call()
                self._poll()
        if not stop():
            self.now = max(self.now, end)

    def _poll(self) -> None:
        for caller in list(self._callers):
            caller.look()

    def engine(self, *, jitter: Jitter = no_jitter, **settings: Any) -> Engine:
        """Make an engine that lives in this world."""
        engine: Any = Engine(Settings(clock=self, jitter=jitter, **settings))
        engine.workers = engine.timers = self
        made: Engine = engine
        return made


class Caller:
    """One call for a token, under way or over."""

    def __init__(self, world: World, acquisition: Acquisition) -> None:
        self._world = world
        self._acquisition = acquisition
        self._flight: Flight | None = None
        self._until = 0.0
        self.began = self.ended = world.now
        self.served: Served | None = None
        self.error: BaseException | None = None
        self.done = False
        world._callers.append(self)
        self._go(lambda: next(acquisition))

    def _go(self, on: Callable[[], WaitFor]) -> None:
        try:
            self._flight, patience = on()
        except StopIteration as end:
            self.served = end.value
            self._end()
        except Exception as error:
            self.error = error
            self._end()
        else:
            self._until = self._world.now + patience
            self._world.call_at(self._until, lambda: None)

    def _end(self) -> None:
        self.done, self.ended = True, self._world.now
        self._world._callers.remove(self)

    def look(self) -> None:
        """Go on if the flight has landed or patience has run out."""
        while not self.done and self._flight is not None:
            outcome = self._flight.outcome
            if outcome is None and self._world.now < self._until:
                return
            self._go(lambda got=outcome: self._acquisition.send(got))  # type: ignore[misc]

    @property
    def took(self) -> float:
        return self.ended - self.began


@dataclass
class Call:
    """One request that reached the provider, or tried to."""

    at: float
    who: object
    answer: str
    retry_after: float | None = None
    ended: float = 0.0


@dataclass
class Provider:
    """An identity provider on a simulated wire: up, or one of the ways in which providers break."""

    world: World
    latency: float = 0.05
    life: float = 3600.0
    refresh_in: float | None = None
    retry_after: float = 60.0
    mode: str = "up"
    #: Periods in which another mode holds: begin, end, mode.
    dark: list[tuple[float, float, str]] = field(default_factory=list)
    ledger: list[Call] = field(default_factory=list)
    issued: int = 0
    under_way: dict[object, int] = field(default_factory=dict)
    #: Requests of one token that went out while another one of it was under way.
    overlaps: list[Call] = field(default_factory=list)

    def now_in(self) -> str:
        for begin, end, mode in self.dark:
            if begin <= self.world.now < end:
                return mode
        return self.mode

    def answer(self, who: object, ends: float) -> WireResponse:
        """Answer one request."""
        call = Call(self.world.now, who, self.now_in())
        self.ledger.append(call)
        self.under_way[who] = self.under_way.get(who, 0) + 1
        if self.under_way[who] > 1:
            self.overlaps.append(call)
        try:
            return self._answer(call, ends)
        finally:
            call.ended = self.world.now
            self.under_way[who] -= 1

    def _answer(self, call: Call, ends: float) -> WireResponse:
        if call.answer == "hang":
            self.world.sleep(max(0.0, ends - self.world.now))
            raise AttemptTimeout("no answer", authority=HOST)
        if call.answer == "refuse":
            self.world.sleep(0.001)
            error = ConnectionFailed("refused", authority=HOST)
            error.sent = False
            raise error
        self.world.sleep(self.latency)
        if call.answer == "503":
            return WireResponse(503, "<html>", {})
        if call.answer == "503 later":
            call.retry_after = self.retry_after
            return WireResponse(503, "<html>", {"retry-after": f"{self.retry_after:g}"})
        if call.answer == "html":
            return WireResponse(200, "<html>", {})
        if call.answer == "429":
            call.retry_after = self.retry_after
            return WireResponse(429, "{}", {"retry-after": f"{self.retry_after:g}"})
        if call.answer == "denies":
            return WireResponse(400, '{"error": "invalid_grant"}', {})
        assert call.answer == "up", call.answer
        self.issued += 1
        body = {"access_token": f"token {self.issued}", "expires_in": int(self.life), "token_type": "Bearer"}
        return WireResponse(200, json.dumps(body), {})

    def send_for(self, who: object) -> Any:
        """Be the wire of one client."""
        return _Wire(self, who)

    def failures(self) -> list[Call]:
        return [call for call in self.ledger if call.answer not in ("up", "denies")]


class _Wire:
    identity = WireIdentity("")

    def __init__(self, provider: Provider, who: object) -> None:
        self._provider = provider
        self._who = who

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        return self._provider.answer(self._who, ends)

    def close(self) -> None:
        pass


@dataclass
class Process:
    """One simulated process: its engine and memory, one cache entry, and the real transport over a simulated wire."""

    world: World
    provider: Provider
    engine: Engine
    memory: Memory
    entry: CacheEntry
    exchange: Exchange

    @classmethod
    def make(
        cls, world: World, provider: Provider, *, who: object = "app", jitter: Jitter = no_jitter, **settings: Any
    ) -> Process:
        engine = world.engine(jitter=jitter, **settings)
        memory = Memory(100, engine)
        request = TokenRequest(HOST, "app", "client_credentials", (f"scope of {who}",))
        entry = memory.entry(request, (HERE,))
        exchange = exchange_over(engine, provider, who)
        entry.renew = exchange
        return cls(world, provider, engine, memory, entry, exchange)

    def hold(self, *, age: float = 0.0, life: float = 3600.0, due: float | None = None) -> Token:
        """Have a token in hand."""
        due = life / 2 if due is None else due
        token = Token("held", "Bearer", self.world.wall() - age, self.world.now - age, life, due)
        self.memory.put(self.entry, token)
        return token

    def ask(self, **options: Any) -> Caller:
        """Ask for the token, as a caller."""
        return Caller(self.world, acquiring(self.engine, self.entry, self.exchange, **options))

    def keep_fresh(self) -> None:
        schedule.keep_fresh(self.engine, self.entry)


def exchange_over(engine: Engine, provider: Provider, who: object) -> Exchange:
    """Make the exchange that asks the provider through retry, breaker and cool-downs, as MSAL would."""
    transport = Transport(engine, provider.send_for(who), "app")

    def exchange(flight: Flight) -> Outcome:
        with ExchangeContext(flight.deadline, flight.earliest, flight=flight).under_way() as exchange_context:
            answer = transport.post(f"{HOST}/token", data={"grant_type": "client_credentials"})
        body = json.loads(answer.text)
        if "error" in body:
            return Outcome(result=body)
        assert exchange_context.sent_on is not None
        assert exchange_context.sent_at is not None
        life = float(body["expires_in"])
        due = due_after(life, provider.refresh_in, engine.settings.freshness, engine.jitter)
        return Outcome(
            Token(body["access_token"], "Bearer", exchange_context.sent_on, exchange_context.sent_at, life, due), body
        )

    return exchange


def seeded(seed: int) -> Jitter:
    """Make a jitter that is luck, but the same luck each time."""
    return random.Random(seed).uniform


def check_patience(calls: list[Call], *, floor: float = 5.0) -> None:
    """Assert that no call came within `floor` seconds after a failure's end, or inside of a Retry-After."""
    for one, following in itertools.pairwise(calls):
        if one.answer in ("up", "denies"):
            continue
        gap = following.at - one.ended
        wanted = one.retry_after if one.retry_after is not None else floor
        assert gap >= wanted - 1e-6, f"{following} came {gap:.2f} s after {one}"
