"""The owner's functions amid an exchange: they ask for tokens in their turn, they hang, and they harm nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth._policy.endpoint import origin_of
from resilient_auth.emulator import Emulator
from resilient_auth.events import ExchangesOverdue
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/.default"]
EXCHANGE = ["api://AzureADTokenExchange/.default"]
Daemon = Callable[..., Any]


def scope(number: int) -> list[str]:
    return [f"api://number-{number}/.default"]


def all_at_once(calls: list[Callable[[], Any]], seconds: float = 20.0) -> list[Any]:
    """Make calls at the same time, and give what they return, or None for those that raise or aren't back in time."""
    pool = ThreadPoolExecutor(len(calls))
    ends = time.monotonic() + seconds
    answers: list[Any] = []
    for asked in [pool.submit(call) for call in calls]:
        try:
            answers.append(asked.result(max(0.0, ends - time.monotonic())))
        except Exception:
            answers.append(None)
    pool.shutdown(wait=False)
    return answers


def tokens(answers: list[Any]) -> list[str]:
    """The access tokens among answers."""
    return [answer["access_token"] for answer in answers if answer and "access_token" in answer]


def overdue(idp: Emulator) -> int:
    """How many exchanges with this test's provider should have come back, and haven't."""
    origin = origin_of(idp.authority("contoso"))
    return sum(lane.overdue for lane in ra.health().lanes if lane.name.startswith(origin))


class Hanging:
    """A function that hangs until it is let go, and how often it was called.

    When its test is over it fails: what it held up would else make its calls while the provider goes away.
    """

    def __init__(self) -> None:
        self.free = threading.Event()
        self.over = False
        self.calls = 0

    def __call__(self, *_: Any, **__: Any) -> str:
        self.calls += 1
        self.free.wait()
        if self.over:
            raise ConnectionError("the test is over")
        return "an.assertion.at-last"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    function = Hanging()
    yield function
    function.over = True
    function.free.set()


def asking_a(hub: Any) -> Callable[[], str]:
    """An assertion function that asks a hub application, for another path each time; the first eight at once."""
    paths, all_places = iter(range(10_000)), threading.Barrier(8)

    def assertion() -> str:
        number = next(paths)
        if number < 8:
            all_places.wait(10.0)
        answer = hub.acquire_token_for_client(EXCHANGE, fmi_path=f"agents/{number}")
        token: str = answer["access_token"]
        return token

    return assertion


