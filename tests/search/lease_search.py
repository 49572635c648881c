"""Every interleaving of a few processes that want one token, to so many preemptions: who ever asks at the same time?

The processes run the product's own code: `Coordinator.exchange`, the shared cache, the transport with its attempts and
back-offs. The store, the provider's wire and the clock are the model's. One process runs at a time; at each call to
the store another may go on in its place, or it may stall for longer than a lease, be killed, or lose its lease; the
provider may take until the last moment, fail, or never answer. Each of these is a choice, and all sequences of
choices are tried, with so many that cost something as the bounds allow.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resilient_auth._engine.cache import CacheEntry, Memory
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._fleet.accounts import SharedCache
from resilient_auth._fleet.coordination import Coordinator
from resilient_auth._fleet.engines import new_engine
from resilient_auth._fleet.records import Records
from resilient_auth._fleet.user_record import decode
from resilient_auth._policy.endpoint import Endpoint, WireIdentity
from resilient_auth._policy.failure import Purpose
from resilient_auth._wire.answers import WireResponse
from resilient_auth._wire.exchange_context import ExchangeContext
from resilient_auth._wire.http_client import Transport
from resilient_auth.errors import AttemptTimeout, ProviderUnavailable, StoreUnavailable
from resilient_auth.settings import Settings
from resilient_auth.store import ANY, NONE_READABLE, Lease, Record
from resilient_auth.token import Token, TokenRequest

HOST = "https://login.example"
WIRE = WireIdentity("search", fleet="search", verified=True)
REQUEST = TokenRequest(HOST, "app", "client_credentials", ("scope",))
#: Seconds that a process stalls for: longer than its lease.
STALL = 13.0


@dataclass(frozen=True)
class Bounds:
    """What a search goes through.

    Args:
        processes: How many want the token.
        preemptions: How often one gives way to another, or stalls, where it needn't.
        faults: How often the provider is slow or fails, a lease is lost, or its renewal isn't answered.
        deaths: How many are killed.
    """

    processes: int = 2
    preemptions: int = 2
    faults: int = 1
    deaths: int = 0


class Killed(BaseException):
    """This process is no more."""


class Choices:
    """The choices of one run: those given, and the first of each from then on."""

    def __init__(self, given: Sequence[int]) -> None:
        self._given = given
        #: For each choice that was made, which, and of how many.
        self.made: list[tuple[int, int]] = []

    def among(self, options: int) -> int:
        if options == 1:
            return 0
        at = len(self.made)
        chosen = self._given[at] if at < len(self._given) else 0
        self.made.append((chosen, options))
        return chosen

    def next(self) -> list[int] | None:
        """The choices of the next run; None after the last one."""
        made = list(self.made)
        while made and made[-1][0] + 1 == made[-1][1]:
            made.pop()
        return [*(chosen for chosen, _ in made[:-1]), made[-1][0] + 1] if made else None


class Process:
    """A process that wants the token."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.go = threading.Semaphore(0)
        #: Monotonic time until which it waits.
        self.wake = 0.0
        self.dead = self.done = False
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        self.go.acquire()
        try:
            self.outcome = self._ask()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        self.world.hand_on(self)

    def _ask(self) -> Outcome:
        world = self.world
        # Each with a pace of its own: two that always came at the same moment would double the runs each time.
        pace = 0.4 + 0.07 * self.number
        settings = Settings(clock=world, jitter=lambda low, high: low + (high - low) * pace, store=world.store)
        engine = new_engine(settings)
        memory = Memory(10, engine)
        entry = CacheEntry(REQUEST, (Endpoint(HOST, "", WIRE),), Purpose.TOKEN, memory=memory)
        records = engine.shared
        assert isinstance(records, Records)
        owner = _Owner()
        shared_cache = SharedCache(engine, records, "app", None, owner)
        transport = Transport(engine, world.wire, "app")

        def exchange(flight: Flight) -> Outcome:
            if world.may("faults", ["waits for a document"]):
                world.sleep(engine.settings.attempt_timeout)
            with ExchangeContext(flight.deadline, flight.earliest, flight=flight).under_way() as exchange_context:
                answer = transport.post(f"{HOST}/token", data={"grant_type": "client_credentials"})
            assert exchange_context.sent_on is not None
            assert exchange_context.sent_at is not None
            body = json.loads(answer.text)
            token = Token(
                body["access_token"], "Bearer", exchange_context.sent_on, exchange_context.sent_at, 3600.0, 1800.0
            )
            return Outcome(token, body)

        flight = Flight("token", world.monotonic() + engine.settings.deadline, world)
        return Coordinator(engine, shared_cache).exchange(entry, exchange, reuse=True)(flight)


class _Owner:
    """An application that has no users."""

    def put_back(self, msal_entries: Any, gone: Any) -> None: ...

    def forgotten(self, subject: str | None) -> None: ...

    def entries(self, subject: str) -> Mapping[Any, Any]:
        return {}

    def owns(self, kind: str, msal_entry: Any) -> bool:
        return True

    def evict(self, subject: str) -> bool:
        return True


