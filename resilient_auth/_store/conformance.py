"""Whether a backend of somebody's own keeps what `Backend` promises. Plain assertions, for any test runner."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator

from ..store import ANY, Backend, Expected

__all__ = ["check_backend"]

_THREADS = 8
_ROUNDS = 20
#: Seconds within which any call must have come back, and within which a life of one second must be over.
_PATIENCE = 10.0


def check_backend(
    make_backend: Callable[[], Backend], *, processes: bool = False, pass_time: Callable[[float], object] = time.sleep
) -> None:
    """Check that a backend keeps what `Backend` promises: comparisons, lives, locks, threads, and processes if asked.

    Args:
        make_backend: Makes a backend on the same, empty medium each time that it is called. For `processes` it must be
            a function at the top of a module.
        processes: Whether to check from several processes too; leave it where the medium is this process's memory.
        pass_time: Lets seconds pass; give a manual clock's `advance` where the backend takes a clock.

    Raises:
        AssertionError: It doesn't; the message says what, and what a backend must do.
    """
    with _made(make_backend) as backend:
        for key in list(backend.keys("check")):  # of an earlier run that failed
            backend.delete(key)
        _check_values(backend)
        _check_comparisons(backend)
        _check_keys(backend)
        _check_lives(backend, pass_time)
        _check_locks(backend, pass_time)
        _check_threads(backend)
    with _made(make_backend) as one, _made(make_backend) as other:
        if processes:
            _check_two(one, other)
            _check_processes(make_backend)
    _check_close(make_backend)


@contextlib.contextmanager
def _made(make_backend: Callable[[], Backend]) -> Iterator[Backend]:
    backend = make_backend()
    try:
        yield backend
    finally:
        backend.close()


def _must(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(f"the backend doesn't conform: {message}")


def _put(backend: Backend, key: str, value: bytes, *, ttl: float = 600.0, expected: Expected = ANY) -> str:
    version = backend.put(key, value, ttl=ttl, expected=expected)
    if version is None:
        raise AssertionError(f"the backend doesn't conform: put({key!r}, expected={expected!r}) must have written")
    return version


def _check_values(backend: Backend) -> None:
    _must(isinstance(backend.label, str) and backend.label, "label must be a string")
    _must(backend.get("check.absent") is None, "get of an absent key must return None")
    for name, value in (
        ("empty", b""),
        ("zeros", b"\0" * 100),
        ("every-byte", bytes(range(256)) * 4),
        ("large", os.urandom(1024 * 1024)),
    ):
        version = _put(backend, f"check.{name}", value)
        _must(
            backend.get(f"check.{name}") == (value, version), f"get must give what put wrote, and its version ({name})"
        )
    together = getattr(backend, "get_many", None)
    if together is not None:
        several = ["check.every-byte", "check.absent", "check.empty", "check.every-byte"]
        _must(
            list(together(several)) == [backend.get(key) for key in several],
            "get_many must give for each key what get gives, in the order of the keys",
        )
    longest = "check." + "a" * 94
    _put(backend, longest, b"x")
    found = backend.get(longest)
    _must(found is not None and found[0] == b"x", "keys of 100 characters must work")
    _must(backend.delete(longest), "delete must return True for a key that was there")
    _must(not backend.delete(longest), "delete must return False for an absent key")
    _must(backend.get(longest) is None, "get of a deleted key must return None")


def _check_comparisons(backend: Backend) -> None:
    key = "check.compared"
    _must(backend.put(key, b"x", ttl=600.0, expected="1") is None, "put must refuse a version where nothing is")
    first = _put(backend, key, b"1", expected=None)
    _must(backend.put(key, b"x", ttl=600.0, expected=None) is None, "put(expected=None) must refuse where something is")
    second = _put(backend, key, b"2", expected=first)
    _must(first != second, "each put must give another version")
    _must(backend.put(key, b"x", ttl=600.0, expected=first) is None, "put must refuse a version that was replaced")
    _must(backend.get(key) == (b"2", second), "a put that was refused must change nothing")
    _must(not backend.delete(key, expected=first), "delete must refuse a version that was replaced")
    _must(backend.delete(key, expected=second), "delete must take the version that is there")
    again = _put(backend, key, b"2", expected=None)
    _must(again not in (first, second), "a key that was deleted must not get a version that it had before")
    _must(backend.put(key, b"x", ttl=600.0, expected=second) is None, "put must refuse a version from before a delete")
    _put(backend, key, b"3", expected=ANY)
    same = _put(backend, key, b"3", expected=ANY)
    _must(_put(backend, key, b"3", expected=ANY) != same, "the same value written again must get another version")


def _check_keys(backend: Backend) -> None:
    wanted = {f"check-keys.{number:03}" for number in range(120)}
    for key in wanted:
        _put(backend, key, b"x")
    _put(backend, "check-keysx.1", b"x")
    _must(set(backend.keys("check-keys.")) == wanted, "keys(prefix) must give every key that starts so, and no other")
    for key in wanted:
        backend.delete(key)
    _must(not list(backend.keys("check-keys.")), "keys must not give what was deleted")


def _check_lives(backend: Backend, pass_time: Callable[[float], object]) -> None:
    version = _put(backend, "check.short", b"x", ttl=0.2)
    _put(backend, "check.prolonged", b"x", ttl=0.2)
    _put(backend, "check.prolonged", b"y", ttl=600.0)
    pass_time(0.4)
    _must(backend.get("check.short") is None, "a value must be gone when its ttl is over")
    _must("check.short" not in set(backend.keys("check.")), "keys must not give a value whose ttl is over")
    gone = backend.put("check.short", b"x", ttl=600.0, expected=version)
    _must(gone is None, "put must refuse the version of a value whose ttl is over")
    _must(backend.get("check.prolonged") is not None, "a later put must replace the ttl")
    _put(backend, "check.short", b"z", expected=None)


def _check_locks(backend: Backend, pass_time: Callable[[float], object]) -> None:
    first = backend.lock("check.lock", "one", 600.0)
    _must(isinstance(first, int), "lock of what is free must give a number")
    _must(backend.lock("check.lock", "two", 600.0) is None, "lock must give None while another one holds it")
    _must(backend.lock("check.other", "two", 600.0) is not None, "locks of different names must be independent")
    backend.unlock("check.other", "two")
    _must(not backend.relock("check.lock", "two", 600.0), "relock must refuse a holder that doesn't have it")
    backend.unlock("check.lock", "two")
    _must(backend.lock("check.lock", "two", 600.0) is None, "unlock by another one must change nothing")
    _must(backend.relock("check.lock", "one", 0.2), "relock must extend, or shorten, its holder's")
    pass_time(0.4)
    _must(not backend.relock("check.lock", "one", 600.0), "relock must refuse when the lock's time is over")
    second = backend.lock("check.lock", "two", 600.0)
    _must(second is not None and first is not None and second > first, "each lock must give a greater number")
    backend.unlock("check.lock", "one")
    _must(backend.relock("check.lock", "two", 600.0), "unlock by an earlier holder must change nothing")
    backend.unlock("check.lock", "two")
    third = backend.lock("check.lock", "three", 600.0)
    _must(third is not None and second is not None and third > second, "numbers must grow after unlock too")
    backend.unlock("check.lock", "three")


def _check_threads(backend: Backend) -> None:
    _put(backend, "check.count", b"0")
    _together([lambda: _count(backend) for _ in range(_THREADS)])
    found = backend.get("check.count")
    wanted = _THREADS * _ROUNDS
    _must(
        found is not None and int(found[0]) == wanted,
        f"{wanted} increments by {_THREADS} threads, each compared and set, gave {found and found[0]!r}: comparison "
        "and write must be one step",
    )
    holders: list[str] = []

    def lock(holder: str) -> None:
        if backend.lock("check.race", holder, 600.0) is not None:
            holders.append(holder)

    _together([functools.partial(lock, f"holder-{number}") for number in range(_THREADS)])
    _must(len(holders) == 1, f"of {_THREADS} threads that lock at once, one must get it, not {len(holders)}")
    backend.unlock("check.race", holders[0])
    backend.delete("check.count")


def _check_two(one: Backend, other: Backend) -> None:
    version = _put(one, "check.seen", b"x")
    _must(other.get("check.seen") == (b"x", version), "what one backend wrote, another one on the medium must see")
    _must(other.delete("check.seen", expected=version), "versions must hold between backends on one medium")
    first = one.lock("check.both", "one", 600.0)
    _must(other.lock("check.both", "two", 600.0) is None, "locks must hold between backends on one medium")
    one.unlock("check.both", "one")
    second = other.lock("check.both", "two", 600.0)
    _must(first is not None and second is not None and second > first, "numbers must grow between backends too")
    other.unlock("check.both", "two")


def _check_processes(make_backend: Callable[[], Backend]) -> None:
    context = multiprocessing.get_context("spawn")
    with _made(make_backend) as backend:
        _put(backend, "check.count", b"0")
        children = [context.Process(target=_count_alone, args=(make_backend,)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(_PATIENCE * 6)
            _must(child.exitcode == 0, f"a process that compared and set ended with {child.exitcode}")
        found = backend.get("check.count")
        wanted = len(children) * _ROUNDS
        _must(
            found is not None and int(found[0]) == wanted,
            f"{wanted} increments by {len(children)} processes gave {found and found[0]!r}: comparison and write must "
            "be one step",
        )
        backend.delete("check.count")


def _count_alone(make_backend: Callable[[], Backend]) -> None:
    with _made(make_backend) as backend:
        _count(backend)


def _count(backend: Backend) -> None:
    for _ in range(_ROUNDS):
        ends = time.monotonic() + _PATIENCE
        while True:
            found = backend.get("check.count")
            _must(found is not None, "a value must stay until its ttl is over")
            value, version = found or (b"", "")
            if backend.put("check.count", b"%d" % (int(value) + 1), ttl=600.0, expected=version) is not None:
                break
            _must(time.monotonic() < ends, "of those that compare and set at once, one must succeed")


def _check_close(make_backend: Callable[[], Backend]) -> None:
    backend = make_backend()
    backend.get("check.absent")
    backend.close()
    backend.close()


def _together(jobs: list[Callable[[], object]]) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        try:
            start.wait(_PATIENCE)
            job()
        except BaseException as error:  # noqa: BLE001 - raised below, where the runner sees it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE * 3)
        _must(not thread.is_alive(), "every call must end within a bound")
    if failures:
        raise failures[0]
