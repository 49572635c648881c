"""Load libraries with the first object that needs them, not with this package, which is to cost little to import.

Objects are made on their owner's thread: workers load nothing. A child that is forked while another thread is in the
middle of loading a library would wait for that thread for ever, so a fork waits until it is loaded.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib import import_module

from . import forks

__all__ = ["load"]

#: Seconds that a fork waits at most.
_LONGEST_WAIT = 10.0

#: Held while something is being loaded, which only those wait for who need it, or fork.
_loading = threading.RLock()
_loaded: set[str] = set()


def load(*modules: str) -> None:
    """Import modules that aren't imported with this package."""
    for module in modules:
        if module not in _loaded:
            forks.notice()
            with _loading:
                import_module(module)
            _loaded.add(module)


def _before_fork() -> None:
    _loading.acquire(timeout=_LONGEST_WAIT)


def _after_fork_in_parent() -> None:
    with suppress(RuntimeError):  # it took too long, and another thread has it
        _loading.release()


@forks.renewed
def _after_fork() -> None:
    global _loading
    _loading = threading.RLock()


forks.around(_before_fork, _after_fork_in_parent)
