"""What a sealed store promises whatever its medium: comparisons, lives, leases, rotation, misses in place of lies."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from store_media import KEY, OTHER_KEY

from resilient_auth import ConfigurationError, SealedStore, StoreUnavailable
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.events import StoreFailed, StoreRecovered, StoreRejected
from resilient_auth.health import health, isolate, reset
from resilient_auth.store import ANY, BackendFailed, Expected, Lease, Store
from resilient_auth.testing import ManualClock, capture_events, no_jitter


def store_on(backend: MemoryBackend, key: Any = KEY, **options: Any) -> SealedStore:
    return SealedStore(backend, key=key, **options)


def records_of(backend: MemoryBackend, kind: str) -> list[str]:
    return [key for key in backend._values if key.startswith(f"{kind}.")]


class Medium(MemoryBackend):
    """One that fails when told to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.label = f"medium-{id(self)}"  # health is the whole process's
        self.reads: Exception | None = None
        self.writes: Exception | None = None
        self.calls = 0

    def get(self, key: str) -> tuple[bytes, str] | None:
        self.calls += 1
        if self.reads:
            raise self.reads
        return super().get(key)

    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        return [self.get(key) for key in keys]

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        self.calls += 1
        if self.writes:
            raise self.writes
        return super().put(key, value, ttl=ttl, expected=expected)


