"""Several records in one round trip, on every medium, and what that costs a real server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from store_media import KEY, OTHER_KEY

from resilient_auth import ConfigurationError, RedisStore, SealedStore
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.events import StoreRejected
from resilient_auth.store import Backend
from resilient_auth.testing import ManualClock, capture_events


def test_each_is_as_if_read_alone(backend: Backend) -> None:
    """Of whatever kind, in the order in which they were asked for, twice too."""
    store = SealedStore(backend, key=KEY)
    store.write("token", "a", b"a's", ttl=60)
    store.write("hint", "b", b"b's", ttl=60)
    wanted = [("hint", "b"), ("token", "absent"), ("token", "a"), ("hint", "a"), ("hint", "b")]
    found = store.read_many(wanted)
    assert found == [store.read(*each) for each in wanted]
    assert [record and record.value for record in found] == [b"b's", None, b"a's", None, b"b's"]
    assert store.read_many([]) == []


def test_one_that_cant_be_verified_is_a_miss_among_the_others(backend: Backend) -> None:
    """It is told and set aside as ever."""
    store = SealedStore(backend, key=KEY)
    for name in ("a", "b"):
        store.write("token", name, name.encode(), ttl=60)
    keys = {backend.get(key): key for key in backend.keys("token.")}
    record = store.read("token", "a")
    assert record is not None
    (key,) = [key for found, key in keys.items() if found is not None and found[1] == record.version]
    backend.put(key, b"garbage", ttl=60)
    with capture_events() as events:
        assert [found and found.value for found in store.read_many([("token", "a"), ("token", "b")])] == [None, b"b"]
        events.wait_for(StoreRejected)
    assert backend.get(key) is None


def test_a_wrong_argument_is_named() -> None:
    """Before the medium is asked."""
    store = SealedStore(MemoryBackend(), key=KEY)
    with pytest.raises(ConfigurationError, match="kind"):
        store.read_many([("token", "a"), ("names", "a")])
    with pytest.raises(ConfigurationError, match="name"):
        store.read_many([("token", "")])


def test_a_medium_that_cant_read_several_is_asked_for_each() -> None:
    """What a third party implements needs no more methods than before."""
    whole = MemoryBackend()

    class Plain:
        label = "plain"
        get, put, delete, keys = whole.get, whole.put, whole.delete, whole.keys
        lock, relock, unlock, close = whole.lock, whole.relock, whole.unlock, whole.close

    store = SealedStore(Plain(), key=KEY)
    store.write("token", "a", b"x", ttl=60)
    first, second = store.read_many([("token", "a"), ("token", "b")])
    assert first is not None
    assert first.value == b"x"
    assert second is None


def test_a_names_key_that_changed_meanwhile_is_noticed() -> None:
    """By the same round trip that would have read the records."""
    clock = ManualClock()
    backend = MemoryBackend(clock=clock)
    SealedStore(backend, key=KEY, clock=clock).write("token", "a", b"x", ttl=600)
    for keys in ([KEY, OTHER_KEY], [OTHER_KEY, KEY]):
        SealedStore(backend, key=keys, clock=clock).read("token", "a")
    before = SealedStore(backend, key=OTHER_KEY, clock=clock)
    before.read("token", "a")
    backend._values.clear()
    after = SealedStore(backend, key=OTHER_KEY, clock=clock)
    after.write("token", "a", b"after", ttl=600)
    clock.advance(1.1)
    (found,) = before.read_many([("token", "a")])
    assert found is not None
    assert found.value == b"after"


def test_what_an_exchange_looks_at_is_one_round_trip_at_the_server(redis_url: str, valkey: Any) -> None:
    """A partition and four hints, with the look at the names' key that is due each second."""
    with RedisStore(redis_url, KEY) as store:
        store.write("partition", "a", b"x", ttl=60)
        wanted = [("partition", "a"), *(("hint", str(number)) for number in range(4))]
        for pause in (0.0, 1.1):
            time.sleep(pause)
            valkey.config_resetstat()
            assert store.read_many(wanted)[0] is not None
            calls = {name: each["calls"] for name, each in valkey.info("commandstats").items()}
            for own in ("cmdstat_config|resetstat", "cmdstat_ping", "cmdstat_info"):
                calls.pop(own, None)
            assert calls == {"cmdstat_mget": 1}
        time.sleep(1.1)
        valkey.config_resetstat()
        assert store.read("partition", "a")
        assert valkey.info("commandstats")["cmdstat_mget"]["calls"] == 1
        assert "cmdstat_get" not in valkey.info("commandstats")
