"""A credential lives through a fork, and does without azure-core."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forked import LookedUp, Stop, in_a_child

import resilient_auth as ra
from resilient_auth.emulator import Fault

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class TestFork:
    """A child has what was held, and asks for what wasn't, whatever went on in the parent."""

    pytestmark = forks

    def test_a_warm_credential_serves_in_the_child(self, idp, app_at, scope, settings):
        """What is held is served, and what isn't is asked for; siblings' tokens too."""
        credential = ra.ResilientCredential(app_at(idp))
        function = ra.ResilientCredential(lambda _: (f"of {os.getpid()}", time.time() + 3600), settings=settings())
        held, cae = credential.get_token(scope).token, credential.get_token(scope, enable_cae=True).token
        made = function.get_token("a").token

        def work() -> None:
            assert credential.get_token(scope).token == held
            assert credential.get_token(scope, enable_cae=True).token == cae
            assert function.get_token("a").token == made
            assert function.get_token("b").token == f"of {os.getpid()}"
            assert credential.get_token("https://vault.azure.net/.default").token
            assert credential.get_token(scope, claims='{"access_token":{}}').token != held

        assert in_a_child(work) < 5
        assert credential.get_token(scope).token == held
        assert credential.get_token("https://vault.azure.net/.default").token

    @pytest.mark.parametrize("at", range(1, 8))
    def test_a_child_forked_as_a_challenge_is_noted(self, idp, app_at, scope, at):
        """It meets challenges as its parent does, many of them too."""
        credential, stop = ra.ResilientCredential(app_at(idp)), Stop(at)
        noted = credential._core._challenged
        first = credential.get_token(scope, claims='{"access_token":{"n":"first"}}').token
        (one,) = noted.values()
        noted.clear()
        for number in range(noted.maxsize):
            noted[LookedUp(b"%d" % number, stop)] = one
        changing = threading.Thread(target=stop.change, args=(lambda: noted.update(new=one),))
        changing.start()
        stop.met.wait(10.0)

        def work() -> None:
            for number in range(3):
                assert credential.get_token(scope, claims=f'{{"access_token":{{"n":"{number}"}}}}').token != first

        try:
            in_a_child(work)
        finally:
            stop.go_on.set()
            changing.join()

    def test_a_child_forked_in_an_outage_asks_the_second_source(self, idp, second_idp, app_at, scope):
        """As the parent does."""
        credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
        idp.fail(Fault.refuse())
        held = credential.get_token(scope).token

        def work() -> None:
            assert credential.get_token(scope).token == held
            assert credential.get_token("https://vault.azure.net/.default").token
            assert credential.get_token(scope, claims='{"access_token":{}}').token != held

        assert in_a_child(work) < 6

    def test_a_child_forked_during_an_exchange_asks_by_itself(self, settings):
        """The parent's flight never lands there."""
        parent, asked = os.getpid(), threading.Event()

        def ask(_):
            asked.set()
            if os.getpid() == parent:
                time.sleep(0.5)
            return f"of {os.getpid()}", time.time() + 3600

        credential = ra.ResilientCredential(ask, settings=settings())
        first = threading.Thread(target=credential.get_token, args=("a",))
        first.start()
        asked.wait(5)

        def work() -> None:
            assert credential.get_token("a").token == f"of {os.getpid()}"
            credential.close()

        assert in_a_child(work) < 2
        first.join()
        assert credential.get_token("a").token == f"of {parent}"

    def test_children_forked_amid_switches_and_back_offs_get_tokens(self, idp, app_at, settings):
        """Whichever lock a thread of the parent held, the child's is free."""
        fails = threading.Event()

        def ask(scopes):
            if fails.is_set():
                raise ConnectionError
            return f"t {scopes[0]}", time.time() + 3600

        credential = ra.ResilientCredential(ask, app_at(idp), settings=settings())
        over = threading.Event()

        def traffic() -> None:
            number = 0
            while not over.is_set():
                number += 1
                (fails.set if number % 7 == 0 else fails.clear)()
                token = credential.get_token(f"api://{number % 40}/.default").token
                credential.invalidate(token)

        threads = [threading.Thread(target=traffic) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                in_a_child(lambda n=number: credential.get_token(f"api://child{n}/.default"), 8)
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def test_a_lock_that_a_thread_of_the_parents_holds_is_free_in_the_child(self, clock, settings):
        """A worker in its back-off holds one while its clock reads the time."""
        held = threading.Event()

        class Holding(type(clock)):
            def wait(self, condition, timeout):
                if threading.current_thread().name != "resilient-auth-worker":
                    return super().wait(condition, timeout)
                held.set()
                time.sleep(0.7)
                return False

        def ask(_):
            raise ConnectionError

        credential = ra.ResilientCredential(ask, settings=settings(clock=Holding(), wait=0.2))
        for _ in range(2):
            with pytest.raises(ra.ProviderUnavailable):
                credential.get_token("a")
        assert held.wait(5)
        assert in_a_child(credential.close, 3) < 1

    def test_what_is_awaited_is_awaited_in_the_childs_own_loop(self, settings):
        """The parent's loop goes on, and isn't the child's to use."""

        async def ask(_):
            await asyncio.sleep(0)
            return f"of {os.getpid()}", time.time() + 3600

        credential = ra.aio.ResilientCredential(ask, settings=settings())
        loop = asyncio.new_event_loop()
        runner = threading.Thread(target=loop.run_forever)
        runner.start()
        try:
            held = asyncio.run_coroutine_threadsafe(credential.get_token("a"), loop).result(5).token

            def work() -> None:
                async def both() -> None:
                    assert (await credential.get_token("a")).token == held
                    assert (await credential.get_token("b")).token == f"of {os.getpid()}"

                asyncio.run(both())

            assert in_a_child(work) < 3
            assert asyncio.run_coroutine_threadsafe(credential.get_token("c"), loop).result(5).token == held
        finally:
            loop.call_soon_threadsafe(loop.stop)
            runner.join()
            loop.close()


WITHOUT_AZURE = """
import asyncio, importlib.abc, pickle, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "azure":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault

SCOPE = "https://storage.azure.com/.default"

def failure_of(credential, *scopes):
    try:
        credential.get_token(*scopes)
    except Exception as error:
        return error

with Emulator() as idp:
    quick = ra.Settings(wait=1.0, exchange_deadline=1.0, attempt_timeout=0.5, connect_timeout=0.5)
    app = ra.msal.ConfidentialClientApplication("daemon", "secret", authority=idp.authority("contoso"),
                                                instance_discovery=False, verify=idp.ca_file, resilience=quick)
    credential = ra.ResilientCredential(app)
    token, info = credential.get_token(SCOPE), credential.get_token_info(SCOPE, options={})
    secret, expires_on = token
    assert secret == token.token == info.token and expires_on == token.expires_on == info.expires_on
    assert info.token_type == "Bearer" and info.refresh_on <= info.expires_on
    assert secret not in repr(token) and secret not in repr(info) and secret not in repr(credential)
    assert asyncio.run(ra.aio.ResilientCredential(app).get_token(SCOPE)) == token
    idp.deny("client_credentials", "invalid_client")
    denied = failure_of(credential, "https://denied/.default")
    assert type(denied) is ra.TokenDenied and denied.error == "invalid_client"
    assert str(pickle.loads(pickle.dumps(denied))) == str(denied)
    idp.heal()
    idp.fail(Fault.refuse())
    down = failure_of(credential, "https://down/.default")
    assert type(down) is ra.ConnectionFailed, down
    both = ra.ResilientCredential(app, lambda _: ("t", 2e9), settings=quick)
    assert both.get_token("https://f/.default").token == "t"
    app.close()
assert not any(name.partition(".")[0] == "azure" for name in sys.modules)
print("all of it")
"""


def test_all_of_it_works_without_azure_core():
    """Tokens are the like of its own, and errors are ours alone."""
    program = [sys.executable, "-c", WITHOUT_AZURE]
    root = Path(ra.__file__).parents[1]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    assert ended.stdout.strip() == "all of it", ended.stderr
