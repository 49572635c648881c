"""A fleet's levels in its store: every request once, every alert once, whoever is restarted, forked or torn down."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.errors import StoreUnavailable
from resilient_auth.events import AlertOpened, AlertResolved, StoreRejected
from resilient_auth.store import BackendFailed, Store
from resilient_auth.telemetry.levels.counts import Counts
from resilient_auth.telemetry.levels.fleet import Fleet
from resilient_auth.telemetry.levels.options import WatchOptions
from resilient_auth.telemetry.levels.watching import Watch
from resilient_auth.telemetry.tally import Tally
from resilient_auth.testing import ManualClock, capture_events

KEY = bytes(range(32))
HOUR = 3600.0
NOW = 1_800_000_000.0


@pytest.fixture(params=["file", "valkey"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Open a store that several share, each with connections of its own."""
    tmp_path.chmod(0o700)
    url = request.getfixturevalue("redis_url") if request.param == "valkey" else ""
    made: list[Any] = []

    def make() -> Store:
        made.append(ra.RedisStore(url, key=KEY) if url else ra.FileStore(tmp_path / "store", key=KEY))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Flaky(MemoryBackend):
    """A medium whose writes fail as a test draws it: before they arrive, or after."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.on = True

    def put(self, key: str, value: bytes, **options: Any) -> str | None:
        luck = self.draw.random() if self.on else 1.0
        if luck < 0.15:
            raise BackendFailed("timeout")
        answer = super().put(key, value, **options)
        if luck < 0.3:
            raise BackendFailed("timeout")  # it is there, and nobody says so
        if luck < 0.4:
            return None  # a client that asked again by itself, and met its own write
        return answer


def counted(number: int) -> Counts:
    counts = Counts(NOW)
    counts.add("acquisitions", NOW, number, number // 10)
    return counts


def total(store: Store, name: str = "app") -> tuple[int, int]:
    found = Fleet(store, name).total(NOW + 1).totals("acquisitions", NOW - HOUR, NOW + 1, NOW + 1)
    return found.total, found.failed


class TestSums:
    def test_processes_add_up_and_restarts_take_nothing_along(self, stores: Callable[[], Store]) -> None:
        """More of them than there are shards, and each is followed by another one."""
        several = [stores(), stores()]
        for number in range(20):
            fleet = Fleet(several[number % 2], "app")
            fleet.add(counted(10), NOW)
            fleet.add(counted(10), NOW)
            fleet.add(Counts(), NOW)
        assert total(stores()) == (400, 40)

    def test_fleets_with_other_names_are_others(self, stores: Callable[[], Store]) -> None:
        store = stores()
        Fleet(store, "orders").add(counted(10), NOW)
        Fleet(store, "billing").add(counted(20), NOW)
        assert (total(store, "orders"), total(store, "billing"), total(store)) == ((10, 1), (20, 2), (0, 0))

    def test_there_are_few_records_and_they_end(self, tmp_path: Path) -> None:
        """However many processes come and go."""
        clock = ManualClock()
        backend = MemoryBackend(clock=clock)
        store = ra.SealedStore(backend, key=KEY, clock=clock)
        for _ in range(100):
            Fleet(store, "app").add(counted(10), NOW)
        assert len(list(store.scan("levels"))) == 8
        assert total(store) == (1000, 100)
        clock.advance(16 * 86_400.0)
        assert list(store.scan("levels")) == []

    @pytest.mark.parametrize("seed", range(4))
    def test_a_write_that_may_have_arrived_counts_once(self, seed: int) -> None:
        """Whatever fails in between: each of four processes writes fifty times."""
        backend = Flaky(seed)
        clock = ManualClock()
        store = ra.SealedStore(backend, key=KEY, clock=clock)
        fleets = [Fleet(store, "app") for _ in range(4)]
        for fleet in fleets:
            fleet._shard = seed % 2  # all at the same one
        for _, fleet in itertools.product(range(50), fleets):
            try:
                fleet.add(counted(10), NOW)
            except StoreUnavailable:
                clock.advance(30.0)  # the breaker lets another one through
        backend.on = False
        clock.advance(60.0)
        for fleet in fleets:
            fleet.add(Counts(), NOW)
            assert not fleet.unwritten(NOW)
        assert total(store) == (2000, 200)

    def test_what_a_newer_release_wrote_is_left_alone_and_an_older_ones_is_dropped(self) -> None:
        """With a clear word of it, once."""
        store = ra.SealedStore(MemoryBackend(), key=KEY)
        for number in range(8):
            name = f"app {number}"
            held = {"of": name, "format": 2 if number < 4 else 0, "counts": "in another form"}
            store.write("levels", name, json.dumps(held).encode(), ttl=1000.0)
        store.write("levels", "app 7", b"no JSON", ttl=1000.0)
        with capture_events() as told:
            fleets = [Fleet(store, "app") for _ in range(30)]
            for fleet in fleets:
                fleet.add(counted(10), NOW)
            assert total(store) == (300, 30)
            told.wait_for(StoreRejected, count=3)
        found = {(event.kind, event.code) for event in told.of(StoreRejected)}
        assert found == {("levels", "newer_schema"), ("levels", "older_schema"), ("levels", "malformed")}
        left = store.read_many([("levels", f"app {number}") for number in range(4)])
        assert all(record is not None and b"another form" in record.value for record in left)

    def test_what_cant_be_opened_here_is_stepped_over(self) -> None:
        """A process with a newer key than this one's wrote it."""
        backend = MemoryBackend()
        old = ra.SealedStore(backend, key=KEY)
        new = ra.SealedStore(backend, key=[bytes(range(1, 33)), KEY])
        for number in range(7):
            new.write("levels", f"app {number}", b"{}", ttl=1000.0)
        fleet = Fleet(old, "app")
        fleet.add(counted(10), NOW)
        assert not fleet.unwritten(NOW)
        assert total(old) == (10, 1)

    def test_a_forked_child_adds_what_is_its_own(
        self, stores: Callable[[], Store], watched: Callable[..., Any], clock: ManualClock
    ) -> None:
        """Not what its parent had counted and not yet written."""
        one = watched(store=stores())
        one.count(100)
        one.watch.look()
        one.count(10)

        def child() -> None:
            one.tally.begin_anew()  # as the process's own does
            one.count(1)
            one.watch.look()

        in_a_child(child)
        one.watch.look()
        one.watch.look()
        assert one.day.now.total == 111


