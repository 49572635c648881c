"""What counts as a decision, and for how long the last ones stand in."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
import threading
from collections.abc import Mapping
from math import inf
from typing import Any

import pytest
from forked import LookedUp, Stop, in_a_child
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resilient_auth.claims_service.decision import Decision, MalformedDecision, read_answer, shaped
from resilient_auth.claims_service.last_decisions import LastDecisions
from resilient_auth.testing import ManualClock

YES, NO = Decision(allowed=True), Decision(allowed=False)


class TestShape:
    def test_what_a_service_says_is_taken_over(self) -> None:
        """Members that mean nothing are left out."""
        said = {"allowed": True, "reason": "Grüße", "attributes": {"score": 0.5, "list": [{"a": None}]}, "more": 1}
        decision = read_answer(json.dumps(said).encode(), None)
        assert (decision.allowed, decision.reason, decision.provenance) == (True, "Grüße", "service")
        assert decision.attributes == {"score": 0.5, "list": ({"a": None},)}

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"<html>Welcome</html>",
            b"[]",
            b"null",
            b"{}",
            b'{"allowed": "true"}',
            b'{"allowed": 1}',
            b'{"allowed": null}',
            b'{"allowed": false, "allowed": true}',
            b'{"allowed": true, "attributes": {"a": 1, "a": 2}}',
            b'{"allowed": true, "attributes": []}',
            b'{"allowed": true, "attributes": {"score": NaN}}',
            b'{"allowed": true, "attributes": {"score": Infinity}}',
            b'{"allowed": true, "attributes": {"score": 1e999}}',
            b'{"allowed": true, "attributes": {"scores": [0.5, -1e999]}}',
            b'{"allowed": true, "attributes": {"name": "Ann \\ud83d"}}',
            b'{"allowed": true, "attributes": {"Ann \\ude00": 1}}',
            b'{"allowed": true, "reason": "Ann \\ud83d"}',
            b'{"allowed": true, "reason": 5}',
            b'{"allowed": true, "reason": "two\\nlines"}',
            b'{"allowed": true, "reason": "' + b"x" * 501 + b'"}',
            b'{"allowed": true, "attributes": ' + b'{"a":' * 10 + b"1" + b"}" * 11,
            b'{"allowed": true}\xff',
            b'\xef\xbb\xbf{"allowed": true}',
            b"[" * 15_000,
            b'{"allowed": true, "n": ' + b"1" * 10_000 + b"}",
            json.dumps({"allowed": True, "attributes": {str(n): n for n in range(65)}}).encode(),
        ],
    )
    def test_anything_else_is_no_decision(self, answer: bytes) -> None:
        """And what it was isn't quoted."""
        with pytest.raises(MalformedDecision) as raised:
            read_answer(answer, None)
        assert "Welcome" not in str(raised.value)

    @pytest.mark.parametrize(
        "rest",
        [
            {"reason": 5},
            {"attributes": []},
            {"reason": "two\nlines"},
            {"attributes": {"n": inf}},
            {"attributes": {"n": "\ud83d"}},
        ],
    )
    def test_a_clear_no_stays_one(self, rest: dict[str, Any]) -> None:
        """Else a fallback could turn it into a yes."""
        assert shaped({"allowed": False, **rest}) == NO

    def test_a_service_of_another_shape_is_understood(self) -> None:
        """By the owner's function, whose result is checked as strictly, and whose slips are the answer's."""

        def parse(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"allowed": body["risk"] < 0.5, "attributes": {"risk": body["risk"]}}

        assert read_answer(b'{"risk": 0.1}', parse).allowed
        assert not read_answer(b'{"risk": 0.9}', parse).allowed
        for answer in (b"{}", b'{"risk": "low"}'):
            with pytest.raises(MalformedDecision, match=r"parse raised (KeyError|TypeError)"):
                read_answer(answer, parse)
        with pytest.raises(MalformedDecision):
            read_answer(b"{}", lambda body: {"allowed": "yes"})
        with pytest.raises(MalformedDecision):
            read_answer(b"{}", lambda body: True)  # type: ignore[arg-type,return-value]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        )
    )
    @example(inf)
    @example("\ud83d")
    @settings(max_examples=200, deadline=None)
    def test_what_is_taken_can_be_written(self, value: Any) -> None:
        """As JSON, in UTF-8: the application may answer with it, or keep it."""
        with contextlib.suppress(MalformedDecision):
            made = shaped({"allowed": True, "attributes": {"it": value}})
            assert json.dumps(made.to_dict(), allow_nan=False, ensure_ascii=False).encode()

    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    @settings(max_examples=200, deadline=None)
    def test_no_answer_raises_anything_else(self, answer: bytes) -> None:
        """Whatever the bytes are."""
        with contextlib.suppress(MalformedDecision):
            read_answer(answer, None)


