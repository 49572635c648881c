"""Work done in a forked child of a test's process."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable


def in_a_child(work: Callable[[], object], seconds: float = 10.0) -> float:
    """Run `work` in a forked child; return its duration, or fail with what it said, or with where it hung.

    It fails too where a hook of the fork's raised something: Python passes over that, and the child is half renewed.
    That the parent's connections are let go of unclosed is as it should be.
    """
    reading, writing = os.pipe()
    ignored: list[str] = []

    def ignore(raised: sys.UnraisableHookArgs) -> None:
        if not isinstance(raised.exc_value, ResourceWarning):
            ignored.append("".join(traceback.format_exception(raised.exc_value)))

    former, sys.unraisablehook = sys.unraisablehook, ignore
    faulthandler.register(signal.SIGUSR1, writing)
    begun = time.monotonic()
    child = os.fork()
    sys.unraisablehook = former
    if child == 0:
        code = 1
        try:
            os.close(reading)
            assert not ignored, ignored
            work()
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    faulthandler.unregister(signal.SIGUSR1)
    os.close(writing)
    ends = begun + seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > ends:
            os.kill(child, signal.SIGUSR1)
            time.sleep(0.2)
            where = os.read(reading, 60_000).decode()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            raise AssertionError(f"the child hung for {seconds:g} s\n{where}")
        time.sleep(0.005)
    took = time.monotonic() - begun
    with os.fdopen(reading) as said:
        assert done[1] == 0, said.read()
    return took


class Stop:
    """Where a thread stops in the middle of a change: as it looks something up for the so manieth time."""

    def __init__(self, at: int) -> None:
        self.left, self.met, self.go_on = at, threading.Event(), threading.Event()

    def look_up(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.left -= 1
            if not self.left:
                self.met.set()
                self.go_on.wait(10.0)

    def change(self, make: Callable[[], object]) -> None:
        """Make a change that may stop; one that looks up less often is over then."""
        make()
        self.met.set()


class LookedUp(bytes):
    """A name at which a thread may stop."""

    def __new__(cls, name: bytes, stop: Stop) -> LookedUp:
        made = super().__new__(cls, name)
        made.stop = stop
        return made

    stop: Stop

    def __hash__(self) -> int:
        self.stop.look_up()
        return super().__hash__()

    __eq__ = bytes.__eq__