class TestFunctionsThatAsk:
    @pytest.mark.parametrize("crowd", [20, 60])
    def test_a_hub_at_the_same_authority_serves_a_crowd(self, daemon: Daemon, crowd: int) -> None:
        """Each of the crowd's exchanges waits for one of the hub's, and all are there in a moment."""
        app = daemon("agent", client_credential={"client_assertion": asking_a(daemon("hub"))})
        began = time.monotonic()
        calls = [lambda n=n: app.acquire_token_for_client(scope(n)) for n in range(crowd)]
        assert len(set(tokens(all_at_once(calls)))) == crowd
        assert time.monotonic() - began < 10.0

    def test_many_applications_share_a_hub(self, daemon: Daemon) -> None:
        """As many as an authority has places, and more, each with a function of its own."""
        asking = asking_a(daemon("hub"))
        apps = [daemon(f"agent {n}", client_credential={"client_assertion": asking}) for n in range(24)]
        calls = [lambda app=app: app.acquire_token_for_client(SCOPE) for app in apps]
        assert len(tokens(all_at_once(calls))) == 24

    def test_a_wrapped_applications_function_asks_too(
        self, daemon: Daemon, plain_daemon: Daemon, settings: Any
    ) -> None:
        """Where MSAL's application was built elsewhere."""
        plain = plain_daemon("agent", client_credential={"client_assertion": asking_a(daemon("hub"))})
        app = ra.wrap(plain, resilience=settings())
        calls = [lambda n=n: app.acquire_token_for_client(scope(n)) for n in range(20)]
        assert len(tokens(all_at_once(calls))) == 20

    def test_a_function_asks_its_own_application(self, daemon: Daemon) -> None:
        """Each exchange waits for another one of the same application, in the lane that they share."""
        apps: list[Any] = []
        numbers, all_places = iter(range(10_000)), threading.Barrier(8)

        def assertion() -> str:
            number = next(numbers)
            if number >= 8:
                return "an.inner.assertion"
            all_places.wait(10.0)
            token: str = apps[0].acquire_token_for_client(EXCHANGE, fmi_path=f"inner/{number}")["access_token"]
            return token

        apps.append(daemon("agent", client_credential={"client_assertion": assertion}))
        calls = [lambda n=n: apps[0].acquire_token_for_client(scope(n)) for n in range(20)]
        assert len(tokens(all_at_once(calls))) == 20

    def test_two_applications_ask_each_other(self, daemon: Daemon) -> None:
        """Each one's lane is full of exchanges that wait for the other one's."""
        apps: dict[str, Any] = {}
        met = threading.Barrier(16)
        numbers = iter(range(10_000))

        def assertion_of(other: str) -> Callable[[], str]:
            asked = iter(range(10_000))

            def assertion() -> str:
                if next(asked) >= 8:
                    return "an.inner.assertion"
                met.wait(10.0)
                path = f"inner/{next(numbers)}"
                token: str = apps[other].acquire_token_for_client(EXCHANGE, fmi_path=path)["access_token"]
                return token

            return assertion

        for name, other in (("one", "two"), ("two", "one")):
            apps[name] = daemon(name, client_credential={"client_assertion": assertion_of(other)})
        calls = [lambda n=n: apps[("one", "two")[n % 2]].acquire_token_for_client(scope(n)) for n in range(16)]
        assert len(tokens(all_at_once(calls))) == 16

    async def test_tasks_get_theirs_too(self, daemon: Daemon) -> None:
        """The same from asyncio."""
        app = ra.aio.wrap(daemon("agent", client_credential={"client_assertion": asking_a(daemon("hub"))}))
        asked = [app.acquire_token_for_client(scope(n)) for n in range(20)]
        assert len(tokens(await asyncio.wait_for(asyncio.gather(*asked), 15.0))) == 20

    def test_a_function_source_asks_its_own_credential(self, settings: Any) -> None:
        """For another scope, from as many exchanges as it may make at a time."""
        credentials: list[Any] = []

        numbers, all_places = iter(range(10_000)), threading.Barrier(8)

        def source(scopes: tuple[str, ...], **_: Any) -> dict[str, Any]:
            if scopes[0].startswith("outer"):
                if next(numbers) < 8:
                    all_places.wait(10.0)
                inner = credentials[0].get_token(scopes[0].replace("outer", "inner")).token
                return {"access_token": f"with {inner}", "expires_in": 3600}
            return {"access_token": scopes[0], "expires_in": 3600}

        with ra.ResilientCredential(source, settings=settings()) as credential:
            credentials.append(credential)
            calls = [lambda n=n: credential.get_token(f"outer-{n}").token for n in range(20)]
            assert all_at_once(calls) == [f"with inner-{n}" for n in range(20)]

    def test_an_awaited_source_asks_its_own_credential(self, settings: Any) -> None:
        """The same where it is awaited."""

        async def run() -> list[str]:
            async def source(scopes: tuple[str, ...], **_: Any) -> dict[str, Any]:
                if scopes[0].startswith("outer"):
                    inner = (await credential.get_token(scopes[0].replace("outer", "inner"))).token
                    return {"access_token": f"with {inner}", "expires_in": 3600}
                return {"access_token": scopes[0], "expires_in": 3600}

            credential = ra.aio.ResilientCredential(source, settings=settings())
            got = await asyncio.wait_for(asyncio.gather(*(credential.get_token(f"outer-{n}") for n in range(20))), 15.0)
            return [one.token for one in got]

        assert asyncio.run(run()) == [f"with inner-{n}" for n in range(20)]

    def test_a_source_that_asks_its_own_credential_recovers(self, settings: Any, clock: Any) -> None:
        """The probe that is made of it after an outage isn't what keeps it from the token that it needs for that."""
        ill, credentials = True, []

        def source(scopes: tuple[str, ...], **_: Any) -> dict[str, Any]:
            if ill:
                raise ConnectionError("nobody is there")
            if scopes[0].startswith("outer"):
                inner = credentials[0].get_token("inner").token
                return {"access_token": f"with {inner}", "expires_in": 3600}
            return {"access_token": scopes[0], "expires_in": 3600}

        with ra.ResilientCredential(source, settings=settings()) as credential:
            credentials.append(credential)
            for n in range(6):
                with pytest.raises(ra.ProviderUnavailable), ra.wait_at_most(1.0):
                    credential.get_token(f"outer-{n}")
                clock.skip(6.0)
            ill = False
            served = None
            for _ in range(10):
                clock.skip(10.0)
                with contextlib.suppress(ra.ProviderUnavailable), ra.wait_at_most(1.0):
                    served = credential.get_token("outer-9").token
                    break
            assert served == "with inner"

    def test_a_token_cache_that_asks_is_answered(self, daemon: Daemon) -> None:
        """One of the owner's that has a key of its own unwrapped, at the same authority, whenever it is written."""
        hub = daemon("hub")
        numbers = iter(range(10_000))

        class Unwrapping(plain_msal.SerializableTokenCache):  # type: ignore[misc]
            def add(self, event: dict[str, Any], **options: Any) -> Any:
                assert "access_token" in hub.acquire_token_for_client(scope(1000 + next(numbers)))
                return super().add(event, **options)

            def search(self, *args: Any, **kwargs: Any) -> Any:
                return super().search(*args, **kwargs)

        app = daemon("agent", token_cache=Unwrapping())
        calls = [lambda n=n: app.acquire_token_for_client(scope(n)) for n in range(20)]
        assert len(tokens(all_at_once(calls))) == 20


