"""The same faces for asyncio: no blocked loop, no thread for a held token, no harm by whoever leaves."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
pytestmark = pytest.mark.filterwarnings("ignore:response_mode:UserWarning")


class LoopWatch:
    """Measure for how long the loop was blocked at most, beyond what the machine kept a thread of its own waiting."""

    async def __aenter__(self) -> LoopWatch:
        self._loops, self._threads, self._over = 0.0, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch_the_machine)
        self._thread.start()
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()
        self._over.set()
        self._thread.join()

    @property
    def longest(self) -> float:
        return self._loops - self._threads

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            self._loops = max(self._loops, time.perf_counter() - begun - 0.005)

    def _watch_the_machine(self) -> None:
        begun = time.perf_counter()
        while not self._over.wait(0.005):
            self._threads = max(self._threads, time.perf_counter() - begun - 0.005)
            begun = time.perf_counter()


async def test_a_loop_that_is_blocked_is_noticed() -> None:
    async with LoopWatch() as watch:
        time.sleep(0.3)
        await asyncio.sleep(0.01)
    assert watch.longest > 0.2


async def test_a_held_token_needs_no_thread_and_no_turn_of_the_loop(daemon):
    """A held token is returned without awaiting anything and without any thread being started."""
    app = ra.aio.wrap(daemon())
    await app.acquire_token_for_client(SCOPE)
    await app.acquire_token_for_client(SCOPE)
    started: list[Any] = []
    threading.setprofile(lambda *_: started.append(threading.current_thread().name))
    try:
        for _ in range(100):
            with pytest.raises(StopIteration) as ended:
                app.acquire_token_for_client(SCOPE).send(None)
            assert ended.value.value["token_source"] == "cache"
    finally:
        threading.setprofile(None)
    assert not started


async def test_a_users_held_token_needs_no_turn_of_the_loop(desktop, sign_in):
    """The silent flow of a signed-in user doesn't leave the loop's thread."""
    sync = desktop()
    sign_in(sync)
    app, account = ra.aio.wrap(sync), sync.get_accounts()[0]
    await app.acquire_token_silent(USER_SCOPE, account)
    await app.acquire_token_silent(USER_SCOPE, account)
    with pytest.raises(StopIteration):
        app.acquire_token_silent(USER_SCOPE, account).send(None)


@pytest.mark.parametrize(
    "fault", [Fault.black_hole(), Fault.slow(0.3), Fault.trickle(), Fault.http_503()], ids=lambda f: f.name
)
async def test_the_loop_is_never_blocked(idp: Emulator, daemon, hasty, fault):
    """While an exchange is slow or fails, the loop turns."""
    app = ra.aio.wrap(daemon(resilience=hasty))
    idp.fail(fault, "token")
    async with LoopWatch() as watch:
        answers = await asyncio.gather(
            *(app.acquire_token_for_client(SCOPE) for _ in range(50)), return_exceptions=True
        )
    assert all(isinstance(a, dict | ra.ProviderUnavailable) for a in answers)
    assert watch.longest < 0.2
    idp.heal()


async def test_the_loop_is_not_blocked_by_an_application_made_in_an_outage(idp: Emulator, daemon, settings):
    """Methods of an application without a discovery document wait beside the loop."""
    idp.fail(Fault.black_hole())
    slow = settings(discovery_wait=0.5, wait=0.8, exchange_deadline=0.8, attempt_timeout=0.6, connect_timeout=0.6)
    app = ra.aio.wrap(daemon(tenant="down-for-aio", resilience=slow))
    async with LoopWatch() as watch:
        for call in (
            app.acquire_token_for_client(SCOPE),
            app.initiate_auth_code_flow(SCOPE, redirect_uri="http://localhost/"),
            app.acquire_token_on_behalf_of("assertion", SCOPE),
        ):
            with pytest.raises(ra.ProviderUnavailable):
                await call
        assert await app.get_accounts() == []
    assert watch.longest < 0.2
    idp.heal()


async def test_cancelled_waiters_harm_nobody(idp: Emulator, daemon):
    """Tasks that give up leave the exchange to those who stay: one call, and all of these are served."""
    app = ra.aio.wrap(daemon())
    idp.fail(Fault.slow(0.4), "token")
    tasks = [asyncio.create_task(app.acquire_token_for_client(SCOPE)) for _ in range(60)]
    await asyncio.sleep(0.1)
    for task in tasks[::2]:
        task.cancel()
    left = await asyncio.gather(*tasks[::2], return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in left)
    stayed = await asyncio.gather(*tasks[1::2])
    assert len({answer["access_token"] for answer in stayed}) == 1
    assert len(idp.ledger.token_calls()) == 1


async def test_all_waiters_cancelled_leave_a_token_for_the_next(idp: Emulator, daemon, eventually):
    """An exchange that nobody waits for any more still ends, and its token is held."""
    sync = daemon()
    app = ra.aio.wrap(sync)
    idp.fail(Fault.slow(0.2), "token")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(app.acquire_token_for_client(SCOPE), 0.05)
    await asyncio.sleep(0.4)
    assert (await app.acquire_token_for_client(SCOPE))["token_source"] == "cache"
    assert len(idp.ledger.token_calls()) == 1


def test_a_loop_closed_in_mid_flight_harms_nobody(idp: Emulator, daemon):
    """A thread that waits for the same exchange as tasks of a loop that ended is served."""
    sync = daemon()
    app, answers = ra.aio.wrap(sync), []
    idp.fail(Fault.slow(0.5), "token")
    waiting = threading.Thread(target=lambda: answers.append(sync.acquire_token_for_client(SCOPE)))

    async def leave() -> None:
        tasks = [asyncio.create_task(app.acquire_token_for_client(SCOPE)) for _ in range(10)]
        await asyncio.sleep(0.1)
        waiting.start()
        del tasks

    asyncio.run(leave())
    waiting.join(5)
    assert answers[0]["access_token"]
    assert asyncio.run(app.acquire_token_for_client(SCOPE))["access_token"]


def test_asyncio_run_ends_at_once_with_a_hung_exchange(idp: Emulator, daemon):
    """The end of a program doesn't wait for a provider that hangs."""
    app = ra.aio.wrap(daemon())
    idp.fail(Fault.black_hole(), "token")

    async def main() -> None:
        for call in (
            app.acquire_token_for_client(SCOPE),
            app.acquire_token_on_behalf_of("a", SCOPE),
            app.remove_tokens_for_client(),
        ):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call, 0.05)

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 1.0
    idp.heal()


