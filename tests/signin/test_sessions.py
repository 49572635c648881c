"""Sessions in the store: their ends, the ids that browsers hold, and that an end is one everywhere."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.errors import ConfigurationError, StoreUnavailable
from resilient_auth.signin import DevelopmentStore, SessionOptions, Sessions, Who
from resilient_auth.signin.sessions.ending import SKEW, PendingEnds
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock

HOUR = 3600.0
ISSUER = "https://idp.example"


def who(subject: str = "ada", **more: Any) -> Who:
    return Who(provider="openid", issuer=ISSUER, subject=subject, **more)


class Medium(MemoryBackend):
    """A medium that counts round trips, and fails on command."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.calls = 0
        self.down = False

    def _called(self) -> None:
        self.calls += 1
        if self.down:
            raise BackendFailed("timeout")

    def get(self, key: str) -> Any:
        self._called()
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        self._called()
        return super().get_many(keys)

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        self._called()
        return super().put(key, value, **options)

    def delete(self, key: str, **options: Any) -> Any:
        self._called()
        return super().delete(key, **options)


class Fleet:
    """Processes that share a store, as far as sessions can tell."""

    def __init__(self, options: SessionOptions | None = None) -> None:
        self.clock = ManualClock(1_000_000_000.0)
        self.medium = Medium(self.clock)
        self.key = os.urandom(32)
        self.options = options or SessionOptions()
        self.one, self.other = self.process(), self.process()

    def process(self) -> Sessions:
        store = ra.SealedStore(self.medium, key=self.key, clock=self.clock)
        return Sessions(store, self.options, clock=self.clock)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


