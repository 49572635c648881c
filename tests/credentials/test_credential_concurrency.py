"""A credential stays right when it is closed, cancelled, asked from within, or its clocks are set."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Fault
from resilient_auth.events import SourceSwitched
from resilient_auth.testing import ManualClock, capture_events


class TestClose:
    """What was closed holds nothing, whoever was under way."""

    def test_a_waiter_gets_its_token_and_nobody_after_it(self, settings, eventually):
        """Closed during an exchange: its answer is the waiter's, and isn't kept."""
        asked, go = threading.Event(), threading.Event()

        def ask(_):
            asked.set()
            go.wait(5)
            return "late", time.time() + 3600

        credential = ra.ResilientCredential(ask, settings=settings())
        got = []
        waiter = threading.Thread(target=lambda: got.append(credential.get_token("a").token))
        waiter.start()
        asked.wait(5)
        credential.close()
        go.set()
        waiter.join()
        assert got == ["late"]
        for call in (credential.get_token, credential.get_token_info):
            with pytest.raises(ra.Closed):
                call("a")

    def test_closing_ends_a_back_off(self, settings, clock, eventually):
        """A worker that waits to ask again goes, and asks nobody."""
        calls = []

        def ask(_):
            calls.append(1)
            raise ConnectionError

        credential = ra.ResilientCredential(ask, settings=settings(wait=0.2))
        for _ in range(2):
            with pytest.raises(ra.ProviderUnavailable):
                credential.get_token("a")
        credential.close()
        time.sleep(0.2)
        clock.skip(60)
        time.sleep(0.1)
        assert calls == [1]

    def test_threads_that_ask_while_it_closes_get_a_token_or_are_told(self, idp, app_at, scope, together):
        """Nothing is served from what was ready after it was closed; the application stays open."""
        app = app_at(idp)
        app.acquire_token_for_client([scope])
        for _ in range(20):
            credential = ra.ResilientCredential(app)
            turns = iter(range(16))
            together(16, lambda c=credential, t=turns: c.close() if next(t) == 7 else c.get_token(scope).token)
            with pytest.raises(ra.Closed):
                credential.get_token(scope)
            assert scope not in credential._core.ready


class TestTasks:
    """The loop is the caller's, and so is the cancellation."""

    async def test_a_cancelled_task_cancels_nobody_elses_exchange(self, settings):
        """The function that is awaited goes on for the others."""
        calls = []

        async def ask(_):
            calls.append(1)
            await asyncio.sleep(0.3)
            return "t0ken", time.time() + 3600

        async with ra.aio.ResilientCredential(ask, settings=settings()) as credential:
            tasks = [asyncio.create_task(credential.get_token("a")) for _ in range(50)]
            await asyncio.sleep(0.1)
            for task in tasks[:25]:
                task.cancel()
            got = await asyncio.gather(*tasks[25:])
        assert {one.token for one in got} == {"t0ken"}
        assert calls == [1]

    def test_each_run_of_a_loop_is_its_own(self, settings, clock, eventually):
        """A credential outlives the loop in which it was first used, and a refresh without a loop spoils nothing."""
        numbers = iter(range(100))

        async def ask(_):
            return f"t{next(numbers)}", clock.wall() + 3600

        credential = ra.aio.ResilientCredential(ask, settings=settings())

        async def get():
            return (await credential.get_token("a")).token

        assert asyncio.run(get()) == "t0"
        clock.skip(3000)
        assert asyncio.run(get()) in ("t0", "t1")
        clock.skip(7200)

        def has_another() -> bool:
            # The refresh that lost its loop may have run out of time just now, and whoever waits for it with it.
            try:
                return asyncio.run(get()) in ("t1", "t2", "t3", "t4")
            except (ra.AttemptTimeout, ra.AcquisitionTimeout):
                clock.skip(10)  # past its break
                return False

        eventually(has_another)

    def test_what_must_be_awaited_is_told_to_who_blocks(self, settings):
        """A function whose answer turns out to be a coroutine."""

        async def ask():
            return "t", time.time() + 60

        credential = ra.ResilientCredential(lambda _: ask(), settings=settings())
        with pytest.raises(ra.ConfigurationError, match=r"aio\.ResilientCredential"):
            credential.get_token("a")


