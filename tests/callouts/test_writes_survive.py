"""No write that was taken is lost or changed, wherever a process dies, and whatever its target and its clock do."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import KEY, Database, FailingBackend
from forked import in_a_child

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.callouts import BackgroundWrites, Undeliverable, Write, WritesFull
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock, no_jitter

Make = Callable[..., BackgroundWrites]
#: Calls that a process makes of its store while it takes three writes, of which one fails at first.
MOST_CALLS = 60


class Gate:
    """A target that holds whoever comes until it is opened."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.made: list[str] = []
        self.may_go_on = threading.Event()

    def __call__(self, write: Write) -> None:
        self.begun.append(write.key)
        self.may_go_on.wait(20.0)
        self.made.append(write.key)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.may_go_on.set()


class Dying:
    """One process's way to a medium, which ends at its so many-th call: before that is done, or right behind."""

    label = "dying"

    def __init__(self, medium: MemoryBackend, dies_at: int, *, done: bool) -> None:
        self._medium = medium
        self._left = dies_at
        self._done = done
        self._lock = threading.Lock()

    @property
    def dead(self) -> bool:
        return self._left < 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._medium, name)
        if name == "get_many" or not callable(call):
            return call

        def dying(*args: Any, **options: Any) -> Any:
            with self._lock:
                self._left -= 1
                dies = self._left == 0 and self._done
                gone = self._left <= 0
                if gone:
                    self._left = -1
            if dies:
                call(*args, **options)
            if gone:
                raise BackendFailed("connection_failed")
            return call(*args, **options)

        return dying


@pytest.mark.parametrize("done", [False, True], ids=["before", "behind"])
def test_wherever_a_process_dies_every_write_that_it_took_is_made_under_its_key(
    make: Make, manual: ManualClock, backend: FailingBackend, pass_until: Any, done: bool
) -> None:
    """At each call of the store in turn."""
    for number in range(1, MOST_CALLS):
        refused = {f"{number}-1"}
        given: list[tuple[str, Any]] = []
        dying = Dying(backend, number, done=done)

        def target(write: Write, given: Any = given, dying: Any = dying, refused: Any = refused) -> None:
            if dying.dead:
                raise OSError("this process is dead")
            if write.key in refused:
                refused.discard(write.key)
                raise OSError("refused")
            given.append((write.key, dict(write.payload)))

        store = ra.SealedStore(dying, key=KEY, clock=manual, jitter=no_jitter)  # type: ignore[arg-type]
        first = make(target, store=store)
        taken: dict[str, Any] = {}
        for each in range(3):
            try:
                if first.put({"n": [number, each]}, key=f"{number}-{each}"):
                    taken[f"{number}-{each}"] = {"n": [number, each]}
            except ra.StoreUnavailable:
                break
        for _ in range(12):
            manual.advance(1.0)
            threading.Event().wait(0.002)
        survived = not dying.dead
        first.close()
        database = Database()
        second = make(database)
        pass_until(lambda second=second: not list(second._store.scan("write-audit")), at_most=300.0)
        second.close()
        made = {*(key for key, _ in given), *database.keys}
        assert taken.keys() <= made, number
        told = {key: payload for key, payload, _ in database.made} | dict(given)
        assert {key: told[key] for key in taken} == taken
        if survived:
            break
    else:
        pytest.fail("the process never lived to its end")


def test_a_write_that_waited_for_its_turn_too_long_is_not_made_beside_another_process(
    make: Make, gate: Gate, pass_until: Any
) -> None:
    """Whoever takes a write has it for `timeout`, however long the writes before it take."""
    here = make(gate, concurrency=1, timeout=10.0)
    for number in range(5):
        here.put({}, key=f"slow-{number}")
    here.put({}, key="last")
    pass_until(lambda: len(gate.begun) == 5, at_most=100.0)
    database = Database()
    make(database)
    pass_until(lambda: "last" in database.keys, at_most=100.0)
    assert "last" not in gate.begun
    gate.may_go_on.set()
    pass_until(lambda: not here.report().pending, at_most=200.0)
    assert "last" not in gate.made