def test_each_loop_may_use_the_same_application(daemon):
    """One application serves one loop after another."""
    app = ra.aio.wrap(daemon())
    tokens = {asyncio.run(app.acquire_token_for_client(SCOPE))["access_token"] for _ in range(3)}
    assert len(tokens) == 1


@pytest.mark.parametrize("kind", ["ConfidentialClientApplication", "PublicClientApplication"])
async def test_the_methods_are_those_of_the_blocking_face(daemon, desktop, kind):
    """Every public method of MSAL's is there, as a coroutine function of the same parameters."""
    app = ra.aio.wrap(daemon() if kind.startswith("Conf") else desktop())
    theirs = getattr(plain_msal, kind)
    for name, method in inspect.getmembers(theirs, callable):
        if name.startswith("_"):
            continue
        ours = getattr(app, name)
        assert inspect.iscoroutinefunction(ours), name
        if name in dir(type(app)):
            names = [n for n in inspect.signature(method).parameters if n != "self"]
            binds = inspect.signature(ours)
            assert {n for n in names if n in binds.parameters} or any(
                p.kind is p.VAR_KEYWORD for p in binds.parameters.values()
            )


@pytest.mark.parametrize("plain", [True, False], ids=["MSAL's", "ours"])
async def test_wrap_takes_applications_of_msals_and_of_ours(
    idp: Emulator, daemon, plain_daemon, desktop, plain_desktop, plain
):
    """Every flow can be awaited on whatever was wrapped, and a denial stays a dict."""
    confidential = ra.aio.wrap(plain_daemon() if plain else daemon())
    public = ra.aio.wrap(plain_desktop() if plain else desktop())
    assert (await confidential.acquire_token_for_client(SCOPE))["access_token"]
    assert (await confidential.acquire_token_for_client(SCOPE, claims_challenge='{"access_token": {}}'))["access_token"]
    assert (await confidential.acquire_token_on_behalf_of("of-ann", USER_SCOPE))["access_token"]
    fic = confidential.acquire_token_by_user_federated_identity_credential
    assert (await fic(USER_SCOPE, "a.b.c", username="bob@contoso.com"))["access_token"]
    flow = await public.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/")
    signed_in = await public.acquire_token_by_auth_code_flow(flow, idp.sign_in(flow["auth_uri"], "ann@contoso.com"))
    assert signed_in["access_token"]
    account = (await public.get_accounts("ann@contoso.com"))[0]
    silent = await public.acquire_token_silent(USER_SCOPE, account)
    assert silent["access_token"] == signed_in["access_token"]
    forced = await public.acquire_token_silent(USER_SCOPE, account, force_refresh=True)
    assert forced["access_token"] != signed_in["access_token"]
    bad = await public.acquire_token_by_refresh_token("bad", USER_SCOPE)
    assert bad["error"] == "invalid_grant"
    await public.remove_account(account)
    assert await public.acquire_token_silent(USER_SCOPE, account) is None
    assert await public.acquire_token_silent_with_error(USER_SCOPE, None) is None
    idp.device_code_interval = 0
    device = await public.initiate_device_flow(USER_SCOPE)
    idp.approve_device(device["user_code"], "bob@contoso.com")
    assert (await public.acquire_token_by_device_flow(device))["access_token"]
    async with confidential, public:
        pass
    with pytest.raises(ra.Closed):
        await confidential.acquire_token_for_client(SCOPE)