class TestEnds:
    def test_a_session_that_is_used_lasts_to_its_lifetime(self, fleet: Fleet) -> None:
        """Whichever process its requests come to; and not a second longer."""
        _, cookie = fleet.one.create(who())
        for minute in range(0, 8 * 60, 10):
            sessions = (fleet.one, fleet.other)[minute // 10 % 2]
            found = sessions.find(cookie)
            assert found is not None
            assert found.standing == "live"
            cookie = sessions.renew(found)[1] or cookie
            fleet.clock.advance(600.0)
        found = fleet.one.find(cookie)
        assert found is not None
        assert found.standing == "extendable"
        assert not fleet.one.is_due(found), "a request doesn't renew what is past its end"

    def test_an_idle_one_ends(self, fleet: Fleet) -> None:
        _, cookie = fleet.one.create(who())
        fleet.clock.advance(1799.0)
        found = fleet.one.find(cookie)
        assert found is not None
        assert found.standing == "live"
        fleet.clock.advance(2.0)
        found = fleet.one.find(cookie)
        assert found is not None
        assert found.standing == "extendable"

    def test_there_is_one_extension_and_requests_do_not_renew_it(self, fleet: Fleet) -> None:
        """It is counted from the session's end, once."""
        _, cookie = fleet.one.create(who())
        fleet.clock.advance(1800.0)
        news = []
        for _ in range(4 * 6):
            found = fleet.other.find(cookie)
            assert found is not None
            assert found.standing == "extendable"
            extended, new = fleet.other.extend(found)
            news.append(new)
            assert extended.extended == 1_000_000_000.0 + 1800.0 + 4 * HOUR
            fleet.other.touch(found)
            fleet.clock.advance(600.0)
        assert news == [True] + [False] * 23
        assert fleet.other.find(cookie) is None

    @pytest.mark.parametrize("active", [True, False])
    def test_a_clock_that_was_wrong_lets_nobody_stay(self, fleet: Fleet, active: bool) -> None:
        """Begun by a clock that was a year ahead: once it is right, no session lasts longer than any other."""
        fleet.clock.jump(365 * 24 * HOUR)
        _, cookie = fleet.one.create(who())
        fleet.clock.jump(-365 * 24 * HOUR)
        minutes = 0
        while True:
            found = fleet.other.find(cookie)
            if found is None or found.standing != "live":
                break
            cookie = fleet.other.renew(found)[1] or cookie
            fleet.clock.advance(600.0 if active or not minutes else 1801.0)
            minutes += 10
            assert minutes <= (8 * 60 + 10 if active else 20)
        assert minutes >= (8 * 60 if active else 10)

    def test_a_record_that_a_store_still_has_is_over_all_the_same(self, fleet: Fleet) -> None:
        """By its own times, whenever the store forgets it."""
        session, _ = fleet.one.create(who())
        last = session.started + fleet.options.idle + fleet.options.extension
        assert session.standing(fleet.options, last - 1.0) == "extendable"
        assert session.standing(fleet.options, last) == "over"
        assert replace(session, extended=last - 60.0).standing(fleet.options, last - 30.0) == "over"

    def test_no_extension_where_the_owner_wants_none(self) -> None:
        fleet = Fleet(SessionOptions(extension=0.0))
        _, cookie = fleet.one.create(who())
        fleet.clock.advance(1800.0)
        assert fleet.one.find(cookie) is None

    def test_the_store_forgets_what_is_over(self, fleet: Fleet) -> None:
        """Without anybody's doing."""
        session, _ = fleet.one.create(who())
        fleet.clock.advance(fleet.options.idle + fleet.options.extension + 1.0)
        assert fleet.one.get(session.id) is None


class TestIds:
    def test_the_store_has_no_id_that_lets_anybody_in(self, fleet: Fleet) -> None:
        """A hash of its secret alone."""
        session, cookie = fleet.one.create(who())
        secret = cookie.partition(".")[2]
        assert secret not in session.dumps().decode()
        assert secret not in repr(session)
        assert session.id not in repr(session)

    def test_an_id_changes_and_requests_under_way_still_have_the_old_one(self, fleet: Fleet) -> None:
        """Until the overlap is over, counted from the first request with the new one."""
        _, old = fleet.one.create(who())
        fleet.clock.advance(901.0)
        found = fleet.one.find(old)
        assert found is not None
        new = fleet.one.rotate(found)
        assert new is not None
        assert new != old
        assert fleet.other.find(old) is not None
        found = fleet.other.find(new)
        assert found is not None
        fleet.other.touch(found)
        fleet.clock.advance(59.0)
        assert fleet.one.find(old) is not None
        fleet.clock.advance(2.0)
        assert fleet.one.find(old) is None
        assert fleet.one.find(new) is not None

    def test_a_browser_that_never_got_its_new_id_stays_signed_in(self, fleet: Fleet) -> None:
        """The answer was lost: it is given another one."""
        _, old = fleet.one.create(who())
        fleet.clock.advance(901.0)
        lost = fleet.one.find(old)
        assert lost is not None
        assert fleet.one.rotate(lost) is not None
        fleet.clock.advance(300.0)
        found = fleet.other.find(old)
        assert found is not None
        new = fleet.other.renew(found)[1]
        assert new is not None
        assert fleet.one.find(new) is not None

    def test_of_requests_at_the_same_time_one_is_given_an_id(
        self, fleet: Fleet, together: Callable[..., list[Any]]
    ) -> None:
        """And all of them go on."""
        _, cookie = fleet.one.create(who())
        fleet.clock.advance(901.0)

        def request() -> str | None:
            found = fleet.one.find(cookie)
            assert found is not None
            return fleet.one.renew(found)[1]

        given = [each for each in together(8, request) if each is not None]
        assert all(isinstance(each, str) for each in given), given
        assert len(given) == 1
        assert fleet.other.find(given[0]) is not None
        assert fleet.other.find(cookie) is not None

    @pytest.mark.parametrize(
        "cookie",
        ["", ".", "a.b", "x" * 22 + "." + "y" * 43, "x" * 22 + "y" * 44, "é" * 22 + "." + "y" * 43, "x" * 100_000],
    )
    def test_another_applications_cookie_is_nobodys(self, fleet: Fleet, cookie: str) -> None:
        assert fleet.one.find(cookie) is None

    def test_a_known_name_with_another_secret_is_nobodys(self, fleet: Fleet) -> None:
        _, cookie = fleet.one.create(who())
        _, others = fleet.one.create(who("bob"))
        assert fleet.one.find(f"{cookie.partition('.')[0]}.{others.partition('.')[2]}") is None


class TestEnding:
    def test_an_end_holds_here_at_once_and_elsewhere_within_a_second(self, fleet: Fleet) -> None:
        session, cookie = fleet.one.create(who())
        assert fleet.other.find(cookie) is not None
        assert fleet.one.end(session.id)
        assert fleet.one.find(cookie) is None
        fleet.clock.advance(fleet.options.recheck + 0.1)
        assert fleet.other.find(cookie) is None
        assert not fleet.one.end(session.id)

    @pytest.mark.parametrize(
        ("where", "ended"),
        [
            ({"sid": "s1"}, ["phone"]),
            ({"subject": "ada"}, ["phone", "laptop"]),
            ({"oid": "o", "tenant": "t"}, ["phone", "laptop"]),
            ({"sid": "s1", "subject": "ada"}, ["phone"]),
            ({"sid": "s1", "subject": "bob"}, []),
            ({"subject": "eve"}, []),
            ({"oid": "o"}, []),
            ({}, []),
        ],
    )
    def test_sessions_are_ended_by_what_a_provider_says(
        self, fleet: Fleet, where: dict[str, str], ended: list[str]
    ) -> None:
        """All that it says must hold, and nobody else's is ended."""
        cookies = {
            "phone": fleet.one.create(who(sid="s1", oid="o", tenant="t"))[1],
            "laptop": fleet.other.create(who(sid="s2", oid="o", tenant="t"))[1],
            "bob's": fleet.other.create(who("bob", sid="s3", oid="b", tenant="t"))[1],
        }
        assert fleet.one.end_where(ISSUER, **where) == len(ended)
        fleet.clock.advance(1.1)
        gone = [name for name, cookie in cookies.items() if fleet.other.find(cookie) is None]
        assert gone == ended
        assert fleet.one.end_where("https://other.example", **where) == 0

    def test_an_end_that_another_process_has_made_already_holds_here_too(self, fleet: Fleet) -> None:
        """At once, though the lists don't name the session any more."""
        _, cookie = fleet.one.create(who())
        assert fleet.other.find(cookie) is not None
        assert fleet.one.end_where(ISSUER, subject="ada") == 1
        assert fleet.other.end_where(ISSUER, subject="ada") == 0
        assert fleet.other.find(cookie) is None

    @pytest.mark.parametrize("by_its_id", [True, False])
    def test_a_session_by_a_wrong_clock_is_ended_too(self, fleet: Fleet, by_its_id: bool) -> None:
        """What is yet to begin, by its own word, has begun: here at once, and through a failure of the store."""
        fleet.clock.jump(HOUR)
        session, cookie = fleet.one.create(who())
        fleet.clock.jump(-HOUR)

        def end() -> None:
            if by_its_id:
                fleet.one.end(session.id)
            else:
                fleet.one.end_where(ISSUER, subject="ada", begun_by=fleet.clock.wall())

        fleet.medium.down = True
        with pytest.raises(StoreUnavailable):
            end()
        fleet.medium.down = False
        # Before it is written.
        assert fleet.one.find(cookie) is None
        end()
        fleet.clock.advance(1.1)
        assert fleet.other.find(cookie) is None

    def test_one_that_is_ended_as_it_is_begun_is_not_remembered(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was listed, and found there by who ends what is."""
        lists = fleet.one._lists
        change = lists.change

        def early(name: str, how: Any) -> Any:
            listed = change(name, how)
            if name.startswith("sub "):
                monkeypatch.setattr(lists, "change", change)
                fleet.one.end_where(ISSUER, subject="ada")
            return listed

        monkeypatch.setattr(lists, "change", early)
        _, cookie = fleet.one.create(who())
        assert fleet.one.find(cookie) is None

    def test_who_signs_in_again_stays_in(self, fleet: Fleet) -> None:
        fleet.one.create(who())
        assert fleet.one.end_where(ISSUER, subject="ada") == 1
        _, cookie = fleet.other.create(who())
        fleet.clock.advance(10.0)
        assert fleet.one.find(cookie) is not None

    def test_a_sign_in_that_races_an_end_is_ended(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that had begun before it, and wasn't listed yet."""
        lists, ending = fleet.one._lists, fleet.other
        change = lists.change

        def late(name: str, how: Any) -> Any:
            if name.startswith("sub "):
                monkeypatch.setattr(lists, "change", change)
                ending.end_where(ISSUER, subject="ada")
            return change(name, how)

        monkeypatch.setattr(lists, "change", late)
        with pytest.raises(StoreUnavailable):
            fleet.one.create(who())

    def test_an_end_holds_through_a_failure_of_the_store(self, fleet: Fleet, eventually: Callable[..., None]) -> None:
        """Here at once; everywhere as soon as the store is back; and meanwhile nobody is let in unseen."""
        _, cookie = fleet.one.create(who())
        _, bobs = fleet.one.create(who("bob"))
        assert fleet.other.find(cookie) is not None
        fleet.medium.down = True
        with pytest.raises(StoreUnavailable):
            fleet.one.end_where(ISSUER, subject="ada")
        assert fleet.one.recall(cookie) is None
        fleet.clock.advance(1.1)
        with pytest.raises(StoreUnavailable):
            fleet.other.find(cookie)
        fleet.medium.down = False

        def over() -> bool:
            fleet.clock.advance(5.0)
            try:
                return fleet.other.find(cookie) is None
            except StoreUnavailable:  # its breaker looks again soon
                return False

        eventually(over)
        assert fleet.other.find(bobs) is not None

    def test_who_was_seen_a_moment_ago_stays_in_while_the_store_fails(self) -> None:
        """Where the owner wants that: nobody who has signed out for longer than that, and nobody who did so here."""
        fleet = Fleet(SessionOptions(stale_if_error=60.0))
        (_, here), (there, away), (_, kept) = (fleet.one.create(who(name)) for name in ("ada", "bob", "eve"))
        for cookie in (here, away, kept):
            assert fleet.one.find(cookie) is not None
        fleet.clock.advance(5.0)
        assert fleet.other.end(there.id)
        fleet.medium.down = True
        with pytest.raises(StoreUnavailable):
            fleet.one.end_where(ISSUER, subject="ada")
        fleet.clock.advance(54.0)
        found = fleet.one.find(kept)
        assert found is not None
        assert fleet.one.renew(found) == (found.session, None)
        # What another process was told isn't known here yet.
        assert fleet.one.find(away) is not None
        forged = f"{kept.partition('.')[0]}.{away.partition('.')[2]}"
        for cookie in (here, forged):
            with pytest.raises(StoreUnavailable):
                fleet.one.find(cookie)
        # One that has read nothing lets in nobody.
        with pytest.raises(StoreUnavailable):
            fleet.process().find(kept)
        fleet.clock.advance(2.0)
        for cookie in (kept, away):
            with pytest.raises(StoreUnavailable):
                fleet.one.find(cookie)

    def test_a_later_id_is_let_in_by_nothing_that_was_read_before(self) -> None:
        """Nor is the browser told that it is signed out: the store alone can tell."""
        fleet = Fleet(SessionOptions(stale_if_error=60.0, rotate_every=10.0, overlap=5.0))
        _, cookie = fleet.one.create(who())
        fleet.clock.advance(11.0)
        assert fleet.one.find(cookie) is not None
        found = fleet.other.find(cookie)
        assert found is not None
        later = fleet.other.rotate(found)
        assert later is not None
        fleet.medium.down = True
        fleet.clock.advance(2.0)
        with pytest.raises(StoreUnavailable):
            fleet.one.find(later)

    def test_what_was_read_before_an_end_is_not_remembered_after_it(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session, cookie = fleet.one.create(who())
        fleet.clock.advance(1.1)
        store = fleet.one._store
        read = store.read

        def slow(kind: str, name: str) -> Any:
            record = read(kind, name)
            if kind == "session":
                monkeypatch.setattr(store, "read", read)
                fleet.one.end(session.id)
            return record

        monkeypatch.setattr(store, "read", slow)
        fleet.one.find(cookie)
        assert fleet.one.find(cookie) is None

    def test_a_touch_does_not_bring_back_what_was_ended(self, fleet: Fleet) -> None:
        session, cookie = fleet.one.create(who())
        fleet.clock.advance(100.0)
        found = fleet.other.find(cookie)
        assert found is not None
        fleet.one.end(session.id)
        fleet.other.touch(found)
        fleet.other.rotate(found, anyway=True)
        assert fleet.other.find(cookie) is None


class TestBounds:
    def test_a_users_oldest_session_gives_way(self) -> None:
        fleet = Fleet(SessionOptions(per_user=2))
        cookies = []
        for _ in range(3):
            cookies.append(fleet.one.create(who())[1])
            fleet.clock.advance(2.0)
        bobs = fleet.one.create(who("bob"))[1]
        assert [fleet.other.find(cookie) is not None for cookie in cookies] == [False, True, True]
        assert fleet.other.find(bobs) is not None

    def test_there_are_no_more_than_may_be(self) -> None:
        """Who is signed in stays; what is over makes room."""
        fleet = Fleet(SessionOptions(most=32, per_user=32))
        numbers = itertools.count()

        def fill() -> None:
            for number in numbers:
                fleet.one.create(who(f"user {number}"))

        with pytest.raises(StoreUnavailable, match="full"):
            fill()
        assert 1 <= next(numbers) - 1 <= 32
        # What the store has lost makes room too, though lists name it still; and as many as before, no more.
        for record in list(fleet.one._store.scan("session")):
            fleet.one._store.erase("session", record.name)
        for number in range(1000):
            with suppress(StoreUnavailable):
                fleet.one.create(who(f"after a loss {number}"))
        assert len(list(fleet.one._store.scan("session"))) == 32
        fleet.clock.advance(fleet.options.idle + fleet.options.extension + 1.0)
        fleet.one.create(who("one more"))

    def test_what_anybody_may_say_leaves_nothing_behind(self, fleet: Fleet) -> None:
        """Of a session that isn't there: neither in the store nor in the place of an end that somebody has proved."""
        session, cookie = fleet.one.create(who(sid="s"))
        kept = len(fleet.medium._values)
        for number in range(50):
            fleet.other.end_on((f"sid {ISSUER} {number}",), proved=False)
        assert len(fleet.medium._values) == kept
        fleet.medium.down = True
        with pytest.raises(StoreUnavailable):
            fleet.one.end(session.id)
        for number in range(12_000):
            with pytest.raises(StoreUnavailable):
                fleet.one.end_on((f"sid {ISSUER} {number}",), proved=False)
        fleet.medium.down = False
        fleet.clock.advance(11.0)
        assert fleet.one.find(cookie) is None

    def test_an_end_looks_at_those_alone_that_it_may_mean(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many sessions a process has read: anybody may ask for one."""
        from resilient_auth.signin.sessions import recent

        cookies = [fleet.one.create(who(f"user {number}", sid=f"s{number}"))[1] for number in range(30)]
        looked_at: list[str] = []
        names_of = recent.names_of

        def counted(one: Who) -> tuple[str, ...]:
            looked_at.append(one.subject)
            return names_of(one)

        monkeypatch.setattr(recent, "names_of", counted)
        fleet.one.end_on((f"sid {ISSUER} unknown",), proved=False)
        assert looked_at == []
        assert fleet.one.end_where(ISSUER, sid="s7", subject="user 7") == 1
        assert set(looked_at) == {"user 7"}
        assert [fleet.one.find(cookie) is None for cookie in cookies] == [number == 7 for number in range(30)]

    def test_guests_have_a_bound_of_their_own(self) -> None:
        fleet = Fleet(SessionOptions(most_guests=2))
        for number in range(2):
            fleet.one.create(Who(provider="guest", issuer=ISSUER, subject=f"g{number}"))
        with pytest.raises(StoreUnavailable, match="full"):
            fleet.one.create(Who(provider="guest", issuer=ISSUER, subject="g3"))
        fleet.one.create(who())

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"idle": 7200.0, "lifetime": 3600.0}, "idle of 7200 s exceeds lifetime"),
            ({"overlap": 100.0, "rotate_every": 50.0}, "overlap"),
            ({"per_user": 10, "most": 5}, "per_user"),
            ({"recheck": 5.0}, "recheck"),
            ({"stale_if_error": 301.0}, "stale_if_error"),
            ({"idle": "30"}, "idle"),
        ],
    )
    def test_what_cannot_hold_is_said_at_once(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=says):
            SessionOptions(**options)


class TestCost:
    def test_a_warm_look_up_asks_no_store_and_a_cold_one_asks_once(self, fleet: Fleet) -> None:
        """One round trip, whatever the medium."""
        _, cookie = fleet.one.create(who())
        fleet.other.find(cookie)
        before = fleet.medium.calls
        for _ in range(10):
            fleet.other.find(cookie)
        assert fleet.medium.calls == before
        fleet.clock.advance(1.1)
        fleet.other.find(cookie)
        assert fleet.medium.calls == before + 1

    def test_a_request_is_seldom_a_write(self, fleet: Fleet) -> None:
        _, cookie = fleet.one.create(who())
        found = fleet.one.find(cookie)
        assert found is not None
        fleet.one.touch(found)
        written = 0
        for _ in range(100):
            fleet.clock.advance(1.0)
            found = fleet.one.find(cookie)
            assert found is not None
            written += fleet.one.is_due(found)
            fleet.one.touch(found)
        assert written == 1


class TestStores:
    def test_a_file_keeps_them_through_a_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "sessions.db"
        with ra.FileStore(path) as store:
            _, cookie = Sessions(store).create(who(claims={"roles": ["a"]}))
        with ra.FileStore(path) as store:
            found = Sessions(store).find(cookie)
        assert found is not None
        assert found.session.who.claims == {"roles": ["a"]}

    def test_valkey_has_them_in_one_round_trip(self, redis_url: str, valkey: Any) -> None:
        with ra.RedisStore(redis_url, key=os.urandom(32)) as store:
            sessions = Sessions(store, SessionOptions(recheck=0.0))
            _, cookie = sessions.create(who())
            sessions.find(cookie)
            before = _commands(valkey)
            assert sessions.find(cookie) is not None
            assert _commands(valkey) - before <= 2  # the look-up, and this count itself
            assert sessions.end_where(ISSUER, subject="ada") == 1
            assert sessions.find(cookie) is None

    def test_memory_is_for_development_and_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilient_auth"):
            sessions = Sessions(DevelopmentStore())
        assert "production" in caplog.text
        _, cookie = sessions.create(who())
        assert sessions.find(cookie) is not None

    def test_an_end_that_cannot_be_written_holds_up_no_other(self, fleet: Fleet) -> None:
        """A list that a newer release has written is for that one to change; whose it is, is out here all the same."""
        cookies = {name: fleet.one.create(who(name))[1] for name in ("ada", "bob")}
        fleet.one._store.write("session-list", f"sub {ISSUER} ada", b'{"v": 2}', ttl=HOUR)
        with pytest.raises(StoreUnavailable, match="newer_schema"):
            fleet.one.end_where(ISSUER, subject="ada")
        fleet.medium.down = True
        with pytest.raises(StoreUnavailable):
            fleet.one.end_where(ISSUER, subject="bob")
        fleet.medium.down = False
        pause, tries = threading.Event(), 0
        while fleet.other.find(cookies["bob"]) is not None:
            tries += 1
            assert tries < 1000
            fleet.clock.advance(1.1)
            pause.wait(0.005)
        assert fleet.one.find(cookies["ada"]) is None

    def test_a_record_that_is_none_is_nobody(self, fleet: Fleet) -> None:
        """A newer release's, or one that was damaged."""
        session, cookie = fleet.one.create(who())
        newer = {**json.loads(session.dumps()), "v": 2}
        for value in (b"{}", b"[]", b"nothing", json.dumps(newer).encode()):
            fleet.one._store.write("session", session.id, value, ttl=60.0)
            fleet.clock.advance(1.1)
            assert fleet.other.find(cookie) is None

    def test_a_forked_child_finds_them(self, tmp_path: Path) -> None:
        """With locks of its own, whatever the parent was in the middle of."""
        with ra.FileStore(tmp_path / "sessions.db") as store:
            sessions = Sessions(store)
            _, cookie = sessions.create(who())
            held, go_on = threading.Event(), threading.Event()

            def look() -> None:
                assert sessions.find(cookie) is not None

            def hold() -> None:
                with sessions._recent._lock:
                    held.set()
                    go_on.wait(10.0)

            thread = threading.Thread(target=hold)
            thread.start()
            held.wait(10.0)
            try:
                in_a_child(look)
            finally:
                go_on.set()
                thread.join()


class TestTimesThatAreYetToCome:
    """A clock was wrong: nobody is let in for longer by that, and an end finds whom it means."""

    @pytest.mark.parametrize("name", ["started", "seen", "given"])
    def test_each_is_taken_back(self, fleet: Fleet, name: str) -> None:
        session, _ = fleet.one.create(who())
        now = fleet.clock.wall()
        assert replace(session, **{name: now + 61.0}).dated(now) == session
        assert getattr(replace(session, **{name: now + 59.0}).dated(now), name) == now + 59.0

    def test_what_is_yet_to_begin_had_begun_by_any_time(self, fleet: Fleet) -> None:
        session, _ = fleet.one.create(who())
        now = fleet.clock.wall()
        assert replace(session, started=now + 61.0).begun_by(now - 10.0, now)
        assert not replace(session, started=now + 59.0).begun_by(now - 10.0, now)


class TestWhatIsOver:
    """It is forgotten, and takes along nothing of the user's other sessions."""

    def test_lists_forget_it(self, fleet: Fleet) -> None:
        first, second = (fleet.one.create(who())[0] for _ in range(2))
        fleet.one.end(first.id)
        assert [one.id for one in fleet.one.listed((f"sub {ISSUER} ada",))] == [second.id]
        assert list(fleet.one._lists.read(f"sub {ISSUER} ada").sessions) == [second.id]
        before = fleet.medium.calls
        fleet.one._lists.remove(f"sub {ISSUER} ada", first.id)
        assert fleet.medium.calls - before == 1  # it is looked for, and nothing is written

    def test_what_is_on_all_of_several_lists_is_listed_and_nothing_else(self, fleet: Fleet) -> None:
        """And nothing that can't be read."""
        first, second, unreadable = (fleet.one.create(who(sid=sid))[0] for sid in ("1", "2", "1"))
        fleet.one._store.write("session", unreadable.id, b"{}", ttl=HOUR)
        whole, one = f"sub {ISSUER} ada", f"sid {ISSUER} 1"
        assert [found.id for found in fleet.one.listed((whole, one))] == [first.id]
        assert {found.id for found in fleet.one.listed((whole,))} == {first.id, second.id}

    def test_the_process_remembers_the_users_others(self, fleet: Fleet) -> None:
        """By the user's names: who is ended at another process is over here at once, too."""
        recent = fleet.one._recent
        first, second = (fleet.one.create(who())[0] for _ in range(2))
        recent.end(first.id)
        recent.end_all((f"sub {ISSUER} ada",))
        assert recent.get(second.id, HOUR) is None
        assert not recent._listed

    def test_an_end_by_a_clock_that_is_behind_covers_it(self, fleet: Fleet) -> None:
        """Within the seconds by which clocks differ; by its id, whatever clock it was begun by."""
        session, _ = fleet.one.create(who())
        now = fleet.clock.wall()
        pending = PendingEnds(fleet.clock, lambda *_: None, HOUR)
        with pytest.raises(StoreUnavailable), pending.until_done(f"sub {ISSUER} ada"):
            raise StoreUnavailable("memory", "timeout")
        assert pending.cover(replace(session, started=now + SKEW))
        assert not pending.cover(replace(session, started=now + SKEW + 0.1))
        with pytest.raises(StoreUnavailable), pending.until_done(session.id):
            raise StoreUnavailable("memory", "timeout")
        assert pending.cover(replace(session, started=now + 50.0))

    def test_what_was_ended_once_more_meanwhile_is_written_once_more(self, fleet: Fleet) -> None:
        """The end that is written mustn't take the later one along."""
        session, _ = fleet.one.create(who())
        name, written = f"sub {ISSUER} ada", list[float]()

        def write(names: tuple[str, ...], at: float, begun_by: float, proved: bool) -> None:
            if not written:
                fleet.clock.advance(30.0)
                with suppress(StoreUnavailable), pending.until_done(name):
                    raise StoreUnavailable("memory", "timeout")
            written.append(at)

        pending = PendingEnds(fleet.clock, write, HOUR)
        with suppress(StoreUnavailable), pending.until_done(name):
            raise StoreUnavailable("memory", "timeout")
        pending._try()
        assert pending.cover(replace(session, started=fleet.clock.wall()))
        pending._try()
        assert written == [1_000_000_000.0, 1_000_000_030.0]
        assert not pending.cover(session)


def _commands(valkey: Any) -> int:
    return int(valkey.info("stats")["total_commands_processed"])
