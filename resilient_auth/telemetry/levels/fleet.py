"""What the processes of a fleet have counted, summed in their store.

There are a few shards. A process picks one, and adds to it what it has counted since it did so last: by
compare-and-set, however many have picked the same one. A write whose outcome isn't known, since the store failed in the
middle of it, is looked up by its number before anything is added again: nothing counts twice, and nothing is left to
those who come after a process that ended.

    read ─▶ did the last write arrive? ─▶ add ─▶ write if it is still what was read ─┬─ yes ─▶ done
      ▲                                                                              │
      └─────────────────────────────────────────────────────────── no, or unknown ───┘
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..._fleet.bodies import body_in, body_of, finite, whole
from ...errors import StoreUnavailable
from ...events import StoreRejected, emit
from ...store import Lease, Record, Store
from .clocks import Clocks, Report
from .counts import Counts
from .state import State

__all__ = ["Fleet"]

_COUNTS, _STATE = "levels", "levels-state"
_SHARDS: Final = 8
#: Of what records hold. Those of an older one are dropped, those of a newer one are left alone.
_FORMAT: Final = 1
_COUNTS_LIVE, _STATE_LIVES = 15 * 86_400.0, 120 * 86_400.0
#: Writers whose last write's number is kept: many more than write to a shard while one of them doesn't know.
_MOST_WRITERS: Final = 512
#: Reads and writes of one call: enough to step over all shards but one.
_TRIES: Final = 24


@dataclass(slots=True)
class _Shard:
    """A shard as it was read, or written."""

    counts: Counts = field(default_factory=Counts)
    #: By process, the number of its last write.
    writers: dict[str, int] = field(default_factory=dict)
    #: What their clocks said then.
    clocks: dict[str, float] = field(default_factory=dict)
    version: str | None = None


class _NotOurs(Exception):
    """A record of a newer release is there."""


class Fleet:
    """Add to what a fleet has counted, and read it. For one thread at a time; every call may block for a while.

    Args:
        store: Theirs.
        name: What tells this fleet from others in the store.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self._name = name
        self._lease: Lease | None = None
        self._told: set[str] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be a process of its own, at first and in a forked child: what its parent counted is its parent's."""
        self._me = secrets.token_hex(6)
        self._shard = secrets.randbelow(_SHARDS)
        self._number = 0
        self._known: _Shard | None = None
        #: What is to be written, and what may have been.
        self._waiting, self._doubtful = Counts(), Counts()
        self._lease = None
        self.clocks = Clocks()
        #: What others wrote last, as it was read last.
        self.reports: dict[str, Report] = {}

    def unwritten(self, now: float) -> Counts:
        """Return what isn't in the store yet, or may not be."""
        counts = Counts()
        counts.merge(self._waiting, now)
        counts.merge(self._doubtful, now)
        return counts

    def add(self, counts: Counts, now: float) -> None:
        """Add what this process has counted. What can't be written now goes with the next call.

        Raises:
            StoreUnavailable: The store fails.
        """
        self._waiting.merge(counts, now)
        blind = 0
        for _ in range(_TRIES):
            shard = self._known
            if shard is None:
                try:
                    shard = self._read(self._shard, now)
                except _NotOurs:
                    self._move()
                    continue
            if self._doubtful:
                if shard.writers.get(self._me, 0) < self._number:  # it never arrived
                    self._waiting.merge(self._doubtful, now)
                self._doubtful = Counts()
            if not self._waiting:
                self._known = shard
                return
            if self._write(shard, now):
                return
            blind += shard.version is None
            if blind == 2:  # what is there can't be opened here, though another process may be able to
                self._waiting.merge(self._doubtful, now)
                self._doubtful, blind = Counts(), 0
                self._move()

    def _move(self) -> None:
        self._shard, self._known = (self._shard + 1) % _SHARDS, None

    def _write(self, shard: _Shard, now: float) -> bool:
        self._known = None
        self._number += 1
        self._doubtful, self._waiting = self._waiting, Counts()
        summed = Counts()
        summed.merge(shard.counts, now)
        summed.merge(self._doubtful, now)
        writers = {who: number for who, number in shard.writers.items() if who != self._me}
        writers[self._me] = self._number
        for who in list(writers)[:-_MOST_WRITERS]:
            del writers[who]
        clocks = {who: at for who, at in shard.clocks.items() if who in writers}
        clocks[self._me] = now - self.clocks.behind
        name = self._record(self._shard)
        value = _body(name, {"counts": summed.to_json(), "writers": writers, "clocks": clocks})
        version = self.store.write(_COUNTS, name, value, ttl=_COUNTS_LIVE, expected=shard.version)
        if version is None:  # another one wrote; or this one did, and the store asked itself twice
            return False
        self._doubtful = Counts()
        self._known = _Shard(summed, writers, clocks, version)
        return True

    def total(self, now: float) -> Counts:
        """Return what all have counted.

        Raises:
            StoreUnavailable: The store fails.
        """
        names = [self._record(number) for number in range(_SHARDS)]
        counts, reports = Counts(), dict[str, Report]()
        for name, record in zip(names, self.store.read_many([(_COUNTS, name) for name in names]), strict=True):
            try:
                shard = self._parsed(record, name, now)
            except _NotOurs:
                continue
            counts.merge(shard.counts, now)
            reports |= {who: Report(shard.writers.get(who, 0), at) for who, at in shard.clocks.items()}
        reports.pop(self._me, None)
        self.reports = reports
        return counts

    def _read(self, number: int, now: float) -> _Shard:
        name = self._record(number)
        return self._parsed(self.store.read(_COUNTS, name), name, now)

    def _parsed(self, record: Record | None, name: str, now: float) -> _Shard:
        """Read a shard; an empty one where there is none, or one of an older form.

        Raises:
            _NotOurs: It is a newer release's.
        """
        body = self._body_in(record, name, now)
        if record is None or body is None:
            return _Shard(version=None if record is None else record.version)
        try:
            writers = {str(who): whole(number) for who, number in body["writers"].items()}
            # Those of releases before this one have none.
            clocks = {str(who): finite(at) for who, at in body.get("clocks", {}).items()}
            return _Shard(Counts.from_json(body["counts"]), writers, clocks, record.version)
        except (KeyError, TypeError, AttributeError, ValueError):
            self._reject(record.kind, "malformed", now)
            return _Shard(version=record.version)

    def state(self, now: float) -> tuple[State, str | None]:
        """Read what was told, and the version of that.

        Raises:
            StoreUnavailable: The store fails, or a newer release has written it.
        """
        name = f"{self._name} state"
        record = self.store.read(_STATE, name)
        try:
            body = self._body_in(record, name, now)
        except _NotOurs:
            detail = "a newer release has written what alerts are open"
            raise StoreUnavailable(self.store.label, "newer_schema", detail) from None
        if record is None or body is None:
            return State(), None if record is None else record.version
        try:
            return State.from_json(body["state"]), record.version
        except (KeyError, TypeError, ValueError):
            self._reject(record.kind, "malformed", now)
            return State(), record.version

    def save(self, state: State, version: str | None) -> bool:
        """Write what was told; return False where another process has just done so.

        Raises:
            StoreUnavailable: The store fails.
        """
        name = f"{self._name} state"
        value = _body(name, {"state": state.to_json()})
        return self.store.write(_STATE, name, value, ttl=_STATE_LIVES, expected=version) is not None

    def lead(self, seconds: float) -> bool:
        """Be the one of the fleet who judges and sends, for so long; return False while another one is.

        Raises:
            StoreUnavailable: The store fails.
        """
        if self._lease is not None:
            self._lease = self.store.renew(self._lease, seconds)
        if self._lease is None:
            self._lease = self.store.lease(f"levels {self._name}", seconds)
        return self._lease is not None

    def resign(self) -> None:
        """Let another one lead.

        Raises:
            StoreUnavailable: The store fails; another one leads a little later.
        """
        lease, self._lease = self._lease, None
        if lease is not None:
            self.store.release(lease)

    def _record(self, number: int) -> str:
        return f"{self._name} {number}"

    def _body_in(self, record: Record | None, name: str, now: float) -> dict[str, Any] | None:
        """Return what a record holds; None for one that is dropped.

        Raises:
            _NotOurs: It is a newer release's.
        """
        if record is None:
            return None
        body = body_in(record.value, name)
        written = None if body is None else body.get("format")
        if body is None or isinstance(written, bool) or not isinstance(written, int):
            self._reject(record.kind, "malformed", now)
            return None
        if written == _FORMAT:
            return body
        self._reject(record.kind, "newer_schema" if written > _FORMAT else "older_schema", now)
        if written > _FORMAT:
            raise _NotOurs
        return None

    def _reject(self, kind: str, code: str, now: float) -> None:
        """Tell of records that aren't used, once for each reason."""
        if f"{kind} {code}" not in self._told:
            self._told.add(f"{kind} {code}")
            emit(StoreRejected(at=now, target=self.store.label, kind=kind, code=code, count=1))


def _body(name: str, found: Mapping[str, Any]) -> bytes:
    return body_of(name, {"format": _FORMAT, **found})
