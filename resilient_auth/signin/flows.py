"""Sign-ins under way: kept sealed in the browser that began them, one cookie each, for a short time.

A cookie binds the answer to the browser (log-in CSRF), holds PKCE's verifier and the nonce, and keeps nothing of
visitors here. It comes with the provider's form, which is another site's; the session's own doesn't.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from .._fleet.bodies import finite, unreadable
from .._process import forks
from .._store.sealing.keys import load_keys
from .._store.sealing.seal import Sealer, UnsealableError
from ..clock import Clock
from ..errors import StoreUnavailable
from ..store import Store
from .messages import Arrival, Cookie, dropped

__all__ = ["Flows"]

KIND: Final = "sign-in-key"
_DAY: Final = 86_400.0
_KEY_LENGTH: Final = 32
#: Of what the cookies hold. Whoever began at a process of another form begins again.
_FORM: Final = 1
#: Characters of a cookie with its name, which browsers take in any case.
_LARGEST: Final = 3_800


class Flows:
    """Seal what belongs to a sign-in, with keys that all processes have from the store and that change daily.

    Args:
        store: Where the keys are.
        origin: The application's address, to which they are bound.
        clock: Gives the time.
        life: Seconds that a sign-in may take.
        most: Sign-ins at the same time in one browser: in several tabs.
        prefix: What its cookies' names begin with.
    """

    def __init__(self, store: Store, origin: str, clock: Clock, *, life: float, most: int, prefix: str) -> None:
        self._store = store
        self._origin = origin
        self._clock = clock
        self._life = life
        self._most = most
        self._prefix = prefix
        #: By the day: its key, and what seals with it.
        self._sealers: dict[int, tuple[bytes, Sealer]] = {}
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()

    def begin(self, arrival: Arrival, label: str, body: Mapping[str, Any]) -> tuple[Cookie, ...] | None:
        """Return the cookies to set for one more sign-in; None where it is too large for one.

        Args:
            arrival: The request, with the browser's other sign-ins.
            label: Tells it from others; a state, for example.
            body: What belongs to it.

        Raises:
            StoreUnavailable: There is no key.
        """
        now = self._clock.wall()
        name = self._name(label)
        day = int(now // _DAY)
        text = json.dumps({**body, "at": now, "form": _FORM}, separators=(",", ":")).encode()
        sealed = self._sealer(day, make=True).seal("sign-in", name, text)
        value = f"{day}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"
        if len(name) + len(value) > _LARGEST:
            return None
        others = [other for other in arrival.cookies if other.startswith(self._prefix) and other != name]
        begun = {other: self._opened(other, arrival.cookies[other]) for other in others}
        alive = sorted((at["at"], other) for other, at in begun.items() if at is not None)
        gone = [other for other in others if begun[other] is None]
        gone += [other for _, other in alive[: max(0, len(alive) - self._most + 1)]]
        return (Cookie(name, value, "None", int(self._life)), *(dropped(other, "None") for other in gone))

    def open(self, arrival: Arrival, label: str) -> tuple[dict[str, Any] | None, Cookie | None]:
        """Return what belongs to a sign-in of this browser, None where there is none; and what drops its cookie.

        Raises:
            StoreUnavailable: Its key can't be read.
        """
        name = self._name(label)
        value = arrival.cookies.get(name)
        if value is None:
            return None, None
        return self._opened(name, value, anew=True), dropped(name, "None")

    def _opened(self, name: str, value: str, *, anew: bool = False) -> dict[str, Any] | None:
        day, _, text = value.partition(".")
        now = self._clock.wall()
        if not (day.isascii() and day.isdigit() and len(day) < 9) or abs(now // _DAY - int(day)) > 1:
            return None
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            try:
                opened = self._sealer(int(day)).open("sign-in", name, sealed)
            except UnsealableError:
                if not anew:
                    return None
                # A store that was emptied has been given another key by another process.
                opened = self._sealer(int(day), anew=True).open("sign-in", name, sealed)
            body: dict[str, Any] = json.loads(opened)
            age = now - finite(body["at"])
            if body["form"] != _FORM:
                return None
        except (ValueError, TypeError, KeyError, UnsealableError):
            return None
        return body if -60.0 <= age < self._life else None

    def _sealer(self, day: int, *, make: bool = False, anew: bool = False) -> Sealer:
        """Return what seals on a day.

        Args:
            day: Its number.
            make: Whether to have one where there is none; what is sealed with it other processes must be able to open.
            anew: Whether to look at the store although one is known.

        Raises:
            StoreUnavailable: The store can't tell.
            ValueError: There is none, and none is to be made.
        """
        forks.notice()
        with self._lock:
            known, sealer = self._sealers.get(day, (None, None))
        if sealer is not None and not make and not anew:
            return sealer
        try:
            key = self._key(str(day), known, make=make)
        except StoreUnavailable:
            if sealer is None:
                raise
            return sealer
        if key is None:
            raise ValueError("no key")
        if key == known and sealer is not None:
            return sealer
        sealer = Sealer(load_keys(key, label="sign-in"), ("sign-in", self._origin, ""))
        with self._lock:
            self._sealers = {kept: other for kept, other in self._sealers.items() if abs(kept - day) <= 1}
            self._sealers[day] = key, sealer
        return sealer

    def _key(self, name: str, known: bytes | None, *, make: bool) -> bytes | None:
        """Return a day's key as the store has it, which is given the one that is known, or a new one, if need be."""
        record = self._store.read(KIND, name)
        key = None if record is None else record.value
        if key is None and make:
            made = known or os.urandom(_KEY_LENGTH)
            if self._store.write(KIND, name, made, ttl=3 * _DAY, expected=None) is not None:
                key = made
            else:
                record = self._store.read(KIND, name)
                key = None if record is None else record.value
            if key is None:
                raise StoreUnavailable(self._store.label, "busy", "the key of sign-ins can't be kept")
        if key is not None and len(key) != _KEY_LENGTH:
            raise unreadable(self._store)
        return key

    def _name(self, label: str) -> str:
        return self._prefix + hashlib.sha256(label.encode()).hexdigest()[:16]
