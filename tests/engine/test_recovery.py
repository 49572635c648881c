"""Refresh ahead of need and after an outage, with nobody asking, in a world whose time passes in steps."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import pytest
from flow_bench import Bench, until
from flow_world import HERE, HOST, Caller, Process, Provider, World, check_patience, exchange_over, seeded

from resilient_auth._engine import recovery, schedule
from resilient_auth._engine.acquire import acquiring
from resilient_auth._engine.cache import CacheEntry
from resilient_auth._engine.single_flight import Flight, Outcome
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.retry import RetryOptions
from resilient_auth.errors import ServerFailed
from resilient_auth.events import RefreshScheduled, TokenAcquired
from resilient_auth.testing import capture_events
from resilient_auth.token import Token, TokenRequest


def make(mode: str = "up", **options: object) -> tuple[World, Provider, Process]:
    world = World()
    provider = Provider(world, mode=mode)
    return world, provider, Process.make(world, provider, **options)


class TestKeepFresh:
    def test_a_pinned_token_is_had_at_once(self) -> None:
        """With nobody asking."""
        world, provider, process = make()
        process.keep_fresh()
        world.advance(1.0)
        assert process.entry.token is not None
        assert len(provider.ledger) == 1

    def test_it_is_refreshed_ahead_for_ever(self) -> None:
        """A day without traffic: never under half of its life, never more often than needed."""
        world, provider, process = make(jitter=seeded(1))
        process.keep_fresh()
        world.advance(5.0)
        for _ in range(24 * 60):
            world.advance(60.0)
            token = process.entry.token
            assert token is not None
            assert token.remaining(world.wall(), world.now) > 0.4 * token.life
        assert 40 <= len(provider.ledger) <= 56

    def test_a_fleet_that_started_together_spreads(self) -> None:
        """By five hundredths of the life beyond what is due, where the provider says when (G5)."""
        world = World()
        provider = Provider(world, refresh_in=1800.0)
        fleet: list[Process] = []
        for n in range(100):
            fleet.append(Process.make(world, provider, who=n, jitter=seeded(n)))
            fleet[-1].keep_fresh()
        world.advance(1790.0)
        assert len(provider.ledger) == 100
        world.advance(250.0)
        times = [call.at for call in provider.ledger[100:]]
        assert len(times) == 100
        assert max(sum(1 for t in times if s <= t < s + 1.0) for s in times) <= 8

    def test_what_traffic_has_refreshed_isnt_refreshed_again(self) -> None:
        """The timer looks first."""
        world, provider, process = make()
        process.keep_fresh()
        world.advance(1850.0)
        process.ask()
        world.advance(1.0)
        made = len(provider.ledger)
        world.advance(1000.0)
        assert len(provider.ledger) == made == 2

    @pytest.mark.parametrize("uptime", [7.1, 0.3, 1234.56789])
    def test_a_timer_that_comes_at_exactly_its_time_isnt_set_again_and_again(self, uptime: float) -> None:
        """Though the sum of when it came and when it is due may lie a little behind the clock, or before it."""
        world, provider, process = make(jitter=lambda low, high: low)
        world.advance(uptime)
        token = process.hold(life=600.0, due=0.1 + 0.2)
        process.entry.reschedule = schedule.schedule
        with capture_events() as events:
            # The clock stands where the timer was set for, and the token's age is a little less than due.
            world.now = token.obtained_at + token.due_after - 1e-9
            schedule._refresh_if_due(process.engine, process.entry)
            world.advance(5.0)
            events.wait_for(TokenAcquired)
        assert len(provider.ledger) == 1
        assert all(event.seconds > 1.0 for event in events.of(RefreshScheduled))

    def test_after_a_failure_it_is_tried_again_without_traffic(self) -> None:
        """With the back-off, until the provider is back; then the old pace holds again."""
        world, provider, process = make(jitter=seeded(3))
        process.keep_fresh()
        world.advance(1.0)
        provider.dark = [(world.now + 1000.0, world.now + 2400.0, "503")]
        world.advance(2400.0)
        check_patience(provider.ledger)
        tried = len(provider.failures())
        assert 5 <= tried <= 40
        world.advance(70.0)
        assert provider.ledger[-1].answer == "up"
        made = len(provider.ledger)
        world.advance(1500.0)
        assert len(provider.ledger) == made

    def test_after_a_denial_it_is_asked_again_each_minute(self) -> None:
        """Somebody may put it right."""
        world, provider, process = make("denies")
        process.keep_fresh()
        world.advance(1.0)
        assert len(provider.ledger) == 1
        world.advance(58.0)
        assert len(provider.ledger) == 1
        world.advance(182.0)
        assert len(provider.ledger) == 5
        provider.mode = "up"
        world.advance(61.0)
        assert process.entry.token is not None

    def test_released_it_is_left_alone(self) -> None:
        """Nothing is to come for it any more."""
        world, provider, process = make()
        process.keep_fresh()
        world.advance(1.0)
        schedule.release(process.entry)
        world.advance(10_000.0)
        assert len(provider.ledger) == 1

    def test_a_wall_clock_set_ahead_costs_nothing(self) -> None:
        """Two hours ahead in an outage, a token with 50 minutes left is served for as long."""
        world, provider, process = make()
        process.keep_fresh()
        world.advance(600.0)
        provider.mode = "refuse"
        world.jump(7200.0)
        for _ in range(10):
            caller = process.ask()
            assert caller.served is not None
            assert caller.served.token is not None
            world.advance(299.0)
        assert process.entry.token is not None

    def test_a_wall_clock_set_back_keeps_the_pace(self) -> None:
        """The monotonic clock counts."""
        world, provider, process = make()
        process.keep_fresh()
        world.advance(1.0)
        world.jump(-86_400.0)
        world.advance(1900.0)
        assert len(provider.ledger) == 2

    def test_its_plan_is_told(self) -> None:
        """With the delay."""
        world, _, process = make()
        with capture_events() as events:
            process.keep_fresh()
            world.advance(1.0)
            told = events.wait_for(RefreshScheduled, count=2)
        assert told[0].seconds == 0.0
        assert 1800.0 <= told[1].seconds <= 1980.0

    def test_an_exchange_that_never_returns_is_replaced(self) -> None:
        """Past its deadline another one begins, with nobody asking."""
        world, provider, process = make()
        good = process.exchange
        hung: list[bool] = []

        def exchange(flight: Flight) -> Outcome:
            if not hung:
                hung.append(True)
                world.sleep(1e6)
            return good(flight)

        process.entry.renew = exchange
        process.keep_fresh()
        world.advance(600.0)
        assert len(provider.ledger) == 1


class TestRecovery:
    def test_it_is_probed_when_the_break_ends_with_nobody_asking(self) -> None:
        """One request found the token due and the provider down; the rest happens by itself."""
        world, provider, process = make("503", jitter=seeded(1))
        process.hold(age=1850.0)
        process.ask()
        world.advance(120.0)
        check_patience(provider.ledger)
        levels, asked = process.engine.levels, process.entry.ways[0]
        retry_at = levels.opens_at(asked)
        assert retry_at is not None
        made = len(provider.ledger)
        provider.mode = "up"
        world.until(retry_at - 0.01)
        assert len(provider.ledger) == made
        world.until(retry_at + 0.1)
        assert len(provider.ledger) == made + 1
        assert process.entry.token is not None
        assert process.entry.token.secret == "token 1"
        assert levels.closed(asked)

    def test_one_probe_goes_out_for_many_tokens(self) -> None:
        """Twenty wait; one asks, the neediest one's."""
        world, provider, process = make("503", jitter=seeded(2))
        entries = []
        for n in range(20):
            other = _slot(process, n)
            process.memory.put(other, process.hold(age=1850.0 + n))
            entries.append(other)
            _ask(world, process, other)
        world.advance(100.0)
        asked = len(provider.ledger)
        world.advance(300.0)
        probes = provider.ledger[asked:]
        assert probes
        for one, following in pairwise(probes):
            assert following.at - one.ended >= 5.0

    def test_when_a_token_is_gone_breaks_get_short(self) -> None:
        """No more than 9.5 s, so that the first fresh token comes within ten (and no less than 5)."""
        world, provider, process = make("503", jitter=seeded(3))
        process.hold(age=3000.0)
        process.ask()
        world.advance(599.0)
        long = [b.at - a.ended for a, b in pairwise(provider.ledger[-3:])]
        assert max(long) > 20.0
        world.advance(1.0)
        made = len(provider.ledger)
        process.ask()
        world.advance(300.0)
        gaps = [b.at - a.ended for a, b in pairwise(provider.ledger[made:])]
        assert gaps
        assert min(gaps) >= 5.0
        assert max(gaps) <= 9.6

    def test_a_token_that_goes_dark_unasked_is_noticed(self) -> None:
        """Breaks get short at that moment, not at the next request."""
        world, provider, process = make("503", jitter=seeded(4))
        process.hold(age=3000.0)
        process.keep_fresh()
        world.advance(900.0)
        late = [call.at for call in provider.ledger if call.at > 1_000.0 + 620.0]
        assert len(late) >= 20
        assert max(b - a for a, b in pairwise(late)) <= 10.0

    def test_when_it_is_back_tokens_that_are_gone_come_at_once(self) -> None:
        """An answer to one wakes all that have nothing; those with something wait for their next request."""
        world, provider, process = make("503", jitter=seeded(5))
        process.hold(age=1850.0)
        process.ask()
        gone = []
        for n in range(5):
            entry = _slot(process, n)
            _ask(world, process, entry)
            gone.append(entry)
        world.advance(200.0)
        provider.mode = "up"
        world.advance(10.0)
        assert not provider.overlaps
        assert all(entry.token is not None for entry in gone)

    def test_a_nearer_darkness_is_seen_while_a_calm_timer_runs(self) -> None:
        """A second token that fails later and ends sooner gets short breaks from its end on, unasked."""
        world, provider, process = make("503", jitter=seeded(13))
        process.hold(age=1850.0)
        process.ask()
        world.advance(60.0)
        sooner = _slot(process, 1)
        life = 400.0
        process.memory.put(sooner, Token("held too", "Bearer", world.wall(), world.now, life, 0.0))
        _ask(world, process, sooner)
        ends = world.now + life
        world.until(ends + 120.0)
        late = [call.at for call in provider.ledger if call.who == 1 and call.at > ends - 0.001]
        assert late[0] <= ends + 10.0
        assert max(b - a for a, b in pairwise(late)) <= 10.0

    def test_who_was_tried_longest_ago_goes_first(self) -> None:
        """Of many that wait for the same breaker each is tried, though one of them is always the neediest."""
        world, provider, process = make("503", jitter=seeded(14))
        for n in range(6):
            _ask(world, process, _slot(process, n))
        world.advance(400.0)
        tried = [call.who for call in provider.ledger[-12:]]
        assert set(tried) == set(range(6))

    def test_a_monotonic_clock_that_is_set_back_stops_nothing(self) -> None:
        """As where a machine is restored: the next attempt comes as soon as it would have."""
        world, provider, process = make("up")
        process.entry.rest(10.0, world.now)
        process.entry.failed_at = world.now
        world.now -= 900.0
        assert process.entry.rest_left(world.now) <= 10.0
        process.ask()
        world.advance(5.2)
        assert provider.issued == 1
        process.entry.rest(10.0, world.now + 900.0)
        assert process.entry.rest_left(world.now) <= 10.0
        world.advance(10.1)
        assert process.entry.rest_left(world.now) == 0.0

    def test_nobody_asks_for_what_nobody_wants(self) -> None:
        """Fifteen minutes after the last request the attempts end."""
        world, provider, process = make("503", jitter=seeded(6))
        process.ask()
        world.advance(900.0)
        made = len(provider.ledger)
        assert made > 60
        world.advance(3600.0)
        assert len(provider.ledger) <= made + 2

    def test_an_impatient_caller_cant_make_it_hurry(self) -> None:
        """Asked each half second for a token that is gone, it keeps to 5 s after a failure before the breaker opens."""
        world, provider, process = make("503", jitter=seeded(12), retry=RetryOptions(attempts=1))
        process.entry.renew = None
        for _ in range(120):
            process.ask()
            world.advance(0.5)
        assert len(provider.ledger) >= 5
        check_patience(provider.ledger)

    def test_what_cant_be_asked_again_isnt(self) -> None:
        """Without a way to renew it, a token waits for its next request."""
        world, provider, process = make("503")
        process.entry.renew = None
        process.ask()
        world.advance(600.0)
        assert len(provider.ledger) <= 3

    @pytest.mark.parametrize("mode", ["429", "503 later"])
    def test_nothing_goes_out_inside_of_a_retry_after(self, mode: str) -> None:
        """With traffic all the while, for a token that is gone and for one that is due (G8, G9)."""
        for age in (1850.0, 4000.0):
            world, provider, process = make(mode, jitter=seeded(7))
            provider.retry_after = 90.0
            process.hold(age=age)
            for _ in range(600):
                process.ask()
                world.advance(1.0)
            check_patience(provider.ledger)
            assert 5 <= len(provider.ledger) <= 8
            assert world.entries < 2000, "somebody turns in a circle"

    def test_after_a_retry_after_the_first_token_comes_soon(self) -> None:
        """With a caller who asks now and then, within ten seconds of the moment when it may be had."""
        world, provider, process = make("429", jitter=seeded(8))
        process.ask()
        world.advance(0.5)
        provider.mode = "up"
        callers = []
        for _ in range(80):
            callers.append(process.ask())
            world.advance(1.0)
        first = next(caller for caller in callers if caller.served is not None)
        assert provider.ledger[0].answer == "429"
        assert 60.0 <= first.ended - 1_000.0 <= 70.0

    def test_closing_ends_it(self) -> None:
        """What an application object's close() does stops its probes, and no other's."""
        world, provider, process = make("503", jitter=seeded(9))
        other = Process.make(world, provider, who="other", jitter=seeded(10))
        for one in (process, other):
            one.keep_fresh()
        world.advance(100.0)
        for entry in process.memory:
            schedule.release(entry)
            entry.renew = None
        process.memory.drop_all("closed")
        provider.ledger.clear()
        world.advance(300.0)
        assert {call.who for call in provider.ledger} == {"other"}

    @pytest.mark.parametrize("mode", ["503", "up"])
    @pytest.mark.parametrize("pinned", [False, True])
    def test_a_dropped_application_is_collected_while_it_waits(self, mode: str, pinned: bool) -> None:
        """Timers and recoveries know it weakly; nothing is asked for it any more."""
        world, provider, process = make(mode, jitter=seeded(11))
        if pinned:
            process.keep_fresh()
        else:
            process.ask()
        world.advance(100.0)
        engine, memory, entry = process.engine, weakref.ref(process.memory), weakref.ref(process.entry)
        del process
        gc.collect()
        assert memory() is None
        assert entry() is None
        made = len(provider.ledger)
        world.advance(6000.0)
        assert len(provider.ledger) == made
        assert not recovery._recovering.get(engine)
        assert engine.breaker(HERE, Purpose.TOKEN).closed


