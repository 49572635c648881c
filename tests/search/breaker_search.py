"""Every interleaving, to a number of preemptions, of those who ask a provider through the real breakers.

Callers come, are refused, come back when they were told to, are let through, and learn after a while how it went. Each
step is one call of the package's own breakers; in between anybody may go on. A schedule lets a caller go on until they
wait; to let another one go first is a preemption.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from resilient_auth._policy.breaker import BreakerOptions
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.levels import Levels, Permits, ProviderRequest
from resilient_auth.errors import CircuitOpen
from resilient_auth.testing import ManualClock, no_jitter
from resilient_auth.token import TokenRequest

HOST = "https://login.example"
#: Seconds that an answer takes, and until which everybody healthy must have been served.
LATENCY, PATIENCE = 0.5, 120.0

#: A caller's life: yields the time until which they wait, None where they go on at once.
Life = Generator[float | None, None, None]


def request(tenant: str, scope: str, subject: str | None = None) -> ProviderRequest:
    """Ask for a token that is held."""
    endpoint = Endpoint(HOST, tenant)
    return ProviderRequest.of(
        TokenRequest(HOST, "app", "client_credentials", (scope,), subject), endpoint, Purpose.TOKEN
    )


def person(name: str, tenant: str = "t") -> ProviderRequest:
    """Sign in."""
    return ProviderRequest(Endpoint(HOST, tenant), client_id="app", grant="password", subject=name)


@dataclass
class Caller:
    """Somebody who wants one answer, or who asks for ever."""

    asked: ProviderRequest
    #: What the provider does at a time: "good", "500" or "refused".
    answers: Callable[[float], str]
    begins: float = 0.0
    #: Seconds after which they ask again, and so are no part of what must be served.
    every: float | None = None
    #: Whether nothing is known that could refuse them.
    at_once: bool = False
    served_at: float | None = None
    life: Life | None = None
    wakes: float = 0.0


class Broken(AssertionError):
    """A property doesn't hold."""


class World:
    """One run."""

    def __init__(self, callers: list[Caller]) -> None:
        self.clock = ManualClock()
        self.start = self.clock.monotonic()
        self.options = BreakerOptions()
        self.levels = Levels(self.options, clock=self.clock, jitter=no_jitter)
        self.callers = callers
        #: What is out, and when somebody has failed last.
        self.out: list[Permits] = []
        self.failed_at = -1.0
        for caller in callers:
            caller.life, caller.wakes, caller.served_at = self.live(caller), caller.begins, None

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.start

    def live(self, caller: Caller) -> Life:
        told: float | None = None
        told_at = 0.0
        while True:
            yield None
            try:
                leave = self.levels.admit(caller.asked)
            except CircuitOpen as error:
                if caller.at_once:
                    raise Broken(f"{caller.asked} was refused for others: {error}") from None
                wait = error.retry_after
                if wait is None or wait <= 0:
                    raise Broken(f"{caller.asked} was refused without a time") from None
                if told is not None and self.now >= told - 1e-6 and not self.out and self.failed_at <= told_at:
                    raise Broken(f"{caller.asked} came when told to, and was refused: {error}") from None
                told, told_at = self.now + wait, self.now
                yield told
                continue
            self.check_probes(leave)
            self.out.append(leave)
            yield self.now + LATENCY
            how = caller.answers(self.now)
            self.out.remove(leave)
            if how == "good":
                leave.success()
                caller.served_at = self.now
                if caller.every is None:
                    return
            else:
                leave.failure(how, of_host=how == "refused")
                self.failed_at = self.now
            told = None
            yield self.now + (caller.every or 5.0)

    def check_probes(self, leave: Permits) -> None:
        """No more probes are out than are allowed, of any breaker."""
        for breaker, _ in leave._permits:
            if not breaker.closed:
                probing = sum(breaker in dict(other._permits) for other in (*self.out, leave))
                if len(breaker._probes) > self.options.probes:
                    raise Broken(f"{probing} calls probe {breaker.dependency.name} at once")

    def enabled(self) -> list[int]:
        """Let time pass to when somebody may go on, and list who may; none where it is over."""
        waiting = [caller.wakes for caller in self.callers if caller.life is not None]
        if not waiting or all(c.served_at is not None for c in self.callers if c.every is None):
            return []
        soonest = min(waiting)
        if soonest > self.now:
            self.clock.advance(soonest - self.now + 1e-9)
        if self.now > PATIENCE:
            late = [caller.asked for caller in self.callers if caller.every is None and caller.served_at is None]
            raise Broken(f"never served within {PATIENCE:g} s: {late}")
        return [n for n, caller in enumerate(self.callers) if caller.life is not None and caller.wakes <= self.now]

    def step(self, number: int) -> None:
        """Let one caller make an action."""
        caller = self.callers[number]
        assert caller.life is not None
        try:
            wakes = next(caller.life)
        except StopIteration:
            caller.life = None
            return
        caller.wakes = self.now if wakes is None else wakes


