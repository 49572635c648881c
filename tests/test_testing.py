"""What users' own tests are given: a clock that moves when told, captured events, the emulator."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from resilient_auth import Settings, aio, msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.events import BreakerHalfOpen, BreakerOpened, emit
from resilient_auth.testing import ManualClock, capture_events, claims, identity_provider, no_jitter, token

__all__ = ["identity_provider"]


class TestManualClock:
    def test_it_stands_still(self) -> None:
        """Until it is told to move."""
        clock = ManualClock(1_700_000_000.0)
        first = clock.wall(), clock.monotonic()
        time.sleep(0.01)
        assert (clock.wall(), clock.monotonic()) == first

    def test_it_starts_now_by_default(self) -> None:
        """MSAL's own cache knows no other time."""
        assert abs(ManualClock().wall() - time.time()) < 5.0

    def test_advance_moves_both_sides(self) -> None:
        """Time passes."""
        clock = ManualClock(1_700_000_000.0)
        before = clock.monotonic()
        clock.advance(12.5)
        assert clock.wall() == 1_700_000_012.5
        assert clock.monotonic() == before + 12.5

    @pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
    def test_jump_moves_the_wall_alone(self, seconds: float) -> None:
        """Somebody sets the clock, either way."""
        clock = ManualClock(1_700_000_000.0)
        before = clock.monotonic()
        clock.jump(seconds)
        assert clock.wall() == 1_700_000_000.0 + seconds
        assert clock.monotonic() == before

    def test_time_doesnt_pass_backwards(self) -> None:
        """The message says what to use instead."""
        with pytest.raises(ValueError, match="jump"):
            ManualClock().advance(-1)

    def test_waiting_ends_when_the_clock_has_moved_far_enough(self) -> None:
        """And not before."""
        clock, condition, done = ManualClock(), threading.Condition(threading.Lock()), threading.Event()
        ends = clock.monotonic() + 60.0

        def wait() -> None:
            with condition:
                while clock.monotonic() < ends:
                    clock.wait(condition, ends - clock.monotonic())
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        clock.advance(59.0)
        assert not done.wait(0.12)
        clock.advance(1.0)
        assert done.wait(5.0)
        thread.join()

    def test_waiting_ends_when_notified(self) -> None:
        """A wait without a limit needs no move of the clock."""
        clock, condition, told = ManualClock(), threading.Condition(threading.Lock()), []

        def wait() -> None:
            with condition:
                while not told:
                    clock.wait(condition, None)

        thread = threading.Thread(target=wait)
        thread.start()
        with condition:
            told.append(True)
            condition.notify_all()
        thread.join(5.0)
        assert not thread.is_alive()

    def test_a_wait_for_nothing_returns_at_once(self) -> None:
        """The time ran out."""
        clock, condition = ManualClock(), threading.Condition(threading.Lock())
        with condition:
            assert clock.wait(condition, 0.0) is False


def test_no_jitter_picks_the_middle() -> None:
    """Always."""
    assert no_jitter(-1.0, 1.0) == 0.0
    assert no_jitter(5.0, 10.0) == 7.5


class TestCapturedEvents:
    def test_events_are_captured_in_order_and_by_kind(self) -> None:
        """Only those that are told meanwhile."""
        emit(BreakerHalfOpen(at=0.0, target="before"))
        with capture_events() as events:
            for n in range(5):
                emit(BreakerHalfOpen(at=0.0, target=str(n)))
            emit(BreakerOpened(at=0.0, target="x", seconds=1.0, code="503"))
            events.wait_for(BreakerOpened)
        assert [e.target for e in events.of(BreakerHalfOpen)] == list("01234")
        assert len(list(events)) == 6
        emit(BreakerHalfOpen(at=0.0, target="after"))
        time.sleep(0.02)
        assert len(list(events)) == 6

    def test_waiting_in_vain_says_what_was_missing(self) -> None:
        """How many of which kind."""
        with capture_events() as events, pytest.raises(AssertionError, match="0 of 2 BreakerOpened events"):
            events.wait_for(BreakerOpened, count=2, timeout=0.02)


def test_the_emulator_is_a_fixture(identity_provider: Emulator) -> None:
    """It is up when a test begins."""
    assert isinstance(identity_provider, Emulator)