def _slot(process: Process, n: int) -> CacheEntry:
    """Make one more entry, with requests of its own."""
    entry = process.memory.entry(TokenRequest(HOST, "app", "client_credentials", (f"other {n}",)), (HERE,))
    entry.renew = exchange_over(process.engine, process.provider, n)
    return entry


def _ask(world: World, process: Process, entry: CacheEntry) -> Caller:
    assert entry.renew is not None
    return Caller(world, acquiring(process.engine, entry, entry.renew))


class TestOnRealThreads:
    """The same on the real workers and timers, which only the clock is taken from."""

    def test_a_pinned_token_is_refreshed_with_nobody_asking(self) -> None:
        """Ten lives long."""
        bench = Bench()
        with capture_events() as events:
            schedule.keep_fresh(bench.engine, bench.entry)
            for n in range(1, 11):
                events.wait_for(TokenAcquired, count=n)
                until(lambda: bench.entry.timer is not None and bench.entry.timer.pending)
                bench.rest()
                bench.clock.advance(1990.0)
        assert bench.exchanges.made >= 10
        schedule.release(bench.entry)

    def test_recovery_is_probed_with_nobody_asking(self) -> None:
        """One request, then only time."""
        bench = Bench()
        bench.exchanges.fail(ServerFailed("503", authority=HOST))
        with pytest.raises(ServerFailed):
            bench.ask()
        bench.exchanges.answer = lambda _: bench.good()
        for _ in range(40):
            bench.rest()
            bench.clock.advance(0.5)
        until(lambda: bench.entry.token is not None)
        assert bench.exchanges.made == 2
