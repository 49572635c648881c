"""Processes over one store's file, some forked in C as uWSGI makes its workers: what is written is read by all.

`python -m tests.store.forked_files 200` searches for long.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KEY = "c2VhcmNoIGZvciB3cml0ZXMgdGhhdCBhIGZvcmsgaGFzIGxvc3Q"


class _Served:
    """What a process has: a store, open or not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._store: Any = None

    def answer(self, order: dict[str, Any]) -> Any:
        import resilient_auth as ra

        if order["what"] == "close":
            if self._store is not None:
                self._store.close()
            self._store = None
            return True
        if self._store is None:
            self._store = ra.FileStore(self._path, KEY, timeout=5.0)
        name = order["name"]
        if order["what"] == "write":
            return self._store.write("token", name, order["value"].encode(), ttl=600) is not None
        record = self._store.read("token", name)
        return None if record is None else record.value.decode()


def serve(address: str, path: str) -> None:
    """Do what is ordered until there are no more orders."""
    served, channel = _Served(path), _connected(address)
    while line := channel.readline():
        order = json.loads(line)
        if order["what"] == "fork":
            # No hook of Python's is called; whoever was forked has the store as it was.
            if not ctypes.CDLL(None).fork():
                channel = _connected(order["address"])
                continue
            said: Any = True
        else:
            try:
                said = served.answer(order)
            except Exception as error:
                said = {"failed": f"{type(error).__name__}: {error}"}
        channel.write(json.dumps(said).encode() + b"\n")
        channel.flush()


def _connected(address: str) -> Any:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    channel = connection.makefile("rwb")
    channel.write(json.dumps(os.getpid()).encode() + b"\n")
    channel.flush()
    return channel


class Process:
    """One that serves."""

    def __init__(self, listener: socket.socket) -> None:
        listener.settimeout(30.0)
        connection, _ = listener.accept()
        connection.settimeout(30.0)
        self._connection = connection
        self._channel = connection.makefile("rwb")
        self.pid = int(self._channel.readline())

    def order(self, **what: Any) -> Any:
        self._channel.write(json.dumps(what).encode() + b"\n")
        self._channel.flush()
        return json.loads(self._channel.readline())

    def end(self, *, killed: bool) -> None:
        if killed:
            os.kill(self.pid, signal.SIGKILL)
        self._channel.close()
        self._connection.close()


class World:
    """Processes, and what they were told is written."""

    def __init__(self, root: Path, seed: int) -> None:
        self._rng = random.Random(seed)
        self._root = root
        self._path = root / "stores" / "tokens"
        self._path.parent.mkdir(mode=0o700)
        self._address = str(root / "orders")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._address)
        self._listener.listen()
        self._begun: list[subprocess.Popen[bytes]] = []
        self._processes: list[Process] = []
        self._written: dict[str, str] = {}
        self.told: list[str] = []

    def run(self, steps: int) -> list[str]:
        """Do so many things at random, and return what was wrong."""
        wrong: list[str] = []
        try:
            self._start()
            for number in range(steps):
                wrong += self._step(number)
                if wrong:
                    break
            return wrong
        finally:
            for process in self._processes:
                process.end(killed=True)
            for begun in self._begun:
                begun.kill()
                begun.wait()
            self._listener.close()

    def _start(self) -> None:
        command = [sys.executable, str(Path(__file__)), "serve", self._address, str(self._path)]
        self._begun.append(subprocess.Popen(command))
        self._processes.append(Process(self._listener))

    def _step(self, number: int) -> list[str]:
        process = self._rng.choice(self._processes)
        what = self._rng.choice(["write", "write", "read", "read", "read", "close", "fork", "start", "end", "kill"])
        self.told.append(f"{what} {process.pid}")
        name = self._rng.choice("abc")
        if what == "write":
            said = process.order(what=what, name=name, value=f"{number}" * 500)
            if said is not True:
                return [f"a write gave {said}"]
            self._written[name] = f"{number}" * 500
        elif what == "read":
            for name, value in self._written.items():
                said = process.order(what=what, name=name)
                if said != value:
                    return [f"{name} was read as {str(said)[:80]}, and is {value[:3]}"]
        elif what == "close":
            process.order(what=what)
        elif what == "fork" and len(self._processes) < 5:
            process.order(what=what, address=self._address)
            self._processes.append(Process(self._listener))
        elif what == "start" and len(self._processes) < 5:
            self._start()
        elif what in ("end", "kill") and len(self._processes) > 1:
            self._processes.remove(process)
            process.end(killed=what == "kill")
        return []


def search(seed: int, steps: int = 60) -> list[str]:
    """Return what is wrong in one random run, and what had happened."""
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root), seed)
        wrong = world.run(steps)
        return [*world.told, *wrong] if wrong else []


def main() -> None:
    """Search for long."""
    found = 0
    for seed in range(int(sys.argv[1])):
        wrong = search(seed)
        found += bool(wrong)
        if wrong:
            print(f"seed {seed}: {wrong[-1]} after {', '.join(wrong[-9:-1])}", flush=True)
    print(f"{found} of {sys.argv[1]} runs went wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        with contextlib.suppress(KeyboardInterrupt):
            serve(*sys.argv[2:])
    else:
        main()
