"""What an application object holds: bounded, indexed by whose it is, and forgotten at once."""

from __future__ import annotations

import gc
import weakref

import pytest
from flow_bench import HERE, HOST, Bench, Threads, until

from resilient_auth._engine import schedule
from resilient_auth._engine.cache import CacheEntry, Memory
from resilient_auth._policy.fallback import FallbackOptions
from resilient_auth.events import TokenDropped
from resilient_auth.testing import capture_events
from resilient_auth.token import TokenRequest


def slot_for(bench: Bench, name: str, *, memory: Memory | None = None, subject: str | None = None) -> CacheEntry:
    """Make a cache entry that holds a token."""
    memory = memory or bench.memory
    entry = memory.entry(TokenRequest(HOST, "app", "silent", (name,), subject), (HERE,))
    memory.put(entry, bench.token())
    return entry


def remember(memory: Memory, entry: CacheEntry, signature: object) -> None:
    """Remember an answer made of what the entry holds."""
    assert entry.token is not None
    memory.remember_hit(entry, entry.token, signature, "answer")


class TestBound:
    def test_the_slot_touched_least_recently_goes_first(self) -> None:
        """A look-up counts as a touch."""
        bench = Bench(max_tokens=3)
        memory = Memory(3, bench.engine)
        a, b, c = (slot_for(bench, name, memory=memory) for name in "abc")
        assert memory.find(a.request) is a
        slot_for(bench, "d", memory=memory)
        assert memory.find(b.request) is None
        assert memory.find(a.request) is a
        assert memory.find(c.request) is c
        assert len(list(memory)) == 3

    def test_a_thousand_tokens_leave_as_many_as_fit(self) -> None:
        """Whoever they belong to; the index by subject shrinks along."""
        bench = Bench()
        memory = Memory(10, bench.engine)
        for n in range(1000):
            memory.put(
                slot_for(bench, "x", memory=memory, subject=f"user {n}"), bench.token(), owner=f"home account {n}"
            )
        assert len(list(memory)) == 10
        assert len(memory._by_subject) == 20
        assert not memory.hits

    def test_a_pinned_one_is_never_evicted(self) -> None:
        """However long ago it was touched."""
        bench = Bench()
        memory = Memory(4, bench.engine)
        pinned = [slot_for(bench, name, memory=memory) for name in "ab"]
        for entry in pinned:
            entry.reschedule = schedule.schedule
        for n in range(50):
            slot_for(bench, str(n), memory=memory)
        for entry in pinned:
            assert memory.find(entry.request) is entry
            assert entry.token is not None
        assert len(list(memory)) == 4

    @pytest.mark.parametrize("most", [1, 3])
    def test_it_stays_bounded_where_all_are_pinned(self, most: int) -> None:
        """Then the one touched least recently goes after all, and nothing turns in a circle."""
        bench = Bench()
        memory = Memory(most, bench.engine)
        for n in range(most + 2):
            slot_for(bench, f"pinned {n}", memory=memory).reschedule = schedule.schedule
        assert [entry.request.scopes[0] for entry in memory] == [f"pinned {n}" for n in range(2, most + 2)]

    def test_an_evicted_slot_is_let_go(self) -> None:
        """With its answers and its timer."""
        bench = Bench()
        memory = Memory(1, bench.engine)
        entry = slot_for(bench, "a", memory=memory)
        remember(memory, entry, "signature")
        gone = weakref.ref(entry)
        slot_for(bench, "b", memory=memory)
        assert entry.token is None
        assert not memory.hits
        del entry
        gc.collect()
        assert gone() is None

    def test_an_eviction_is_told(self) -> None:
        """As a dropped token, with the reason."""
        bench = Bench()
        memory = Memory(1, bench.engine)
        with capture_events() as events:
            slot_for(bench, "a", memory=memory)
            slot_for(bench, "b", memory=memory)
            (told,) = events.wait_for(TokenDropped, timeout=0.3)
        assert told.request.scopes == ("a",)


class TestForgetting:
    def test_one_subjects_tokens_go_and_no_others(self) -> None:
        """A sign-out."""
        bench = Bench()
        ann = [slot_for(bench, name, subject="ann") for name in "ab"]
        bob, app = slot_for(bench, "a", subject="bob"), slot_for(bench, "a")
        with capture_events() as events:
            bench.memory.drop_subject("ann", "removed")
            told = events.wait_for(TokenDropped, count=2)
        assert {event.request for event in told} == {entry.request.shown() for entry in ann}
        assert all(entry.token is None for entry in ann)
        assert bob.token is not None
        assert app.token is not None
        bench.memory.drop_subject(None, "removed")
        assert app.token is None
        assert bob.token is not None

    def test_an_owner_named_later_counts_too(self) -> None:
        """A token that came by an assertion goes with the account that it belongs to."""
        bench = Bench()
        entry = slot_for(bench, "a", subject="hash of an assertion")
        bench.memory.put(entry, bench.token(), owner="ann")
        bench.memory.drop_subject("ann", "removed")
        assert entry.token is None

    def test_a_token_that_was_replaced_isnt_dropped(self) -> None:
        """A challenge to the old one leaves the new one alone."""
        bench = Bench()
        entry = slot_for(bench, "a")
        old = entry.token
        assert old is not None
        bench.memory.put(entry, bench.token())
        assert not bench.memory.drop_token(entry, old, "claims_challenge")
        assert entry.token is not None
        assert bench.memory.drop_token(entry, entry.token, "claims_challenge")
        assert entry.token is None

    def test_all_goes_with_the_answers_made_from_it(self) -> None:
        """And each entry's generation moves on, held or not."""
        bench = Bench()
        held, empty = slot_for(bench, "a"), bench.entry
        remember(bench.memory, held, "signature")
        bench.memory.drop_all("removed")
        assert (held.generation, empty.generation) == (1, 1)
        assert not bench.memory.hits
        assert held.signatures == ()

    def test_unknown_subjects_are_no_error(self) -> None:
        """There is nothing to forget."""
        Bench().memory.drop_subject("nobody", "removed")