class TestFunctionsThatHang:
    def test_one_stops_no_other_application(self, daemon: Daemon, hanging: Hanging, idp: Emulator) -> None:
        """However many of its exchanges hang: neither one that has a secret, nor one with a function of its own."""
        stuck = daemon("stuck", client_credential={"client_assertion": hanging})
        threads = [threading.Thread(target=_ask, args=(stuck, scope(n)), daemon=True) for n in range(100)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        fine = daemon("fine"), daemon("fine too", client_credential={"client_assertion": lambda: "an.assertion"})
        began = time.monotonic()
        for app in fine:
            assert app.acquire_token_for_client(SCOPE)["access_token"]
        assert time.monotonic() - began < 3.0
        assert {call.client_id for call in idp.ledger.token_calls()} == {"fine", "fine too"}

    def test_those_that_are_overdue_are_told_of(
        self, daemon: Daemon, hanging: Hanging, idp: Emulator, clock: Any, eventually: Any
    ) -> None:
        """By an event, by health, and to who waited: a function hangs, and no call was made."""
        app = daemon("stuck", client_credential={"client_assertion": hanging})
        with capture_events() as events:
            began = [threading.Thread(target=lambda n=n: _ask(app, scope(n)), daemon=True) for n in range(12)]
            for thread in began:
                thread.start()
            eventually(lambda: hanging.calls == 8)
            assert not overdue(idp)
            clock.skip(32.0)
            (told,) = events.wait_for(ExchangesOverdue)
            assert told.count == 8
            assert "for application" in told.lane
        # Nobody waits any more for those that weren't begun in time; what is asked for in the background comes later.
        eventually(lambda: sum(thread.is_alive() for thread in began) <= 8)
        assert hanging.calls == 8
        assert overdue(idp) == 8
        for thread in began:
            thread.join(5.0)
        assert ra.health().verdict in ("degraded", "at risk", "down")
        hanging.free.set()
        eventually(lambda: not overdue(idp))

    def test_who_waited_learns_what_hangs(self, daemon: Daemon, hanging: Hanging) -> None:
        """The error names the function, and not a provider that was never asked."""
        app = daemon("stuck", client_credential={"client_assertion": hanging})
        with (
            pytest.raises(ra.AcquisitionTimeout, match="the client_assertion function hasn't returned"),
            ra.wait_at_most(0.3),
        ):
            app.acquire_token_for_client(SCOPE)

    def test_an_application_comes_back_though_its_old_calls_never_do(
        self, daemon: Daemon, hanging: Hanging, idp: Emulator, clock: Any, eventually: Any
    ) -> None:
        """An outage in which the function hung is over: the next call is served, for as many outages as there are."""
        ill = True

        def assertion() -> str:
            return hanging() if ill else "an.assertion"

        app = daemon("stuck", client_credential={"client_assertion": assertion})
        for outage in range(4):
            ill = True
            for n in range(8):
                threading.Thread(target=_ask, args=(app, scope(100 * outage + n)), daemon=True).start()
            eventually(lambda outage=outage: hanging.calls == 8 * (outage + 1))
            clock.skip(32.0)
            ill = False
            assert app.acquire_token_for_client(scope(100 * outage + 50))["access_token"]
        assert overdue(idp) == 32

    def test_an_overdue_exchange_is_a_failure_of_its_token(
        self, daemon: Daemon, hanging: Hanging, idp: Emulator, clock: Any, eventually: Any
    ) -> None:
        """And of no breaker: the provider was never asked."""
        app = daemon("overdue", client_credential={"client_assertion": hanging})
        threading.Thread(target=_ask, args=(app, SCOPE), daemon=True).start()
        eventually(lambda: hanging.calls == 1)
        clock.skip(32.0)
        with pytest.raises(ra.AcquisitionTimeout), ra.wait_at_most(0.2):
            app.acquire_token_for_client(SCOPE)
        health, origin = ra.health(), origin_of(idp.authority("contoso"))
        mine = [token for token in health.tokens if token.client_id == "overdue"]
        assert [(token.failures, token.last_code) for token in mine] == [(1, "acquisition_timeout")]
        assert all(breaker.state == "closed" for breaker in health.breakers if breaker.name.startswith(origin))

    def test_threads_that_were_left_behind_are_bounded(self, daemon: Daemon, hanging: Hanging, clock: Any) -> None:
        """A function that hangs for ever costs so many threads, and is then refused at once, by name."""
        app = daemon("stuck", client_credential={"client_assertion": hanging})
        refused: list[ra.Overloaded] = []
        for n in range(40):
            for m in range(4):
                threading.Thread(target=_ask, args=(app, scope(100 * n + m), refused), daemon=True).start()
            time.sleep(0.02)
            clock.skip(32.0)
        time.sleep(0.3)
        assert hanging.calls <= 8 + 4 * 8 + 8
        assert refused
        assert "a function of yours, hangs" in str(refused[-1])
        assert daemon("fine").acquire_token_for_client(SCOPE)["access_token"]

    def test_a_long_outage_leaves_few_threads_and_is_over_soon(
        self, daemon: Daemon, hanging: Hanging, clock: Any, idp: Emulator
    ) -> None:
        """An hour in which each call of a function hangs for good; it is tried again within an hour of its recovery."""
        ill = True

        def assertion() -> str:
            return hanging() if ill else "an.assertion"

        app = daemon("stuck", client_credential={"client_assertion": assertion})
        number = 0
        for _ in range(40):
            for _ in range(3):
                number += 1
                threading.Thread(target=_ask, args=(app, scope(number)), daemon=True).start()
            time.sleep(0.02)
            clock.skip(90.0)
        assert 8 < hanging.calls <= 8 + 4 * 8 + 8
        assert overdue(idp) <= 8 + 4 * 8 + 8
        ill, served = False, False
        for _ in range(40):
            clock.skip(90.0)
            with contextlib.suppress(ra.ProviderUnavailable), ra.wait_at_most(0.5):
                served = "access_token" in app.acquire_token_for_client(SCOPE)
                break
        assert served

    def test_a_child_isnt_held_up_by_its_parents_calls(self, daemon: Daemon, hanging: Hanging, eventually: Any) -> None:
        """A forked process has all its places, whatever hung in the parent."""
        ill = True

        def assertion() -> str:
            return hanging() if ill else "an.assertion"

        app = daemon("stuck", client_credential={"client_assertion": assertion})
        for n in range(20):
            threading.Thread(target=_ask, args=(app, scope(n)), daemon=True).start()
        eventually(lambda: hanging.calls == 8)
        ill = False
        child = os.fork()
        if not child:
            served = False
            try:
                served = "access_token" in app.acquire_token_for_client(scope(1000))
                served = served and not any(lane.overdue or lane.waiting for lane in ra.health().lanes)
            finally:
                os._exit(0 if served else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_a_source_that_hangs_comes_back(self, settings: Any, clock: Any, eventually: Any) -> None:
        """Its own breaker opens, and is closed again though the calls that hung never return."""
        free, ill, calls = threading.Event(), True, []

        def source(scopes: tuple[str, ...]) -> dict[str, Any]:
            calls.append(scopes)
            if ill:
                free.wait()
            return {"access_token": scopes[0], "expires_in": 3600}

        with ra.ResilientCredential(source, settings=settings()) as credential:
            for n in range(20):
                threading.Thread(target=_get, args=(credential, f"scope-{n}"), daemon=True).start()
            eventually(lambda: len(calls) >= 8)
            clock.skip(32.0)
            time.sleep(0.2)
            ill = False
            clock.skip(120.0)
            assert credential.get_token("scope-50").token == "scope-50"
        free.set()


def _ask(app: Any, wanted: list[str], refused: list[Any] | None = None) -> None:
    try:
        app.acquire_token_for_client(wanted)
    except ra.Overloaded as error:
        if refused is not None:
            refused.append(error)
    except (ra.ResilientAuthError, ConnectionError):
        return


def _get(credential: Any, wanted: str) -> None:
    try:
        credential.get_token(wanted)
    except ra.ResilientAuthError:
        return
