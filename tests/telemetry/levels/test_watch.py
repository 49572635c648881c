"""A watch: what it counts and tells, what it costs, and whom it can't harm."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth._process import observing
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError
from resilient_auth.events import AlertOpened, AlertResolved, ClockJumped, subscribe
from resilient_auth.testing import ManualClock, capture_events

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
SCOPE = ["api://orders/.default"]
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class TestWhatIsTold:
    def test_a_day_of_requests_and_an_outage(self, watched: Callable[..., Any]) -> None:
        """Two days in a few moments: what is counted, compared, opened and resolved."""
        one = watched()
        with capture_events() as told:
            one.live(24 * HOUR)
            one.live(1 * HOUR, lambda: (100, 100))
            levels = one.watch.levels()
            (alert,) = levels.alerts
            assert (alert.kind, alert.code) == ("acquisitions", "success_rate")
            one.live(23 * HOUR)
            told.wait_for(AlertResolved)
        assert [event.count for event in told.of(AlertOpened)] == [1300]
        assert "success_rate" in str(told.of(AlertOpened)[0])
        assert (one.day.now.total, one.day.now.failed, one.day.before.total) == (28_800, 1200, 28_800)
        assert one.day.change == 0.0
        assert one.watch.levels().alerts == ()

    def test_requests_that_stop(self, watched: Callable[..., Any]) -> None:
        one = watched()
        with capture_events() as told:
            one.live(24 * HOUR)
            one.live(1 * HOUR, lambda: (0, 0))
            one.live(1 * HOUR)
            told.wait_for(AlertResolved)
        assert [event.code for event in told if isinstance(event, AlertOpened)] == ["requests_fell"]
        assert told.of(AlertResolved)[0].seconds == pytest.approx(HOUR, abs=600)

    def test_all_that_is_asked_for_is_counted(self, idp: Emulator, daemon: Callable[..., Any]) -> None:
        """Those that memory serves, those that fail, denials of the application; verifications; calls to APIs."""
        with ra.telemetry.watch(clock=ManualClock()):
            app = daemon(resilience=ra.Settings(wait=0.2))
            for _ in range(7):
                assert "access_token" in app.acquire_token_for_client(SCOPE)
            idp.deny("client_credentials")
            assert "error" in app.acquire_token_for_client(["api://denied/.default"])
            idp.fail(Fault.http_503())
            with pytest.raises(ra.ProviderUnavailable):
                app.acquire_token_for_client(["api://other/.default"])
            verifier = ra.ClaimsVerifier(issuer="https://login.example/t", audience="api://orders")
            with pytest.raises(ra.InvalidToken):
                verifier.verify("x.y.z")
            verifier.close()
            api = ra.ResilientTransport(httpx.MockTransport(lambda request: httpx.Response(int(request.url.path[1:]))))
            with httpx.Client(transport=api, base_url="https://orders.example") as client:
                for status in (200, 200, 404, 500):
                    client.post(f"/{status}")
            levels = ra.telemetry.service_levels()
        found = {level.kind: (level.day.now.total, level.day.now.failed) for level in levels.levels}
        assert found == {"acquisitions": (9, 2), "verifications": (1, 0), "downstream": (4, 1)}
        assert levels.watched
        assert levels.to_dict()["levels"][0]["day"]["now"] == {
            "total": 9, "failed": 2, "success_rate": pytest.approx(7 / 9),
        }  # fmt: skip

    def test_it_looks_by_itself(
        self, clock: ManualClock, daemon: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        """Once a minute, on a thread that goes by the clock; what is asked for between two looks is told at once."""
        with ra.telemetry.watch(clock=clock) as watch:
            daemon().acquire_token_for_client(SCOPE)
            assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 1
            eventually(lambda: watch._timer is not None)
            before = watch._looked
            clock.advance(61.0)
            eventually(lambda: watch._looked > before)
            assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 1


class TestClocks:
    @pytest.mark.parametrize("jump", [DAY, -DAY, 400 * DAY, -400 * DAY])
    def test_one_that_jumps_tells_of_that_and_of_no_fall(self, jump: float, watched: Callable[..., Any]) -> None:
        """Forwards there are no requests, and back they are told twice; none of it is a fall or a success."""
        one = watched()
        with capture_events() as told:
            one.live(26 * HOUR)
            one.clock.jump(jump)
            one.live(30 * MINUTE)
            one.clock.jump(-jump)
            one.live(2 * HOUR)
            jumps = told.wait_for(ClockJumped, count=2)
        assert [round(event.seconds / jump, 1) for event in jumps] == [1.0, -1.0]
        assert told.of(AlertOpened) == []
        assert one.day.now.failed == 0

    def test_it_goes_on_after_one(self, watched: Callable[..., Any]) -> None:
        """A clock that was set is believed, and what falls by it is told."""
        one = watched()
        with capture_events() as told:
            one.live(26 * HOUR)
            one.clock.jump(-5 * MINUTE)
            one.live(24 * HOUR)
            one.live(1 * HOUR, lambda: (0, 0))
            told.wait_for(AlertOpened)
        assert [event.code for event in told.of(AlertOpened)] == ["requests_fell"]

    def test_a_machine_that_was_suspended_tells_of_no_fall(self, watched: Callable[..., Any]) -> None:
        one = watched()
        with capture_events() as told:
            one.live(26 * HOUR)
            one.clock.advance(3 * HOUR)
            one.live(10 * HOUR)
        assert told.of(AlertOpened) == []
        assert told.of(ClockJumped) == []


class TestWhomItHarms:
    def test_listeners_that_raise_block_or_flood_change_nothing(self, watched: Callable[..., Any]) -> None:
        """Neither the looks nor what others are told."""
        held = threading.Event()
        flood = [subscribe(lambda event: [1 / 0]), subscribe(lambda event: held.wait(20))]
        one = watched()
        try:
            with capture_events() as told:
                one.live(24 * HOUR)
                began = time.monotonic()
                for _ in range(3):
                    one.live(2 * HOUR, lambda: (100, 100))
                    one.live(8 * HOUR)
                took = time.monotonic() - began
                told.wait_for(AlertResolved, count=3)
        finally:
            held.set()
            for end in flood:
                end()
        assert took < 60.0
        assert len(told.of(AlertOpened)) == 3

    def test_off_it_is_nothing(self, daemon: Callable[..., Any]) -> None:
        """No observer, no thread of it, no number; and afterwards again."""
        assert observing.observer is None
        with ra.telemetry.watch(clock=ManualClock()):
            assert observing.observer is not None
        assert observing.observer is None
        levels = ra.telemetry.service_levels()
        assert not levels.watched
        assert all(level.day.now.total == 0 and level.day.before is None for level in levels.levels)
        assert ra.health().credentials == ()

    def test_a_hit_costs_what_it_costs_with_metrics(self, daemon: Callable[..., Any]) -> None:
        """No call more than without."""
        with ra.telemetry.watch(clock=ManualClock()):
            app = daemon(resilience=None)
            app.acquire_token_for_client(SCOPE)
            calls: list[str] = []
            sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_qualname) if event == "call" else None)
            try:
                app.acquire_token_for_client(SCOPE)
            finally:
                sys.setprofile(None)
        assert len(calls) == 2, calls

    def test_metrics_and_a_watch_come_and_go_alone(self, daemon: Callable[..., Any]) -> None:
        """Neither ends the other, nor counts what the other had begun to."""
        app = daemon()
        ra.telemetry.prometheus_collector()
        app.acquire_token_for_client(SCOPE)
        with ra.telemetry.watch(clock=ManualClock()):
            app.acquire_token_for_client(SCOPE)
            ra.telemetry.uninstrument()
            app.acquire_token_for_client(SCOPE)
            assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 2
            ra.telemetry.prometheus_collector()
        assert observing.observer is not None
        ra.telemetry.uninstrument()
        assert observing.observer is None

    def test_a_second_one_is_refused(self) -> None:
        with ra.telemetry.watch(clock=ManualClock()), pytest.raises(ConfigurationError, match="on already"):
            ra.telemetry.watch()
        with ra.telemetry.watch(clock=ManualClock()):
            pass

    def test_a_store_that_hangs_holds_up_nobody(
        self, clock: ManualClock, daemon: Callable[..., Any], directory: Path
    ) -> None:
        """Who asks for the numbers, or for tokens, doesn't wait for it."""
        held = threading.Event()

        class Hanging(ra.FileStore):
            def write(self, *args: Any, **options: Any) -> Any:
                held.wait(20)
                return super().write(*args, **options)

        store = Hanging(directory / "store", key=os.urandom(32))
        watch = ra.telemetry.watch(store=store, clock=clock)
        try:
            app = daemon()
            began = time.monotonic()
            for _ in range(5):
                app.acquire_token_for_client(SCOPE)
            assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 5
            assert time.monotonic() - began < 2.0
        finally:
            held.set()
            watch.close()
            store.close()

    def test_a_child_counts_what_is_its_own(self, daemon: Callable[..., Any]) -> None:
        """And looks by itself."""
        app = daemon()
        with ra.telemetry.watch() as watch:
            app.acquire_token_for_client(SCOPE)

            def count() -> None:
                assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 0
                app.acquire_token_for_client(SCOPE)
                assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 1
                ends = time.monotonic() + 5.0
                while watch._timer is None:
                    assert time.monotonic() < ends
                    time.sleep(0.01)

            in_a_child(count)
            assert ra.telemetry.service_levels().of("acquisitions").day.now.total == 1


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"fall": 0.0}, "fall must be from 0.05 to 1"),
            ({"fall": "25%"}, "fall must be a number"),
            ({"objective": 0.9}, "objective must be from 0.95"),
            ({"objective": 99.9}, "objective must be from 0.95"),
            ({"least": 0}, "least must be at least 1"),
            ({"name": ""}, "name must be up to 100"),
            ({"store": "redis://"}, "store must be a FileStore"),
            ({"webhook": "https://hooks.example"}, "webhook must be a Webhook"),
            ({"secret_expires": "2027-01-01"}, "secret_expires must be such as"),
            ({"secret_expires": {"app": "2027-01-01"}}, "app has '2027-01-01'"),
            ({"secret_expires": {"app": datetime(2027, 1, 1)}}, "must have a time zone"),
            ({"secret_expires": {"": date(2027, 1, 1)}}, "no client id"),
            ({"secret_expires": {"app": [date(2027, 1, 1), 7]}}, "app has 7"),
        ],
    )
    def test_a_wrong_one_is_named(self, options: dict[str, Any], what: str) -> None:
        with pytest.raises(ConfigurationError, match=what):
            ra.telemetry.watch(**options)
        assert not ra.telemetry.service_levels().watched

    def test_right_ones(self) -> None:
        ends = {"app": [date(2050, 1, 1), datetime(2051, 1, 1, tzinfo=UTC)]}
        with ra.telemetry.watch(fall=None, objective=None, secret_expires=ends, clock=ManualClock()):
            found = [(end.credential, end.client_id, end.at) for end in ra.health().credentials]
        assert found == [("secret", "app", 2524608000.0), ("secret", "app", 2556144000.0)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of this user's own, whatever the umask."""
    tmp_path.chmod(0o700)
    return tmp_path
