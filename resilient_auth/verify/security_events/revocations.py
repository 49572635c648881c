"""Revocations that all processes of a fleet hold: told by a store, and looked for all the time.

    revoke ──▶ refused here, at once ──▶ one record each, for processes to come
                                     └─▶ the last ones in one record, which each process reads every `look_every`

A store that fails makes nothing good again: what is held goes on being refused, and what is new is written later.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple
from typing import Any, Final, cast, get_args

from ..._engine.threads import submit
from ..._engine.timers import Timer, timers_of
from ..._fleet.bodies import finite
from ..._policy.checks import require, require_clock, require_number, require_store
from ..._policy.failure import json_object
from ..._process import forks
from ..._process.living import LiveObjects
from ...clock import Clock, SystemClock
from ...errors import Overloaded, StoreUnavailable
from ...events import RemovalPostponed, RemovalWritten, emit
from ...store import Store
from ...token import fingerprint
from ..deny import DenyList
from ..rules.revoked import Revocation, What

__all__ = ["Revocations"]

_KIND: Final = "revocation"
#: The record that each process reads, and how many it holds: further ones are found by a look at all.
_LATEST_KIND, _LATEST, _HELD = "revocations", "latest", 128
#: Writers at the same time that one waits for, and revocations that wait for a store, at most.
_TRIES, _PENDING = 32, 10_000

_living: LiveObjects[Revocations] = LiveObjects()


class Revocations:
    """Refuse, in every process that shares a store, what was issued to a user or in a session up to a time.

    Make one a process; give its `deny` to verifiers, and it to what hears of sign-outs and security events. It looks at
    the store when it is made, and every `look_every` seconds from then on.

    Args:
        store: `FileStore`, `RedisStore` or another one, the same in all processes.
        deny: The deny-list that is to refuse them; one of its own when not given.
        look_every: Seconds between two looks, from 0.1 to 1.5.
        keep: Seconds for which one is kept: as long as the longest token lives. Those of continuous access evaluation
            live 28 hours at most.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        store: Store,
        *,
        deny: DenyList | None = None,
        look_every: float = 0.5,
        keep: float = 30 * 3600.0,
        clock: Clock | None = None,
    ) -> None:
        require_number("look_every", look_every, low=0.1, high=1.5)
        require_number("keep", keep, low=60.0, high=90 * 24 * 3600.0)
        require_store(store)
        require_clock(clock)
        require(deny is None or isinstance(deny, DenyList), f"deny must be a DenyList, not {type(deny).__name__}")
        self.deny = deny or DenyList()
        self._store = store
        self._look_every = look_every
        self._keep = keep
        self._clock = clock or SystemClock()
        #: What the latest ones were when this process looked last, as they are written; None where it couldn't tell.
        self._seen: list[Any] | None = None
        self._closed = False
        self._renew()
        forks.renew_in_children(self)
        _living.add(self)
        with suppress(StoreUnavailable):
            self.look()
        self.begin()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        #: What the store doesn't have yet, by name.
        self._pending: OrderedDict[str, Revocation] = OrderedDict()
        self._timer: Timer | None = None

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child; the parent writes what it has to."""
        self._renew()

    def revoke(self, whose: Iterable[tuple[str, str, str]], before: float) -> None:
        """Refuse what was issued up to a time, here at once and in the other processes when the store has it.

        Args:
            whose: What (`sub`, `sid`, `oid` or `mail`), where (the issuer; for an `oid` the tenant), and the id.
            before: Seconds since the epoch.

        Raises:
            StoreUnavailable: It holds here, and the store doesn't know of it yet; it is tried again.
            ConfigurationError: An argument is wrong; nothing is refused by it, here or elsewhere.
        """
        require_number("before", before, low=0.0)
        hint = 'whose must be such as [("sub", "https://id.example", "the id")]'
        require(isinstance(whose, Iterable) and not isinstance(whose, (str, bytes, Mapping)), hint)
        whose = list(whose)
        for one in whose:
            fits = isinstance(one, (tuple, list)) and len(one) == 3
            require(fits and all(isinstance(part, str) and part for part in one), hint)
            require(one[0] in get_args(What), f"{hint}; it knows {', '.join(get_args(What))} alone")
        forks.notice()
        until = self._clock.wall() + self._keep
        several = [Revocation(what, where, id_, before, until) for what, where, id_ in whose]  # type: ignore[arg-type]
        self.deny.revoke(several, self._clock.wall())
        try:
            self._write(several)
        except StoreUnavailable:
            self._postpone(several)
            raise

    def look(self) -> None:
        """Take in what other processes have revoked.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        latest, _ = self._latest()
        seen = self._seen
        if latest is not None and latest == seen:
            return
        told = [one for one in latest or () if one not in (seen or ())]
        if latest is None or len(told) == len(latest):
            # Nothing tells whether some came between: there were many, or the store has lost what it held.
            told += [_json(record.value) for record in self._store.scan(_KIND)]
        self.deny.revoke([one for each in told if (one := _revocation(each)) is not None], self._clock.wall())
        self._seen = latest

    def close(self) -> None:
        """Look no more; what is held goes on being refused."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> None:
        """Look again in `look_every` seconds, as long as somebody holds this."""
        if self._closed:
            return
        reference = weakref.ref(self)

        def due() -> None:
            one = reference()
            if one is None:
                return
            try:
                submit("revocations", one._look_and_write)
            except Overloaded:
                one.begin()

        self._timer = timers_of(self._clock).call_at(self._clock.monotonic() + self._look_every, due)

    def _look_and_write(self) -> None:
        # What fails ends neither: what is held goes on being refused, and the store itself tells that it fails.
        try:
            with suppress(StoreUnavailable):
                self.look()
            with self._lock:
                pending = list(self._pending.values())
            if pending:
                with suppress(StoreUnavailable):
                    self._write(pending)
                    self._written(pending)
        finally:
            self.begin()

    def _postpone(self, several: list[Revocation]) -> None:
        with self._lock:
            for one in several:
                self._pending[one.name] = one
            while len(self._pending) > _PENDING:
                self._pending.popitem(last=False)
        for one in several:
            emit(RemovalPostponed(at=self._clock.wall(), target=self._store.label, subject=fingerprint(one.name)))

    def _written(self, several: list[Revocation]) -> None:
        with self._lock:
            for one in several:
                if self._pending.get(one.name) is one:
                    del self._pending[one.name]
        for one in several:
            emit(RemovalWritten(at=self._clock.wall(), target=self._store.label, subject=fingerprint(one.name)))

    def _write(self, several: list[Revocation]) -> None:
        now, store = self._clock.wall(), self._store
        for one in several:
            held = store.read(_KIND, one.name)
            known = None if held is None else _revocation(_json(held.value))
            if known is None or known.before < one.before:
                value = json.dumps(astuple(one)).encode()
                store.write(_KIND, one.name, value, ttl=max(1.0, one.until - now))
        for _ in range(_TRIES):
            latest, version = self._latest()
            body = {"latest": [*(latest or ()), *map(astuple, several)][-_HELD:]}
            if store.write(_LATEST_KIND, _LATEST, json.dumps(body).encode(), ttl=self._keep, expected=version):
                return
        raise StoreUnavailable(store.label, "busy", "others revoke all the time")

    def _latest(self) -> tuple[list[Any] | None, str | None]:
        """Return the latest ones as they are written, None where another release tells them in its own words."""
        record = self._store.read(_LATEST_KIND, _LATEST)
        if record is None:
            return [], None
        body = json_object(record.value)
        latest = None if body is None else body.get("latest")
        return (latest if isinstance(latest, list) else None), record.version


def _json(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # another release's
        return None


def _revocation(told: object) -> Revocation | None:
    """Return what a record tells, also where a newer release tells more of it; None where it tells nothing."""
    match told:
        case [str(what), str(where), str(id_), before, until, *_]:
            with suppress(ValueError):
                return Revocation(cast("What", what), where, id_, finite(before), finite(until))
    return None


@forks.resumed
def _after_fork() -> None:
    for one in _living.all():
        one.begin()