class TestFromWithin:
    """A function may use credentials, but not wait for itself."""

    def test_a_function_may_ask_another_and_itself_for_something_else(self, settings):
        """A token exchange: one token is had with another one."""
        inner = ra.ResilientCredential(lambda _: ("assertion", time.time() + 3600), settings=settings())

        def ask(scopes):
            with_what = outer.get_token("base").token if scopes != ("base",) else inner.get_token("x").token
            return f"{scopes[0]} with {with_what}", time.time() + 3600

        outer = ra.ResilientCredential(ask, settings=settings())
        assert outer.get_token("api").token == "api with base with assertion"

    async def test_a_function_that_asks_for_its_own_token_is_told_at_once(self, settings):
        """It would wait for itself until its deadline."""
        blocking = ra.ResilientCredential(lambda scopes: blocking.get_token(*scopes), settings=settings())

        async def ask(scopes):
            return await awaited.get_token(*scopes)

        awaited = ra.aio.ResilientCredential(ask, settings=settings())
        begun = time.monotonic()
        with pytest.raises(ra.ConfigurationError, match="very token"):
            blocking.get_token("a")
        with pytest.raises(ra.ConfigurationError, match="very token"):
            await awaited.get_token("a")
        assert time.monotonic() - begun < 2


class TestClocks:
    """A held token is served for as long as both clocks allow, whichever of them was set."""

    class Clock(ManualClock):
        """One whose wall clock can be set."""

        ahead = 0.0

        @property
        def wall(self):
            return lambda: super(TestClocks.Clock, self).wall() + self.ahead

    @pytest.fixture
    def scene(self, settings):
        clock, numbers = self.Clock(), iter(range(100))

        def ask(_):
            return {"access_token": f"t{next(numbers)}", "expires_in": 3600}

        return clock, ask, settings(clock=clock)

    @pytest.mark.parametrize(
        ("set_ahead", "passes", "renewed"),
        [
            (0.0, 0.5, False),
            (0.0, 600.0, False),
            (-7200.0, 600.0, False),
            (-7200.0, 3500.0, True),
            (-3599.5, 3601.0, True),
            (3500.0, 0.0, False),
            (7200.0, 0.2, False),
            (7200.0, 3500.0, True),
        ],
    )
    async def test_the_time_that_has_passed_counts(self, scene, set_ahead, passes, renewed):
        """For both faces, and in azure-core's both ways; no answer is good for longer than it was looked at."""
        clock, ask, options = scene
        blocking = ra.ResilientCredential(ask, settings=options)
        awaited = ra.aio.ResilientCredential(ask, settings=options)
        first = blocking.get_token("a").token, (await awaited.get_token("a")).token
        clock.ahead += set_ahead
        clock.advance(passes)
        for _ in range(100):
            again = blocking.get_token("a").token, (await awaited.get_token_info("a")).token
            if (again[0] != first[0]) == renewed and (again[1] != first[1]) == renewed:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail(f"after {first} came {again}")
        assert (blocking.get_token_info("a").token, (await awaited.get_token("a")).token) == again


def test_each_switch_between_three_sources_is_told_once_with_its_reason(idp, second_idp, app_at, scope, settings):
    """Further and further, and back."""
    function = lambda _: ("f", time.time() + 3600)  # noqa: E731
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp), function, settings=settings())
    with capture_events() as told:
        idp.fail(Fault.http_503())
        for _ in range(3):
            assert credential.get_token(scope).token != "f"
        second_idp.fail(Fault.refuse())
        for _ in range(3):
            assert credential.get_token("https://other/.default").token == "f"
        credential.invalidate(credential.get_token(scope).token)
        for _ in range(3):
            assert credential.get_token(scope).token == "f"
        told.wait_for(SourceSwitched, count=3)
    seen = [(event.scopes[0], event.source.startswith("lambda"), event.code) for event in told.of(SourceSwitched)]
    assert seen == [
        (scope, False, "server_failed"),
        ("https://other/.default", True, "server_failed"),
        (scope, True, "connection_failed"),
    ]
