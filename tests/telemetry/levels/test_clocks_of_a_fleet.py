"""A fleet in which a clock is hours off all the time: no fall is told that there isn't, and one that there is, is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.events import AlertOpened, ClocksDiffer
from resilient_auth.telemetry.levels.clocks import Clocks, Report
from resilient_auth.telemetry.levels.counts import Counts
from resilient_auth.telemetry.levels.fleet import Fleet
from resilient_auth.testing import ManualClock, capture_events

KEY = bytes(range(32))
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
#: Seconds between two looks.
STEP = 5 * MINUTE


class Processes:
    """Processes of one fleet, the first of which leads; each has a clock of its own, and had a day of requests."""

    def __init__(self, watched: Callable[..., Any], clock: ManualClock, *off: float) -> None:
        clock.advance(DAY - clock.wall() % DAY + 12 * HOUR)
        self.clocks = [ManualClock() for _ in off]
        backend = MemoryBackend(clock=clock)
        self.several, self.clock = [], clock
        for own, seconds in zip(self.clocks, off, strict=True):
            own.jump(clock.wall() + seconds - own.wall())
            store = ra.SealedStore(backend, key=KEY, clock=clock)
            self.several.append(watched(own, store=store))
        history = Counts(clock.wall() - 2 * DAY)
        for number in range(1, int(2 * DAY / STEP)):
            history.add("acquisitions", clock.wall() - number * STEP, 100 * len(off), 0)
        Fleet(store, "app").add(history, clock.wall())

    def live(self, seconds: float, each: int = 100) -> None:
        for _ in range(round(seconds / STEP)):
            for one in self.several:
                one.count(each)
                one.watch.look()
            for clock in (self.clock, *self.clocks):
                clock.advance(STEP)

    def counted(self, begin: float, end: float) -> int:
        """Return how many there were between two times of the right clock."""
        wall = self.clock.wall()
        total = Fleet(self.several[0].watch._fleet.store, "app").total(wall)
        return total.totals("acquisitions", wall + begin, wall + end, wall).total


@pytest.mark.parametrize("off", [3 * HOUR, -3 * HOUR])
def test_a_leader_whose_clock_is_hours_off_tells_of_no_fall(
    off: float, watched: Callable[..., Any], clock: ManualClock
) -> None:
    """It goes by the clocks of the two others, says so, and puts its own requests where theirs are."""
    fleet = Processes(watched, clock, off, 0.0, 5.0)
    with capture_events() as told:
        fleet.live(1.5 * HOUR)
        (differs,) = told.wait_for(ClocksDiffer)
    assert [event for event in told if isinstance(event, AlertOpened)] == []
    assert differs.seconds == pytest.approx(-off, abs=STEP)
    assert "counted by theirs" in str(differs)
    assert fleet.counted(-HOUR, -STEP) == 55 * MINUTE / STEP * 300


def test_a_fall_is_told_for_all_that(watched: Callable[..., Any], clock: ManualClock) -> None:
    """By the right time: what the clock that is off says of it changes nothing."""
    fleet = Processes(watched, clock, 3 * HOUR, 0.0, 0.0)
    with capture_events() as told:
        fleet.live(HOUR)
        fleet.live(HOUR, each=20)
        (opened,) = told.wait_for(AlertOpened)
    assert (opened.code, opened.count) == ("requests_fell", pytest.approx(1800 * 0.2, abs=1800 * 0.5))
    assert opened.at == pytest.approx(clock.wall(), abs=2 * HOUR)


def test_one_of_many_is_off(watched: Callable[..., Any], clock: ManualClock) -> None:
    """It isn't the leader: its requests are where it made them, and not hours away."""
    fleet = Processes(watched, clock, 0.0, 0.0, -5 * HOUR)
    with capture_events() as told:
        fleet.live(1.5 * HOUR)
        told.wait_for(ClocksDiffer)
    assert told.of(AlertOpened) == []
    assert fleet.counted(-HOUR, -STEP) == 55 * MINUTE / STEP * 300


