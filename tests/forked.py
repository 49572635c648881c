"""Work done in a forked child of a test's process."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable


def in_a_child(work: Callable[[], object], seconds: float = 10.0) -> float:
    """Run `work` in a forked child; give its duration, or fail with what it said."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            work()
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    ends = begun + seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > ends:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(reading)
            raise AssertionError(f"the child hung for {seconds:g} s")
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