def test_a_write_is_not_forgotten_for_an_earlier_one_with_its_key_that_ends_late(
    make: Make, gate: Gate, pass_until: Any
) -> None:
    late = make(gate)
    late.put({"n": 1}, key="c-1")
    pass_until(lambda: gate.begun, at_most=5.0, step=0.1)
    database = Database()
    other = make(database)
    pass_until(lambda: database.keys == ["c-1"], at_most=200.0)
    pass_until(lambda: not other.report().pending, at_most=200.0)
    database.down = OSError("refused")
    assert other.put({"n": 2}, key="c-1")
    pass_until(lambda: other.report().last_code, at_most=10.0, step=0.2)
    gate.may_go_on.set()
    pass_until(lambda: gate.made, at_most=5.0, step=0.1)
    late.close()
    database.down = None
    pass_until(lambda: not other.report().pending, at_most=900.0)
    assert [payload for _, payload, _ in database.made] == [{"n": 1}, {"n": 2}]


def test_what_is_written_is_what_was_given_whoever_changes_it_later(make: Make, pass_until: Any) -> None:
    database = Database()
    database.down = OSError("refused")
    writes = make(database)
    row = {"user": "u-1", "rows": [1, 2]}
    writes.put(row, key="c-1")
    row["user"] = "u-2"
    pass_until(lambda: writes.report().last_code, at_most=10.0, step=0.2)
    database.down = None
    pass_until(lambda: database.made, at_most=60.0)
    assert database.made == [("c-1", {"user": "u-1", "rows": [1, 2]}, 2)]


def test_each_attempt_is_given_what_was_taken(make: Make, pass_until: Any) -> None:
    seen: list[Any] = []

    def target(write: Write) -> None:
        payload: Any = write.payload
        seen.append({"rows": list(payload["rows"])})
        payload["rows"].clear()
        if len(seen) < 3:
            raise OSError("refused")

    writes = make(target)
    writes.put({"rows": (1, 2)}, key="c-1")
    pass_until(lambda: len(seen) == 3, at_most=200.0)
    assert seen == [{"rows": [1, 2]}] * 3


@pytest.mark.parametrize("how", ["function", "object", "hidden", "generator", "async generator"])
def test_a_target_that_would_have_to_be_awaited_makes_nothing_unseen(make: Make, pass_until: Any, how: str) -> None:
    """Else each write would count as made, and be lost."""

    async def target(write: Write) -> None:
        raise AssertionError

    class Target:
        async def __call__(self, write: Write) -> None:
            raise AssertionError

    def generates(write: Write) -> Any:
        yield write

    async def generates_in_a_task(write: Write) -> Any:
        yield write

    if how in ("function", "object"):
        with pytest.raises(ra.ConfigurationError, match="coroutine"):
            make(target if how == "function" else Target())
        return
    unseen = {"hidden": target, "generator": generates, "async generator": generates_in_a_task}
    writes = make(lambda write: unseen[how](write))
    writes.put({}, key="c-1")
    pass_until(lambda: writes.report().last_code, at_most=10.0, step=0.2)
    assert writes.report().pending == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_a_target_that_raises_what_ends_threads_has_failed(make: Make, pass_until: Any, error: BaseException) -> None:
    tried: list[int] = []

    def target(write: Write) -> None:
        tried.append(write.attempt)
        if len(tried) < 3:
            raise error

    writes = make(target)
    writes.put({}, key="c-1")
    pass_until(lambda: not writes.report().pending, at_most=40.0)
    assert tried == [1, 2, 3]


@pytest.mark.parametrize("hung", [1, 5, 20])
def test_what_hung_for_long_is_made_when_the_target_comes_back(
    make: Make, gate: Gate, pass_until: Any, hung: int
) -> None:
    """However many have hung: whoever looks for what is due isn't lost among them."""
    back: list[str] = []

    def target(write: Write) -> None:
        if gate.may_go_on.is_set():
            back.append(write.key)
            return
        gate(write)
        raise OSError("reset")

    writes = make(target, concurrency=1, timeout=1.0)
    keys = {f"c-{number}" for number in range(hung)}
    for key in sorted(keys):
        writes.put({}, key=key)
    pass_until(lambda: writes.report().oldest > 120.0, at_most=200.0)
    gate.may_go_on.set()
    pass_until(lambda: not writes.report().pending, at_most=600.0)
    assert set(back) == keys


