"""One exchange for one token at a time: through back-offs and slow answers, and when a lease is lost all the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from fleet_world import SCOPE, USER_SCOPE, BreakableBackend
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._fleet.user_record import Change, StoredToken, UserRecord, decode, encode, merge
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault, Slow

RT = ("RefreshToken", "key")


def _rt(secret: str, at: int = 0) -> dict[str, Any]:
    return {"secret": secret, "last_modification_time": str(at)}


def _asking(app: Any, answers: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(app.acquire_token_for_client(SCOPE)))
    thread.start()
    return thread


def _second_attempt(
    idp: Emulator, app: Any, clock: Any, eventually: Callable[..., None], answers: list[Any], held: float
) -> threading.Thread:
    """Have an application in its second attempt, which takes so many real seconds."""
    idp.fail(Fault.http_503(), "token", count=1)
    thread = _asking(app, answers)
    eventually(lambda: idp.ledger.token_calls())
    idp.fail(Slow(held), "token", count=1)
    time.sleep(0.2)
    return thread


def test_the_second_attempt_is_alone_too(
    idp: Emulator, life: Callable[..., Any], clock: Any, eventually: Callable[..., None]
) -> None:
    """Who waits for a process in its back-off doesn't ask while that one's next attempt takes its time."""
    here, there, answers = life(), life(), []
    first = _second_attempt(idp, here, clock, eventually, answers, 2.0)
    second = _asking(there, answers)
    clock.skip(11.0)
    eventually(lambda: len(idp.ledger.token_calls()) == 2)
    clock.skip(5.0)
    first.join()
    second.join()
    assert len({answer["access_token"] for answer in answers}) == 1
    assert len(idp.ledger.token_calls()) == 2


class Forgetful(BreakableBackend):
    """A medium that can lose its locks."""

    def forget(self) -> None:
        self._locks.clear()


class Interrupted(requests.Session):
    """A wire on which something happens before the next request is sent."""

    meanwhile: Callable[[], object] | None = None

    def post(self, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().post(*args, **options)


def test_whoever_comes_with_a_refresh_token_that_was_used_meanwhile_goes_on_with_the_new_one(
    idp: Emulator, sign_in: Callable[..., Any], backend: BreakableBackend, clock: Any
) -> None:
    """It stood still between its look and its request, for longer than its lease lasts: that is no denial."""
    idp.one_time_refresh_tokens = True
    store, wires = ra.SealedStore(backend, key=os.urandom(32), clock=clock), (Interrupted(), Interrupted())

    def over(wire: Interrupted) -> Any:
        wire.verify = str(idp.ca_file)
        return msal.ConfidentialClientApplication(
            "daemon",
            client_credential="s3cret-of-the-daemon",
            authority=idp.authority("contoso"),
            instance_discovery=False,
            http_client=wire,
            resilience=ra.Settings(clock=clock, store=store),
        )

    (here, there), wire = map(over, wires), wires[0]
    account = sign_in(there)

    def rotate() -> None:
        backend._locks.clear()
        assert there.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["access_token"]

    assert here.acquire_token_silent(USER_SCOPE, account) is not None
    wire.meanwhile = rotate
    assert here.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["access_token"]
    assert wire.meanwhile is None
    for app in (here, there):
        app.close()


def test_whoever_has_lost_its_lease_leaves_the_exchange_to_the_one_who_has_it(
    idp: Emulator, life: Callable[..., Any], clock: Any, eventually: Callable[..., None]
) -> None:
    """A store was emptied in a back-off: the attempt after it isn't made, and the caller gets the other's token."""
    medium = Forgetful(clock)
    store = ra.SealedStore(medium, key=os.urandom(32), clock=clock)
    here, there, answers = life(store=store), life(store=store), []
    first = _second_attempt(idp, here, clock, eventually, answers, 1.5)
    medium.forget()
    second = _asking(there, answers)
    eventually(lambda: len(idp.ledger.token_calls()) == 2)
    clock.skip(9.0)
    first.join()
    second.join()
    assert len({answer["access_token"] for answer in answers}) == 1
    assert len(idp.ledger.token_calls()) == 2


def test_what_was_obtained_under_an_earlier_lease_doesnt_replace_what_came_later() -> None:
    """Its clock is ahead, and it comes last: its token and its rotation are the older ones all the same."""
    between = {RT: Change(_rt("r1", 10), _rt("r2", 20))}
    later = merge(
        UserRecord("b", {RT: _rt("r1", 10)}), "b", between, {"t": _token("t2", 20.0, fence=2)}, anew=None, fence=2
    )
    late = {RT: Change(_rt("r1", 10), _rt("r9", 900))}
    merged = merge(later, "b", late, {"t": _token("t9", 900.0, fence=1)}, anew=None, fence=1)
    assert merged is not None
    assert merged.entries[RT]["secret"] == "r2"
    assert merged.tokens["t"].secret == "t2"


def test_a_rotation_that_nobody_else_has_made_is_kept_though_it_comes_late() -> None:
    """The other one was refused, since a refresh token works once: what the late one holds is all that there is."""
    rotated = {RT: Change(_rt("r1"), _rt("r2"))}
    stored = merge(UserRecord("b", {RT: _rt("r1")}), "b", {RT: Change(_rt("r1"), None)}, {}, anew=None, fence=2)
    merged = merge(stored, "b", rotated, {}, anew=None, fence=1)
    assert merged is not None
    assert merged.entries[RT]["secret"] == "r2"


def _token(secret: str, obtained_on: float, fence: int = 0) -> StoredToken:
    return StoredToken(secret, "Bearer", obtained_on, 600.0, 300.0, None, {}, fence)


@settings(deadline=None)
@given(st.permutations(range(1, 6)), st.lists(st.integers(-7200, 7200), min_size=5, max_size=5))
def test_the_latest_lease_has_the_last_word_in_any_order_of_writes(order: list[int], clocks: list[int]) -> None:
    """Whenever each process comes to write, and whatever its clock says."""
    stored: UserRecord | None = UserRecord("b")
    for fence in order:
        tokens = {"t": _token(f"t{fence}", 10_000.0 + clocks[fence - 1], fence)}
        stored = merge(stored, "b", {}, tokens, anew=None, fence=fence)
        assert stored is not None
        stored = decode(encode(stored, "p"), "v", "p")
    assert stored is not None
    assert stored.tokens["t"].secret == "t5"
    assert stored.fence == 5


def test_a_record_without_fences_is_read() -> None:
    """Written by an earlier release, it has its tokens, and their order is the clocks'."""
    value = encode(UserRecord("b", tokens={"t": _token("t1", 20.0)}), "p")
    older = decode(value.replace(b',"fence":0', b"").replace(b"{},0]", b"{}]"), "v", "p")
    assert older is not None
    assert older.tokens["t"].fence == 0


@pytest.mark.parametrize("attempt", [29.0, 60.0])
def test_a_lease_that_outlasts_every_caller_is_refused(attempt: float) -> None:
    """Whoever waits for a process that was killed would give up before it may ask."""
    store = ra.SealedStore(BreakableBackend(), key=os.urandom(32))
    breaker = ra.BreakerOptions(probe_lease=120.0)
    wait = max(30.0, attempt)
    ra.Settings(attempt_timeout=attempt, wait=wait, breaker=breaker)
    with pytest.raises(ra.ConfigurationError, match=r"attempt_timeout.*exchange_deadline"):
        ra.Settings(attempt_timeout=attempt, wait=wait, breaker=breaker, store=store)


def test_a_request_of_any_length_has_a_lease(idp: Emulator, life: Callable[..., Any]) -> None:
    """Names in a store are bounded, and what is asked for isn't."""
    scopes = [f"api://{'a' * 5000}/.default"]
    assert life().acquire_token_for_client(scopes)["token_source"] == "identity_provider"
    assert life().acquire_token_for_client(scopes)["token_source"] == "cache"
    assert len(idp.ledger.token_calls()) == 1
