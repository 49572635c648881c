"""What a forked child can't use as it is, in one list: renewed by a hook, or where the first use notices a new process.

    fork in Python ─ held_off() is over ─ hook ──┐
    fork in C ─── first use ── notice() ─────────┴──▶ renew, in order ──▶ resume: timers and threads

A fork in C, as uWSGI makes its workers, runs no hook. So what takes a lock, starts a thread or talks on a connection
calls `notice` first; what memory answers needs none of these, and doesn't. Locks are replaced, since a thread that the
child hasn't got may hold the parent's; what such a thread may have been in the middle of changing is built anew.
What can be neither replaced nor built anew, since it is a library's, is used while no fork can come: `held_off`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

__all__ = [
    "Forked",
    "around",
    "begin_thread",
    "held_off",
    "notice",
    "rebuilt",
    "renew_in_children",
    "renewed",
    "resumed",
    "unnoticed",
]

_T = TypeVar("_T")

#: Seconds for which forks are held off at most; whoever would hold off one that has begun waits as long for it.
_LONGEST_HOLD = 1.0


class Forked(Protocol):
    """What can make itself usable in a child."""

    def after_fork(self) -> None:
        """Take locks of one's own, and forget the calls that the parent's threads are in the middle of."""


#: Called in this order: a module registers after those that it imports, so that what others are made of comes first.
_renew: list[Callable[[], None]] = []
_resume: list[Callable[[], None]] = []
#: Called before a fork in Python, the last one first, and after it in the parent.
_before: list[Callable[[], None]] = []
_after: list[Callable[[], None]] = []
_objects: dict[int, weakref.ref[Forked]] = {}
_process = os.getpid()
#: The process and the thread that renews, so that what it calls doesn't wait for it.
_renewing: tuple[int, int] | None = None
#: One lock a process: nobody can have inherited the one that it needs.
_locks: dict[int, threading.Lock] = {}
#: The threads that hold forks off, and the monotonic times until which they do; and those that are about to fork.
_holding: dict[int, float] = {}
_forking: set[int] = set()
#: Seconds between two looks at these.
_LOOK = 0.0005
#: What is asked to greet nobody; it holds neither certificates nor keys.
_tls: Any = None


def renewed(call: Callable[[], None]) -> Callable[[], None]:
    """Have a module's function called in each forked child, to make what the module keeps usable there."""
    _renew.append(call)
    return call


def resumed(call: Callable[[], None]) -> Callable[[], None]:
    """Have a module's function called when all is renewed, to begin again what runs without being asked."""
    _resume.append(call)
    return call


def around(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have functions called before each fork in Python, and after it in the parent: what is copied should be whole."""
    _before.insert(0, before)
    _after.append(after)


def renew_in_children(one: Forked) -> None:
    """Have an object's `after_fork` called in each forked child in which it is alive, after the modules' functions."""
    key = id(one)
    # No lock: a dictionary's single steps are atomic, and the collector may run this callback anywhere.
    _objects[key] = weakref.ref(one, lambda gone: _forget(key, gone))


def _forget(key: int, gone: weakref.ref[Forked]) -> None:
    if _objects.get(key) is gone:
        _objects.pop(key, None)


def rebuilt(cache: _T) -> _T:
    """Build a cache of cachetools anew, which a thread of the parent's may have been in the middle of changing."""
    kept: Any = cache
    fresh: Any = type(kept)(kept.maxsize)
    fresh.update(list(kept.items()))
    found: _T = fresh
    return found


@contextmanager
def held_off(seconds: float = _LONGEST_HOLD) -> Iterator[None]:
    """Have forks in Python wait until this block is over, or so many seconds after its beginning.

    For what takes locks that aren't this package's: a child would wait for ever for one that another thread held.
    """
    me = threading.get_ident()
    if me in _holding:
        yield
        return
    _holding[me] = time.monotonic() + seconds
    if _forking:  # they go first, else forks would wait for as long as there is traffic
        del _holding[me]
        ends = time.monotonic() + _LONGEST_HOLD
        while _forking and time.monotonic() < ends:
            time.sleep(_LOOK)
        _holding[me] = time.monotonic() + seconds
    try:
        yield
    finally:
        del _holding[me]


def _wait_for_holders() -> None:
    me = threading.get_ident()
    _forking.add(me)
    while any(ends > time.monotonic() for thread, ends in _holding.copy().items() if thread != me):
        time.sleep(_LOOK)


def begin_thread(target: Callable[..., object], *args: Any, name: str) -> None:
    """Run `target` on a daemon thread that uses TLS, whatever library speaks it, while other threads fork.

    A thread's first random numbers in OpenSSL take a lock of the process's, which a child needs for its own first ones.
    So it draws some before anything else, while forks are held off. A thread that uses no TLS shouldn't: OpenSSL takes
    a lock at the end of one that has used it, too.

    Raises:
        RuntimeError: No thread is to be had.
    """
    threading.Thread(target=_run, args=(target, *args), name=name, daemon=True).start()


def _run(target: Callable[..., object], *args: Any) -> None:
    with held_off():
        _draw()
    target(*args)


def _draw() -> None:
    """Have OpenSSL make both of this thread's generators: of what may be seen, and, for a first message, of keys."""
    global _tls
    import ssl  # which a fork waits for, too

    ssl.RAND_bytes(1)
    if _tls is None:
        _tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
    except ssl.SSLError:  # it wants an answer, or this machine's policy allows no such message
        return


@renewed
def _hold_nothing() -> None:
    _forking.clear()
    for thread in _holding.keys() - {threading.get_ident()}:
        del _holding[thread]


def notice() -> None:
    """Make everything usable if this process was forked since it was looked at last."""
    if os.getpid() != _process:
        _begin_anew()


def unnoticed() -> bool:
    """Return whether this process was forked since; for finalisers, which may renew nothing."""
    return os.getpid() != _process


def _begin_anew(*, hooked: bool = False) -> None:
    global _process, _renewing
    me = (os.getpid(), threading.get_ident())
    if _renewing == me:
        return
    # Threads of the child's that come at the same time wait until all is done.
    with _locks.setdefault(me[0], threading.Lock()):
        if me[0] == _process and not hooked:
            return
        _renewing = me
        try:
            for call in _renew:
                call()
            for reference in list(_objects.values()):
                one = reference()
                if one is not None:
                    one.after_fork()
            _process = me[0]
            for call in _resume:
                call()
        finally:
            _renewing = None
    for former in [process for process in list(_locks) if process != me[0]]:
        _locks.pop(former, None)


def _call(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()


# The last thing before a fork, since it is the first that was registered.
around(_wait_for_holders, lambda: _forking.discard(threading.get_ident()))

if hasattr(os, "register_at_fork"):
    # Not by the number: in a namespace of its own, a child may have its parent's.
    os.register_at_fork(
        before=lambda: _call(_before),
        after_in_parent=lambda: _call(_after),
        after_in_child=lambda: _begin_anew(hooked=True),
    )
