"""The search itself finds what goes wrong in one order alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from interleavings import Found, Run, search


def _scene() -> Any:
    return SimpleNamespace(threading=threading)


def test_a_lost_update_is_found() -> None:
    """Two threads that read, let go of the lock, and write."""
    module = _scene()

    def script(run: Run) -> Callable[[], None]:
        lock, count = module.threading.Lock(), [0]

        def add() -> None:
            with lock:
                before = count[0]
            with lock:
                count[0] = before + 1

        for name in ("one", "two"):
            run.thread(name, add)

        def at_end() -> None:
            assert count[0] == 2

        return at_end

    search(script, module, preemptions=0)
    with pytest.raises(Found, match="at the end"):
        search(script, module, preemptions=1)


def test_a_deadlock_is_found() -> None:
    """Two locks, taken in two orders."""
    module = _scene()

    def script(run: Run) -> Callable[[], None]:
        one, two = module.threading.Lock(), module.threading.Lock()

        def take(first: Any, second: Any) -> None:
            with first, second:
                pass

        run.thread("there", lambda: take(one, two))
        run.thread("back", lambda: take(two, one))
        return lambda: None

    with pytest.raises(Found, match="there, back wait for ever"):
        search(script, module, preemptions=1)


def test_a_wake_up_that_comes_too_early_is_found() -> None:
    """Whoever looks outside of the lock and then waits for ever."""
    module = _scene()

    def script(run: Run) -> Callable[[], None]:
        changed, there = module.threading.Condition(module.threading.Lock()), [False]

        def wait() -> None:
            if not there[0]:
                with changed:
                    changed.wait()

        def tell() -> None:
            there[0] = True
            with changed:
                changed.notify()

        run.thread("waits", wait)
        run.thread("tells", tell)
        return lambda: None

    with pytest.raises(Found, match="waits wait for ever"):
        search(script, module, preemptions=1)