def test_claims_say_whether_their_token_is_over() -> None:
    """As a verifier does that accepts one past its expiry."""
    good, late = claims(), claims(expires_in=-60.0)
    assert (good.provenance.grace, good.provenance.past_expiry) == (False, 0.0)
    assert (late.provenance.grace, late.provenance.past_expiry) == (True, 60.0)
    assert late.issued_at is not None
    assert late.issued_at < late.expires_at < time.time() < good.expires_at


@pytest.mark.parametrize("tenant", ["common", "organizations", "", "/"])
def test_a_token_is_of_one_tenant(identity_provider: Emulator, tenant: str) -> None:
    """Which a shared authority isn't."""
    with pytest.raises(ValueError, match="tenant must be one tenant"):
        token(identity_provider, tenant=tenant)
    assert token(identity_provider, tenant="contoso/b2c_1_sign_in").count(".") == 2


def wait_through(clock: ManualClock, condition: threading.Condition, seconds: float) -> None:
    """Wait as the package does: until the clock says so, however often one is woken."""
    ends = clock.monotonic() + seconds
    with condition:
        while clock.monotonic() < ends:
            clock.wait(condition, ends - clock.monotonic())


class TestPatience:
    def test_a_caller_that_nobody_wakes_fails_its_test(self) -> None:
        """With the names of all who wait, and of the call that is missing."""
        clock = ManualClock(patience=0.3)
        hung, other = threading.Condition(threading.Lock()), threading.Condition(threading.Lock())
        stop = []

        def rest() -> None:
            with other:
                while not stop:
                    clock.wait(other, 5.2)

        worker = threading.Thread(target=rest, name="resilient-auth-worker", daemon=True)
        worker.start()
        begun = time.monotonic()
        with pytest.raises(AssertionError, match=r"advance\(\)") as caught:
            wait_through(clock, hung, 30.0)
        stop.append(True)
        worker.join(5.0)
        assert 0.25 < time.monotonic() - begun < 5.0
        assert f"{threading.current_thread().name} waits for 30 s" in str(caught.value)
        assert "resilient-auth-worker waits for 5.2 s" in str(caught.value)

    def test_the_packages_own_threads_may_wait_for_ever(self) -> None:
        """A refresh that is due tomorrow is no hanging test."""
        clock, condition, failed = ManualClock(patience=0.1), threading.Condition(threading.Lock()), []

        def rest() -> None:
            try:
                with condition:
                    for _ in range(10):
                        clock.wait(condition, 86_400.0)
            except AssertionError as error:
                failed.append(error)

        worker = threading.Thread(target=rest, name="resilient-auth-timers")
        worker.start()
        worker.join(10.0)
        assert not failed

    def test_a_clock_that_moves_now_and_then_is_waited_for(self) -> None:
        """The patience begins again with each move, and with each new wait."""
        clock, condition = ManualClock(patience=0.4), threading.Condition(threading.Lock())
        stop = threading.Event()

        def tick() -> None:
            while not stop.wait(0.1):
                clock.advance(1.0)

        ticking = threading.Thread(target=tick)
        ticking.start()
        wait_through(clock, condition, 8.0)
        stop.set()
        ticking.join()

    async def test_a_task_that_nobody_wakes_fails_its_test(self) -> None:
        """By its name."""
        clock = ManualClock(patience=0.3)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(clock.wait_in_task(future, 30.0), name="the caller")
        with pytest.raises(AssertionError, match="the caller waits for 30 s"):
            await asyncio.wait_for(task, 5.0)

    def test_a_call_whose_clock_stands_still_fails(self, identity_provider: Emulator) -> None:
        """An application's own test that forgets to advance the clock learns so."""
        clock = ManualClock(patience=0.5)
        app = msal.ConfidentialClientApplication(
            "forgetful",
            authority=identity_provider.authority("contoso"),
            client_credential="any will do",
            instance_discovery=False,
            verify=identity_provider.ca_file,
            resilience=Settings(clock=clock, jitter=no_jitter),
        )
        identity_provider.fail(Fault.http_503(), "token")
        with pytest.raises(AssertionError, match="resilient-auth-worker waits for"):
            app.acquire_token_for_client(["api://mine/.default"])
        with pytest.raises(AssertionError, match="this ManualClock"):
            asyncio.run(aio.wrap(app).acquire_token_for_client(["api://mine/.default"]))
        app.close()