class AgainstADict(RuleBasedStateMachine):
    """Two stores on one medium do what a dict with versions, ends and lease-holders would."""

    names = st.sampled_from(["alice", "bob", "héloïse"])
    values = st.binary(max_size=40)
    lives = st.sampled_from([1.0, 5.0, 100.0])
    which = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1_000_000.0)
        self.backend = MemoryBackend(clock=self.clock)
        # The second one is in the middle of a rotation.
        self.stores = [
            store_on(self.backend, [OTHER_KEY, KEY], clock=self.clock),
            store_on(self.backend, [KEY, OTHER_KEY], clock=self.clock),
        ]
        self.model: dict[str, tuple[bytes, str, float]] = {}
        self.versions: set[str] = set()
        self.leases: dict[str, Lease] = {}
        self.fences: dict[str, int] = {}

    def alive(self, name: str) -> tuple[bytes, str] | None:
        value, version, ends = self.model.get(name, (b"", "", 0.0))
        return (value, version) if ends > self.clock.monotonic() else None

    def version(self, name: str) -> str | None:
        found = self.alive(name)
        return found and found[1]

    @rule(which=which, name=names, value=values, ttl=lives, how=st.sampled_from(["any", "none", "there", "old"]))
    def write(self, which: int, name: str, value: bytes, ttl: float, how: str) -> None:
        expected: Expected = {"any": ANY, "none": None, "there": self.version(name), "old": "0"}[how]  # type: ignore[assignment]
        fits = expected is ANY or expected == self.version(name)
        version = self.stores[which].write("token", name, value, ttl=ttl, expected=expected)
        assert (version is not None) == fits
        if version is not None:
            assert version not in self.versions
            self.versions.add(version)
            self.model[name] = (value, version, self.clock.monotonic() + ttl)

    @rule(which=which, name=names, how=st.sampled_from(["any", "there", "old"]))
    def erase(self, which: int, name: str, how: str) -> None:
        there = self.version(name)
        expected: Expected = {"any": ANY, "there": there, "old": "0"}[how]  # type: ignore[assignment]
        fits = there is not None and expected in (ANY, there)
        assert self.stores[which].erase("token", name, expected=expected) == fits
        if fits:
            del self.model[name]

    @rule(seconds=st.sampled_from([0.5, 2.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(minutes=st.sampled_from([-600.0, 600.0]))
    def set_the_wall_clock(self, minutes: float) -> None:
        self.clock.jump(minutes)

    @rule(which=which, name=names, seconds=lives)
    def lease(self, which: int, name: str, seconds: float) -> None:
        held = self.leases.get(name)
        lease = self.stores[which].lease(name, seconds)
        if held is not None and held.ends_at > self.clock.monotonic():
            assert lease is None
            return
        assert lease is not None
        assert lease.ends_at == self.clock.monotonic() + seconds
        assert lease.fence > self.fences.get(name, 0)
        self.leases[name], self.fences[name] = lease, lease.fence

    @rule(which=which, name=names, seconds=lives)
    def renew(self, which: int, name: str, seconds: float) -> None:
        held = self.leases.get(name)
        if held is None:
            return
        renewed = self.stores[which].renew(held, seconds)
        assert (renewed is not None) == (held.ends_at > self.clock.monotonic())
        if renewed is not None:
            assert renewed.fence == held.fence
            self.leases[name] = renewed

    @rule(which=which, name=names)
    def release(self, which: int, name: str) -> None:
        held = self.leases.pop(name, None)
        if held is not None:
            self.stores[which].release(held)

    @invariant()
    def both_read_what_the_dict_holds(self) -> None:
        wanted = {name: found for name in self.model if (found := self.alive(name)) is not None}
        for store in self.stores:
            assert {r.name: (r.value, r.version) for r in store.scan("token")} == wanted
            for name in self.model:
                record = store.read("token", name)
                assert (record and (record.value, record.version)) == self.alive(name)


AgainstADict.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAgainstADict = AgainstADict.TestCase


class TestSealing:
    def test_a_medium_sees_neither_values_nor_names(self) -> None:
        """Not even their kind's contents: nothing of them is in its bytes."""
        backend = MemoryBackend()
        store = store_on(backend)
        store.write("token", "alice@example.com", b"eyJ0eXAi.SECRET", ttl=60)
        store.lease("alice@example.com", 5)
        everything = repr((backend._values, backend._locks)).encode()
        assert b"alice" not in everything
        assert b"SECRET" not in everything

    def test_every_byte_counts(self) -> None:
        """A record with any one byte changed is a miss, is told, and is set aside."""
        backend = MemoryBackend()
        store = store_on(backend)
        store.write("token", "a", b"value", ttl=60)
        (key,) = records_of(backend, "token")
        sealed, version, ends = backend._values[key]
        for position in range(len(sealed)):
            edited = bytearray(sealed)
            edited[position] ^= 1 << position % 8
            backend._values[key] = (bytes(edited), version, ends)
            assert store.read("token", "a") is None, position
        backend._values[key] = (sealed, version, ends)
        assert store.read("token", "a") is not None

    def test_every_byte_of_the_names_key_counts_and_damage_is_no_wrong_key(self) -> None:
        """The owner isn't asked for another key where a bit has flipped."""
        backend = MemoryBackend()
        store_on(backend).read("token", "a")
        (key,) = records_of(backend, "names")
        sealed, version, ends = backend._values[key]
        for position in range(len(sealed)):
            edited = bytearray(sealed)
            edited[position] ^= 1 << position % 8
            backend._values[key] = (bytes(edited), version, ends)
            assert store_on(backend).write("token", "a", b"x", ttl=60), position
            assert store_on(backend).read("token", "a"), position

    @pytest.mark.parametrize("cut", [0, 1, 3, 4, 20, 39, 40, 41])
    def test_a_torn_record_is_a_miss_and_makes_room(self, cut: int) -> None:
        """What can't be verified doesn't stand in the way of a new one."""
        backend = MemoryBackend()
        store = store_on(backend)
        store.write("token", "a", b"value", ttl=60)
        (key,) = records_of(backend, "token")
        sealed, version, ends = backend._values[key]
        backend._values[key] = (sealed[:cut], version, ends)
        with capture_events() as events:
            assert store.read("token", "a") is None
            (told,) = events.wait_for(StoreRejected)
        assert told.code in ("malformed", "edited")
        assert records_of(backend, "refused")
        assert store.write("token", "a", b"new", ttl=60, expected=None)

    def test_records_do_not_change_places(self) -> None:
        """One user's record under another one's name is a miss, and so is one of another kind."""
        backend = MemoryBackend()
        store = store_on(backend)
        store.write("token", "alice", b"alice's", ttl=60)
        (alices,) = records_of(backend, "token")
        store.write("token", "bob", b"bob's", ttl=60)
        store.write("account", "alice", b"account", ttl=60)
        (bobs,) = set(records_of(backend, "token")) - {alices}
        (account,) = records_of(backend, "account")
        for place, content in ((bobs, alices), (account, alices)):
            backend._values[place] = backend._values[content]
        assert store.read("token", "bob") is None
        assert store.read("account", "alice") is None
        assert [record.value for record in store.scan("token")] == [b"alice's"]

    @pytest.mark.parametrize(
        "options", [{"owner": "other"}, {"purpose": "other"}, {"key": OTHER_KEY, "owner": "other"}]
    )
    def test_stores_of_other_owners_share_a_medium_unseen(self, options: dict[str, Any]) -> None:
        """Neither reads, erases nor blocks the other one's."""
        backend = MemoryBackend()
        ours, theirs = store_on(backend), store_on(backend, **options)
        ours.write("token", "a", b"ours", ttl=60)
        assert theirs.read("token", "a") is None
        assert theirs.write("token", "a", b"theirs", ttl=60, expected=None)
        assert theirs.lease("a", 5)
        assert ours.lease("a", 5)
        assert [record.value for record in theirs.scan("token")] == [b"theirs"]
        found = ours.read("token", "a")
        assert found is not None
        assert found.value == b"ours"

    def test_what_is_set_aside_is_bounded(self) -> None:
        """A medium full of garbage leaves a few pieces of it."""
        backend = MemoryBackend()
        store = store_on(backend)
        for number in range(50):
            store.write("token", str(number), b"x", ttl=60)
        for key in records_of(backend, "token"):
            backend._values[key] = (b"garbage", "v", 1e9)
        with capture_events() as events:
            assert list(store.scan("token")) == []
            events.wait_for(StoreRejected)
        assert not records_of(backend, "token")
        assert 0 < len(records_of(backend, "refused")) <= 8
        assert len(events.of(StoreRejected)) == 1

    def test_a_good_record_that_came_meanwhile_is_not_set_aside(self) -> None:
        """Another process mended it between the look and the deed."""
        backend = MemoryBackend()
        store, other = store_on(backend), store_on(backend)
        store.write("token", "a", b"x", ttl=60)
        (key,) = records_of(backend, "token")

        class Slow(MemoryBackend):
            def get(self, asked: str) -> tuple[bytes, str] | None:
                if asked != key:
                    return backend.get(asked)
                other.write("token", "a", b"mended", ttl=60)
                return b"garbage", "0"

            put, delete = backend.put, backend.delete  # type: ignore[assignment]

        assert store_on(Slow()).read("token", "a") is None
        found = store.read("token", "a")
        assert found is not None
        assert found.value == b"mended"

    def test_a_newer_schema_is_left_where_it_is(self) -> None:
        """The newer release that wrote it still runs somewhere."""
        backend = MemoryBackend()
        store = store_on(backend)
        store.write("token", "a", b"x", ttl=60)
        (key,) = records_of(backend, "token")
        sealed, version, ends = backend._values[key]
        newer = sealed[:3] + bytes((sealed[3] + 1,)) + sealed[4:]
        backend._values[key] = (newer, version, ends)
        with capture_events() as events:
            assert store.read("token", "a") is None
            assert events.wait_for(StoreRejected)[0].code == "newer_schema"
        assert backend._values[key][0] == newer


class TestRotation:
    def test_keys_rotate_without_losing_a_record(self) -> None:
        """Add the new key last everywhere, then first everywhere, then drop the old one."""
        backend = MemoryBackend()
        steps: list[Any] = [KEY, [KEY, OTHER_KEY], [OTHER_KEY, KEY], OTHER_KEY]
        store_on(backend, steps[0]).write("token", "rewritten", b"0", ttl=60)
        store_on(backend, steps[0]).write("token", "rested", b"kept", ttl=60)
        for before, after in itertools.pairwise(steps):
            # While it rolls out, processes of both steps work on the same records.
            one, other = store_on(backend, before), store_on(backend, after)
            for store in (other, one, other):
                found = store.read("token", "rewritten")
                assert found is not None
                assert store.write("token", "rewritten", found.value + b".", ttl=60, expected=found.version)
        assert store_on(backend, [OTHER_KEY, KEY]).read("token", "rested") is not None
        last = store_on(backend, OTHER_KEY)
        found = last.read("token", "rewritten")
        assert found is not None
        assert found.value == b"0" + b"." * 9
        # It was never written again: dropping the old key is what loses it.
        assert last.read("token", "rested") is None

    def test_a_new_key_is_added_as_soon_as_that_can_be_done(self) -> None:
        """Processes that came up while the medium was full, and only read since, don't leave that to nobody."""
        clock = ManualClock()
        medium = Medium(clock)
        store_on(medium, KEY, clock=clock).write("token", "a", b"x", ttl=1e6)
        medium.writes = BackendFailed("full")
        lasting = store_on(medium, [OTHER_KEY, KEY], clock=clock)
        assert lasting.read("token", "a") is not None
        medium.writes = None
        for _ in range(3):
            clock.advance(1.5)
            assert lasting.read("token", "a") is not None
        calls = medium.calls
        clock.advance(1.5)
        assert lasting.read("token", "a") is not None
        assert medium.calls - calls == 2  # the names' key and the record, in one round trip
        assert store_on(medium, OTHER_KEY, clock=clock).read("token", "a") is None

    def test_a_key_that_does_not_fit_is_told_and_nothing_is_deleted(self) -> None:
        """The owner gave the wrong one: what is there waits for the right one."""
        backend = MemoryBackend()
        store_on(backend).write("token", "a", b"x", ttl=60)
        before = copy.deepcopy(backend._values)
        with capture_events() as events, pytest.raises(StoreUnavailable, match="wrong_key"):
            store_on(backend, OTHER_KEY).read("token", "a")
        assert events.wait_for(StoreFailed)[0].code == "wrong_key"
        assert backend._values == before

    def test_a_record_of_an_unknown_key_is_a_miss_and_stays(self) -> None:
        """Another process is ahead in a rotation."""
        backend = MemoryBackend()
        ahead, behind = store_on(backend, [OTHER_KEY, KEY]), store_on(backend)
        behind.write("token", "b", b"x", ttl=60)
        ahead.write("token", "a", b"x", ttl=60)
        with capture_events() as events:
            assert behind.read("token", "a") is None
            assert events.wait_for(StoreRejected)[0].code == "unknown_key"
        assert ahead.read("token", "a") is not None

    def test_an_emptied_medium_keeps_its_names_while_somebody_works_with_it(self) -> None:
        """A flushed server doesn't split a fleet in mid-rotation into those who noticed and those who didn't."""
        clocks = ManualClock(), ManualClock()
        backend = MemoryBackend(clock=clocks[1])
        store_on(backend, KEY).write("token", "a", b"x", ttl=600)
        behind = store_on(backend, [KEY, OTHER_KEY], clock=clocks[0])
        ahead = store_on(backend, [OTHER_KEY, KEY], clock=clocks[1])
        assert behind.read("token", "a")
        assert ahead.read("token", "a")
        backend._values.clear()
        clocks[1].advance(61.0)
        ahead.write("token", "a", b"y", ttl=600)
        assert behind.read("token", "a") is not None
        assert store_on(backend, OTHER_KEY).read("token", "a") is not None


class TestAFailingMedium:
    def test_costs_nothing_while_it_fails_and_is_told_of_once(self) -> None:
        """Two calls learn of it, the others are answered at once; one event when it begins and one when it is over."""
        clock = ManualClock()
        medium = Medium(clock)
        store = SealedStore(medium, key=KEY, clock=clock, jitter=no_jitter)
        store.write("token", "a", b"x", ttl=600)
        medium.reads = BackendFailed("timeout", "no answer")
        with capture_events() as events:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="timeout"):
                    store.read("token", "a")
            calls = medium.calls
            for _ in range(100):
                with pytest.raises(StoreUnavailable) as refused:
                    store.read("token", "a")
            assert medium.calls == calls
            assert refused.value.reason == "circuit_open"
            assert refused.value.retry_after
            (line,) = [line for line in health().stores if line.target == medium.label]
            assert (line.state, line.last_code) == ("unavailable", "timeout")
            assert store.write("token", "b", b"x", ttl=60)  # writes have a breaker of their own
            clock.advance(refused.value.retry_after)
            with pytest.raises(StoreUnavailable, match="timeout"):
                store.read("token", "a")
            clock.advance(20.0)
            medium.reads = None
            assert store.read("token", "a") is not None
            (over,) = events.wait_for(StoreRecovered)
        assert over.seconds >= 20.0
        assert [told.code for told in events.of(StoreFailed)] == ["timeout"]
        assert [line.state for line in health().stores if line.target == medium.label] == ["ok"]

    def test_a_full_one_still_gives_what_it_holds(self) -> None:
        """Also to a process that starts with it."""
        clock = ManualClock()
        medium = Medium(clock)
        SealedStore(medium, key=KEY, clock=clock).write("token", "a", b"x", ttl=600)
        medium.writes = BackendFailed("full")
        store = SealedStore(medium, key=[OTHER_KEY, KEY], clock=clock)
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                store.write("token", "a", b"y", ttl=600)
            assert store.read("token", "a") is not None
        (line,) = [line for line in health().stores if line.target == medium.label and line.state == "read_only"]
        assert line.last_code == "full"

    def test_an_operator_takes_one_out_of_use_and_puts_it_back(self) -> None:
        """By its name in health."""
        clock = ManualClock()
        medium = Medium(clock)
        store = SealedStore(medium, key=KEY, clock=clock)
        isolate(medium.label)
        calls = medium.calls
        with pytest.raises(StoreUnavailable, match="circuit_open"):
            store.read("token", "a")
        assert medium.calls == calls
        assert [line.state for line in health().stores if line.target == medium.label] == ["unavailable"]
        reset(medium.label)
        assert store.write("token", "a", b"x", ttl=60)

    def test_what_a_third_partys_medium_raises_stays_unquoted(self) -> None:
        """Its text may hold a connection string."""
        clock = ManualClock()
        medium = Medium(clock)
        store = SealedStore(medium, key=KEY, clock=clock)
        store.write("token", "a", b"x", ttl=60)
        medium.reads = RuntimeError("postgres://user:PASSWORD@host")
        with capture_events() as events, pytest.raises(StoreUnavailable) as failed:
            store.read("token", "a")
        assert "PASSWORD" not in f"{failed.value} {failed.value!r} {events.wait_for(StoreFailed)[0]}"
        assert failed.value.__cause__ is None
        assert failed.value.reason == "failed"
        assert pickle.loads(pickle.dumps(failed.value)).reason == "failed"

    def test_a_closed_store_says_so(self) -> None:
        """To every call, and health forgets it."""
        store = store_on(MemoryBackend())
        store.close()
        store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            store.read("token", "a")


class TestArguments:
    def test_it_is_a_store(self) -> None:
        """The core checks what it is given by this protocol."""
        assert isinstance(store_on(MemoryBackend()), Store)

    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda s: s.read("Token", "a"), "kind"),
            (lambda s: s.read("names", "a"), "kind"),
            (lambda s: s.read("token", ""), "name"),
            (lambda s: s.read("token", "a" * 5000), "name"),
            (lambda s: s.write("token", "a", "text", ttl=1), "value"),
            (lambda s: s.write("token", "a", b"", ttl=0), "ttl"),
            (lambda s: s.write("token", "a", b"", ttl=float("nan")), "ttl"),
            (lambda s: s.lease("a", -1), "seconds"),
            (lambda s: SealedStore(object(), key=KEY), "backend"),
            (lambda s: SealedStore(MemoryBackend(), key=KEY, owner=""), "owner"),
        ],
    )
    def test_a_wrong_one_is_named(self, call: Any, says: str) -> None:
        """Before the medium is asked."""
        with pytest.raises(ConfigurationError, match=says):
            call(store_on(MemoryBackend()))

    def test_a_value_too_large_is_refused_and_the_medium_goes_on(self) -> None:
        """It says nothing against the medium."""
        store = store_on(MemoryBackend())
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match="too_large"):
                store.write("token", "a", bytes(5 * 1024 * 1024), ttl=60)
        assert store.write("token", "a", os.urandom(4_000_000), ttl=60)
        assert store.read("token", "a") is not None

    def test_keys_and_values_stay_out_of_texts_and_pickles(self) -> None:
        """A log line or a crash report holds none of them."""
        store = store_on(MemoryBackend(), b"\x00\x01SECRETSECRETSE\xff" * 2)
        store.write("token", "a", b"VALUE", ttl=60)
        shown = f"{store!r} {store.read('token', 'a')!r} {store._sealer().keys!r}"
        assert "VALUE" not in shown
        assert "SECRET" not in shown
        with pytest.raises(TypeError):
            pickle.dumps(store)
        with pytest.raises(TypeError):
            copy.deepcopy(store._sealer().keys)
