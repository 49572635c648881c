"""Who is seen to be over by a lease's next taker: killed processes, and never one that merely can't be looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs Linux's namespaces"
)

_USER = 65_431

_STORE = f"""
import os, signal, sys
from pathlib import Path
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock

def backend():
    return SqliteBackend(Path(sys.argv[1]), timeout=5.0, clock=SystemClock())

def become():
    os.setgid({_USER})
    os.setuid({_USER})
"""

_WORKERS = (
    _STORE
    + """
ready, told = os.pipe()
dead, buried = os.pipe()

def worker(work):
    pid = os.fork()
    if not pid:
        try:
            become()
            work()
        finally:
            os._exit(0)
    os.read(ready, 1)
    return pid

def hold():
    assert backend().lock("lease.a", "holder", 600.0)
    os.write(told, b"x")
    signal.pause()

def take():
    taken = backend()
    print(taken.lock("lease.a", "taker", 600.0) is None, flush=True)
    os.write(told, b"x")
    os.read(dead, 1)
    print(taken.lock("lease.a", "taker", 600.0) is not None, flush=True)

holder = worker(hold)
taker = worker(take)
os.kill(holder, signal.SIGKILL)
os.waitpid(holder, 0)
os.write(buried, b"x")
os.waitpid(taker, 0)
"""
)

_HOLDER = (
    _STORE
    + """
assert backend().lock("lease.a", "holder", float(sys.argv[2]))
print("held", flush=True)
sys.stdin.readline()
"""
)

_TAKER = (
    _STORE
    + """
print(backend().lock("lease.a", "taker", 600.0) is not None)
"""
)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as entered:
        yield entered


def can(*command: str) -> bool:
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("hidden", ["hidepid=0", "hidepid=1", "hidepid=2"])
def test_workers_that_gave_up_root_keep_their_leases(stack: contextlib.ExitStack, hidden: str) -> None:
    """They can't see each other where `/proc` hides what isn't their own; one that was killed holds nobody up."""
    if not can("unshare", "-m"):
        pytest.skip("no mount namespaces here")
    root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    root.chmod(0o711)
    folder = root / "stores"
    folder.mkdir(mode=0o700)
    os.chown(folder, _USER, _USER)
    shell = f'mount -o remount,{hidden} /proc && exec "$@"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, "-c", _WORKERS, str(folder / "a.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.split() == ["True", "True"], ran.stderr


@pytest.mark.parametrize(("holder", "taker"), [("100000", None), (None, "100000"), ("5000", "100000")])
def test_a_lease_holds_across_time_namespaces(
    directory: Path, program: Callable[..., subprocess.Popen[str]], holder: str | None, taker: str | None
) -> None:
    """Their clocks since boot differ, and so do the starts of processes that they tell."""
    if not can("unshare", "-T", "--boottime", "1000"):
        pytest.skip("no time namespaces here")

    def within(offset: str | None, text: str, *arguments: str) -> list[str]:
        command = [] if offset is None else ["unshare", "-T", "--boottime", offset]
        return [*command, sys.executable, "-c", text, str(directory / "a.db"), *arguments]

    for seconds, free in (("600", "False"), ("0.5", "True")):
        held = subprocess.Popen(
            within(holder, _HOLDER, seconds), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
            if free == "True":
                time.sleep(0.6)
            took = subprocess.run(within(taker, _TAKER), capture_output=True, text=True, timeout=60, check=True)
            assert took.stdout.strip() == free
        finally:
            held.communicate("\n", timeout=30)
        (directory / "a.db").unlink()
        for suffix in ("-wal", "-shm"):
            (directory / f"a.db{suffix}").unlink(missing_ok=True)
