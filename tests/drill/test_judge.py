"""The ledger, and not the client, says what counts as served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import asked, call, issued

from resilient_auth.drill.client.records import Request, encode, parse, with_those_behind
from resilient_auth.drill.judge import Finding, percentile
from resilient_auth.drill.run import Outcome
from resilient_auth.drill.wording import shortfalls

Judge = Callable[..., Finding]


def test_a_request_with_a_valid_token_is_served(finding: Judge) -> None:
    """The plain case: asked in the dark, served from what was in hand."""
    found = finding(asked(1011.0), asked(1012.0))
    assert (found.requests, found.served, found.prompt, found.missed) == (2, 2, 2, 0)
    assert found.flawless


def test_a_token_that_the_provider_never_issued_serves_nobody(finding: Judge) -> None:
    """Any string would do otherwise."""
    found = finding(asked(1011.0, "invented"))
    assert (found.served, found.missed, found.flawless) == (0, 1, False)
    assert found.errors == (("a token that isn't valid", 1),)


def test_a_token_must_be_valid_when_the_request_ends(finding: Judge) -> None:
    """A token that ran out during the wait is worth nothing to the caller."""
    tokens = (issued("a", 1000.0), issued("short", 1000.0, lifetime=12.0))
    found = finding(asked(1011.0, "short", wait=0.5), asked(1011.0, "short", wait=1.5), tokens=tokens, interval=60.0)
    assert (found.requests, found.served) == (2, 1)


def test_an_error_is_not_served_and_is_named(finding: Judge) -> None:
    """The most frequent error comes first."""
    found = finding(*(asked(1011.0 + n, None, error=e) for n, e in enumerate(("A", "B", "B"))))
    assert found.errors == (("B", 2), ("A", 1))


def test_a_failure_before_any_token_was_delivered_is_nobodys_fault(finding: Judge) -> None:
    """Only requests with a valid token in hand count against a client."""
    early, good = asked(999.0, None, error="E"), asked(1011.0)
    found = finding(early, good, began=998.0)
    assert (found.held, found.missed, found.flawless) == (1, 0, True)


def test_a_token_issued_under_a_fault_is_not_taken_for_delivered(finding: Judge) -> None:
    """It may have been lost on the way."""
    calls = (call(1000.0, "a", fault="reset"),)
    found = finding(asked(1011.0, None, error="E"), calls=calls)
    assert found.held == 0


def test_a_client_that_fails_outside_the_dark_is_not_flawless(finding: Judge) -> None:
    """All of the run is judged, and the dark alone is shown."""
    found = finding(asked(1011.0), asked(1025.0, None, error="E"))
    assert (found.requests, found.served, found.missed, found.flawless) == (1, 1, 1, False)


def test_without_evidence_nobody_is_flawless(finding: Judge) -> None:
    """A client that asked nothing, got no token or died proves nothing."""
    assert not finding().flawless
    assert not finding(asked(1011.0), calls=()).flawless
    assert not finding(asked(1011.0), trouble="its process ended").flawless


def test_a_token_that_came_after_the_dark_alone_is_no_evidence_of_it(finding: Judge) -> None:
    """Nobody kept anything running: there was nothing in hand in the dark, and nothing was served."""
    late = issued("late", 1021.0)
    found = finding(
        asked(1011.0, None, error="E"), asked(1022.0, "late"), tokens=(late,), calls=(call(1021.0, "late"),)
    )
    assert (found.requests, found.served, found.held, found.missed) == (1, 0, 1, 0)
    assert not found.flawless


def test_what_falls_short_is_said_and_what_can_not_be_judged(outcome: Callable[..., Outcome]) -> None:
    """A client without a token in the dark has failed nothing, and has come through nothing."""
    assert shortfalls([outcome()]) == []
    (missed,) = shortfalls([outcome(missed=3)])
    assert missed.endswith("failed 3 requests with a valid token in hand (3 x MsalServiceError)")
    late = {"tokens": (issued("late", 1021.0),), "calls": (call(1021.0, "late"),)}
    for nothing in ({"calls": ()}, late):
        (unjudged,) = shortfalls([outcome(missed=100, **nothing)])
        assert unjudged.endswith("can't be judged: it made no request with a valid token in hand")
    (dead,) = shortfalls([outcome(trouble="its process ended")])
    assert dead.endswith("can't be judged: its process ended")


def test_requests_behind_a_waiting_one_share_its_fate(finding: Judge) -> None:
    """One call that hangs for a second stands for the five requests that its thread couldn't make."""
    found = finding(asked(1011.0, None, wait=1.0, error="E"))
    assert (found.requests, found.served) == (5, 0)
    assert found.median == pytest.approx(0.6)


