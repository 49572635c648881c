"""Kill, starve, fill, tear and pause what a fleet depends on, at random, and see that it keeps what it promised.

Real processes over a real store, at a provider whose refresh tokens work once. `python tests/fleet/chaos.py --help`.

What was *acknowledged*: a call returned, and the store has taken what it brought. What that promises afterwards:

- after a process was killed, frozen, started or forked (in Python or in C, its parent killed or not), after the
  provider failed, and after the store was full, read-only, paused, unreachable or gone: everything. Who is signed in
  gets a token without interaction, in every process, once the provider and the store work; who signed out stays signed
  out, in new processes at once, in old ones from their next refresh on. What a parent had still to write, its child
  hasn't;
- after a failover to a replica that had all (by plan; or the manager waited for it), whether old connections answer
  `READONLY`, are reset, or lie there without a word: everything;
- after a failover to a replica that was behind, after an older copy of the disk was mounted, and after the disk was
  away for a while with an empty one in its place: who signed in or out since is unknown; who holds a refresh token that
  was written since may be lost; everybody else is as before;
- after the disk was mounted at another path as well: everything, and nobody who is given that path takes the file;
- while keys are rotated, one step everywhere before the next ([old], [old, new], [new, old]): everything. When the old
  one is retired ([new]): who signed in after it had ceased to seal. Of others nothing is promised;
- after a wall clock was set, by 45 s or 2 h in either direction, in one process or differently in each: everything, but
  a sign-in that could only be written late counts as not acknowledged, and where clocks are hours apart so does a
  sign-out after it;
- after one record was edited: at most the one user whose record that was is lost; or back, where it was the note of a
  sign-out, and a process that hadn't looked since has the user in memory;
- after the store was torn, flipped in places or emptied: nothing of what was in it (where its log was torn off, it may
  be of before a rotation: then a new process says that it was sealed with another key, and somebody moves it away). But
  it never gives one user's token to another one, crashes nobody, and what is acknowledged from then on holds again;
- a refresh token that the provider issued to a process which was killed before it acknowledged it is lost, and as it
  replaced the one before, so is its user: that is told as `fate`, and checked to be that.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import queue
import random
import signal
import stat
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_media import MEDIA
from chaos_process import CALM, HANGING, STORMY, Broken, Process, forked, started

from resilient_auth.emulator import Emulator, Fault

SCOPES = ["https://graph.microsoft.com/User.Read"]
BACK = "http://localhost/back"
#: Seconds by which a wall clock may be ahead.
CLOCKS = [0.0, 45.0, -45.0, 7200.0, -7200.0]


@dataclass
class Person:
    """A user, and what was acknowledged of it."""

    name: str
    oid: str
    account: dict[str, Any] | None = None
    #: "in", "out", or "unknown" while neither was acknowledged.
    status: str = "unknown"
    #: When that was acknowledged.
    since: float = 0.0
    #: What becomes of it, once this process has written it.
    pending: tuple[str, Process] | None = None
    #: Whether a sign-in may wait to be written somewhere.
    late: bool = False

    def becomes(self, status: str) -> None:
        """Note what was acknowledged."""
        self.status, self.since, self.pending = status, time.time(), None

    def is_unknown(self) -> None:
        """Note that nothing is acknowledged any more."""
        self.status, self.pending = "unknown", None


@dataclass
class Report:
    """What happened."""

    events: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    #: Users that were lost with a process, as the module says.
    fate: int = 0
    #: Users that were lost, or back, with a record that was edited.
    edited: int = 0
    #: Users that were lost with writes that a replica or a copy of the disk didn't have.
    lapsed: int = 0


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
        #: Whether a key was ever retired.
        self.retired = False
        self.report = Report()
        self._lock = threading.Lock()
        self._texts: deque[str] = deque(maxlen=300)
        #: Refresh tokens that are in the store, and when that was first seen.
        self._written: dict[str, float] = {}
        self._problems: list[str] = []
        self._kills: list[float] = []
        self._edits = 0
        #: From when on what was written may be gone.
        self._lapses: list[float] = []
        #: Seconds by which a clock was off at most since the last check.
        self._skewed = 0.0
        self._freezing = threading.Lock()
        self._root = root
        #: Those of the present step of a rotation, and since when all processes have sealed with the first of them.
        self._keys = [self._new_key()]
        self._sealed_since: float | None = None
        #: Kinds of events that haven't come yet.
        self._due: list[Callable[[], str | None]] = []
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
                "authority": self.idp.authority("contoso"),
                "ca_file": self.idp.ca_file,
            }  # fmt: skip
            self._nursery = started(None, lambda said: None)
            self._stack.callback(self._nursery.kill)
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
        self._due = self._rng.sample(list(self._weights()), k=len(self._weights()))
        while (left := events - self.report.events.total()) > 0:
            self._step(left)
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
        ahead = self._rng.choice(CLOCKS[:3]) if self._rng.random() < 0.3 else 0.0
        self._skewed = max(self._skewed, abs(ahead))
        where = self._where | {"keys": self._keys, "ahead": ahead}
        # Few begin with nothing at all: that takes long, and most of it is Python's.
        if self._rng.random() < 0.1:
            process = started(where, self.heard)
        else:
            process = forked(self._nursery, self.heard, self._root, how="python", where=where)
        ready = process.ready.get(timeout=HANGING)
        if ready is None or "crashed" in ready:
            with contextlib.suppress(Broken):
                process.kill()
            raise Broken(f"a process didn't start: {ready and ready['crashed']}")
        return process

    def refused_at(self, where: dict[str, Any], text: str) -> None:
        """See that a process isn't given what is at another place."""
        given = self._where | where | {"keys": self._keys, "ahead": 0.0}
        process = forked(self._nursery, lambda said: None, self._root, how="python", where=given)
        said = process.ready.get(timeout=HANGING)
        with contextlib.suppress(Broken):
            process.kill()
        if said is None or text not in said.get("crashed", ""):
            raise Broken(f"a process was given what isn't its own: {said}")

    def _new_key(self) -> str:
        return self._rng.randbytes(32).hex()

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
                for token in said["held"]:
                    self._written.setdefault(token, time.time())

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

    def _weights(self) -> dict[Callable[[], str | None], int]:
        return {
            self._ask: 30, self._burst: 10, self._kill_one: 10, self._freeze: 5, self._fail_provider: 12,
            self._fail_store: 12, self._sign_out_or_in: 14, self._damage: 3, self._edit: 3, self._change_medium: 6,
            self._rotate: 8, self._step_clock: 6, self._fork: 6,
        }  # fmt: skip

    def _step(self, left: int) -> None:
        self._raise()
        self._end_what_is_over()
        rng = self._rng
        weights = self._weights()
        # Each kind once before long, and then as chance has it.
        first = bool(self._due) and (rng.random() < 0.6 or left <= len(self._due))
        event = self._due[-1] if first else rng.choices(list(weights), list(weights.values()))[0]
        told = event()
        if event in self._due and (told is not None or first):
            self._due.remove(event)
            if told is None:
                self._due.insert(0, event)
        name = self.medium.change_name if event == self._change_medium else event.__name__.lstrip("_")
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
            where = "\n".join(process.stacks() for process in self.processes)
            raise Broken(f"a call hangs: {what}; {where}") from None

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
            person.is_unknown()
        what: str = self.medium.damage(self)
        self._edits = 0
        for person in self.people:
            person.is_unknown()
        return what

    def _thaw(self, process: Process) -> None:
        with self._freezing:
            if process.alive:
                process.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def all_frozen(self) -> Iterator[None]:
        """Have nobody do anything."""
        with self._freezing:
            for process in self.processes:
                process.signal(signal.SIGSTOP)
            for process in self.processes:
                process.await_stop()
            try:
                yield
            finally:
                for process in self.processes:
                    process.signal(signal.SIGCONT)

    def busy_for(self, seconds: float) -> None:
        """Have things asked for meanwhile."""
        self._burst()
        if self._rng.random() < 0.3:
            self._log(f"meanwhile {self._sign_out_or_in()}")
        time.sleep(seconds)

    def _change_medium(self) -> str:
        self._end_store_fault()
        told, began = self.medium.change(self)
        if began is not None:
            self._lapses.append(began)
            for person in self.people:
                if person.pending is not None or person.since >= began:
                    person.is_unknown()
        return str(told)

    def _rotate(self) -> str:
        behind = [process for process in self.processes if process.keys != self._keys]
        if not behind:
            if len(self._keys) == 1:
                self._keys = [*self._keys, self._new_key()]
                told = "a new key opens"
            elif self._sealed_since is None:
                self._keys = self._keys[::-1]
                told = "the new key seals"
                # The first has it from now on, and the last from when all have it.
                self._sealed_since = float("inf")
            else:
                for person in self.people:
                    if person.status == "out" or person.pending is not None or person.since < self._sealed_since:
                        person.is_unknown()
                self._keys, self._sealed_since, self.retired = self._keys[:1], None, True
                told = "the old key is retired"
            behind = list(self.processes)
        else:
            told = "goes on"
        rolled = behind if self._rng.random() < 0.6 else behind[:1]
        for process in rolled:
            self._answer(process.order("settle", seconds=STORMY), "settle")
            self._kill(process)
            self.start_all()
        if self._sealed_since == float("inf") and all(process.keys == self._keys for process in self.processes):
            self._sealed_since = time.time()
        return f"{told}, {len(rolled)} of {len(behind)} restarted"

    def _step_clock(self) -> str:
        process, ahead = self._rng.choice(self.processes), self._rng.choice(CLOCKS)
        self._skewed = max(self._skewed, abs(ahead))
        self._answer(process.order("step", ahead=ahead), "step")
        process.ahead = ahead
        return f"to {ahead:+g} s"

    def _fork(self) -> str:
        parent, how = self._rng.choice(self.processes), self._rng.choice(["python", "c"])
        # Neither the interpreter nor a library in C survives a fork that it isn't told of while a thread is in it.
        if how == "c":
            self._join()
            self._answer(parent.order("settle", seconds=STORMY), "settle")
        elif self._rng.random() < 0.7:
            self._burst()
            time.sleep(self._rng.random() * 0.06)
        child = forked(parent, self.heard, self._root, how=how)
        self.processes.append(child)
        if self._answer(child.ready, "a forked child's first look") is None:
            raise Broken(f"a forked child ({how}) died")
        orphan = self._rng.random() < 0.5
        if orphan:
            self._kill(parent)
        while len(self.processes) > self._count + 1:
            self._kill(self._rng.choice(self.processes))
        return f"in {how}{', and the parent is killed' if orphan else ''}"

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
        # A removal that is written late wins over a sign-in elsewhere meanwhile.
        late = person.pending is not None and person.pending[0] != "in" and person.pending[1] is not process
        person.is_unknown()
        if out:
            said = self._answer(process.order("sign_out", account=person.account, wait=wait), "sign-out")
        else:
            code = self.idp.sign_in(_authorize(self.idp), person.name)["code"]
            said = self._answer(process.order("sign_in", code=code, back=BACK, scopes=SCOPES, wait=wait), "sign-in")
            if said is not None:
                self._judge(person, said)
            person.late = person.late or said is None or not said["settled"]
            if said is None or said.get("account") is None:
                return "not acknowledged"
            person.account = said["account"]
        if said is None or "failed" in said:
            if out and said is not None:
                person.pending = ("unknown", process)  # which may still write it
            return "not acknowledged"
        status = "out" if out else "in"
        if out and person.late and self._clocks_differ(by=60.0):
            return "after a sign-in that may not be written yet"
        if late:
            return "after a removal that isn't written yet"
        if said["settled"]:
            person.becomes(status)
            return "acknowledged"
        # Which of a late sign-in and a removal elsewhere came first is for the clocks to say.
        if status == "out" or not self._clocks_differ():
            person.pending = (status, process)
        return "not written yet"

    def _clocks_differ(self, *, by: float = 0.0) -> bool:
        return self._skewed > by or any(abs(process.ahead) > by for process in self.processes)

    def _restore(self) -> None:
        """Have everybody signed in or out for sure whose status isn't known."""
        for person in self.people:
            for _ in range(3):  # its break for the store may last; then what it writes late counts where clocks agree
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
                raise Broken(f"what a process holds isn't written though the store works: {said}; {process.stacks()}")
            for person in self.people:
                if person.pending is not None and person.pending[1] is process:
                    if person.pending[0] == "out" or (person.pending[0] == "in" and not self._clocks_differ()):
                        person.becomes(person.pending[0])
                    else:
                        person.is_unknown()

    def check(self) -> None:
        """Let everything work again, and see what is left of what was acknowledged."""
        self._end_what_is_over(all_of_it=True)
        self.idp.heal()
        self._join()
        self._raise()
        self._settle()
        for person in self.people:
            person.pending, person.late = None, False  # its process was killed before it had written it
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
            out = {person.name: person for person, verdict in told if person.status == "out" and verdict == "token"}
            for person in list(out.values())[: self._edits]:  # what was edited is the note of a sign-out
                del out[person.name]
                person.is_unknown()
                self._edits -= 1
                self.report.edited += 1
            back = set(out)
            if back:
                clocks = {process.pid: process.ahead for process in (*self.processes, new)}
                seen = {name: [verdict for each, verdict in told if each.name == name] for name in sorted(back)}
                raise Broken(f"signed out and back: {seen}, clocks ahead by {clocks}, lapses {self._lapses}")
            for person in lost.values():
                self._excuse(person, [verdict for each, verdict in told if each is person])
        finally:
            self._kills.clear()
            self._kill(new)  # maybe in the middle of a refresh
        self._look_for_texts()
        self._edits = 0
        self._restore()
        self._lapses.clear()
        self._skewed = 0.0
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
            written = self._written.get(newest.sha256)
        person.status = "unknown"
        if set(verdicts) <= {"token", "none"}:
            if self._edits:
                self._edits -= 1
                self.report.edited += 1
                return
            if written is None and any(killed >= newest.issued_at for killed in self._kills):
                self.report.fate += 1
                return
            if any(written is None or written >= began for began in self._lapses):
                self.report.lapsed += 1
                return
        now = time.time()
        history = ", ".join(
            f"{what} {', '.join(f'{now - at:.1f}' for at in times) or 'never'}"
            for what, times in (
                ("signed in", [person.since]),
                ("newest refresh token issued", [newest.issued_at]),
                ("seen written", [] if written is None else [written]),
                ("kills", self._kills),
                ("lapses", self._lapses),
            )
        )
        raise Broken(f"{person.name} was acknowledged as signed in, and isn't: {verdicts}; seconds ago: {history}")

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
    parser = argparse.ArgumentParser(prog="python tests/fleet/chaos.py", description=main.__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--medium", choices=sorted(MEDIA), action="append")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    faulthandler.register(signal.SIGUSR1)
    # What was mounted and started is to be ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = random.randrange(10**6) if options.seed is None else options.seed
    begun = time.monotonic()

    def log(text: str) -> None:
        if not options.quiet:
            print(f"{time.monotonic() - begun:8.2f} {text}", flush=True)

    media = options.medium or sorted(MEDIA)
    for medium in media:
        with tempfile.TemporaryDirectory() as root, Chaos(medium, seed, Path(root), log=log) as chaos:
            report = chaos.run(options.events // len(media))
        print(f"{medium}, seed {seed}: {report.events.total()} events {dict(report.events)}; {report.checks} checks; "
              f"answers {dict(report.answers)}; lost by fate {report.fate}, with edited records {report.edited}, "
              f"with lapses {report.lapsed}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
