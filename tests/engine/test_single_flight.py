"""One exchange for all: how a flight lands, and who is told."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from flow_bench import Threads, until

from resilient_auth._engine.single_flight import Flight, Flights, Outcome
from resilient_auth.clock import SystemClock
from resilient_auth.testing import ManualClock


class TestOutcome:
    def test_a_denial_is_a_mapping_with_an_error(self) -> None:
        """Nothing else is one."""
        assert Outcome(result={"error": "invalid_grant"}).denied
        for result in (None, {}, {"access_token": "t"}, "error", ["error"]):
            assert not Outcome(result=result).denied


class TestFlight:
    def test_the_first_outcome_counts(self) -> None:
        """A second one changes nothing."""
        flight = Flight("key", 1e9, ManualClock())
        first = Outcome(result=1)
        flight.land(first)
        flight.land(Outcome(result=2))
        assert flight.outcome is first
        assert flight.wait(0.0) is first

    def test_who_waits_for_no_time_is_told_at_once(self) -> None:
        """Nothing yet."""
        assert Flight("key", 1e9, ManualClock()).wait(0.0) is None
        assert Flight("key", 1e9, ManualClock()).wait(-1.0) is None

    def test_all_threads_are_woken(self) -> None:
        """On the machine's own clock, and at once."""
        flight, outcome = Flight("key", 1e9, SystemClock()), Outcome(result=1)
        crowd = Threads(100, lambda: flight.wait(20.0))
        time.sleep(0.05)
        began = time.monotonic()
        flight.land(outcome)
        crowd.join()
        assert time.monotonic() - began < 5.0
        assert crowd.got == [outcome] * 100

    async def test_all_tasks_are_woken_from_a_thread(self) -> None:
        """Across loops, without polling."""
        flight, outcome = Flight("key", 1e9, SystemClock()), Outcome(result=1)
        tasks = [asyncio.create_task(flight.wait_async(20.0)) for _ in range(400)]
        await asyncio.sleep(0)
        threading.Thread(target=flight.land, args=(outcome,)).start()
        assert await asyncio.gather(*tasks) == [outcome] * 400

    async def test_a_task_that_comes_late_is_told_at_once(self) -> None:
        """Without giving way to the loop."""
        flight, outcome = Flight("key", 1e9, SystemClock()), Outcome(result=1)
        flight.land(outcome)
        waiting = flight.wait_async(20.0)
        with pytest.raises(StopIteration) as end:
            waiting.send(None)
        assert end.value.value is outcome

    async def test_a_task_whose_time_runs_out_leaves_no_callback(self) -> None:
        """And is told that there is nothing yet."""
        flight = Flight("key", 1e9, SystemClock())
        assert await flight.wait_async(0.01) is None
        assert await flight.wait_async(0.0) is None
        assert flight._callbacks == {}

    async def test_landing_and_giving_up_at_the_same_moment(self) -> None:
        """Whichever comes first, nothing is lost and nothing breaks."""
        for n in range(50):
            flight, outcome = Flight(n, 1e9, SystemClock()), Outcome(result=n)
            tasks = [asyncio.create_task(flight.wait_async(0.001)) for _ in range(10)]
            await asyncio.sleep(0.001)
            thread = threading.Thread(target=flight.land, args=(outcome,))
            thread.start()
            got = await asyncio.gather(*tasks)
            thread.join()
            assert all(one in (None, outcome) for one in got)
            assert await flight.wait_async(1.0) is outcome

    def test_a_wait_on_a_manual_clock_ends_with_its_time(self) -> None:
        """The clock that is injected counts."""
        clock = ManualClock()
        flight = Flight("key", 1e9, clock)
        caller = Threads(1, lambda: flight.wait(60.0))
        time.sleep(0.02)
        clock.advance(59.0)
        time.sleep(0.08)
        assert caller.done() == 0
        clock.advance(1.1)
        caller.join()
        assert caller.got == [None]


class TestFlights:
    def test_one_of_a_crowd_begins_it(self) -> None:
        """All others join."""
        flights = Flights(ManualClock())
        crowd = Threads(200, lambda: flights.join("key", 1e9))
        crowd.join()
        assert sum(mine for _, mine in crowd.got) == 1
        assert len({id(flight) for flight, _ in crowd.got}) == 1

    def test_each_key_has_its_own(self) -> None:
        """Nobody waits for another's."""
        flights = Flights(ManualClock())
        assert flights.join("a", 1e9)[1]
        assert flights.join("b", 1e9)[1]

    def test_after_its_end_a_new_one_begins(self) -> None:
        """And ending it twice is harmless."""
        flights = Flights(ManualClock())
        first, _ = flights.join("key", 1e9)
        flights.end(first)
        flights.end(first)
        second, mine = flights.join("key", 1e9)
        assert mine
        assert second is not first

    def test_one_that_landed_isnt_joined(self) -> None:
        """Though nobody has ended it yet."""
        flights = Flights(ManualClock())
        first, _ = flights.join("key", 1e9)
        first.land(Outcome())
        assert flights.find("key") is None
        assert flights.join("key", 1e9)[1]

    def test_one_that_is_overdue_is_replaced(self) -> None:
        """Its own late end doesn't take the new one away."""
        clock = ManualClock()
        flights = Flights(clock)
        first, _ = flights.join("key", clock.monotonic() + 30.0)
        clock.advance(29.9)
        assert flights.find("key") is first
        clock.advance(0.2)
        second, mine = flights.join("key", clock.monotonic() + 30.0)
        assert mine
        flights.end(first)
        assert flights.find("key") is second


def test_no_flight_is_left_when_all_is_over() -> None:
    """The table is empty again."""
    flights = Flights(SystemClock())

    def fly(n: int) -> None:
        flight, mine = flights.join(n % 5, 1e9)
        if mine:
            flights.end(flight)
            flight.land(Outcome())
        else:
            flight.wait(5.0)

    threads = [threading.Thread(target=fly, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: not flights._flights)


class LooseClock:
    """A clock of an owner's that knows nothing of tasks."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, timeout: float | None) -> bool:
        return condition.wait(0.02)


@pytest.mark.parametrize("kind", [ManualClock, LooseClock])
async def test_a_task_waits_by_the_clock_that_is_injected(kind: type[Any]) -> None:
    """Real time alone ends no wait, and the clock's does."""
    clock = kind()
    flight = Flight("key", 1e9, clock)
    task = asyncio.create_task(flight.wait_async(0.1))
    await asyncio.sleep(0.3)
    assert not task.done()
    if isinstance(clock, LooseClock):
        clock.now += 0.2
    else:
        clock.advance(0.2)
    assert await asyncio.wait_for(task, 5.0) is None
    assert flight._callbacks == {}


@pytest.mark.parametrize("kind", [ManualClock, LooseClock])
async def test_a_task_is_woken_by_the_landing_on_any_clock(kind: type[Any]) -> None:
    """Without its moving."""
    flight, outcome = Flight("key", 1e9, kind()), Outcome(result=1)
    task = asyncio.create_task(flight.wait_async(20.0))
    await asyncio.sleep(0.01)
    flight.land(outcome)
    assert await asyncio.wait_for(task, 5.0) is outcome