def run(make: Callable[[], list[Caller]], choices: tuple[int, ...], preemptions: int) -> Iterator[tuple[int, ...]]:
    """Run one schedule, and yield those that part from it later, with the preemptions that are left."""
    world = World(make())
    made: list[int] = []
    current, used = -1, 0
    while enabled := world.enabled():
        usual = current if current in enabled else enabled[0]
        step = len(made)
        if step < len(choices):
            chosen = choices[step]
        else:
            chosen = usual
            for other in enabled:
                # Who goes first among those who come at the same time is free; to cut in on somebody is not.
                if other != usual and (current not in enabled or used < preemptions):
                    yield (*made, other)
        used += int(current in enabled and chosen != current)
        made.append(chosen)
        current = chosen
        world.step(chosen)


def search(make: Callable[[], list[Caller]], preemptions: int, most: int = 10**9) -> int:
    """Search, depth first; returns the number of schedules.

    Raises:
        Broken: With the schedule that breaks a property.
    """
    pending: list[tuple[int, ...]] = [()]
    seen = 0
    while pending and seen < most:
        choices = pending.pop()
        seen += 1
        try:
            pending.extend(run(make, choices, preemptions))
        except Broken as error:
            raise Broken(f"{error} (schedule {choices})") from error
    return seen


def never(_: float) -> str:
    return "500"


def always(_: float) -> str:
    return "good"


def dark(until: float, how: str) -> Callable[[float], str]:
    """Be gone until a time, and good from then on."""
    return lambda now: how if now < until else "good"


SCENES: dict[str, Callable[[], list[Caller]]] = {
    "one that always fails, and a person": lambda: [
        Caller(request("t", "broken"), never, every=5.0),
        Caller(request("t", "good"), always, begins=16.5, at_once=True),
        Caller(request("t", "better"), always, begins=16.5, at_once=True),
        Caller(person("ann"), always, begins=16.5, at_once=True),
    ],
    "three failing tenants and a fourth": lambda: [
        *(Caller(request(f"bad {n}", "s"), never, every=5.0) for n in range(3)),
        Caller(request("good", "s"), always, begins=1.0),
    ],
    "a provider that is gone": lambda: [
        Caller(request("t", "a"), dark(23.0, "refused"), every=5.0),
        Caller(request("t", "b"), dark(23.0, "refused"), begins=1.0),
        Caller(person("ann"), dark(23.0, "refused"), begins=12.0),
    ],
    "a provider that fails": lambda: [
        Caller(request("t", "s", subject), dark(19.0, "500"), begins=0.1 * n)
        for n, subject in enumerate(("ann", "bob", "cy", "dee"))
    ],
    "a stranger and a person": lambda: [
        Caller(person("stranger"), never, every=1.0),
        Caller(request("t", "a"), dark(9.0, "refused"), every=5.0),
        Caller(person("ann"), dark(9.0, "refused"), begins=2.0),
    ],
}


def whole() -> str:
    """Search all scenes to two preemptions; returns what was searched."""
    return ", ".join(f"{name}: {search(make, 2)} schedules" for name, make in SCENES.items())
