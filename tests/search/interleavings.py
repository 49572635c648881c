"""Run small scripts of threads in every order that a machine may give them, up to so many preemptions.

The threads are real, and one runs at a time. It may be stopped wherever it takes a lock, waits or starts a
thread; what the code under search calls `threading` is this module's. A run is a list of choices: the search makes
them one way, then goes back to the last one that can be made another way (Musuvathi and Qadeer, "Iterative context
bounding for systematic testing of multithreaded programs", 2007). Going on with another thread while the one before
could go on is a preemption; so is a time-out while others run.
"""

from __future__ import annotations

import threading as real
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

__all__ = ["Found", "Run", "search", "searched"]

#: Choices in one run, at most: more is a loop that never ends.
_LONGEST = 5_000


class Found(AssertionError):
    """An order in which something goes wrong."""


class _Ended(BaseException):
    """The run is over, and so are its threads."""


class _Thread:
    """A thread of a script, or one that the code under search has started."""

    def __init__(self, run: Run, call: Callable[[], object], name: str) -> None:
        self.name = name
        self.go = real.Semaphore(0)
        #: Tells whether it can go on; None where it simply can.
        self.until: Callable[[], bool] | None = None
        #: Whether time may pass for it instead.
        self.may_time_out: Callable[[], bool] = lambda: False
        self.waits_since = 0
        self.timed_out = False
        self.over = False
        self._run, self._call = run, call
        real.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        self.go.acquire()
        try:
            if not self._run.aborted:
                self._call()
        except _Ended:
            pass
        except BaseException as error:
            self._run.fail(f"{self.name} raised {error!r}")
        self.over = True
        self._run.leave(self)

    @property
    def ready(self) -> bool:
        return not self.over and (self.until is None or self.until())


class Run:
    """One run, by a list of choices; what isn't listed is chosen first."""

    def __init__(self, choices: list[int]) -> None:
        self._choices = choices
        #: What could have been chosen each time, by what it costs, and what was.
        self.made: list[tuple[list[int], int]] = []
        self.threads: list[_Thread] = []
        self.current: _Thread | None = None
        self.error: str | None = None
        self.aborted = False
        #: How many starts of threads fail from now on.
        self.failing_starts = 0
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._over = real.Event()

    # What scripts say.

    def thread(self, name: str, call: Callable[[], object]) -> None:
        """Add a thread."""
        self.threads.append(_Thread(self, call, name))

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Be the timers: `pass_until` calls them."""
        self._timers.append((when, call))

    def pass_until(self, holds: Callable[[], bool]) -> None:
        """Let time pass from timer to timer until something holds, on a script's thread."""
        while not holds():
            # It passes when nothing else can happen, or as a preemption.
            if self.pause(holds, may_time_out=lambda: bool(self._timers)):
                timer = min(self._timers, key=lambda timer: timer[0])
                self._timers.remove(timer)
                self.now = max(self.now, timer[0])
                timer[1]()

    def check(self, holds: bool, what: str) -> None:
        """Fail unless something holds."""
        if not holds:
            self.fail(what)
            raise _Ended

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait in a script until something holds."""
        self.pause(holds)

    # What the primitives below say.

    def pause(
        self, until: Callable[[], bool] | None = None, *, may_time_out: Callable[[], bool] = lambda: False
    ) -> bool:
        """Let others go on here, or wait; tells whether it was time that ended that."""
        me = self.current
        assert me is not None
        if self.aborted:
            raise _Ended
        me.until, me.may_time_out, me.timed_out, me.waits_since = until, may_time_out, False, len(self.made)
        following = self._choose(me)
        if following is not me:
            self.current = following
            if following is not None:
                following.go.release()
            else:
                self._end()
            me.go.acquire()
        if self.aborted:
            raise _Ended
        me.until, me.may_time_out = None, lambda: False
        return me.timed_out

    def leave(self, me: _Thread) -> None:
        """Give way for good."""
        if self.aborted or self.current is not me:
            return
        following = self._choose(me)
        self.current = following
        if following is None:
            self._end()
        else:
            following.go.release()

    def fail(self, what: str) -> None:
        """Note what went wrong, and end the run."""
        self.error = self.error or what
        self._end()

    def _end(self) -> None:
        self.aborted = True
        self._over.set()

    def _choose(self, me: _Thread) -> _Thread | None:
        """Choose who goes on."""
        ready = [thread for thread in self.threads if thread.ready]
        # Time-outs are alike: who has waited longest is the next one.
        late = [t for t in self.threads if not t.over and t.may_time_out() and t not in ready]
        late = sorted(late, key=lambda thread: thread.waits_since)[:1]
        if me.ready:
            ready.remove(me)
            options = [(0, me, False), *((1, thread, False) for thread in ready), *((1, t, True) for t in late)]
        elif ready:
            options = [*((0, thread, False) for thread in ready), *((1, thread, True) for thread in late)]
        elif late:
            options = [(0, thread, True) for thread in late]
        else:
            waiting = [thread.name for thread in self.threads if not thread.over]
            if waiting and self.error is None:
                self.error = f"{', '.join(waiting)} wait for ever"
            return None
        number = len(self.made)
        if number >= _LONGEST:
            self.error = self.error or "it never ends"
            return None
        choice = self._choices[number] if number < len(self._choices) else 0
        self.made.append(([cost for cost, _, _ in options], choice))
        _, thread, timed_out = options[choice]
        if timed_out:
            thread.until, thread.timed_out = None, True
        return thread

    def carry_out(self) -> None:
        """Run it to its end."""
        first = self._choose_first()
        if first is not None:
            self.current = first
            first.go.release()
            if not self._over.wait(60.0):
                self.error = "a thread is stuck outside of what is searched"
        self.aborted = True
        for thread in self.threads:
            thread.go.release()

    def _choose_first(self) -> _Thread | None:
        if not self.threads:
            return None
        choice = self._choices[0] if self._choices else 0
        self.made.append(([0] * len(self.threads), choice))
        return self.threads[choice]


class _Lock:
    def __init__(self, run: Run) -> None:
        self._run = run
        self.owner: _Thread | None = None

    def acquire(self) -> bool:
        self._run.pause(lambda: self.owner is None)
        self.owner = self._run.current
        return True

    def release(self) -> None:
        self.owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        if not self._run.aborted:
            self.release()


class _Condition:
    def __init__(self, run: Run, lock: _Lock | None = None) -> None:
        self._run = run
        self._lock = lock or _Lock(run)
        self._waiting: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *arguments: object) -> None:
        self._lock.__exit__(*arguments)

    def wait(self, timeout: float | None = None) -> bool:
        notified = [False]
        self._waiting.append(notified)
        self._lock.release()
        timed_out = self._run.pause(lambda: notified[0], may_time_out=lambda: timeout is not None)
        self._lock.acquire()
        # Whoever notifies between the time-out and the lock has notified nobody, as with Python's.
        if notified in self._waiting:
            self._waiting.remove(notified)
        return not timed_out

    def notify(self, n: int = 1) -> None:
        for notified in self._waiting[:n]:
            notified[0] = True
        del self._waiting[:n]

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Threading:
    """What the code under search finds under the name of `threading`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def Lock(self) -> _Lock:
        return _Lock(self._run)

    def Condition(self, lock: _Lock | None = None) -> _Condition:
        return _Condition(self._run, lock)


