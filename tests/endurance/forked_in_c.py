"""Forked in C, as uWSGI makes its workers: no hook of Python's runs, and every lock was held by another thread.

Everything is used in the parent first, and then in the child, which must neither hang nor count on a thread of its
parent's.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import os
import signal
import ssl
import sys
import threading
import time
from types import ModuleType
from typing import Any

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator.provider.realms import tenant_id
from resilient_auth.verify import DenyList, GraceOptions

_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)


def locks() -> list[Any]:
    """Find every lock of the package's, and those of MSAL's caches."""
    found: dict[int, Any] = {}
    for one in gc.get_objects():
        if isinstance(one, ModuleType):
            owner, kept = one.__name__, vars(one)
        else:
            kind, owner = type(one), str(type(one).__module__)
            if owner.partition(".")[0] not in ("resilient_auth", "msal") or isinstance(one, type):
                continue
            entries = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
            kept = dict(getattr(one, "__dict__", {})) | {n: getattr(one, n) for n in entries if hasattr(one, n)}
        if owner.partition(".")[0] in ("resilient_auth", "msal"):
            found |= {id(value): value for value in list(kept.values()) if isinstance(value, _LOCKS)}
    return list(found.values())


class Scene:
    """One of each, all of them at the emulator."""

    def __init__(self, url: str, api_url: str, ca_file: str, directory: str, redis_url: str) -> None:
        authority, trust = f"{url}/contoso", ssl.create_default_context(cafile=ca_file)
        about: dict[str, Any] = {"authority": authority, "instance_discovery": False, "verify": ca_file}
        key = bytes(range(32))
        self.stores = ra.FileStore(f"{directory}/tokens", key=key), ra.RedisStore(redis_url, key=key)

        def app(**options: Any) -> Any:
            settings = ra.Settings(**options)
            return msal.ConfidentialClientApplication("daemon", "s3cret-of-the-daemon", resilience=settings, **about)

        self.apps = app(), app(store=self.stores[0]), app(store=self.stores[1])
        self.credential = ra.ResilientCredential(self.apps[0])
        self.awaited = ra.aio.ResilientCredential(self.apps[0])
        self.api = ra.api_client(api_url, self.credential, "api://orders/.default", verify=trust)
        self.aio_api = ra.aio.api_client(api_url, self.awaited, "api://orders/.default", verify=trust)
        self.deny = DenyList()
        checks: dict[str, Any] = {"authority": url, "verify": ca_file, "grace": GraceOptions(), "deny": self.deny}
        tenant = tenant_id("contoso")
        self.verifier = ra.ClaimsVerifier.for_entra(tenant, "api://orders", **checks)
        self.aio_verifier = ra.aio.ClaimsVerifier.for_entra(tenant, "api://orders", **checks)
        self.told: list[ra.events.Event] = []
        ra.subscribe(self.told.append)

    def use(self, who: str) -> None:
        """Use everything, in a way that asks somebody."""
        for number, app in enumerate(self.apps):
            assert "access_token" in app.acquire_token_for_client([f"api://{who}-{number}/.default"]), "drop-in"
            assert app.get_accounts() == []
        assert self.credential.get_token(f"api://{who}-credential/.default").token
        token = self.credential.get_token("api://orders/.default").token
        self.credential.invalidate(token)
        token = self.credential.get_token("api://orders/.default").token
        assert self.api.get("/a").status_code == 200
        assert self.verifier.verify(token)
        self.deny.add(oids=[who])
        asyncio.run(self.use_in_tasks(who, token))
        assert ra.health().verdict

    async def use_in_tasks(self, who: str, token: str) -> None:
        aio = ra.aio.wrap(self.apps[0])
        assert "access_token" in await aio.acquire_token_for_client([f"api://{who}-aio/.default"])
        assert (await self.awaited.get_token(f"api://{who}-awaited/.default")).token
        if who == "child":  # the connections of httpx's own asyncio client belong to one event loop
            assert (await self.aio_api.get("/a")).status_code == 200
        assert await self.aio_verifier.verify(token)


def in_a_child(work: Any, seconds: float = 20.0) -> None:
    """Fork while another thread holds all locks, and do it there."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        taken = [lock for lock in locks() if lock.acquire(timeout=0.1)]
        held.set()
        over.wait()
        for lock in taken:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    # Not CDLL, which lets go of the interpreter's own lock: another thread's hold on that would be for ever.
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            work()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(1)
    over.set()
    holder.join()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the child ended with {status}"


def main() -> None:
    # In a child that hangs: not `dump_traceback_later`, whose thread a grandchild would look for.
    faulthandler.register(signal.SIGALRM, chain=True)
    scene = Scene(*sys.argv[1:])
    pinned = "api://pinned/.default"
    scene.apps[0].keep_fresh([pinned])
    scene.use("parent")
    scene.apps[0].remove_tokens_for_client()  # what is pinned is missing: the child is to get it at once

    def work() -> None:
        begun = time.monotonic()
        scene.told.clear()
        scene.use("child")
        assert time.monotonic() - begun < 10
        # Timers run again: what is pinned is refreshed with nobody asking.
        ends = time.monotonic() + 8
        while not any(
            type(event).__name__ == "TokenAcquired" and pinned in event.request.scopes for event in list(scene.told)
        ):
            assert time.monotonic() < ends, "timers don't run"
            time.sleep(0.05)
        in_a_child(lambda: scene.use("grandchild"))

    in_a_child(work, 40)
    scene.use("parent-again")
    print("all of it")
    sys.stdout.flush()
    os._exit(0)


main()
