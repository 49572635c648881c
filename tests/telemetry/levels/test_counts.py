"""Requests by time: in constant memory, summed, compared with the period before, whatever a clock does."""

from __future__ import annotations

import json
import random

import pytest

from resilient_auth.telemetry.levels.counts import DAY, WEEK, Counts
from resilient_auth.telemetry.levels.values import FINE, HOUR, Comparison, Totals

NOW = 1_800_000_000.0


def steady(begin: float, end: float, *, each: int = 10, failed: int = 0) -> Counts:
    """So many a bucket of five minutes, from one time to another."""
    counts = Counts(begin)
    for number in range(int(begin // FINE), int(end // FINE)):
        counts.add("acquisitions", number * FINE + 1.0, each, failed)
    return counts


def test_a_day_and_a_week_are_compared_with_those_before() -> None:
    counts = steady(NOW - 2 * WEEK, NOW - WEEK, each=10)
    counts.merge(steady(NOW - WEEK, NOW - DAY, each=20, failed=1), NOW)
    counts.merge(steady(NOW - DAY, NOW, each=30, failed=3), NOW)
    level = counts.level("acquisitions", NOW)
    assert level.day == Comparison(
        now=Totals(total=288 * 30, failed=288 * 3), before=Totals(total=288 * 20, failed=288)
    )
    assert level.day.change == pytest.approx(0.5)
    assert level.day.now.success_rate == pytest.approx(0.9)
    assert level.week.before == Totals(total=7 * 288 * 10, failed=0)
    assert level.week.now.total == 6 * 288 * 20 + 288 * 30
    assert counts.level("downstream", NOW).day.now.success_rate is None


def test_nothing_is_compared_with_a_time_when_nobody_counted() -> None:
    """A process that began this morning hasn't grown by a hundred percent."""
    assert steady(NOW - 1.5 * DAY, NOW).level("acquisitions", NOW).day.before is None
    assert steady(NOW - 2 * DAY, NOW).level("acquisitions", NOW).week.change is None


def test_a_series_has_every_bucket() -> None:
    """Those without requests, too; the last one is under way."""
    counts = Counts(NOW - DAY)
    counts.add("verifications", NOW, 3, 1)
    level = counts.level("verifications", NOW)
    assert [len(level.minutes), len(level.hours)] == [288, 336]
    assert [b.start for b in level.minutes] == [level.minutes[0].start + FINE * n for n in range(288)]
    assert level.minutes[-1].start <= NOW < level.minutes[-1].start + FINE
    assert (level.hours[-1].total, level.hours[-1].failed, sum(b.total for b in level.hours)) == (3, 1, 3)


def test_a_part_of_a_bucket_counts_in_part() -> None:
    """A span of a week ago is known by hours alone."""
    counts = Counts(0.0)
    counts.add("acquisitions", NOW - WEEK - NOW % HOUR, 120, 12)
    begin = NOW - WEEK - NOW % HOUR
    assert counts.totals("acquisitions", begin + 900, begin + 2700, NOW) == Totals(total=60, failed=6)


def test_what_is_under_way_counts_whole() -> None:
    counts = Counts(0.0)
    for moment in (NOW, NOW + 1.0, NOW + 200.0):
        counts.add("acquisitions", moment, 50, 5)
        assert counts.totals("acquisitions", NOW - 2 * DAY, moment, moment).failed % 5 == 0
        assert counts.level("acquisitions", moment).day.now.total % 50 == 0
    assert counts.totals("acquisitions", NOW - 60, NOW + 200, NOW + 200).total == 150


def test_memory_is_constant() -> None:
    """Half a year of it takes no more than two weeks."""
    counts = Counts(0.0)
    for hour in range(5_000):
        counts.add("acquisitions", NOW + hour * HOUR, 1, 0)
    found = counts.to_json()["kinds"]["acquisitions"]
    assert [len(found[str(FINE)]), len(found[str(HOUR)])] == [390, 420]
    assert len(json.dumps(steady(NOW - 2 * WEEK, NOW).to_json())) < 20_000


@pytest.mark.parametrize("wrong", [-30 * 365 * DAY, -3 * DAY, 3 * DAY, 30 * 365 * DAY])
def test_a_clock_that_was_wrong_takes_no_history_along(wrong: float) -> None:
    """Neither one that was ahead for hours, nor one that was behind; and what it left is nowhere to be seen."""
    counts = steady(NOW - 2 * WEEK, NOW)
    before = counts.level("acquisitions", NOW)
    for step in range(24):
        counts.add("acquisitions", NOW + wrong + step * FINE, 1, 1)
    counts.add("acquisitions", NOW, 10, 0)
    after = counts.level("acquisitions", NOW)
    if abs(wrong) > 2 * WEEK or wrong > 0:
        assert after.week.now.failed == 0
    assert after.week.before == before.week.before
    assert after.day.now.total == before.day.now.total + 10
    for step in range(18 * 288):  # by then what lay in the future is gone
        counts.add("acquisitions", NOW + step * FINE, 10, 0)
    assert counts.level("acquisitions", NOW + 18 * DAY - FINE).week.before == Totals(total=7 * 288 * 10, failed=0)


def test_a_record_holds_all_of_it() -> None:
    counts = steady(NOW - DAY, NOW, failed=2)
    assert Counts.from_json(json.loads(json.dumps(counts.to_json()))).level("acquisitions", NOW) == counts.level(
        "acquisitions", NOW
    )


def test_what_isnt_a_record_is_refused() -> None:
    """Whatever was changed in it, by a thousand changes."""
    draw = random.Random(7)
    good = json.dumps(steady(NOW - HOUR, NOW).to_json())
    for _ in range(1000):
        at, noise = draw.randrange(len(good)), draw.choice('{}[]",:0aN-')
        try:
            found = json.loads(good[:at] + noise + good[at + draw.randrange(3) :])
        except ValueError:
            continue
        try:
            Counts.from_json(found if isinstance(found, dict) else {}).level("acquisitions", NOW)
        except ValueError:
            continue
