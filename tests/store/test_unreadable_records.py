"""Records that can't be opened, on every medium: whose they are signs in again, and no other one gives way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from store_media import KEY, OTHER_KEY

from resilient_auth import SealedStore
from resilient_auth._store.gate import StoreStatus
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.events import StoreRejected
from resilient_auth.store import ANY, NONE_READABLE, Backend
from resilient_auth.testing import ManualClock, capture_events

THIRD_KEY = bytes(range(157, 189))


def store_on(backend: Backend, key: Any = KEY) -> SealedStore:
    return SealedStore(backend, key=key)


def damage(backend: Backend, change: Callable[[bytes], bytes]) -> bytes:
    """Change the one token record, and return what is there now."""
    (key,) = backend.keys("token.")
    found = backend.get(key)
    assert found is not None
    backend.put(key, change(found[0]), ttl=60)
    return change(found[0])


def content(backend: Backend) -> bytes:
    (key,) = backend.keys("token.")
    found = backend.get(key)
    assert found is not None
    return found[0]


def line(store: SealedStore) -> StoreStatus:
    return store._gate.status()


def value(store: SealedStore) -> bytes | None:
    found = store.read("token", "a")
    return found and found.value


class TestARetiredKey:
    def test_who_signs_in_again_replaces_what_it_sealed(self, backend: Backend) -> None:
        """With the comparison that is made for what isn't there; health counts it until then, one event tells."""
        store_on(backend, KEY).write("token", "a", b"old", ttl=60)
        assert value(store_on(backend, [KEY, OTHER_KEY])) == b"old"
        assert value(store_on(backend, [OTHER_KEY, KEY])) == b"old"
        store = store_on(backend, OTHER_KEY)
        with capture_events() as events:
            for _ in range(5):
                assert value(store) is None
            (told,) = events.wait_for(StoreRejected)
            assert (told.kind, told.code) == ("token", "unknown_key")
        assert (line(store).unreadable, line(store).last_unreadable) == (1, "token: unknown_key")
        assert store.write("token", "a", b"new", ttl=60, expected="0" * 16) is None
        assert store.write("token", "a", b"new", ttl=60, expected=None)
        assert value(store) == b"new"
        assert (line(store).unreadable, line(store).last_unreadable) == (0, None)
        assert len(events.of(StoreRejected)) == 1

    def test_it_is_known_after_several_rotations(self, backend: Backend) -> None:
        """Whatever has been sealed with since."""
        store_on(backend, KEY).write("token", "a", b"old", ttl=60)
        for keys in ([KEY, OTHER_KEY], [OTHER_KEY, KEY], [OTHER_KEY, THIRD_KEY], [THIRD_KEY, OTHER_KEY]):
            store_on(backend, keys).read("token", "a")
        store = store_on(backend, THIRD_KEY)
        assert value(store) is None
        assert store.write("token", "a", b"new", ttl=60, expected=None)
        assert value(store) == b"new"

    def test_it_is_known_where_a_medium_began_during_the_rotation(self, backend: Backend) -> None:
        """Who began it opened with the new one already, and sealed with the old one."""
        store_on(backend, [KEY, OTHER_KEY]).write("token", "a", b"old", ttl=60)
        for keys in ([KEY, OTHER_KEY], [OTHER_KEY, KEY], [KEY, OTHER_KEY], [OTHER_KEY, KEY]):
            assert value(store_on(backend, keys)) == b"old"
        store = store_on(backend, OTHER_KEY)
        assert value(store) is None
        assert store.write("token", "a", b"new", ttl=60, expected=None)
        assert value(store) == b"new"

    def test_it_can_be_erased_unread(self, backend: Backend) -> None:
        """A removal is made, and health forgets it."""
        store_on(backend, KEY).write("token", "a", b"old", ttl=60)
        store_on(backend, [OTHER_KEY, KEY]).read("token", "a")
        store = store_on(backend, OTHER_KEY)
        assert value(store) is None
        assert store.erase("token", "a")
        assert list(backend.keys("token.")) == []
        assert line(store).unreadable == 0


