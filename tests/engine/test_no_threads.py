"""When the system has no thread to give for a moment, or the interpreter gives none any more."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flow_bench import Bench, until

from resilient_auth._engine import schedule
from resilient_auth._engine.lanes import Job
from resilient_auth._engine.timers import Timers
from resilient_auth._engine.workers import Workers
from resilient_auth.errors import Overloaded, ServerFailed
from resilient_auth.testing import ManualClock


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let threads be had, or not."""
    start, to_be_had = threading.Thread.start, True

    def begin(thread: threading.Thread) -> None:
        if not to_be_had:
            raise RuntimeError("can't start new thread")
        start(thread)

    def switch(on: bool) -> None:
        nonlocal to_be_had
        to_be_had = on

    monkeypatch.setattr(threading.Thread, "start", begin)
    return switch


def test_a_timer_comes_when_threads_can_be_had_again(threads: Callable[[bool], None]) -> None:
    """With the next use of anything, not with the next timer alone."""
    clock, came = ManualClock(), threading.Event()
    timers = Timers(clock)
    threads(False)
    timers.call_at(clock.monotonic(), came.set)
    timers.revive()
    threads(True)
    assert not came.is_set()
    timers.revive()
    assert came.wait(5)


def test_a_recovery_that_found_no_thread_goes_on(threads: Callable[[bool], None]) -> None:
    """Its timer was armed in vain: who asks next, and is refused by the open breaker, brings it to life."""
    bench = Bench()
    bench.exchanges.fail(ServerFailed("503", authority="https://login.example"))
    threads(False)
    with pytest.raises(Overloaded):
        bench.ask()
    bench.open_breaker()
    threads(True)
    with pytest.raises(Exception, match="circuit open"):
        bench.ask()
    bench.exchanges.answer = lambda _: bench.good()
    for _ in range(200):
        bench.rest()
        bench.clock.advance(0.5)
        if bench.entry.token is not None:
            break
    until(lambda: bench.entry.token is not None)
    schedule.release(bench.entry)


def test_an_accepted_job_isnt_lost_with_the_thread_before_it(threads: Callable[[bool], None]) -> None:
    """It waited for its turn behind a job for which there was no thread: the next submission finds one for both."""
    workers, done = Workers(per_lane=1, queue=10), []
    tried: list[Any] = []

    def begin(thread: threading.Thread) -> None:
        # A second job comes while the first one's thread is being started.
        if not tried:
            tried.append(None)
            workers._lanes["a"].waiting[Job(("a",), lambda: done.append("second"))] = None
        raise RuntimeError("can't start new thread")

    real = threading.Thread.start
    threading.Thread.start = begin  # type: ignore[method-assign]
    try:
        with pytest.raises(Overloaded):
            workers.submit("a", lambda: done.append("first"))
    finally:
        threading.Thread.start = real  # type: ignore[method-assign]
    workers.submit("a", lambda: done.append("third"))
    until(lambda: len(done) == 2)
    assert done == ["second", "third"]
    until(lambda: not workers._lanes)


def test_a_burst_starts_no_more_threads_than_a_lane_has_places() -> None:
    """A thread that has been started and hasn't begun yet counts."""
    workers, gate = Workers(per_lane=3, queue=1000), threading.Event()
    before = threading.active_count()
    for _ in range(500):
        workers.submit("a", gate.wait)
    assert threading.active_count() - before <= 3
    gate.set()
    until(lambda: not workers._lanes)


AT_EXIT = """
import atexit, time
import resilient_auth as ra

credential = ra.ResilientCredential(lambda scopes: ("t0ken", time.time() + 3600))
atexit.register(lambda: print(credential.get_token("a").token, flush=True))
"""


def test_a_token_can_be_had_in_an_exit_handler() -> None:
    """From Python 3.12 on no thread is given there: the exchange runs on the thread that asks."""
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout.strip() == "t0ken", ended.stderr