async def test_a_cancelled_device_flow_is_polled_no_more(idp: Emulator, desktop):
    """No thread goes on for a quarter of an hour for a task that is gone; the flow can be taken up again."""
    app = ra.aio.wrap(desktop())
    idp.device_code_interval = 2
    flow = await app.initiate_device_flow(USER_SCOPE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(app.acquire_token_by_device_flow(flow), 0.5)
    await asyncio.sleep(2.6)
    assert len(idp.ledger.token_calls()) == 1
    idp.approve_device(flow["user_code"], "bob@contoso.com")
    assert (await app.acquire_token_by_device_flow(flow))["access_token"]


async def test_an_awaited_device_flow_ends_when_msals_does(idp: Emulator, desktop):
    """By its `expires_at`, or by the condition that the caller gives."""
    app = ra.aio.wrap(desktop())
    asked: list[dict[str, Any]] = []
    flow = await app.initiate_device_flow(USER_SCOPE)
    pending = await app.acquire_token_by_device_flow(flow, exit_condition=lambda given: asked.append(given) or True)
    assert pending["error"] == "authorization_pending"
    assert asked == [flow]
    over = await app.initiate_device_flow(USER_SCOPE) | {"expires_at": 0}
    assert (await app.acquire_token_by_device_flow(over))["error"] == "authorization_pending"


async def test_context_variables_travel_with_an_exchange(idp: Emulator, daemon):
    """The function that makes assertions sees its caller's context variables."""
    import contextvars

    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    def make() -> str:
        seen.append(who.get())
        return "a.b.c"

    who.set("the caller")
    app = ra.aio.wrap(daemon(client_credential={"client_assertion": make}))
    await app.acquire_token_for_client(SCOPE)
    assert seen == ["the caller"]


async def test_attributes_of_an_application_that_is_ready_are_there(daemon):
    """What isn't a method is passed on as it is, and the cache may be swapped."""
    app = ra.aio.wrap(daemon())
    assert app.client_id == "daemon"
    assert app.authority.tenant
    await app.acquire_token_for_client(SCOPE)
    app.token_cache = msal.TokenCache()
    assert app.token_cache is app.app.token_cache
    assert (await app.acquire_token_for_client(SCOPE))["token_source"] == "identity_provider"


async def test_wait_at_most_bounds_a_task(idp: Emulator, daemon):
    """A task with a deadline of its own learns in time, and the exchange goes on for others."""
    app = ra.aio.wrap(daemon())
    idp.fail(Fault.slow(0.5), "token")
    begun = time.monotonic()
    with ra.wait_at_most(0.1), pytest.raises(ra.AcquisitionTimeout):
        await app.acquire_token_for_client(SCOPE)
    assert time.monotonic() - begun < 0.4
    assert (await app.acquire_token_for_client(SCOPE))["access_token"]
    assert len(idp.ledger.token_calls()) == 1


def test_a_program_ends_at_once_with_an_exchange_in_a_black_hole(idp: Emulator):
    """A whole process with a hung exchange exits within two seconds."""
    idp.fail(Fault.black_hole(), "token")
    program = textwrap.dedent(f"""
        import asyncio, time
        import resilient_auth as ra
        from resilient_auth import msal
        app = ra.aio.wrap(msal.ConfidentialClientApplication(
            "d", "s", {idp.authority("contoso")!r}, instance_discovery=False, verify={idp.ca_file!r}))
        async def main():
            task = asyncio.create_task(app.acquire_token_for_client(["https://x/.default"]))
            await asyncio.sleep(0.1)
        print("ready", flush=True)
        asyncio.run(main())
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 2
    process.stdout.close()
    idp.heal()