class TestWhatAnotherProcessCanOpen:
    @pytest.mark.parametrize("ahead", [[OTHER_KEY, KEY], OTHER_KEY])
    def test_a_newer_keys_record_is_replaced_by_a_sign_in_alone(self, backend: Backend, ahead: Any) -> None:
        """A rotation is under way, and this process hasn't got the new key yet."""
        behind = store_on(backend, KEY)
        behind.write("token", "b", b"x", ttl=60)
        behind.erase("token", "b")
        store_on(backend, [OTHER_KEY, KEY]).read("token", "a")
        theirs = store_on(backend, ahead)
        theirs.write("token", "a", b"theirs", ttl=60)
        before = content(backend)
        assert value(behind) is None
        assert behind.write("token", "a", b"ours", ttl=60, expected=None) is None
        assert content(backend) == before
        assert value(theirs) == b"theirs"
        assert line(behind).unreadable == 1
        assert behind.write("token", "a", b"ours", ttl=60, expected=NONE_READABLE)
        assert value(behind) == b"ours"
        assert line(behind).unreadable == 0
        assert store_on(backend, [OTHER_KEY, KEY]).read("token", "a") is not None

    def test_on_an_empty_medium_too(self, backend: Backend) -> None:
        """Where the process that is ahead was the first one."""
        ahead = store_on(backend, [OTHER_KEY, KEY])
        ahead.write("token", "a", b"theirs", ttl=60)
        behind = store_on(backend, KEY)
        assert behind.write("token", "a", b"ours", ttl=60, expected=None) is None
        assert value(ahead) == b"theirs"
        assert behind.write("token", "a", b"ours", ttl=60, expected=NONE_READABLE)
        assert value(ahead) == b"ours"

    def test_a_newer_releases_record_is_replaced_by_a_sign_in_alone(self, backend: Backend) -> None:
        """Its schema isn't known here."""
        store = store_on(backend)
        store.write("token", "a", b"x", ttl=60)
        newer = damage(backend, lambda sealed: sealed[:3] + bytes((sealed[3] + 1,)) + sealed[4:])
        assert value(store) is None
        assert line(store).last_unreadable == "token: newer_schema"
        assert store.write("token", "a", b"y", ttl=60, expected=None) is None
        assert content(backend) == newer
        assert store.write("token", "a", b"y", ttl=60, expected=NONE_READABLE)
        assert value(store) == b"y"


class TestGarbage:
    @pytest.mark.parametrize(
        "change",
        [
            lambda sealed: b"",
            lambda sealed: sealed[:20],
            lambda sealed: bytes(len(sealed)),
            lambda sealed: sealed[:-1] + bytes((sealed[-1] ^ 1,)),
            lambda sealed: sealed[:4] + bytes(8) + sealed[12:],  # of a key that was never here
        ],
    )
    @pytest.mark.parametrize("expected", [None, NONE_READABLE])
    def test_it_gives_way(self, backend: Backend, change: Any, expected: Any) -> None:
        """Also where it comes between the look and the write."""
        store = store_on(backend)
        store.write("token", "a", b"x", ttl=60)
        damage(backend, change)
        assert store.write("token", "a", b"y", ttl=60, expected=expected)
        assert value(store) == b"y"
        damage(backend, change)
        assert value(store) is None
        assert store.write("token", "a", b"z", ttl=60, expected=expected)
        assert value(store) == b"z"
        assert line(store).unreadable == 0


class TestWhatCanBeOpened:
    @pytest.mark.parametrize("expected", [None, NONE_READABLE, "0" * 16])
    def test_it_never_gives_way_to_what_is_new(self, backend: Backend, expected: Any) -> None:
        """Whoever wrote it, with whichever of the keys."""
        store = store_on(backend, [KEY, OTHER_KEY])
        for key in (KEY, [OTHER_KEY, KEY], [KEY, OTHER_KEY]):
            other = store_on(backend, key)
            assert other.write("token", "a", b"theirs", ttl=60, expected=ANY)
            assert store.write("token", "a", b"ours", ttl=60, expected=expected) is None
            assert value(other) == b"theirs"


class TestAnEmptiedMedium:
    def test_a_fleet_that_once_rotated_works_on_one_set_of_records(self) -> None:
        """Those who were there before and those who start after it agree within a second, not a minute."""
        clock = ManualClock()
        backend = MemoryBackend(clock=clock)
        for keys in (KEY, [KEY, OTHER_KEY], [OTHER_KEY, KEY]):
            SealedStore(backend, key=keys, clock=clock).write("token", "a", b"x", ttl=600)
        before = SealedStore(backend, key=OTHER_KEY, clock=clock)
        assert before.read("token", "a")
        clock.advance(0.5)
        backend._values.clear()
        after = SealedStore(backend, key=OTHER_KEY, clock=clock)
        after.write("token", "a", b"after", ttl=600)
        clock.advance(1.0)
        found = before.read("token", "a")
        assert found is not None
        assert before.write("token", "a", b"before", ttl=600, expected=found.version)
        assert value(after) == b"before"
        lease = after.lease("a", 5)
        assert lease is not None
        assert before.lease("a", 5) is None