def test_a_moment_without_threads_ends_no_looking(make: Make, monkeypatch: pytest.MonkeyPatch, pass_until: Any) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "resilient-auth-worker":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    database = Database()
    writes = make(database)
    passed = iter(range(1000))
    pass_until(lambda: next(passed) >= 5, at_most=20.0)
    assert writes.put({}, key="c-1")
    monkeypatch.undo()
    pass_until(lambda: database.keys == ["c-1"], at_most=100.0)


def test_retries_by_hand_leave_no_more_looks_behind(make: Make, backend: FailingBackend, pass_until: Any) -> None:
    database = Database()
    writes = make(database)
    looks: list[float] = []
    look = writes._look
    writes._look = lambda: (looks.append(0.0), look())[1]  # type: ignore[method-assign, assignment, func-returns-value]
    database.down = Undeliverable("no_such_user")
    for _ in range(10):
        writes.put({}, key="c-1")
        pass_until(lambda: writes.report().dead, at_most=20.0)
        assert writes.retry("c-1")
        pass_until(lambda: writes.report().dead, at_most=20.0)
        assert writes.discard("c-1")
    looks.clear()
    passed = iter(range(1000))
    pass_until(lambda: next(passed) >= 10, at_most=20.0)
    assert len(looks) <= 12


def test_what_is_closed_tries_nothing_more(make: Make, gate: Gate, pass_until: Any) -> None:
    """What waits for its turn is left to whoever comes next."""
    writes = make(gate, concurrency=1)
    for number in range(3):
        writes.put({}, key=f"c-{number}")
    pass_until(lambda: gate.begun, at_most=5.0, step=0.1)
    writes.close()
    gate.may_go_on.set()
    database = Database()
    make(database)
    pass_until(lambda: {"c-1", "c-2"} <= set(database.keys), at_most=200.0)
    assert gate.begun == ["c-0"]


def test_a_record_that_nobody_understands_holds_up_no_other(
    make: Make, manual: ManualClock, backend: FailingBackend, pass_until: Any
) -> None:
    """A later release's, say; it is seen, and stays until somebody forgets it."""
    store = ra.SealedStore(backend, key=KEY, clock=manual, jitter=no_jitter)
    for number, value in enumerate((b'{"is":"new"}', b"[]", b"\xff", b'{"payload":7,"taken_at":"x","due":0}')):
        store.write("write-audit", f"strange-{number}", value, ttl=1e6)
    gone = make(lambda write: None)
    gone.close()
    database = Database()
    writes = make(database)
    database.down = OSError("refused")
    writes.put({}, key="c-1")
    pass_until(lambda: writes.report().last_code, at_most=10.0, step=0.2)
    database.down = None
    pass_until(lambda: database.keys == ["c-1"], at_most=60.0)
    assert writes.report().dead == 4
    assert {letter.code for letter in writes.dead_letters()} == {"malformed"}
    assert not writes.retry("strange-0")
    assert writes.discard("strange-0")
    assert len(writes.dead_letters()) == 3


@pytest.mark.parametrize("outage", [False, True])
def test_a_write_that_takes_each_process_along_is_given_up_unless_the_target_works_for_nobody(
    make: Make, manual: ManualClock, gate: Gate, pass_until: Any, outage: bool
) -> None:
    """Else it would end every process that is begun, for days."""
    good: list[str] = []

    def target(write: Write) -> None:
        if write.key == "poison":
            gate(write)  # and the process is gone
        if outage and len(good) > 2:
            raise OSError("the target is down for all")
        good.append(write.key)

    for number in range(8):
        process = make(target, attempts=3)
        if number == 0:
            process.put({}, key="poison")
        process.put({}, key=f"good-{number}")
        ends = manual.monotonic() + 130.0
        pass_until(
            lambda number=number, process=process, ends=ends: (
                len(gate.begun) > number or process.report().dead or manual.monotonic() > ends
            ),
            at_most=200.0,
        )
        process.close()
        if process.report().dead:
            break
        manual.advance(1.0)
    letters = [(letter.key, letter.code) for letter in process.dead_letters()]
    assert letters == ([] if outage else [("poison", "timeout")])