class TestHits:
    def test_answers_are_bounded_for_each_slot(self) -> None:
        """Eight ways to write the same call."""
        bench = Bench()
        entry = slot_for(bench, "a")
        for n in range(20):
            remember(bench.memory, entry, n)
        assert len(bench.memory.hits) == 8

    def test_a_slot_that_was_evicted_gets_none(self) -> None:
        """Nothing would ever take it away."""
        bench = Bench()
        memory = Memory(1, bench.engine)
        gone = slot_for(bench, "a", memory=memory)
        token = gone.token
        assert token is not None
        slot_for(bench, "b", memory=memory)
        memory.remember_hit(gone, token, "signature", "answer")
        assert not memory.hits

    def test_a_token_that_was_dropped_gives_no_answers(self) -> None:
        """An answer that was made of it before comes too late."""
        bench = Bench()
        entry = slot_for(bench, "a")
        token = entry.token
        assert token is not None
        bench.memory.drop_all("removed")
        bench.memory.remember_hit(entry, token, "signature", "answer")
        assert not bench.memory.hits


def test_threads_share_one_slot_for_one_request() -> None:
    """Whoever asks first."""
    bench = Bench()
    request = TokenRequest(HOST, "app", "silent", ("shared",))
    crowd = Threads(100, lambda: bench.memory.entry(request, (HERE,)))
    crowd.join()
    assert len({id(entry) for entry in crowd.got}) == 1


def test_the_bound_holds_under_threads() -> None:
    """Sixteen threads that fill, look and forget leave it whole."""
    bench = Bench()
    memory = Memory(20, bench.engine)

    def work() -> None:
        for n in range(200):
            entry = slot_for(bench, str(n % 50), memory=memory, subject=f"user {n % 7}")
            memory.remember_hit(entry, entry.token or bench.token(), (n, "x"), "answer")
            if n % 10 == 0:
                memory.drop_subject(f"user {n % 7}", "removed")
            list(memory)

    crowd = Threads(16, work)
    crowd.join()
    assert crowd.errors == []
    assert len(list(memory)) <= 20
    assert len(memory.hits) <= 20 * 8


class TestSweep:
    def _quiet(self, bench: Bench, count: int, **options: object) -> list[weakref.ref[CacheEntry]]:
        """Users who came once, each with a token that nobody can renew without them."""
        return [weakref.ref(slot_for(bench, "x", subject=f"user {n}")) for n in range(count)]

    def _later(self, bench: Bench, seconds: float) -> None:
        """Let time pass, and somebody new come."""
        bench.clock.advance(seconds)
        slot_for(bench, "new", subject=f"at {bench.clock.monotonic()}")
        until(lambda: not bench.engine.workers._lanes)
        gc.collect()

    def test_what_is_over_goes(self) -> None:
        """All of it, when somebody comes after the tokens' end; and before that none."""
        bench = Bench()
        gone = self._quiet(bench, 450)
        self._later(bench, 3500.0)
        assert all(entry() is not None for entry in gone)
        self._later(bench, 200.0)
        assert not any(entry() is not None for entry in gone)
        assert len(list(bench.memory)) == len(bench.memory._by_subject) == 2

    def test_what_never_had_a_token_goes_too(self) -> None:
        """Somebody who sends assertions that are denied fills no memory."""
        bench = Bench()
        for n in range(100):
            bench.memory.entry(TokenRequest(HOST, "app", "on_behalf_of", ("x",), f"user {n}"), (HERE,))
        self._later(bench, 1000.0)
        assert len(list(bench.memory)) == 1

    def test_what_is_still_wanted_stays(self) -> None:
        """A pinned one, one that was asked for a moment ago, and one that an API has refused."""
        bench = Bench()
        pinned, asked, refused = (slot_for(bench, "x", subject=who) for who in ("pinned", "asked", "refused"))
        pinned.reschedule = schedule.schedule
        token = refused.token
        assert token is not None
        bench.memory.drop_token(refused, token, "an API refused it")
        bench.clock.advance(4000.0)
        asked.asked_at = bench.clock.monotonic()
        self._later(bench, 0.0)
        assert {pinned, asked, refused} <= set(bench.memory)

    def test_a_grace_is_kept(self) -> None:
        """What the owner lets be served past its end, while the provider is down, is there until then."""
        bench = Bench(fallback=FallbackOptions(grace=1800.0))
        kept = self._quiet(bench, 5)
        self._later(bench, 5000.0)
        assert all(entry() is not None for entry in kept)
        self._later(bench, 500.0)
        assert not any(entry() is not None for entry in kept)

    def test_looking_doesnt_count_as_a_touch(self) -> None:
        """Which one goes when there are too many is still the one that was touched least recently."""
        bench = Bench(max_tokens=3)
        memory = Memory(3, bench.engine)
        a, b, _ = (slot_for(bench, name, memory=memory) for name in "abc")
        assert memory.find(a.request) is a
        memory.sweep()
        slot_for(bench, "d", memory=memory)
        assert memory.find(a.request) is a
        assert memory.find(b.request) is None

    def test_one_that_goes_on_being_asked_is_renewed(self) -> None:
        """As if nothing had been forgotten."""
        bench = Bench()
        bench.ask()
        bench.clock.advance(9000.0)
        bench.memory.sweep()
        assert bench.memory.find(bench.entry.request) is None
        again = bench.new_slot("a")
        assert bench.ask(again).token is again.token is not None
