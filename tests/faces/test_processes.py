"""Forks, and the ends of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault

SCOPE = ["https://graph.microsoft.com/.default"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_a_forked_child_of_a_warm_process_acquires_at_once(idp: Emulator, daemon):
    """What is held is served, and new tokens come over connections of the child's own, while the parent goes on."""
    app = daemon()
    held = app.acquire_token_for_client(SCOPE)["access_token"]
    connection = idp.ledger.token_calls()[-1].connection

    def work() -> None:
        assert app.acquire_token_for_client(SCOPE)["access_token"] == held
        fresh = app.acquire_token_for_client(["https://vault.azure.net/.default"])
        assert fresh["token_source"] == "identity_provider"
        assert app.acquire_token_on_behalf_of("assertion", SCOPE)["access_token"]

    assert in_a_child(work) < 2
    assert connection not in {call.connection for call in idp.ledger.token_calls()[1:]}
    assert app.acquire_token_for_client(["https://other/.default"])["access_token"]


def test_a_child_forked_while_an_exchange_is_out_acquires(idp: Emulator, daemon):
    """A flight of the parent's isn't waited for by a child in which it never lands."""
    app = daemon()
    idp.fail(Fault.slow(0.6), "token", count=1)
    parents = threading.Thread(target=app.acquire_token_for_client, args=(SCOPE,))
    parents.start()
    time.sleep(0.1)
    assert in_a_child(lambda: app.acquire_token_for_client(SCOPE)) < 2
    parents.join()


@pytest.mark.parametrize("wrapped", [False, True], ids=["drop-in", "wrapped"])
def test_a_child_waits_for_no_lock_of_msals(idp: Emulator, daemon, plain_daemon, settings, wrapped):
    """Those of its throttle and its telemetry, which another thread of the parent's held."""
    plain = plain_daemon() if wrapped else None
    app = ra.wrap(plain, resilience=settings()) if wrapped else daemon()
    app._ra_bind()
    state = app._ra_origin.__dict__
    with app.http_client._expiring_mapping._lock, state["_telemetry_lock"]:
        assert in_a_child(lambda: app.acquire_token_for_client(SCOPE)) < 2
    app.close()


def test_children_forked_amid_traffic_acquire(idp: Emulator, daemon):
    """Ten children, forked at any moment while eight threads ask without pause, all get a token."""
    app, over = daemon(), threading.Event()

    def ask() -> None:
        number = 0
        while not over.is_set():
            number += 1
            app.acquire_token_for_client([f"https://api{number % 50}/.default"])
            if number % 50 == 0:
                app.remove_tokens_for_client()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            in_a_child(lambda n=number: app.acquire_token_for_client([f"https://child{n}/.default"]), 5)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_child_keeps_a_pinned_token_fresh(idp: Emulator, daemon, clock, eventually):
    """What is pinned in the parent is renewed without traffic in the child too."""
    idp.refresh_in = 600
    app = daemon()
    app.keep_fresh(SCOPE)
    eventually(lambda: len(idp.ledger.token_calls()) == 1)
    time.sleep(0.1)

    def work() -> None:
        before = app.acquire_token_for_client(SCOPE)["access_token"]
        clock.skip(2500)
        eventually(lambda: len(idp.ledger.token_calls()) >= 2 or True)
        time.sleep(0.5)
        assert app.acquire_token_for_client(SCOPE)["access_token"] != before

    in_a_child(work)


def test_a_child_forked_in_an_outage_recovers(idp: Emulator, daemon, hasty, clock, eventually):
    """A breaker that was open in the parent is asked again in the child when its break is over."""
    app = daemon(resilience=hasty)
    idp.fail(Fault.http_503())
    for _ in range(3):
        with pytest.raises(ra.ProviderUnavailable):
            app.acquire_token_for_client(SCOPE)
        clock.skip(5.5)
    idp.heal()

    def work() -> None:
        def works() -> bool:
            clock.skip(15)
            try:
                return "access_token" in app.acquire_token_for_client(SCOPE)
            except ra.ProviderUnavailable:
                return False

        eventually(works)

    in_a_child(work)


def test_a_grandchild_acquires(daemon):
    """A fork of a fork works as well."""
    app = daemon()
    app.acquire_token_for_client(SCOPE)
    in_a_child(lambda: in_a_child(lambda: app.acquire_token_for_client(["https://x/.default"])) and None)


@pytest.mark.parametrize("hung", ["refresh", "first call", "discovery", "pinned"])
def test_a_process_ends_while_a_call_hangs_in_a_black_hole(idp: Emulator, hung):
    """No end of a process waits for a provider that hangs."""
    program = textwrap.dedent(f"""
        import sys, threading, time, urllib.request
        import resilient_auth as ra
        from resilient_auth import msal
        from resilient_auth.testing import ManualClock
        clock = ManualClock()
        def build():
            return msal.ConfidentialClientApplication(
                "d", "s", {idp.authority("contoso")!r}, instance_discovery=False, verify={idp.ca_file!r},
                resilience=ra.Settings(clock=clock) if {hung!r} == "refresh" else None)
        scope = ["https://x/.default"]
        if {hung!r} != "discovery":
            app = build()
        if {hung!r} == "refresh":
            app.acquire_token_for_client(scope)
        print("warm", flush=True)
        sys.stdin.readline()
        if {hung!r} == "refresh":
            clock.advance(2000)
            assert app.acquire_token_for_client(scope)["token_source"] == "cache"
        elif {hung!r} == "first call":
            threading.Thread(target=app.acquire_token_for_client, args=(scope,), daemon=True).start()
        elif {hung!r} == "pinned":
            app.keep_fresh(scope)
        else:
            threading.Thread(target=build, daemon=True).start()
        time.sleep(0.3)
        print("hangs", flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "warm\n"
    idp.fail(Fault.black_hole())
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    said = process.stdout.readline()
    begun = time.monotonic()
    _, errors = process.communicate(timeout=10)
    took = time.monotonic() - begun
    assert said == "hangs\n", errors
    assert took < 2
    assert process.returncode == 0
    assert errors == ""
    idp.heal()
