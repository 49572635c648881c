"""Work done in a forked child of a test's process."""

from __future__ import annotations

import os
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
