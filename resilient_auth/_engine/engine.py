"""What application objects with the same settings share: breakers, cool-downs, budgets, workers, timers, flights."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Hashable, Iterable
from functools import partial

import cachetools

from .._policy.blame.sightings import Sightings
from .._policy.breaker import Breaker
from .._policy.cooldown import Cooldowns
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.levels import Levels, ProviderRequest
from .._policy.retry import Budget
from .._process import forks
from ..errors import AcquisitionTimeout, ProviderUnavailable, Throttled
from ..events import CooldownStarted, emit
from ..settings import Settings
from .lanes import Job
from .shared import ALONE, Shared
from .single_flight import Flight, Flights, Outcome
from .timers import timers_of
from .workers import OWNERS_CODE, Workers

__all__ = ["Engine"]


class Engine:
    """Hold what exchanges share. Nothing in here does I/O.

    Args:
        settings: The policies.
        shared: What outlives this process, and what other processes tell.
    """

    def __init__(self, settings: Settings, shared: Shared = ALONE) -> None:
        self.settings = settings
        self.clock = settings.clock
        self.jitter = settings.jitter
        self.shared = shared
        #: Seconds that one exchange may take.
        self.deadline = settings.deadline
        self._begin()
        #: The breakers, by what fails together.
        self.levels = Levels(settings.breaker, clock=self.clock, jitter=self.jitter)
        #: What attempts showed of whose fault it is.
        self.sightings = Sightings(self.clock)
        self._budgets: cachetools.LRUCache[Endpoint, Budget] = cachetools.LRUCache(1024)
        self._cooldowns = Cooldowns(self.clock.monotonic, settings.retry.first_delay, settings.breaker.urgent_break[0])

    def _begin(self) -> None:
        """Begin with fresh threads, locks and flights: at first, and in a forked child."""
        self._lock = threading.Lock()
        self.timers = timers_of(self.clock)
        self.flights = Flights(self.clock)
        self.workers = Workers(
            per_lane=self.settings.workers_per_authority,
            queue=self.settings.queue_per_authority,
            now=self.clock.monotonic,
            wall=self.clock.wall,
            call_at=self.timers.call_at,
        )

    def breaker(self, endpoint: Endpoint, purpose: Purpose) -> Breaker:
        """Find the breaker around one provider as a whole, over one wire, for one purpose."""
        return self.levels.site(endpoint, purpose)

    def budget(self, site: Endpoint) -> Budget:
        """Find the retry budget of one provider as a whole, over one wire."""
        with self._lock:
            budget: Budget | None = self._budgets.get(site)
            if budget is None:
                budget = self._budgets[site] = Budget(self.settings.retry.budget)
            return budget

    def budgets(self) -> list[tuple[Endpoint, Budget]]:
        """List the retry budgets, with whose they are."""
        with self._lock:
            return list(self._budgets.items())

    def cool_down(self, asked: ProviderRequest, seconds: float) -> tuple[float, bool]:
        """Make this request no more until `seconds` have passed (G8); see `Cooldowns`.

        Returns:
            For how many seconds it isn't made, which is when a retry makes sense; and whether that holds for all of
            this application's requests there.
        """
        lasts, whole = self._cooldowns.begin(asked, seconds)
        emit(
            CooldownStarted(
                at=self.clock.wall(), authority=asked.endpoint.origin, purpose=asked.purpose.value, seconds=lasts
            )
        )
        return lasts, whole

    def answered(self, asked: ProviderRequest) -> None:
        """Note that a request was answered."""
        self._cooldowns.answered(asked)
        self.budget(asked.site).earn(asked.party)

    def cooldown_left(self, asked: ProviderRequest) -> float:
        """Return for how many seconds a cool-down lasts, for this application or for this request; 0 for none."""
        return self._cooldowns.left(asked)

    def check_cooldown(self, asked: ProviderRequest) -> None:
        """Raise `Throttled` while a cool-down lasts for this application as such, or for this request."""
        left = self._cooldowns.left(asked)
        if left > 0:
            raise _throttled(asked, left)

    def refusal(self, ways: Iterable[ProviderRequest]) -> ProviderUnavailable | None:
        """Return why no exchange should begin now: no authority that could answer may be asked."""
        refusal: ProviderUnavailable | None = None
        for asked in ways:
            try:
                if (left := self._cooldowns.left(asked)) > 0:
                    raise _throttled(asked, left)
                self.levels.check(asked)
            except ProviderUnavailable as error:
                if refusal is None or (error.retry_after or 0.0) < (refusal.retry_after or 0.0):
                    refusal = error
            else:
                return None
        return refusal

    def run(
        self,
        lane: str | Endpoint,
        job: Callable[[], None],
        flight: Flight | None = None,
        *,
        own: str | None = None,
        anyhow: bool = False,
    ) -> None:
        """Run a job on a worker, with the caller's context variables.

        Args:
            lane: What it shares places with; an endpoint for all that goes to that provider over that wire.
            job: What to do.
            flight: What waits for it: the job's time is over with the flight's, and it waits for no place where one
                that runs waits for it.
            own: The lane in place of the provider's where it calls the owner's code; that may hang, or ask in its turn
                what goes to the same provider.
            anyhow: Begin it though the flight's time is over.

        Raises:
            Overloaded: Too many wait there already, or haven't come back.
        """
        forks.notice()
        context = contextvars.copy_context()
        self.timers.revive()
        names = (own, OWNERS_CODE) if own is not None else (lane if isinstance(lane, str) else lane.lane,)
        if flight is None:
            work = Job(names, partial(context.run, job), ends=self.clock.monotonic() + self.deadline)
        else:
            late = None if anyhow else partial(self._too_late, flight, lane)
            work = Job(names, partial(context.run, job), ends=flight.deadline, late=late)
            flight.on_hurry = partial(self.workers.hurry, work)
            if flight.hurried:  # read after the other was set: whoever hurries does it the other way round
                work.hurried = True
        try:
            self.workers.take(work)
        except ProviderUnavailable as error:
            if isinstance(lane, Endpoint):
                error.authority = lane.origin
                if isinstance(error.__cause__, RuntimeError):  # the system has no thread to give
                    self.sightings.starved(lane)
            raise

    def join(self, key: Hashable, ends: float, lane: str, call: Callable[[Flight], None]) -> Flight:
        """Join the flight for a key, or begin one on a worker.

        Args:
            key: What it is for.
            ends: Monotonic time by which it should be over.
            lane: As for `run`.
            call: Lands the flight that it is given.
        """
        flight, mine = self.flights.join(key, ends)
        if mine:
            try:
                self.run(lane, partial(call, flight), flight)
            except ProviderUnavailable as error:
                self.flights.land(flight, Outcome(error=error))
        return flight

    def _too_late(self, flight: Flight, lane: str | Endpoint) -> None:
        """End a flight that got no worker in its time."""
        authority = lane.origin if isinstance(lane, Endpoint) else ""
        error = AcquisitionTimeout(f"deadline exceeded in the queue for {lane}", authority=authority)
        self.flights.land(flight, Outcome(error=error))

    def after_fork(self) -> None:
        """Make a forked child's engine usable: the parent's threads aren't there, nor are their flights."""
        self._begin()
        self._budgets = forks.rebuilt(self._budgets)
        self._cooldowns.after_fork()
        self.shared.after_fork()
        self.levels.after_fork()
        self.sightings.after_fork()
        for budget in self._budgets.values():
            budget.renew_lock()


def _throttled(asked: ProviderRequest, left: float) -> Throttled:
    return Throttled(
        f"{asked.endpoint} throttled this application; next request in {left:.0f} s",
        authority=asked.endpoint.origin,
        retry_after=left,
    )
