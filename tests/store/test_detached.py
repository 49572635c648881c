"""What is closed without a trace: nothing that was written may be lost by a fork, nor by a disk that is replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_files import search

from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")


@pytest.mark.parametrize("seed", [8, 17])
def test_what_was_written_is_read_by_all_whoever_is_forked_in_c(seed: int) -> None:
    """Processes that write, read, fork, open, close, end and are killed; `python -m tests.store.forked_files 200`."""
    assert search(seed) == []


_IN_USE = """
import ctypes, os, sys, threading
from pathlib import Path
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock
from resilient_auth.store import BackendFailed
path, how = Path(sys.argv[1]), sys.argv[2]
mine, another = (SqliteBackend(at, timeout=20.0, clock=SystemClock()) for at in (path, path.with_name("b.db")))
mine.put("a", b"1", ttl=60.0)
another.put("a", b"1", ttl=60.0)
inside, over = threading.Event(), threading.Event()
LONG = "WITH RECURSIVE t(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM t WHERE x < 3000000) SELECT max(x) FROM t"
def work(db):
    inside.set()
    if how == "in a call of SQLite's":
        db.execute(LONG).fetchall()
    else:
        over.wait()
thread = threading.Thread(target=lambda: mine.run(work), daemon=True)
thread.start()
inside.wait()
over.wait(0.1)
pid = ctypes.CDLL(None).fork()
if not pid:
    for one in (mine, another, SqliteBackend(path, timeout=5.0, clock=SystemClock())):
        try:
            print(one.get("a")[0].decode(), flush=True)
        except BackendFailed as error:
            print(error.code, flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
over.set()
thread.join()
print(mine.get("a")[0].decode(), another.get("a")[0].decode())
"""


@pytest.mark.parametrize("how", ["between two calls of SQLite's", "in a call of SQLite's"])
def test_a_file_that_a_thread_of_the_parents_was_using_is_left_alone(directory: Path, program: Any, how: str) -> None:
    """SQLite's own locks may be held in the child for ever: it uses none; and the parent goes on."""
    child = program(_IN_USE, directory / "a.db", how)
    out, err = child.communicate(timeout=60)
    assert out.split() == ["denied", "denied", "denied", "1", "1"], err


def test_descriptors_are_found_where_the_system_lists_none(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are looked at then."""

    def unlisted(path: str) -> list[str]:
        raise FileNotFoundError(path)

    backend = SqliteBackend(directory / "a.db", timeout=5.0, clock=SystemClock())
    backend.put("a", b"1", ttl=60.0)
    opened = backend._opened
    assert len(opened) == 3
    monkeypatch.setattr(os, "listdir", unlisted)
    backend.after_fork()
    monkeypatch.undo()
    assert backend.get("a") is not None
    assert backend._opened == opened
    backend.close()


_REPLACED = """
import os, shutil, subprocess, sys
from pathlib import Path
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock
root = Path(sys.argv[1])
disks = [root / "first", root / "second"]
for disk in disks:
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", disk], check=True)
at = root / "store"
at.mkdir(mode=0o700)
subprocess.run(["mount", "--bind", disks[0], at], check=True)
backend = SqliteBackend(at / "tokens", timeout=5.0, clock=SystemClock())
backend.put("a", b"written", ttl=60.0)
for path in sorted(at.iterdir(), key=lambda path: path.stat().st_ino):
    if not path.name.endswith("-shm"):
        shutil.copy2(path, disks[1])
assert (disks[1] / "tokens-wal").stat().st_size > 0
assert (disks[1] / "tokens").stat().st_ino == (at / "tokens").stat().st_ino
subprocess.run(["mount", "--bind", disks[1], at], check=True)
if sys.argv[2] == "closed":
    backend.close()
    backend = SqliteBackend(at / "tokens", timeout=5.0, clock=SystemClock())
print(backend.get("a")[0].decode())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs Linux's namespaces"
)
@pytest.mark.parametrize("how", ["used", "closed"])
def test_a_disk_that_was_put_at_the_path_keeps_its_log(tmp_path: Path, how: str) -> None:
    """A snapshot has the file under its disk's number for it, and SQLite looks at no more than that."""
    started = [sys.executable, "-c", _REPLACED, str(tmp_path), how]
    ran = subprocess.run(["unshare", "-m", *started], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.split() == ["written"], ran.stderr