class TestAlerts:
    def test_two_processes_tell_once(self, stores: Callable[[], Store], watched: Callable[..., Any]) -> None:
        """An outage that both see is opened once and resolved once, by numbers of both."""
        one, other = watched(store=stores()), watched(store=stores())
        with capture_events() as told:
            live(0.5, one, other)
            live(0.5, one, other, each=(100, 100))
            assert [len(each.watch.levels().alerts) for each in (one, other)] == [1, 1]
            live(1.5, one, other)
            told.wait_for(AlertResolved)
        (opened,) = told.of(AlertOpened)
        assert opened.count > 1200
        assert len(told.of(AlertResolved)) == 1
        assert one.day == other.day
        assert one.day.now.total == 2 * 2.5 * 1200

    def test_one_that_is_killed_is_followed_by_another(
        self, stores: Callable[[], Store], watched: Callable[..., Any]
    ) -> None:
        """In the middle of an alert: it isn't opened again, and it is resolved."""
        one, other = watched(store=stores()), watched(store=stores())
        with capture_events() as told:
            live(0.5, one, other)
            live(0.5, one, other, each=(100, 100))
            told.wait_for(AlertOpened)
            leader, left = (one, other) if one.watch._fleet._lease is not None else (other, one)
            lease = leader.watch._fleet._lease
            leader.watch._fleet.store.release(lease)  # as time does it to one that is gone
            live(0.5, left)
            third = watched(store=stores())
            live(1, left, third)
            told.wait_for(AlertResolved)
        assert (len(told.of(AlertOpened)), len(told.of(AlertResolved))) == (1, 1)

    def test_one_that_leads_too_long_tells_nothing_again(self, watched: Callable[..., Any]) -> None:
        """Held up between what it read and what it writes, while another one leads and tells: the store knows it."""
        backend = Interrupted()
        stores = [ra.SealedStore(backend, key=KEY) for _ in range(2)]
        one, other = (watched(store=store) for store in stores)
        for each in (one, other):
            each.watch.look()

        def meanwhile() -> None:
            other.count(100, 100)
            other.watch.look()

        with capture_events() as told:
            one.count(100, 100)
            backend.meanwhile = meanwhile
            one.watch.look()
            for each in (one, other, one):
                each.watch.look()
            told.wait_for(AlertOpened)
        assert len(told.of(AlertOpened)) == 1

    def test_a_process_whose_store_fails_tells_by_itself(self, watched: Callable[..., Any]) -> None:
        """Rather twice than never; what it told then is the fleet's when the store is back, and is resolved once."""
        clock = ManualClock()
        backend = Failing()
        one = watched(clock, store=ra.SealedStore(backend, key=KEY, clock=clock))
        with capture_events() as told:
            one.live(6 * HOUR)
            backend.fails = True
            one.live(HOUR, lambda: (100, 100))
            told.wait_for(AlertOpened)
            backend.fails = False
            one.live(6 * HOUR)
            told.wait_for(AlertResolved)
        assert (len(told.of(AlertOpened)), len(told.of(AlertResolved))) == (1, 1)
        assert one.day.now.total == 13 * 1200
        assert total_at(one, clock) == 13 * 1200

    def test_what_was_told_survives_a_newer_release(self, watched: Callable[..., Any], clock: ManualClock) -> None:
        """During a rollout: the older one judges by itself, and writes nothing over it."""
        store = ra.SealedStore(MemoryBackend(), key=KEY, clock=clock)
        newer = json.dumps({"of": "app state", "format": 2}).encode()
        store.write("levels-state", "app state", newer, ttl=1e6)
        one = watched(store=store)
        with capture_events() as told:
            one.live(2 * HOUR, lambda: (100, 100))
            told.wait_for(AlertOpened)
        assert len(told.of(AlertOpened)) == 1
        record = store.read("levels-state", "app state")
        assert record is not None
        assert record.value == newer


