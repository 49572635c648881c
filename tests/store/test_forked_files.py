"""What a forked child does with the connection that it finds: nothing that was written may be lost by it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from forked_files import search

from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")


@pytest.mark.parametrize("seed", [1, 8, 11, 17])
def test_what_was_written_is_read_by_all_whoever_is_forked_in_c(seed: int) -> None:
    """Processes that write, read, fork, open, close, end and are killed; `python -m tests.store.forked_files 200`."""
    assert search(seed) == []


_IN_USE = """
import ctypes, os, sys, threading, time
from pathlib import Path
from resilient_auth._process import forks
from resilient_auth._store.sqlite import SqliteBackend
from resilient_auth.clock import SystemClock
from resilient_auth.store import BackendFailed
path = Path(sys.argv[1])
mine, another = (SqliteBackend(path, timeout=5.0, clock=SystemClock()) for _ in range(2))
mine.put("a", b"1", ttl=60.0)
another.get("a")
inside, over = threading.Event(), threading.Event()
def hang(db):
    inside.set()
    over.wait()
threading.Thread(target=lambda: mine.run(hang)).start()
inside.wait()
pid = ctypes.CDLL(None).fork()
if not pid:
    for one in (mine, another, SqliteBackend(path, timeout=5.0, clock=SystemClock())):
        try:
            one.get("a")
            print("read", flush=True)
        except BackendFailed as error:
            print(error.code, "while another thread of its parent" in error.detail, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
over.set()
print(mine.get("a")[0], another.get("a")[0])
"""


def test_a_file_that_a_thread_of_the_parents_was_using_is_left_alone(directory: Path, program: Any) -> None:
    """The child's connection can't be closed then: it opens none, by whichever object, and the parent goes on."""
    child = program(_IN_USE, directory / "a.db")
    out, err = child.communicate(timeout=60)
    assert out.splitlines() == ["denied True"] * 3 + ["b'1' b'1'"], err


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
