"""One process of the chaos: carries out what it is told in a thread for each order, and may die at any moment.

It may also fork: the child goes on with what it has, and is told what to do by a socket of its own.
"""

from __future__ import annotations

import base64
import ctypes
import faulthandler
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import IO, Any

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import resilient_auth as ra  # noqa: E402 - after the environment is cleaned
from resilient_auth import msal  # noqa: E402
from resilient_auth.clock import SystemClock  # noqa: E402

OWN_SCOPE = ["https://graph.microsoft.com/.default"]


class SteppingClock(SystemClock):
    """A clock of which the wall clock is set by whoever administers the machine."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self._time = time.time

    def wall(self) -> float:  # type: ignore[override]
        """Return seconds since the epoch, as this machine has them."""
        return self._time() + self.ahead


class Channel:
    """Where orders come from, and answers go."""

    def __init__(self, orders: Iterable[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers
        #: The socket that it is, if it is one.
        self.handle: int | None = None
        self._lock = threading.Lock()

    def say(self, answer: dict[str, Any]) -> None:
        with self._lock:
            print(json.dumps(answer), file=self._answers, flush=True)

    def serve(self, process: Process) -> None:
        """Carry out each order in a thread of its own."""
        process.channel = self
        self.say({"number": 0} | process.known())
        for line in self._orders:
            threading.Thread(target=process.obey, args=(json.loads(line), self), daemon=True).start()


class Process:
    """An application, and what it is asked to do."""

    channel: Channel

    def __init__(self, where: dict[str, Any]) -> None:
        key = [bytes.fromhex(each) for each in where["keys"]]
        self.clock = SteppingClock(where["ahead"])
        # MSAL knows no other clock.
        time.time = self.clock.wall
        store: Any
        if "redis" in where:
            store = ra.RedisStore(where["redis"], key=key, clock=self.clock)
        else:
            store = ra.FileStore(where["file"], key=key, clock=self.clock)
        #: Refresh tokens that a parent held: of these it has to write what isn't written yet.
        self.inherited: frozenset[str] = frozenset()
        self.app = msal.ConfidentialClientApplication(
            "daemon",
            client_credential="s3cret-of-the-daemon",
            authority=where["authority"],
            instance_discovery=False,
            verify=where["ca_file"],
            resilience=ra.Settings(
                store=store,
                clock=self.clock,
                freshness=ra.FreshnessOptions(expiry_margin=1.0, due_jitter=0.0),
                breaker=ra.BreakerOptions(first_break=5.0, longest_break=5.5, urgent_break=(5.0, 5.5)),
                attempt_timeout=2.0,
                connect_timeout=1.0,
                discovery_wait=1.0,
            ),
        )

    def sign_in(self, code: str, back: str, scopes: list[str]) -> dict[str, Any]:
        """Redeem a code."""
        result = self.app.acquire_token_by_authorization_code(code, scopes, redirect_uri=back)
        subject = self._shown(result).get("of")
        accounts = [a for a in self.app.get_accounts() if a["local_account_id"] == subject]
        return self._shown(result) | {"account": accounts[0] if accounts else None}

    def ask(self, account: dict[str, Any], scopes: list[str], *, force: bool, by_name: bool) -> dict[str, Any]:
        """Get a user's token without interaction."""
        if by_name:
            found = self.app.get_accounts(account["username"])
            if not found:
                return {"accounts": 0}
            account = found[0]
        return self._shown(self.app.acquire_token_silent(scopes, account, force_refresh=force))

    def ask_own(self) -> dict[str, Any]:
        """Get the application's own token."""
        return self._shown(self.app.acquire_token_for_client(OWN_SCOPE))

    def sign_out(self, account: dict[str, Any]) -> dict[str, Any]:
        """Remove an account."""
        self.app.remove_account(account)
        return {}

    def step(self, ahead: float) -> dict[str, Any]:
        """Set the wall clock."""
        self.clock.ahead = ahead
        return {}

    def fork(self, how: str, channel: str, errors: str) -> dict[str, Any]:
        """Fork, and have the child go on at a channel of its own."""
        # Not CDLL, which lets go of the interpreter's own lock: another thread's hold on that would be for ever.
        fork = os.fork if how == "python" else ctypes.PyDLL(None).fork
        if how == "c":
            # What tells the interpreter's threads whose turn it is doesn't survive it while one waits for that.
            time.sleep(0.1)
        return {"child": _in_a_child(fork, channel, errors, self._go_on)}

    def _go_on(self, channel: Channel) -> None:
        # It would seem open to who reads from the parent as long as anybody has it.
        if self.channel.handle is not None:
            os.close(self.channel.handle)
        self.inherited |= frozenset(self.known()["held"])
        channel.serve(self)

    def settle(self, seconds: float) -> dict[str, Any]:
        """Wait until all is written."""
        ends = time.monotonic() + seconds
        while not self._settled() and time.monotonic() < ends:
            time.sleep(0.05)
        return {}

    def _settled(self) -> bool:
        shared_cache = self.app._ra_session.shared_cache
        return bool(shared_cache.settled)

    def _shown(self, result: Any) -> dict[str, Any]:
        if result is None or "access_token" not in result:
            return {"denied": None if result is None else str(result.get("error_description"))}
        return {"token": result["access_token"], "of": _claim(result["access_token"], "oid"),
                "app": _claim(result["access_token"], "azp", "appid"), "source": result["token_source"]}  # fmt: skip

    def known(self) -> dict[str, Any]:
        """Return which refresh tokens it holds, and whether the store has them too."""
        cache = self.app.token_cache
        tokens = (hashlib.sha256(e["secret"].encode()).hexdigest() for e in list(cache.search("RefreshToken")))
        held = [token for token in tokens if token not in self.inherited]
        time.sleep(0.002)  # a change is noted right after it was made
        return {"held": held, "settled": self._settled(), "stores": [str(store) for store in ra.health().stores],
                **self._unwritten()}  # fmt: skip

    def _unwritten(self) -> dict[str, Any]:
        """Return what of it the store hasn't got yet, for whoever asks why."""
        shared_cache, now = self.app._ra_session.shared_cache, self.clock.monotonic()
        waiting = [(place, shared_cache._partitions.get(place)) for place in list(shared_cache._unwritten)]
        if not waiting:
            return {}
        return {"flushing": shared_cache._flushing, "waiting": [
            {"place": str(place)[-20:],
             "changes": [[key[0], change.new is None] for key, change in held.changes.items()],
             "tokens": len(held.tokens), "erase": held.erase, "sign_in": str(held.sign_in),
             "rests": held.rests_until - now}
            for place, held in waiting if held]}  # fmt: skip

    def obey(self, order: dict[str, Any], channel: Channel) -> None:
        """Carry one order out, and tell how that went."""
        number, do, wait = order.pop("number"), order.pop("do"), order.pop("wait")
        try:
            with ra.wait_at_most(wait):
                said = getattr(self, do)(**order)
        except (ra.ProviderUnavailable, ra.StoreUnavailable) as error:
            said = {"failed": type(error).__name__, "detail": str(error)}
        except BaseException:
            said = {"crashed": traceback.format_exc()}
        channel.say({"number": number} | said | self.known())