@dataclass
class World:
    """Clock, store and provider of one run."""

    bounds: Bounds
    choices: Choices
    now: float = 1_000.0
    processes: list[Process] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: What happened, for who reads of a problem.
    story: list[str] = field(default_factory=list)
    #: When each request came to the provider, and when it was over.
    requests: list[tuple[float, float]] = field(default_factory=list)
    #: Whether the provider has failed: then others are told so, too.
    failed: bool = False

    def __post_init__(self) -> None:
        self.store, self.wire = Store(self), Wire(self)
        bounds = self.bounds
        self._left = {"preemptions": bounds.preemptions, "faults": bounds.faults, "deaths": bounds.deaths}
        self._over = threading.Event()

    def run(self) -> None:
        self.processes = [Process(self, number) for number in range(self.bounds.processes)]
        for process in self.processes:
            process.thread.start()
        self.current = self.processes[0]
        self.current.go.release()
        if not self._over.wait(60.0):
            self.problems.append("it never ends")

    # the clock

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1_700_000_000.0

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        assert timeout is not None
        condition.release()
        try:
            self.sleep(timeout)
        finally:
            condition.acquire()
        return True

    def sleep(self, seconds: float) -> None:
        me = self.current
        me.wake = self.now + seconds
        self._give_way(me)

    # who goes on

    def may(self, what: str, options: Sequence[str]) -> str:
        """Choose one of these, which cost one of what is left of this kind; or none, which is free."""
        if not self._left[what] or not options:
            return ""
        chosen = self.choices.among(len(options) + 1)
        if not chosen:
            return ""
        self._left[what] -= 1
        self.tell(options[chosen - 1])
        return options[chosen - 1]

    def tell(self, what: str) -> None:
        self.story.append(f"{self.now:8.2f} {self.current.number} {what}")

    def point(self, what: str) -> None:
        """Reach a call to the store."""
        me = self.current
        if me.dead:
            raise Killed
        others = [p for p in self.processes if p is not me and not p.done]
        match self.may("preemptions", ["gives way", "stalls"] if others else []):
            case "gives way":
                self._give_way(me, other=True)
            case "stalls":
                self.sleep(STALL)
        if self.may("deaths", ["is killed"]):
            me.dead = True
            raise Killed
        self.tell(what)

    def hand_on(self, me: Process) -> None:
        """Let another one go on, at this one's end."""
        following = self._following(me)
        if following is None:
            self._over.set()
        else:
            self.current = following
            following.go.release()

    def _give_way(self, me: Process, *, other: bool = False) -> None:
        following = self._following(me, other=other)
        if following is not None and following is not me:
            self.current = following
            following.go.release()
            me.go.acquire()

    def _following(self, me: Process, *, other: bool = False) -> Process | None:
        living = [p for p in self.processes if not p.done and not (other and p is me)]
        if not living:
            return None
        ready = [p for p in living if p.wake <= self.now]
        if not ready:
            self.now = min(p.wake for p in living)
            ready = [p for p in living if p.wake <= self.now]
        return ready[self.choices.among(len(ready))]


