"""A process of the chaos as its tester holds it: told what to do, frozen, killed, and seen to end by nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["CALM", "HANGING", "STORMY", "Broken", "Process", "forked", "started"]

WORKER = Path(__file__).with_name("chaos_worker.py")
#: Seconds: for an answer in the storm, for one in the calm (a lease of a process that died ends after 12 s, a breaker's
#: break after 5), and after which a process counts as hanging.
STORMY, CALM, HANGING = 2.0, 30.0, 75.0

Answer = queue.SimpleQueue[dict[str, Any] | None]


class Broken(AssertionError):
    """A promise wasn't kept."""


class Process:
    """A worker of the fleet.

    Args:
        heard: Told of each answer.
        orders: Where orders are written.
        answers: Where answers come from.
        errors: What it writes to its standard error.
        keys: Those that its store was made with.
        ahead: Seconds by which its wall clock is.
        child: Where this process began it; one that a worker has forked is the init process's.
        pid: Its number.
        origin: How it came to be.
    """

    def __init__(
        self, heard: Callable[[dict[str, Any]], None], orders: IO[str], answers: IO[str], errors: IO[bytes],
        *, keys: list[str], ahead: float, pid: int, origin: str, child: subprocess.Popen[str] | None = None,
    ) -> None:  # fmt: skip
        self._heard = heard
        self._orders, self._answers, self._errors = orders, answers, errors
        self._child = child
        self.keys = keys
        self.origin = origin
        self.pid = pid
        self._lock = threading.Lock()
        self._waiting: dict[int, Answer] = {0: queue.SimpleQueue()}
        self._last = 0
        self.killed = self._over = False
        self.ahead = ahead
        # Its number may be another one's as soon as it has ended.
        self._handling = threading.Lock()
        self._handle = -1
        with contextlib.suppress(ProcessLookupError):  # one that refuses what it is given has ended
            self._handle = os.pidfd_open(pid)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self.ready = self._waiting[0]
        self._listener.start()

    @property
    def alive(self) -> bool:
        return not self.killed

    def order(self, do: str, *, wait: float = STORMY, **what: Any) -> Answer:
        """Tell it to do something; its answer comes, or None if it dies before."""
        answer: Answer = queue.SimpleQueue()
        with self._lock:
            self._last += 1
            if self._over:
                answer.put(None)
                return answer
            self._waiting[self._last] = answer
            text = json.dumps({"number": self._last, "do": do, "wait": wait, **what})
            try:
                self._orders.write(text + "\n")
                self._orders.flush()
            except (OSError, ValueError):
                self._waiting.pop(self._last, None)
                answer.put(None)
        return answer

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._answers:
                try:
                    said = json.loads(line)
                except ValueError:  # it was killed in the middle of a line
                    continue
                self._heard(said)
                with self._lock:
                    answer = self._waiting.pop(said["number"], None)
                if answer is not None:
                    answer.put(said)
        with self._lock:
            self._over = True
            left, self._waiting = list(self._waiting.values()), {}
        for answer in left:
            answer.put(None)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError), self._handling:
            if self._handle >= 0:
                signal.pidfd_send_signal(self._handle, number)

    def stacks(self) -> str:
        """Return where its threads are."""
        self.signal(signal.SIGUSR1)
        time.sleep(0.5)
        self._errors.seek(0)
        return f"process {self.pid} of {self.origin}:\n{self._errors.read().decode(errors='replace')[-20_000:]}"

    def await_stop(self) -> None:
        """Wait until a signal that stops it has done so."""
        ends = time.monotonic() + 5.0
        with contextlib.suppress(OSError):
            while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZ":
                if time.monotonic() > ends:
                    raise Broken("a process can't be stopped")
                time.sleep(0.001)

    def kill(self) -> None:
        """End it at once; anything else that ended it is a crash."""
        killed, self.killed = self.killed, True
        if self._child is not None:
            ended = self._child.poll()
            self._child.kill()
            self._child.wait()
        else:
            # Nobody but the kernel can say how it ended; that it did shows in what it had open.
            ended = None if self._listener.is_alive() or killed else -1
            self.signal(signal.SIGKILL)
        self._listener.join(5)
        if self._listener.is_alive():
            raise Broken("a process was killed, and somebody else has its pipes")
        with self._handling:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle = -1
        for stream in (self._orders, self._answers):
            with contextlib.suppress(OSError):
                stream.close()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        self._errors.close()
        if ended is not None:
            raise Broken(f"a process ended by itself with status {ended}: {said[-3000:]}")
        if "Traceback" in said:
            raise Broken(f"a thread failed: {said[-3000:]}")


def started(where: dict[str, Any] | None, heard: Callable[[dict[str, Any]], None]) -> Process:
    """Start a worker; or, where nothing is given, what `forked` has workers of."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
    child = subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(where)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    about: dict[str, Any] = {"pid": child.pid, "origin": "a start", "child": child}
    return Process(heard, child.stdin, child.stdout, errors, **about, **_nature(where))


def forked(
    parent: Process,
    heard: Callable[[dict[str, Any]], None],
    root: Path,
    *,
    how: str,
    where: dict[str, Any] | None = None,
) -> Process:
    """Have a process fork, and return the child.

    Args:
        parent: The worker; or what begins one for each order.
        heard: Told of each answer of the child's.
        root: Where to put a socket.
        how: `python`, or `c`: without Python's hooks.
        where: What a new worker is given; None for one that goes on with what its parent has.
    """
    with _listening(root) as (listener, path), contextlib.ExitStack() as undone:
        errors = undone.enter_context(tempfile.NamedTemporaryFile(dir=root))
        what: dict[str, Any] = {"how": how} if where is None else {"where": where}
        answer = parent.order("fork", channel=str(path), errors=errors.name, **what)
        try:
            said = answer.get(timeout=HANGING)
        except queue.Empty:
            raise Broken(f"a fork hangs ({how}); {parent.stacks()}") from None
        if said is None or "child" not in said:
            raise Broken(f"a process died as it forked ({how})")
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise Broken(f"a forked child ({how}) doesn't come up: {errors.read().decode()[-3000:]}") from None
        undone.pop_all()
    connection.settimeout(None)
    with connection:
        orders, answers = connection.makefile("w"), connection.makefile("r")
    nature = _nature(where) if where is not None else {"keys": parent.keys, "ahead": parent.ahead}
    origin = f"a fork in {how}" if where is None else "a start"
    return Process(heard, orders, answers, errors, pid=said["child"], origin=origin, **nature)


def _nature(where: dict[str, Any] | None) -> dict[str, Any]:
    return {name: (where or {}).get(name) for name in ("keys", "ahead")}


@contextlib.contextmanager
def _listening(root: Path) -> Iterator[tuple[socket.socket, Path]]:
    path = root / f"fork-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(HANGING)
        try:
            yield listener, path
        finally:
            path.unlink()