def _claim(token: str, *names: str) -> str | None:
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return next((claims[name] for name in names if name in claims), None)


def _in_a_child(fork: Callable[[], int], path: str, errors: str, go_on: Callable[[Channel], None]) -> int:
    """Fork, and have the child go on at a channel of its own."""
    child = fork()
    if child:
        return child
    try:
        # The parent's pipes would seem open as long as anybody has them.
        for number, what in ((0, os.devnull), (1, os.devnull), (2, errors)):
            handle = os.open(what, os.O_RDWR | os.O_APPEND)
            os.dup2(handle, number)
            os.close(handle)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            orders, answers = connection.makefile("r"), connection.makefile("w")
        channel = Channel(orders, answers)
        channel.handle = orders.fileno()
        go_on(channel)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(1)


def _begin(where: dict[str, Any], channel: Channel) -> None:
    try:
        process = Process(where)
    except BaseException:
        channel.say({"number": 0, "crashed": traceback.format_exc()})
        raise
    channel.serve(process)


def main() -> None:
    """Begin as a worker; or, given nothing, begin one for each order, with everything imported already."""
    faulthandler.register(signal.SIGUSR1)
    # Children that were forked and killed are nobody's to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    channel = Channel(sys.stdin, sys.stdout)
    where = json.loads(sys.argv[1])
    if where is not None:
        _begin(where, channel)
        return
    import redis  # noqa: F401 - so that nobody has to wait for it

    _ = msal.ConfidentialClientApplication, ra.FileStore, ra.RedisStore
    for line in sys.stdin:
        order = json.loads(line)

        def begin(channel: Channel, order: dict[str, Any] = order) -> None:
            _begin(order["where"], channel)

        child = _in_a_child(os.fork, order["channel"], order["errors"], begin)
        channel.say({"number": order["number"], "child": child})


main()