def serve(stores: Callable[[], Store], clock: ManualClock, asked: Any) -> None:
    """Be a process that counts and looks when it is told to, and says what it knows and has told."""
    tally = Tally()
    options = WatchOptions(
        store=stores(),
        name="app",
        webhook=None,
        fall=0.25,
        objective=0.999,
        least=100,
        secret_expires=None,
        clock=clock,
    )
    watch = Watch(options, tally, lambda _: None)
    with capture_events() as told:
        while True:
            number = asked.recv()
            tally.add("resilient_auth.acquisitions", ("idp", "silent", "none", "failed"), number)
            clock.advance(60.0)
            watch.look()
            asked.send((watch.levels().of("acquisitions").day.now.total, len(told.of(AlertOpened))))


def test_processes_of_an_operating_system(stores: Callable[[], Store], clock: ManualClock) -> None:
    """Their sums are right while they write at once, one is killed, and another one comes; and one of them tells."""
    system = multiprocessing.get_context("fork")
    started: list[tuple[Any, Any]] = []

    def start() -> Any:
        mine, theirs = system.Pipe()
        process = system.Process(target=serve, args=(stores, clock, theirs), daemon=True)
        process.start()
        started.append((process, mine))
        return process, mine

    def step(*processes: Any, number: int = 100) -> list[tuple[int, int]]:
        clock.advance(60.0)  # for those that are forked later
        for _, pipe in processes:
            pipe.send(number)
        assert all(pipe.poll(20) for _, pipe in processes)
        return [pipe.recv() for _, pipe in processes]

    try:
        several = [start() for _ in range(3)]
        told = [step(*several) for _ in range(4)]
        told += [step(*several, number=0)]
        several[0][0].kill()
        several[0][0].join()
        several = [*several[1:], start()]
        told += [step(*several) for _ in range(4)]
        told += [step(*several, number=0)]
        assert [number for number, _ in told[4]] == [3 * 4 * 100] * 3
        assert [number for number, _ in told[-1]] == [2 * 3 * 4 * 100] * 3
        assert sum(alerts for _, alerts in (*told[4][:1], *told[-1])) == 1
    finally:
        for process, pipe in started:
            process.kill()
            process.join()
            pipe.close()


class Interrupted(MemoryBackend):
    """A medium that lets everybody lead, and in which something happens before what was told is written."""

    meanwhile: Callable[[], None] | None = None

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        return next(self._numbers)

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        return True

    def put(self, key: str, value: bytes, **options: Any) -> str | None:
        meanwhile = self.meanwhile
        if key.startswith("levels-state.") and meanwhile is not None:
            self.meanwhile = None
            meanwhile()
        return super().put(key, value, **options)


class Failing(MemoryBackend):
    """A medium that fails while it is told to."""

    fails = False

    def get(self, key: str) -> Any:
        if self.fails:
            raise BackendFailed("timeout")
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        if self.fails:
            raise BackendFailed("timeout")
        return super().get_many(keys)

    def put(self, *args: Any, **options: Any) -> Any:
        if self.fails:
            raise BackendFailed("timeout")
        return super().put(*args, **options)

    def lock(self, *args: Any) -> Any:
        if self.fails:
            raise BackendFailed("timeout")
        return super().lock(*args)

    relock = lock


def live(hours: float, *processes: Any, each: tuple[int, int] = (100, 0)) -> None:
    """Let processes of one clock live through hours, by steps of five minutes."""
    for _ in range(round(hours * 12)):
        for process in processes:
            process.count(*each)
            process.watch.look()
        processes[0].clock.advance(300)
    for process in (*processes, *processes):
        process.watch.look()


def total_at(one: Any, clock: ManualClock) -> int:
    store = one.watch._fleet.store
    wall = clock.wall()
    return int(Fleet(store, "app").total(wall).totals("acquisitions", wall - 86_400.0, wall, wall).total)