def test_a_request_that_never_ended_is_not_served_and_waited_at_least_so_long(finding: Judge) -> None:
    """Hanging is no way to a better figure."""
    found = finding(asked(1011.0, None, wait=8.0, finished=False))
    assert (found.served, found.hung) == (0, 1)
    assert found.requests == 40
    assert found.longest == 8.0
    assert found.errors[0][0] == "no answer"


def test_calls_are_those_in_the_dark(finding: Judge) -> None:
    """Health and recovery are none of the outage's calls."""
    calls = tuple(call(at, "a") for at in (1000.0, 1010.0, 1019.9, 1020.0))
    assert finding(asked(1011.0), calls=calls).calls == 2
    assert finding(asked(1011.0), calls=calls, counted=False).calls is None


def test_moments_are_told_from_the_outages_start_and_calls_are_the_providers(finding: Judge) -> None:
    """The API is no provider, and what was before the first request and after the last is nobody's."""
    calls = tuple(call(at, "a") for at in (999.0, 1001.0, 1012.0, 1031.0))
    found = finding(asked(1011.0), calls=(*calls, replace(call(1013.0), endpoint="api")))
    assert (found.began, found.healed, found.ended) == (-10.0, 10.0, 20.0)
    assert found.call_times == (-9.0, 2.0)
    assert found.calls == 1


def test_recovery_is_the_first_served_token_issued_after_the_outage(finding: Judge) -> None:
    """An older token served after the outage says nothing."""
    tokens = (issued("a", 1000.0), issued("b", 1023.0))
    found = finding(asked(1021.0), asked(1023.5, "b"), asked(1029.0, "b"), tokens=tokens)
    assert found.recovered == pytest.approx(3.501)
    assert finding(asked(1021.0)).recovered is None


def test_the_moment_at_which_msal_discards_is_marked_where_it_lies_in_the_dark(finding: Judge) -> None:
    """A token of 315 s issued at the start comes under 300 s five seconds into the outage."""
    assert finding(asked(1011.0), tokens=(issued("a", 1000.0, lifetime=315.0),)).discards == pytest.approx(5.0)
    assert finding(asked(1011.0), tokens=(issued("a", 1000.0, lifetime=400.0),)).discards is None
    unused = (issued("a", 1000.0, lifetime=315.0), issued("nobody's", 1001.0, lifetime=318.0))
    assert finding(asked(1011.0), tokens=unused).discards == pytest.approx(5.0)


def test_a_timeline_counts_each_request_once(finding: Judge) -> None:
    """Served, served late and missed each have a place."""
    found = finding(asked(1010.1), asked(1010.2, wait=1.5), asked(1010.3, None, error="E"), interval=60.0)
    bucket = found.buckets[20]
    assert (bucket.served, bucket.late, bucket.missed) == (1, 1, 1)
    assert sum(b.served + b.late + b.missed for b in found.buckets) == 3


def test_percentiles_are_nearest_rank() -> None:
    """Of a hundred values the 99th is the 99th, and none is made up between two."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (50.0, 99.0, 100.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 1.0) == 7.0
    assert percentile([], 50.0) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_not_exceeded_by_its_share(values: list[float], share: float) -> None:
    """The definition, for any values."""
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(v <= found for v in ordered) >= len(ordered) * share / 100 - 1e-9


@given(st.floats(0, 100), st.floats(0.05, 10))
def test_as_many_requests_stand_behind_as_intervals_fit(wait: float, interval: float) -> None:
    """Each of them waited for less, and for the end of the same call."""
    first, *behind = with_those_behind([Request(1000.0, wait, error="E")], interval)
    assert first.wait == wait
    assert all(0 < one.wait <= wait and one.ended == pytest.approx(first.ended) for one in behind)
    assert len(behind) <= wait / interval + 1


@pytest.mark.parametrize("request_", [asked(1.5), asked(2.25, None, error="E"), asked(3.0, None, finished=False)])
def test_a_record_survives_the_pipe(request_: Request) -> None:
    """What was written is what is read."""
    assert parse(encode(request_)) == request_


@pytest.mark.parametrize("line", ["", "x", "[]", "[1,2,3]", '{"began": 1}', "[null,1,null,null,true]"])
def test_a_line_that_is_no_record_is_refused(line: str) -> None:
    """Nothing that a library prints is taken for a request."""
    with pytest.raises(ValueError, match="isn't a request's"):
        parse(line)