class Store:
    """A store whose calls are where others may go on."""

    label = "model"

    def __init__(self, world: World) -> None:
        self._world = world
        self._records: dict[tuple[str, str], tuple[bytes, str, float]] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._numbers = 0
        #: Of what is written, that of the latest lease.
        self._fence = 0

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def read(self, kind: str, name: str) -> Record | None:
        return self.read_many([(kind, name)])[0]

    def read_many(self, wanted: Sequence[tuple[str, str]]) -> list[Record | None]:
        if wanted:
            self._world.point("reads")
        found = [(each, self._records.get(each)) for each in wanted]
        alive = self._world.now
        return [
            None if record is None or record[2] <= alive else Record(*each, record[0], record[1])
            for each, record in found
        ]

    def write(self, kind: str, name: str, value: bytes, *, ttl: float, expected: Any = ANY) -> str | None:
        self._world.point(f"writes {kind}")
        there = self._records.get((kind, name))
        wanted = None if expected is NONE_READABLE else expected
        if wanted is not ANY and wanted != (None if there is None else there[1]):
            return None
        if kind == "application":
            user_record = decode(value, "", name)
            assert user_record is not None
            fence = max((token.fence for token in user_record.tokens.values()), default=0)
            if fence < self._fence:
                self._world.problems.append("a late write took the place of a later one")
            self._fence = fence
        version = str(self._number())
        self._records[kind, name] = (value, version, self._world.now + ttl)
        return version

    def erase(self, kind: str, name: str, *, expected: Any = ANY) -> bool:
        self._world.point(f"erases {kind}")
        return self._records.pop((kind, name), None) is not None

    def scan(self, kind: str) -> Iterator[Record]:
        return iter(())

    def lease(self, name: str, seconds: float) -> Lease | None:
        world = self._world
        world.point("takes a lease")
        _, ends = self._leases.get(name, ("", 0.0))
        if ends > world.now:
            return None
        number = self._number()
        self._leases[name] = (str(number), world.now + seconds)
        return Lease(name, str(number), number, world.now + seconds)

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        world = self._world
        world.point("renews")
        match world.may("faults", ["loses its lease", "has no answer", "has no answer, and is renewed"]):
            case "loses its lease":
                if self._leases.get(lease.name, ("", 0.0))[0] == lease.holder:
                    del self._leases[lease.name]
            case "has no answer":
                raise StoreUnavailable(self.label, "timeout", "")
            case "has no answer, and is renewed":
                self._renew(lease, seconds)
                raise StoreUnavailable(self.label, "timeout", "")
        return self._renew(lease, seconds)

    def _renew(self, lease: Lease, seconds: float) -> Lease | None:
        now = self._world.now
        holder, ends = self._leases.get(lease.name, ("", 0.0))
        if holder != lease.holder or ends <= now:
            return None
        self._leases[lease.name] = (holder, now + seconds)
        return Lease(lease.name, holder, lease.fence, now + seconds)

    def release(self, lease: Lease) -> None:
        self._world.point("releases")
        if self._leases.get(lease.name, ("", 0.0))[0] == lease.holder:
            del self._leases[lease.name]

    def longest_lease(self) -> float:
        """For how long a lease holds from now that nobody has ended."""
        return max((ends - self._world.now for _, ends in self._leases.values()), default=0.0)

    def close(self) -> None: ...


class Wire:
    """The provider, which sees how many ask at the same time."""

    identity = WIRE

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        world = self._world
        begun, most = world.now, ends - world.now
        slow = ["is answered at last", "is answered 503 at last", "isn't answered"]
        how = world.may("faults", [*slow, "is answered 503"])
        takes = most if how in slow else 0.05
        if any(start <= begun < end for start, end in world.requests):
            world.problems.append("two exchanges at once")
        world.requests.append((begun, begun + takes))
        world.tell(f"asks for {takes:g} s")
        world.sleep(takes)
        world.failed |= how not in ("", "is answered at last")
        if how == "isn't answered":
            raise AttemptTimeout("no answer", authority=HOST)
        if "503" in how:
            return WireResponse(503, "{}", {})
        body = {"access_token": f"token {len(world.requests)}", "expires_in": 3600, "token_type": "Bearer"}
        return WireResponse(200, json.dumps(body), {})

    def close(self) -> None: ...


def _judge(world: World) -> None:
    """Add what is wrong with how a run ended."""
    mishaps = world.bounds.faults + world.bounds.preemptions + world.bounds.deaths
    for process in world.processes:
        if process.dead:
            continue
        refused = process.outcome is not None and process.outcome.refused
        if process.outcome is None and not isinstance(process.error, ProviderUnavailable):
            world.problems.append(f"{process.number} ends with {process.error!r}")
        # Each mishap takes a lease's life at most, and there is time for two of them.
        token = process.outcome is not None and process.outcome.token is not None
        if refused and not world.failed:
            world.problems.append(f"{process.number} was told of a failure that there wasn't")
        if not token and not world.failed and mishaps <= 2:
            world.problems.append(f"{process.number} has no token: {process.error!r}")
    if world.store.longest_lease() > STALL:
        world.problems.append("a lease holds that nobody would wait for")


def search(bounds: Bounds) -> int:
    """Make every run that the bounds allow, and return how many there were.

    Raises:
        AssertionError: One of them went wrong; its story is in there.
    """
    made = 0
    given: list[int] | None = []
    while given is not None:
        world = World(bounds, Choices(given))
        world.run()
        _judge(world)
        assert not world.problems, "\n".join([*world.problems, *world.story])
        made += 1
        given = world.choices.next()
    return made


#: In seconds, for each run of the tests.
SHORT = (
    Bounds(preemptions=2, faults=0),
    Bounds(preemptions=1, faults=1),
    Bounds(preemptions=0, faults=2),
    Bounds(preemptions=1, faults=0, deaths=1),
    Bounds(processes=3, preemptions=1, faults=0),
)
#: In minutes, by `make search`.
WHOLE = (
    Bounds(preemptions=2, faults=1),
    Bounds(preemptions=2, faults=0, deaths=1),
    Bounds(preemptions=1, faults=2),
    Bounds(preemptions=0, faults=4),
    Bounds(preemptions=1, faults=1, deaths=1),
    Bounds(processes=3, preemptions=2, faults=0),
    Bounds(processes=3, preemptions=1, faults=1),
)


def whole() -> str:
    """Search to all bounds, and say what was gone through."""
    return f"{sum(map(search, WHOLE))} interleavings of processes that want one token"