@pytest.mark.parametrize("jump", [0.0, -86_400.0, 3600.0])
def test_an_outage_gives_nothing_up_though_the_target_worked_before(
    make: Make, manual: ManualClock, pass_until: Any, jump: float
) -> None:
    """Who fails alone at night, with nobody else to tell that the target is down, is at no fault."""
    database = Database()
    database.poison = {"unlucky"}
    writes = make(database, attempts=5, max_age=86_400.0)
    writes.put({}, key="unlucky")
    pass_until(lambda: writes.report().last_code, at_most=10.0, step=0.2)
    writes.put({}, key="good")
    pass_until(lambda: "good" in database.keys, at_most=10.0, step=0.2)
    database.down = OSError("the target is down for all")
    manual.jump(jump)
    began = manual.monotonic()
    pass_until(lambda: manual.monotonic() - began > 3 * 3600.0, at_most=6 * 3600.0, step=20.0)
    assert not writes.dead_letters()
    database.down, database.poison = None, set()
    pass_until(lambda: not writes.report().pending, at_most=900.0, step=5.0)
    assert "unlucky" in database.keys


@pytest.mark.parametrize("dies", [False, True], ids=["hangs", "dies with it"])
def test_a_write_that_nobody_comes_back_from_is_given_up_when_it_is_too_old(
    make: Make, gate: Gate, pass_until: Any, dies: bool
) -> None:
    """Whether its target hangs with it for ever, or each process that tries it is gone."""
    processes = [make(gate, max_age=300.0)]
    processes[0].put({"n": 1}, key="c-1")
    pass_until(lambda: gate.begun, at_most=5.0, step=0.1)
    for number in (2, 3) if dies else ():
        processes[-1].close()
        processes.append(make(gate, max_age=300.0))
        pass_until(lambda number=number: len(gate.begun) == number, at_most=200.0)
    if dies:
        processes[-1].close()
        processes.append(make(gate, max_age=300.0))
    pass_until(lambda: processes[-1].report().dead, at_most=900.0)
    assert [letter.code for letter in processes[-1].dead_letters()] == ["timeout"]
    if not dies:
        # It comes back after all, and has made it.
        gate.may_go_on.set()
        pass_until(lambda: not processes[-1].dead_letters(), at_most=20.0)
        assert gate.made == ["c-1"]


def test_a_clock_that_was_ahead_for_a_while_has_no_write_wait_for_it(
    make: Make, manual: ManualClock, pass_until: Any
) -> None:
    database = Database()
    database.down = OSError("refused")
    writes = make(database)
    manual.jump(86_400.0)
    writes.put({}, key="c-1")
    pass_until(lambda: writes.report().last_code, at_most=10.0, step=0.2)
    manual.jump(-86_400.0)
    database.down = None
    pass_until(lambda: database.keys == ["c-1"], at_most=3000.0, step=5.0)


def test_letters_that_nobody_looks_at_have_a_bound_too(make: Make, pass_until: Any) -> None:
    database = Database()
    database.down = Undeliverable("no_such_user")
    writes = make(database, most=2)
    for number in range(2):
        writes.put({}, key=f"c-{number}")
        pass_until(lambda number=number: writes.report().dead == number + 1, at_most=10.0, step=0.2)
    with pytest.raises(WritesFull, match="given up"):
        writes.put({}, key="c-2")
    assert writes.discard("c-0")
    assert writes.put({}, key="c-2")


def test_one_name_has_one_target(manual: ManualClock, backend: FailingBackend) -> None:
    """Else each would be given the other's writes, once they are due again; over another store it is another name."""
    store, other = (ra.SealedStore(backend, key=KEY, clock=manual, jitter=no_jitter) for _ in range(2))
    first, second = Database(), Database()
    writes = BackgroundWrites("audit", first, store=store, clock=manual)
    with pytest.raises(ra.ConfigurationError, match="another target"):
        BackgroundWrites("audit", second, store=store, clock=manual)
    same = BackgroundWrites("audit", first, store=store, clock=manual)
    elsewhere = BackgroundWrites("audit", second, store=other, clock=manual)
    for one in (writes, same, elsewhere):
        one.close()
    BackgroundWrites("audit", second, store=store, clock=manual).close()