def test_two_that_differ_judge_no_fall(watched: Callable[..., Any], clock: ManualClock) -> None:
    """Nobody knows which one is right; they say so, and judge again once they agree."""
    fleet = Processes(watched, clock, 3 * HOUR, 0.0)
    with capture_events() as told:
        fleet.live(1.5 * HOUR)
        differs = told.wait_for(ClocksDiffer, count=2)
        assert {round(event.seconds / HOUR) for event in differs} == {-3, 3}
        assert all("no fall is judged" in event.detail for event in differs)
    assert told.of(AlertOpened) == []


class TestComparing:
    """The rule alone: reports are taken in each minute."""

    def compare(self, *off: float, own: float = 0.0, every: float = MINUTE, times: int = 3) -> tuple[Clocks, list[Any]]:
        clocks, news = Clocks(), []
        for number in range(times):
            now = number * every
            # Written at any moment since it was read last.
            others = {
                f"p{place}": Report(number, 1e9 + each + now - (place + 1) * every / (len(off) + 1))
                for place, each in enumerate(off)
            }
            news.append(clocks.compare(others, 1e9 + own + now, now))
        return clocks, news

    @pytest.mark.parametrize(
        ("behind", "agree", "own", "off"),
        [
            pytest.param(0.0, True, 0.0, [], id="alone"),
            pytest.param(0.0, True, 0.0, [0.0, 60.0, -90.0], id="a-little-off"),
            pytest.param(0.0, True, 0.0, [0.0, HOUR], id="another-one-is-off"),
            pytest.param(HOUR, True, -HOUR, [0.0, 0.0], id="this-one-is-off"),
            pytest.param(-DAY, True, DAY, [0.0, 10.0, -10.0, -DAY], id="this-one-and-another"),
            pytest.param(0.0, False, 0.0, [HOUR], id="two"),
            pytest.param(0.0, False, 0.0, [0.0, HOUR, HOUR], id="two-against-two"),
            pytest.param(0.0, False, 0.0, [HOUR, -HOUR], id="all-differ"),
        ],
    )
    @pytest.mark.parametrize("every", [MINUTE, STEP])
    def test_most_are_believed(self, every: float, behind: float, agree: bool, own: float, off: list[float]) -> None:
        clocks, news = self.compare(*off, own=own, every=every)
        assert clocks.behind == pytest.approx(behind, abs=every / 2)
        assert clocks.agree is agree
        assert sum(each is not None for each in news) == (bool(behind) or not agree)

    def test_what_was_written_nobody_knows_when_says_nothing(self) -> None:
        """At the first reading, after a long time without one, and of a process that writes no more."""
        clocks, news = self.compare(HOUR, HOUR, times=1)
        assert (clocks.behind, news) == (0.0, [None])
        clocks, news = self.compare(HOUR, HOUR, every=20 * MINUTE)
        assert (clocks.behind, news) == (0.0, [None] * 3)
        clocks, old = Clocks(), {"p0": Report(7, 5.0), "p1": Report(7, 5.0)}
        assert [clocks.compare(old, 1e9 + now, now) for now in (0.0, MINUTE, 2 * MINUTE)] == [None] * 3

    def test_an_old_report_that_turns_up_again_says_nothing(self) -> None:
        """Its record couldn't be read for a while."""
        clocks, old = Clocks(), {"p0": Report(7, 1e9), "p1": Report(7, 1e9)}
        for now, others in ((0.0, old), (MINUTE, {}), (HOUR / 2, {}), (HOUR / 2 + MINUTE, old)):
            assert clocks.compare(others, 1e9 + now, now) is None

    def test_a_process_that_is_gone_counts_no_more(self) -> None:
        clocks, _ = self.compare(HOUR, HOUR)
        assert clocks.behind == pytest.approx(HOUR, abs=MINUTE)
        assert clocks.compare({}, 1e9 + 2 * HOUR, 2 * HOUR) == 0.0
        assert clocks.behind == 0.0

    def test_a_clock_that_is_set_right_is_noticed(self) -> None:
        """This one's own: what is known of the others stands by the monotonic clock."""
        clocks, _ = self.compare(0.0, 0.0, own=-HOUR)
        assert clocks.compare({"p0": Report(2, 0.0), "p1": Report(2, 0.0)}, 1e9 + 3 * MINUTE, 3 * MINUTE) == 0.0