class _Forks:
    """What it finds under the name of `forks`: of which there are none."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def begin_thread(self, target: Callable[..., object], *args: Any, name: str) -> None:
        self._run.pause()
        if self._run.failing_starts:
            self._run.failing_starts -= 1
            raise RuntimeError("can't start new thread")
        self._run.thread(f"{name} {len(self._run.threads)}", partial(target, *args))

    def notice(self) -> None:
        return


@contextmanager
def searched(run: Run, *modules: Any) -> Iterator[None]:
    """Have modules find this run's primitives where they look for `threading`, and for threads that are begun."""
    own = {"threading": _Threading(run), "forks": _Forks(run)}
    before = [(module, name, vars(module)[name]) for module in modules for name in own if name in vars(module)]
    for module, name, _ in before:
        setattr(module, name, own[name])
    try:
        yield
    finally:
        for module, name, kept in before:
            setattr(module, name, kept)


#: Sets up a run's threads, and gives what must hold at its end.
Script = Callable[[Run], Callable[[], None]]


def search(script: Script, *modules: Any, preemptions: int) -> int:
    """Run a script in all orders with so many preemptions at most.

    Returns:
        In how many.

    Raises:
        Found: It goes wrong in one of them.
    """
    runs, choices = 0, []  # type: ignore[var-annotated]
    while True:
        run = Run(choices)
        with searched(run, *modules):
            at_end = script(run)
            run.carry_out()
        runs += 1
        error = run.error
        if error is None:
            try:
                at_end()
            except AssertionError as wrong:
                error = f"at the end: {wrong}"
        if error is not None:
            raise Found(f"{error}, in run {runs} with the choices {[made for _, made in run.made]}")
        following = _next(run.made, preemptions)
        if following is None:
            return runs
        choices = following


def _next(made: list[tuple[list[int], int]], preemptions: int) -> list[int] | None:
    """Make the last choice another way that can be."""
    spent = [0]
    for costs, choice in made:
        spent.append(spent[-1] + costs[choice])
    for place in range(len(made) - 1, -1, -1):
        costs, choice = made[place]
        for other in range(choice + 1, len(costs)):
            if spent[place] + costs[other] <= preemptions:
                return [kept for _, kept in made[:place]] + [other]
    return None
