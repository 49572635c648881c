"""Where exchanges run: bounded for each authority, and gone when idle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from flow_bench import until

from resilient_auth._engine.workers import _IDLE_SECONDS, Workers
from resilient_auth.errors import Overloaded


class Gate:
    """Jobs that wait, and how many do."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = self.most = self.done = 0
        self.lock = threading.Lock()

    def __call__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.open.wait(20.0)
        with self.lock:
            self.inside -= 1
            self.done += 1


def test_a_lane_runs_so_many_at_a_time() -> None:
    """The others wait their turn, and all get it."""
    workers, gate = Workers(per_lane=3, queue=100), Gate()
    for _ in range(20):
        workers.submit("a", gate)
    until(lambda: gate.inside == 3)
    time.sleep(0.02)
    assert gate.most == 3
    gate.open.set()
    until(lambda: gate.done == 20)
    assert gate.most == 3
    until(lambda: not workers._lanes)


def test_a_lane_that_hangs_holds_up_no_other() -> None:
    """Whatever waits in it."""
    workers, hung, fine = Workers(per_lane=2, queue=100), Gate(), Gate()
    for _ in range(50):
        workers.submit("hung", hung)
    fine.open.set()
    for n in range(10):
        workers.submit(f"fine {n}", fine)
        workers.submit("fine", fine)
    until(lambda: fine.done == 20)
    assert hung.done == 0
    hung.open.set()
    until(lambda: hung.done == 50)


def test_jobs_of_a_lane_keep_their_order() -> None:
    """First come, first served."""
    workers, done = Workers(per_lane=1, queue=1000), []
    for n in range(200):
        workers.submit("a", lambda n=n: done.append(n))  # type: ignore[misc]
    until(lambda: len(done) == 200)
    assert done == list(range(200))


def test_a_full_queue_is_refused_by_name() -> None:
    """With the authority, what waits there, and when to come again; room is made as soon as one is done."""
    workers, gate = Workers(per_lane=1, queue=2), Gate()
    for _ in range(3):
        workers.submit("https://login.example", gate)
    with pytest.raises(Overloaded, match=r"the queue for https://login\.example is full \(2 waiting\)") as refused:
        workers.submit("https://login.example", gate)
    assert refused.value.retry_after == 1.0
    assert refused.value.authority == "https://login.example"
    gate.open.set()
    until(lambda: gate.done == 3)
    workers.submit("https://login.example", gate)
    until(lambda: gate.done == 4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_raises_leaves_its_place() -> None:
    """The next one in its lane runs."""
    workers, gate = Workers(per_lane=1, queue=10), Gate()
    gate.open.set()

    def bad() -> None:
        raise ValueError("a job's own")

    for _ in range(3):
        workers.submit("a", bad)
        workers.submit("a", gate)
    until(lambda: gate.done == 3, 1.0)
    until(lambda: not workers._lanes)


def test_threads_are_daemons_and_are_used_again() -> None:
    """A process that ends waits for none of them; one after the other, they share one."""
    workers, used = Workers(per_lane=8, queue=10), set()
    for _ in range(20):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            used.add(threading.current_thread())
            done.set()

        workers.submit("a", job)
        assert done.wait(5.0)
        until(lambda: workers._idle)
    assert len(used) == 1
    assert all(thread.daemon for thread in used)


def test_workers_end_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five seconds, a tenth of which is waited for here, no thread is left; the next job has one again."""
    assert _IDLE_SECONDS == 5.0
    monkeypatch.setattr("resilient_auth._engine.workers._IDLE_SECONDS", _IDLE_SECONDS / 10)
    workers, used = Workers(per_lane=8, queue=10), set()
    together = threading.Barrier(4)

    def job() -> None:
        used.add(threading.current_thread())
        together.wait(5.0)

    for n in range(4):
        workers.submit(str(n), job)
    until(lambda: len(used) == 4)
    until(lambda: not any(thread.is_alive() for thread in used), 8.0)
    assert workers._idle == 0
    done = threading.Event()
    workers.submit("a", done.set)
    assert done.wait(5.0)


def test_a_crowd_of_submitters_loses_nothing() -> None:
    """Every job runs once, whatever idles and whatever begins."""
    workers, lock, count = Workers(per_lane=2, queue=10_000), threading.Lock(), 0

    def job() -> None:
        nonlocal count
        with lock:
            count += 1

    def submit(me: int) -> None:
        for n in range(200):
            workers.submit(f"{(me + n) % 5}", job)

    threads = [threading.Thread(target=submit, args=(me,)) for me in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: count == 3200)
    until(lambda: not workers._lanes)
    assert not workers._ready


def test_a_process_ends_without_waiting_for_a_hung_job() -> None:
    """At once, though eight of them hang and timers are to come."""
    code = """
import threading
from resilient_auth._engine.workers import Workers
from resilient_auth._engine.timers import Timers
from resilient_auth.clock import SystemClock
workers, inside = Workers(per_lane=8, queue=10), threading.Semaphore(0)
def hang():
    inside.release()
    threading.Event().wait()
for _ in range(12):
    workers.submit("a", hang)
for _ in range(8):
    inside.acquire()
clock = SystemClock()
Timers(clock).call_at(clock.monotonic() + 3600, print)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5.0
