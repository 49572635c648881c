"""Writes in the background: taken by the store, made at least once, none lost, and what is given up is seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import Database, FailingBackend

import resilient_auth as ra
from resilient_auth.callouts import BackgroundWrites, Undeliverable, Write, WritesFull
from resilient_auth.events import WriteFailed, WriteGivenUp
from resilient_auth.health.verdict import Seen, judge
from resilient_auth.testing import capture_events


def verdict() -> str:
    """Return what health makes of the writes and their target: other tests of this process have left what they have."""
    seen = ra.health()
    circuits = tuple(breaker for breaker in seen.breakers if "audit" in breaker.name)
    return judge(Seen(at=0.0, writes=seen.writes, breakers=circuits))[0]


def test_a_write_is_taken_at_once_and_made_once(make: Callable[..., BackgroundWrites], pass_until: Any) -> None:
    database = Database()
    writes = make(database)
    assert writes.put({"user": "u-1"}, key="c-1/audit")
    pass_until(lambda: database.made, at_most=5.0)
    pass_until(lambda: not writes.report().pending, at_most=5.0)
    assert database.made == [("c-1/audit", {"user": "u-1"}, 1)]
    assert "u-1" not in repr(Write(key="u-1", payload={"user": "u-1"}))


def test_a_second_write_with_the_key_of_one_that_waits_is_not_taken(make: Callable[..., BackgroundWrites]) -> None:
    database = Database()
    database.down = OSError("refused")
    writes = make(database)
    assert writes.put({"n": 1}, key="c-1")
    assert not writes.put({"n": 2}, key="c-1")


def test_what_fails_is_made_when_the_target_works_again(make: Callable[..., BackgroundWrites], pass_until: Any) -> None:
    database = Database()
    database.down = OSError("password=hunter2")
    writes = make(database)
    with capture_events() as told:
        for number in range(6):
            writes.put({"n": number}, key=f"c-{number}")
        failed = told.wait_for(WriteFailed)
    assert "hunter2" not in str(failed)
    assert "c-" not in failed[0].key
    pass_until(lambda: verdict() == "degraded", at_most=30.0)
    # Hours of an outage give nothing up.
    pass_until(lambda: False or writes.report().oldest > 3600.0, step=20.0)
    assert not writes.dead_letters()
    database.down = None
    pass_until(lambda: not writes.report().pending, step=5.0)
    assert sorted(database.keys) == [f"c-{number}" for number in range(6)]


def test_a_write_that_fails_alone_becomes_a_dead_letter_that_health_shows(
    make: Callable[..., BackgroundWrites], pass_until: Any
) -> None:
    database = Database()
    database.poison = {"bad"}
    writes = make(database, attempts=3)
    with capture_events() as told:
        writes.put({"user": "u-1"}, key="bad")
        for number in range(200):
            writes.put({"n": number}, key=f"good-{number}")
            pass_until(lambda: writes.report().pending <= 1, at_most=60.0)
            if writes.report().dead:
                break
        (given_up,) = told.wait_for(WriteGivenUp)
    assert (given_up.target, given_up.code, given_up.count) == ("audit", "handler_error", 1)
    seen = ra.health()
    assert verdict() == "degraded"
    assert "1 writes of audit were given up; look at their dead_letters()" in seen.reasons
    (letter,) = writes.dead_letters()
    assert (letter.key, dict(letter.payload), letter.code) == ("bad", {"user": "u-1"}, "handler_error")
    database.poison = set()
    assert writes.retry("bad")
    pass_until(lambda: "bad" in database.keys, at_most=60.0)
    assert not writes.dead_letters()
    assert writes.report().dead == 0


def test_what_a_target_refuses_for_good_is_given_up_at_once(
    make: Callable[..., BackgroundWrites], pass_until: Any
) -> None:
    def refuse(write: Write) -> None:
        raise Undeliverable("no_such_user")

    writes = make(refuse)
    writes.put({}, key="c-1")
    pass_until(lambda: writes.report().dead, at_most=5.0)
    assert [letter.code for letter in writes.dead_letters()] == ["no_such_user"]
    assert writes.discard("c-1")
    assert not writes.dead_letters()
    assert not writes.discard("c-1")


def test_no_more_wait_than_may(make: Callable[..., BackgroundWrites]) -> None:
    database = Database()
    database.down = OSError("refused")
    writes = make(database, most=2)
    writes.put({}, key="1")
    writes.put({}, key="2")
    with pytest.raises(WritesFull):
        writes.put({}, key="3")


def test_another_process_makes_what_one_has_left(
    make: Callable[..., BackgroundWrites], backend: FailingBackend, pass_until: Any
) -> None:
    begun: list[str] = []
    never = threading.Event()

    def hang(write: Write) -> None:
        begun.append(write.key)
        never.wait(20.0)

    gone = make(hang)
    gone.put({"n": 1}, key="c-1")
    pass_until(lambda: gone.report().oldest > 100.0, at_most=200.0)
    # It is due again, and whoever hangs with it doesn't take it a second time.
    assert begun == ["c-1"]
    database = Database()
    make(database)
    pass_until(lambda: database.keys, at_most=200.0)
    assert database.keys == ["c-1"]
    never.set()


def test_what_is_made_is_not_made_again_since_the_store_cannot_be_told(
    make: Callable[..., BackgroundWrites], backend: FailingBackend, pass_until: Any
) -> None:
    database = Database()
    writes = make(database, timeout=5.0)
    backend.fails = True
    writes.put({}, key="c-1")
    pass_until(lambda: database.made, at_most=5.0)
    pass_until(lambda: False or writes.report().oldest > 60.0, at_most=100.0)
    backend.fails = False
    pass_until(lambda: not writes.report().pending, at_most=120.0)
    assert database.keys == ["c-1"]


def test_a_store_that_fails_takes_nothing_and_says_so(make: Callable[..., BackgroundWrites], tmp_path: Path) -> None:
    store = ra.FileStore(tmp_path / "writes.db")
    writes = make(Database(), store=store)
    store.close()
    with pytest.raises(ra.StoreUnavailable):
        writes.put({}, key="c-1")


def test_a_payload_that_is_no_json_is_refused(make: Callable[..., BackgroundWrites]) -> None:
    writes = make(Database())
    with pytest.raises(ra.ConfigurationError, match="payload must be JSON"):
        writes.put({"at": object()}, key="c-1")
    with pytest.raises(ra.ConfigurationError, match="smaller than"):
        writes.put({"text": "x" * 300_000}, key="c-1")


def test_what_a_target_only_promises_is_not_made(make: Callable[..., BackgroundWrites], pass_until: Any) -> None:
    """A coroutine that nobody awaits makes no write: it is tried again, and isn't taken for made."""
    database = Database()

    async def later(write: Write) -> None:
        database(write)

    with capture_events() as events:
        writes = make(lambda write: later(write))
        writes.put({"user": "ada"}, key="k")
        pass_until(lambda: events.of(WriteFailed))
    assert events.of(WriteFailed)[0].code == "configuration"
    assert not database.made
    assert ra.health().writes[0].pending == 1
