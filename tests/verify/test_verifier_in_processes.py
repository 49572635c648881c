"""Forks: a child verifies with what its parent knew, and refreshes by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from forked import in_a_child

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.verify import DenyList, GraceOptions

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_a_child_goes_on_with_its_parents_keys(idp: Emulator, at_idp: Any, mint: Any) -> None:
    """Without asking anybody, and in the outage too."""
    verifier = at_idp()
    token, other = mint(), mint(uti="other")
    verifier.verify(token)
    idp.fail(Fault.refuse())

    def work() -> None:
        assert verifier.verify(token).provenance.keys == "fresh"
        assert verifier.verify(other).provenance.keys == "fresh"

    in_a_child(work)
    assert verifier.verify(token)


def test_a_child_fetches_by_itself(idp: Emulator, at_idp: Any, mint: Any, clock: Any, fetches: Any) -> None:
    """What is missing, and every hour."""
    token = mint()
    cold = at_idp()
    in_a_child(lambda: cold.verify(token))
    assert fetches() == 1
    warm = at_idp(algorithms=["RS256", "PS256"])
    warm.verify(token)

    def work() -> None:
        refreshed = threading.Event()
        stop = ra.subscribe(lambda event: refreshed.set() if type(event).__name__ == "KeysRefreshed" else None)
        warm.verify(token)
        clock.skip(3600.0)
        assert refreshed.wait(5.0)
        stop()

    in_a_child(work)
    assert fetches() == 3


def test_a_fork_while_every_lock_is_held(idp: Emulator, at_idp: Any, mint: Any, tmp_path: Any) -> None:
    """A child inherits none of them."""
    file = tmp_path / "denied.json"
    file.write_text("{}")
    deny = DenyList(file=file)
    verifier = at_idp(deny=deny, grace=GraceOptions())
    token, other = mint(), mint(uti="other")
    verifier.verify(token)
    (source,), (watch,) = verifier._core._sources.values(), verifier._core._watches.values()

    def work() -> None:
        assert verifier.verify(token)
        assert verifier.verify(other)
        assert ra.health().keys
        deny.add(oids=["x"])
        watch.close()
        verifier.close()

    with source._lock, deny._lock, verifier._core._seen._lock, watch._lock, _sharing():
        in_a_child(work)


def _sharing() -> Any:
    from resilient_auth.verify.keys import sharing

    return sharing._lock


def test_a_fork_in_the_middle_of_everything(idp: Emulator, at_idp: Any, mint: Any, tmp_path: Any) -> None:
    """Whatever lock another thread holds at that moment, the child doesn't inherit it."""
    file = tmp_path / "denied.json"
    file.write_text("{}")
    deny = DenyList(file=file)
    verifier = at_idp(deny=deny, grace=GraceOptions())
    tokens = [mint(uti=str(n)) for n in range(30)]
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            for token in tokens:
                verifier.verify(token)
            verifier._core._seen.renew()
            deny.add(oids=["x"])
            ra.health()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(8):
            in_a_child(lambda n=n: [verifier.verify(token) for token in tokens] and deny.add(oids=[str(n)]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_nothing_runs_until_a_token_comes() -> None:
    """Making a verifier starts no thread and asks nobody; a process ends with its fetches under way."""
    program = """
import threading, resilient_auth as ra
verifier = ra.ClaimsVerifier.for_entra("contoso", "api://x", authority="https://localhost:9")
assert threading.active_count() == 1
try:
    verifier.warm_up()
except ra.VerificationUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout


def test_a_forgotten_verifier_goes(at_idp: Any, idp: Emulator, settings: Any, mint: Any) -> None:
    """Its timers don't keep it, nor its keys."""
    import gc
    import weakref

    verifier = ra.ClaimsVerifier.for_entra(
        "contoso", "api://orders", authority=idp.url, verify=idp.ca_file, settings=settings(), grace=GraceOptions()
    )
    verifier.verify(mint())
    (source,) = verifier._core._sources.values()
    references = [weakref.ref(source), weakref.ref(verifier._core), *map(weakref.ref, verifier._core._watches.values())]
    del verifier, source
    for _ in range(50):
        gc.collect()
        if not any(reference() for reference in references):
            return
        threading.Event().wait(0.05)
    raise AssertionError("something still holds it")
