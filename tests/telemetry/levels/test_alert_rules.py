"""When an owner is told: of falls that are none by chance, of errors that spend their budget; once, till it is over."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from resilient_auth.telemetry.levels.counts import Counts
from resilient_auth.telemetry.levels.rules import Changed, Key, Thresholds, changes
from resilient_auth.telemetry.levels.values import Alert

FINE, HOUR, DAY, WEEK = 300, 3600, 86_400, 604_800
NOW = 1_800_000_000.0 // DAY * DAY
SUCCESS = Thresholds(fall=None, objective=0.999, least=100)
FALLS = Thresholds(fall=0.25, objective=None, least=100)

#: By seconds since the begin: requests in five minutes, and failures.
Traffic = Callable[[float], tuple[int, int]]


def replay(
    traffic: Traffic, days: float, thresholds: Thresholds = SUCCESS, begin: float = NOW
) -> Iterator[tuple[float, Changed]]:
    """Give what an owner is told, and when, in hours since the begin."""
    counts, opened, ended = Counts(begin), dict[Key, Alert](), dict[Key, float]()
    failed = 0
    for step in range(round(days * 288)):
        at = begin + step * FINE
        now = traffic(at - begin)
        counts.add("acquisitions", at, *now)
        failed += now[1]
        if not failed and (at - begin < DAY or not thresholds.fall):  # there is nothing to tell yet
            continue
        for changed in list(changes(counts, at + 299.0, thresholds, opened, ended, settled=True)):
            key = (changed.kind, changed.code)
            if changed.opened:
                opened[key] = Alert(kind=changed.kind, code=changed.code, since=at, detail=changed.detail)
            else:
                del opened[key]
                ended[key] = at
            yield (at - begin) / HOUR, changed


def told(traffic: Traffic, days: float, thresholds: Thresholds = SUCCESS) -> list[tuple[str, bool]]:
    return [(changed.code, changed.opened) for _, changed in replay(traffic, days, thresholds)]


def outage(begin: float, hours: float, share: float = 1.0, each: int = 100) -> Traffic:
    """Failures of a share of requests, from an hour on."""
    return lambda at: (each, round(each * share) if begin * HOUR <= at < (begin + hours) * HOUR else 0)


class TestSuccess:
    def test_an_outage_is_told_within_minutes_and_once(self) -> None:
        found = list(replay(outage(30, 1), 2))
        assert [(changed.code, changed.opened) for _, changed in found] == [
            ("success_rate", True),
            ("success_rate", False),
        ]
        assert found[0][0] == 30.0
        assert 31.0 < found[1][0] < 32.0
        assert found[0][1].detail == (
            "92.31% of 1,300 succeeded in 60 min, 50.00% of 200 succeeded in 5 min; 76.9 times as many errors as the "
            "objective allows"
        )

    def test_a_share_of_failures_that_burns_six_times_as_fast_is_told_later(self) -> None:
        (at, opened), *_ = replay(outage(30, 12, share=0.01), 2)
        assert (opened.code, opened.opened) == ("success_rate", True)
        assert 33.0 < at < 36.0

    def test_what_fails_slowly_for_days_is_told_as_that(self) -> None:
        steadily = told(lambda at: (1000, 2 if at > DAY else 0), 3.5)
        assert steadily == [("error_budget", True)]

    def test_an_outage_that_was_told_isnt_told_again_as_slow(self) -> None:
        assert told(outage(75, 2), 3.6) == [("success_rate", True), ("success_rate", False)]

    def test_what_wavers_around_a_threshold_is_told_once(self) -> None:
        """A failure rate that swings every hour between five and eight times what the objective allows."""
        wavering = told(lambda at: (1000, 0 if at < DAY else (5 if at // HOUR % 2 else 8)), 2)
        assert wavering == [("success_rate", True)]

    def test_a_single_failure_is_no_rate(self) -> None:
        """With few requests, one of them that fails is a large share."""
        assert told(lambda at: (1, 1 if at % DAY == 0 else 0), 3.2) == []

    def test_an_app_with_few_requests_is_told_too(self) -> None:
        (at, opened), *_ = replay(lambda at: (1, 1 if at >= DAY else 0), 2)
        assert (opened.code, at) == ("success_rate", pytest.approx(24.3, abs=0.1))

    def test_no_requests_are_no_recovery(self) -> None:
        """Nobody asks any more, since nothing works."""
        silent = list(replay(lambda at: (100, 100 if at > DAY else 0) if at < 25 * HOUR else (0, 0), 1.2))
        assert [(changed.code, changed.opened) for _, changed in silent] == [("success_rate", True)]

    @pytest.mark.parametrize("share", [1.0, 0.002])
    def test_days_without_requests_are_no_recovery(self, share: float) -> None:
        """Until somebody asks again, and is served."""

        def traffic(at: float) -> tuple[int, int]:
            if 5 * DAY <= at < 9 * DAY:
                return 0, 0
            return 1000, round(1000 * share) if DAY <= at < 5 * DAY else 0

        found = [(at, changed.opened) for at, changed in replay(traffic, 10)]
        assert [opened for _, opened in found] == [True, False]
        assert found[1][0] >= 9 * 24

    def test_an_objective_that_is_lower_is_told_later(self) -> None:
        lax = Thresholds(fall=None, objective=0.95, least=100)
        assert told(outage(30, 1.5, share=0.5), 2, lax) == []
        assert told(outage(30, 6, share=0.8), 2, lax) == [("success_rate", True), ("success_rate", False)]

    def test_without_an_objective_nothing_is_told(self) -> None:
        assert told(outage(30, 6), 2, FALLS) == []


def fell(traffic: Traffic, days: float) -> list[tuple[str, bool]]:
    return told(traffic, days, FALLS)


def replay_falls(traffic: Traffic, days: float) -> Iterator[tuple[float, Changed]]:
    return replay(traffic, days, FALLS)


class TestFalls:
    def test_requests_that_stop_are_told_and_so_is_their_return(self) -> None:
        found = list(replay_falls(lambda at: (0, 0) if 30 * HOUR <= at < 33 * HOUR else (100, 0), 3))
        assert [(changed.code, changed.opened) for _, changed in found] == [
            ("requests_fell", True),
            ("requests_fell", False),
        ]
        assert found[0][0] == pytest.approx(30.25, abs=0.1)
        assert found[1][0] == pytest.approx(33.5, abs=0.1)
        assert found[0][1].detail == "400 acquisitions in half an hour, 33% fewer than the 600 a day before"

    @pytest.mark.parametrize(("left", "is_told"), [(74, True), (76, False)])
    def test_a_quarter_less_is_a_fall(self, left: int, is_told: bool) -> None:
        found = fell(lambda at: (10 * left if at >= 2 * DAY else 1000, 0), 3)
        assert (("requests_fell", True) in found) is is_told

    def test_a_weekend_isnt_a_fall(self) -> None:
        """It is one against the day before, and none against the week before."""

        def weekly(at: float) -> tuple[int, int]:
            return (30 if at // DAY % 7 in (5, 6) else 200), 0

        found = [(at > 7 * 24, changed.opened) for at, changed in replay_falls(weekly, 15)]
        assert found == [(False, True), (False, False)]

    def test_nights_are_no_falls(self) -> None:
        """Nor are hours of the day that have a hundred times fewer requests."""
        assert fell(lambda at: (round(100 + 99 * math.sin(at / DAY * 2 * math.pi)), 0), 9) == []

    def test_chance_is_no_fall(self) -> None:
        """Requests as they come, for weeks: the fewest of which a fall is looked at, and more."""
        draw = random.Random(5)

        def poisson(mean: float) -> int:
            bound, product, number = math.exp(-mean), draw.random(), 0
            while product > bound:
                product *= draw.random()
                number += 1
            return number

        assert [fell(lambda _, rate=rate: (poisson(rate), 0), 12) for rate in (17, 25)] == [[], []]

    def test_few_requests_are_not_compared(self) -> None:
        assert fell(lambda at: (10 if at < DAY else 0, 0), 3) == []

    def test_a_fall_that_stays_is_the_new_usual_in_time(self) -> None:
        """A day later the day before is as low."""
        assert fell(lambda at: (100 if at < 10 * DAY else 50, 0), 12) == [
            ("requests_fell", True),
            ("requests_fell", False),
        ]

    def test_without_a_share_nothing_is_told(self) -> None:
        assert told(lambda at: (100 if at < 2 * DAY else 0, 0), 3, SUCCESS) == []

    @pytest.mark.parametrize("closed", [(), (5, 6)], ids=["every day", "working days"])
    @pytest.mark.parametrize("month", [3, 10, 11])
    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
    def test_clocks_that_are_set_are_no_fall(self, zone: str, month: int, closed: tuple[int, ...]) -> None:
        """Users get up by theirs: an hour later or sooner than a day and a week before, by the time of this machine."""
        begin = datetime(2026, month, 1, tzinfo=UTC).timestamp() - 9 * DAY

        def traffic(at: float) -> tuple[int, int]:
            local = datetime.fromtimestamp(begin + at, ZoneInfo(zone))
            hour = local.hour + local.minute / 60
            awake = max(0.0, math.sin((hour - 6) / 16 * math.pi)) if 6 <= hour <= 22 else 0.0
            return (2 if local.weekday() in closed else round(50 + 2000 * awake)), 0

        found = [at for at, changed in replay(traffic, 40, FALLS, begin) if changed.opened]
        # A closed day is one against the day before, as long as there is no week before.
        assert not [at for at in found if at > 8 * 24 or not closed]

    @pytest.mark.parametrize("weekend", [0, 2, 30])
    def test_a_business_that_closes_has_fallen_on_no_day(self, weekend: int) -> None:
        """Whether few come then, or nobody; nor when it opens, of which a week before only the hour is known."""

        def traffic(at: float) -> tuple[int, int]:
            hour = at % DAY / HOUR
            awake = max(0.0, math.sin((hour - 6) / 16 * math.pi)) if 6 <= hour <= 22 else 0.0
            return (weekend if at // DAY % 7 in (5, 6) else round(50 + 2000 * awake)), 0

        assert not [at for at, changed in replay_falls(traffic, 30) if changed.opened and at > 7 * 24]

    @pytest.mark.parametrize("day", range(14, 19))
    def test_a_business_that_stops_on_a_working_day_is_told(self, day: int) -> None:
        """On a Monday too, whose day before says nothing."""

        def traffic(at: float) -> tuple[int, int]:
            if at >= day * DAY + 12 * HOUR or at // DAY % 7 in (5, 6):
                return 0, 0
            return (200 if 8 <= at % DAY / HOUR < 18 else 10), 0

        found = [at for at, changed in replay_falls(traffic, day + 0.8) if changed.opened and at > 7 * 24]
        assert found == [pytest.approx(day * 24 + 12.3, abs=0.3)]

    def test_a_fall_on_such_a_day_is_told(self) -> None:
        """On the Sunday itself, as on others."""
        begin = datetime(2026, 10, 12, tzinfo=UTC).timestamp()
        stops = (datetime(2026, 10, 25, 12, tzinfo=UTC).timestamp() - begin) / HOUR
        found = list(replay(lambda at: (100 if at < stops * HOUR else 50, 0), 14, FALLS, begin))
        assert [changed.opened for _, changed in found][:1] == [True]
        assert found[0][0] == pytest.approx(stops + 0.4, abs=0.2)