class TestDecision:
    MADE = shaped({"allowed": True, "reason": "vip 4711", "attributes": {"tier": {"name": "gold"}}})

    def test_nothing_of_it_can_be_changed(self) -> None:
        """Neither itself nor what it holds."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.MADE.allowed = False  # type: ignore[misc]
        with pytest.raises(TypeError):
            self.MADE.attributes["tier"]["name"] = "lead"

    def test_its_text_tells_nothing_about_the_user(self) -> None:
        """It ends up in logs."""
        assert "gold" not in f"{self.MADE!r} {self.MADE}"
        assert "4711" not in f"{self.MADE!r} {self.MADE}"

    def test_it_can_be_put_into_a_session(self) -> None:
        """Pickled and back it is the same, and as immutable."""
        again = pickle.loads(pickle.dumps(self.MADE))
        assert again == copy.deepcopy(self.MADE) == self.MADE
        with pytest.raises(TypeError):
            again.attributes["tier"]["name"] = "lead"


class TestLastDecisions:
    def test_one_is_found_for_the_same_subject_and_question(self) -> None:
        """And for no other, with its age."""
        clock = ManualClock()
        last = LastDecisions(10, 60.0, clock.monotonic)
        last.keep(b"ada", b"q", YES, last.begin())
        clock.advance(59)
        assert last.find(b"ada", b"q") == (YES, 59.0)
        assert last.find(b"ada", b"other") is None
        assert last.find(b"bob", b"q") is None
        clock.advance(2)
        assert last.find(b"ada", b"q") is None

    def test_a_call_that_was_under_way_when_no_was_said_keeps_no_yes(self) -> None:
        """Its answer may be the older one."""
        last = LastDecisions(10, 60.0, ManualClock().monotonic)
        early = last.begin()
        last.keep(b"ada", b"q", NO, last.begin())
        last.keep(b"ada", b"q", YES, early)
        assert last.find(b"ada", b"q") == (NO, 0.0)
        last.keep(b"ada", b"q", YES, last.begin())
        assert last.find(b"ada", b"q") == (YES, 0.0)

    def test_a_no_to_one_question_ends_every_yes(self) -> None:
        """The subject's older claims may say what is no longer so."""
        last = LastDecisions(10, 60.0, ManualClock().monotonic)
        last.keep(b"ada", b"old claims", YES, last.begin())
        last.keep(b"bob", b"old claims", YES, last.begin())
        last.keep(b"ada", b"new claims", NO, last.begin())
        assert last.find(b"ada", b"old claims") is None
        assert last.find(b"bob", b"old claims") == (YES, 0.0)

    def test_a_refusal_without_a_decision_ends_every_yes_too(self) -> None:
        """It may have been meant for the user."""
        last = LastDecisions(10, 60.0, ManualClock().monotonic)
        last.keep(b"ada", b"q", YES, last.begin())
        last.refuse(b"ada")
        assert last.find(b"ada", b"q") is None

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["begin", "yes", "no", "refuse", "find", "wait"]),
                st.sampled_from([b"ada", b"bob", b"cy"]),
                st.sampled_from([b"q1", b"q2"]),
                st.integers(0, 4),
            ),
            max_size=60,
        )
    )
    @settings(max_examples=300, deadline=None)
    def test_no_yes_outlives_a_no(self, steps: list[tuple[str, bytes, bytes, int]]) -> None:
        """In whatever order calls begin and end, with room for two: fewer than there are subjects."""
        clock = ManualClock(start=0.0)
        last = LastDecisions(2, 60.0, clock.monotonic)
        under_way: list[tuple[int, int]] = [(last.begin(), 0)]
        refused: dict[bytes, int] = {}
        #: What was kept, by who and what: when its call began in this test's own counting, and when it was kept.
        kept: dict[tuple[bytes, bytes], tuple[int, float]] = {}
        for turn, (what, subject, question, which) in enumerate(steps, 1):
            if what == "begin":
                under_way.append((last.begin(), turn))
            elif what == "wait":
                clock.advance(which * 15)
            elif what == "yes":
                place, began = under_way[which % len(under_way)]
                last.keep(subject, question, YES, place)
                if began > refused.get(subject, -1):
                    kept[subject, question] = (began, clock.monotonic())
            elif what == "no":
                place, _ = under_way[which % len(under_way)]
                last.keep(subject, question, NO, place)
                refused[subject] = turn
            elif what == "refuse":
                last.refuse(subject)
                refused[subject] = turn
            else:
                found = last.find(subject, question)
                if found is not None and found[0].allowed:
                    began, at = kept[subject, question]
                    assert began > refused.get(subject, -1)
                    assert clock.monotonic() - at == found[1] <= 60.0

    def test_a_no_that_is_forgotten_for_want_of_room_still_counts(self) -> None:
        """For everybody then: nobody can tell any more whose it was."""
        last = LastDecisions(2, 60.0, ManualClock().monotonic)
        last.keep(b"ada", b"q", YES, last.begin())
        for subject in (b"ada", b"bob", b"cy"):
            last.refuse(subject)
        assert last.find(b"ada", b"q") is None
        last.keep(b"ada", b"q", YES, last.begin())
        assert last.find(b"ada", b"q") == (YES, 0.0)

    def test_a_forked_child_keeps_them(self) -> None:
        """Whatever a thread of the parent's was doing."""
        last = LastDecisions(2, 60.0, ManualClock().monotonic)
        last.keep(b"ada", b"q", YES, last.begin())

        def work() -> None:
            assert last.find(b"ada", b"q") == (YES, 0.0)

        with last._lock:
            in_a_child(work)

    @pytest.mark.parametrize("what", ["yes", "no", "refuse", "find"])
    @pytest.mark.parametrize("at", range(1, 16))
    def test_a_fork_amid_any_change(self, what: str, at: int) -> None:
        """A child has what its parent had but for what was under way, and room for what comes."""
        last, stop = LastDecisions(2, 60.0, ManualClock().monotonic), Stop(at)
        ada, bob, cy, dee, eve = (LookedUp(name, stop) for name in (b"ada", b"bob", b"cy", b"dee", b"eve"))
        early = last.begin()
        for refused, let_in in ((ada, dee), (bob, eve)):
            last.refuse(refused)
            last.keep(let_in, b"q", YES, last.begin())
        does = {
            "yes": lambda: last.keep(cy, b"q", YES, last.begin()),
            "no": lambda: last.keep(cy, b"q", NO, last.begin()),
            "refuse": lambda: last.refuse(cy),
            "find": lambda: last.find(dee, b"q"),
        }
        changing = threading.Thread(target=stop.change, args=(does[what],))
        changing.start()
        stop.met.wait(10.0)

        def work() -> None:
            for refused in (ada, bob):
                last.keep(refused, b"q", YES, early)
                assert last.find(refused, b"q") is None
            for number in range(6):
                subject = b"%d" % number
                last.keep(subject, b"q", YES, last.begin())
                assert last.find(subject, b"q") == (YES, 0.0)
                last.refuse(subject)
                assert last.find(subject, b"q") is None

        try:
            in_a_child(work)
        finally:
            stop.go_on.set()
            changing.join()

    def test_it_stays_within_its_bounds(self) -> None:
        """Many subjects come; the newest are there."""
        last = LastDecisions(100, 60.0, ManualClock().monotonic)
        for number in range(1000):
            last.keep(b"%d" % number, b"q", YES if number % 2 else NO, last.begin())
        found = [number for number in range(1000) if last.find(b"%d" % number, b"q") is not None]
        assert len(found) <= 100
        assert found[-1] == 999

    def test_many_threads_keep_and_find(self) -> None:
        """Nobody sees another one's, and nothing breaks."""
        last = LastDecisions(50, 60.0, ManualClock().monotonic)
        wrong: list[object] = []

        def use(name: bytes) -> None:
            mine = Decision(allowed=True, reason=name.decode())
            for number in range(300):
                last.keep(name, b"%d" % (number % 5), mine, last.begin())
                found = last.find(name, b"%d" % (number % 5))
                if found is not None and found[0] is not mine:
                    wrong.append(found)

        threads = [threading.Thread(target=use, args=(b"u%d" % n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