def test_writes_of_two_names_over_one_store_have_nothing_in_common(
    manual: ManualClock, backend: FailingBackend, pass_until: Any
) -> None:
    """One's name may begin the other's."""
    store = ra.SealedStore(backend, key=KEY, clock=manual, jitter=no_jitter)
    databases = {"audit": Database(), "audit-2": Database()}
    for database in databases.values():
        database.down = OSError("refused")
    both = [
        BackgroundWrites(name, database, store=store, clock=manual, jitter=no_jitter)
        for name, database in databases.items()
    ]
    for writes in both:
        writes.put({"of": writes.name}, key="c-1")
    for writes in both:
        pass_until(lambda writes=writes: writes.report().last_code, at_most=10.0, step=0.2)
    for database in databases.values():
        database.down = None
    for writes in both:
        pass_until(lambda writes=writes: not writes.report().pending, at_most=200.0)
        assert [payload for _, payload, _ in databases[writes.name].made] == [{"of": writes.name}]
        writes.close()


class Flapping:
    """A way to a medium that fails now and then: before a call is made, or when it is made already."""

    label = "flapping"

    def __init__(self, medium: MemoryBackend, dice: random.Random) -> None:
        self._medium = medium
        self._dice = dice
        self.fails = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._medium, name)
        if name == "get_many" or not callable(call):
            return call

        def flapping(*args: Any, **options: Any) -> Any:
            thrown = self._dice.random() if self.fails else 1.0
            if thrown < 0.1:
                raise BackendFailed("connection_failed")
            result = call(*args, **options)
            if thrown < 0.2:
                raise BackendFailed("timeout")
            return result

        return flapping


@pytest.mark.parametrize("seed", range(4))
def test_two_processes_over_a_store_that_flaps_make_every_write_that_was_taken(
    make: Make, manual: ManualClock, backend: FailingBackend, pass_until: Any, seed: int
) -> None:
    """To a target that fails now and then as well."""
    dice = random.Random(seed)
    made: list[tuple[str, Any]] = []

    def target(write: Write) -> None:
        if dice.random() < 0.3:
            raise OSError("refused")
        made.append((write.key, dict(write.payload)))

    ways = [Flapping(backend, dice) for _ in range(2)]
    both = [
        make(target, store=ra.SealedStore(way, key=KEY, clock=manual, jitter=no_jitter), attempts=1000)  # type: ignore[arg-type]
        for way in ways
    ]
    taken: dict[str, Any] = {}
    for number in range(120):
        payload = {"n": number}
        for writes in dice.sample(both, 2):
            try:
                if writes.put(payload, key=f"c-{number}"):
                    taken[f"c-{number}"] = payload
                break
            except ra.StoreUnavailable:
                continue
        manual.advance(dice.choice((0.0, 0.1, 1.0, 5.0)))
        threading.Event().wait(0.001)
    for way in ways:
        way.fails = False
    assert len(taken) > 20
    store = ra.SealedStore(backend, key=KEY, clock=manual, jitter=no_jitter)
    pass_until(lambda: not list(store.scan("write-audit")), at_most=3600.0, step=2.0)
    assert taken.items() <= dict(made).items()


def test_a_forked_child_shares_the_work_and_takes_none_of_its_parents(tmp_path: Path) -> None:
    """What the parent is in the middle of is the parent's."""
    made = os.open(tmp_path / "made", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    holds = threading.Event()

    def target(write: Write) -> None:
        if write.key.startswith("slow"):
            holds.wait(20.0)
        os.write(made, f"{write.key} {os.getpid()}\n".encode())

    with ra.FileStore(tmp_path / "writes.db") as store:
        writes = BackgroundWrites("forked", target, store=store, concurrency=2)
        for number in range(4):
            writes.put({}, key=f"slow-{number}")

        def work() -> None:
            for number in range(3):
                assert writes.put({}, key=f"child-{number}")
            ends = time.monotonic() + 10.0
            while any(record.name.startswith("child") for record in store.scan("write-forked")):
                assert time.monotonic() < ends
                time.sleep(0.02)

        in_a_child(work)
        holds.set()
        assert writes.flush(10.0)
        writes.close()
    told = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(key for key, _ in told) == [f"child-{n}" for n in range(3)] + [f"slow-{n}" for n in range(4)]
    assert {process == str(os.getpid()) for key, process in told if key.startswith("slow")} == {True}
