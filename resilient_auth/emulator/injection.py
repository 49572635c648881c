"""Where and when faults apply. Everything here runs on the emulator's loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .checks import check, check_number, check_whole
from .endpoints import EVERYTHING, UNKNOWN, Host, host_of
from .faults import EXPIRED_TOKENS, TLS_FAILED, Fault, Flapping
from .ledger import Call

Match = Callable[[Call], bool] | Mapping[str, str | None]
#: What is known of a call before it is answered.
_MATCHED: Final = ("endpoint", "method", "host", "path", "grant_type", "client_id", "scope", "client")
_MOST: Final = 10**9


class Injection:
    """One fault in force at one endpoint."""

    def __init__(
        self,
        fault: Fault,
        endpoint: str = EVERYTHING,
        *,
        count: int | None = None,
        probability: float = 1.0,
        match: Match | None = None,
    ) -> None:
        check(isinstance(fault, Fault), f"fault must be one such as Fault.http_503(), not {fault!r}")
        host_of(endpoint)
        if count is not None:
            check_whole("count", count, low=1, high=_MOST)
        check_number("probability", probability, high=1.0, above=True)
        _check_match(match)
        if fault.host_wide and (count is not None or probability != 1 or match is not None):
            raise ValueError(f"{fault.name} breaks a whole host: it takes no count, probability or match")
        if getattr(fault, "inner", fault).name == TLS_FAILED and host_of(endpoint) == "metadata":
            raise ValueError("the managed-identity endpoints are plain HTTP: there is no TLS to fail")
        self.fault = fault
        self.endpoint = endpoint
        self.left = count
        self.probability = probability
        self.match = match
        self.on = True
        self.ended = asyncio.Event()
        self.timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def effective(self) -> Fault | None:
        """The fault that a request meets now; None in the good half of a flapping one."""
        if not self.on:
            return None
        return self.fault.inner if isinstance(self.fault, Flapping) else self.fault

    def toggle(self) -> None:
        """Go to the other half of a flapping fault, freeing whoever hangs in the bad one."""
        self.on = not self.on
        if self.on:
            self.ended = asyncio.Event()
        else:
            self.ended.set()

    def applies_to(self, call: Call) -> bool:
        """Return whether a call meets this fault, leaving chance and count aside."""
        if self.endpoint == EVERYTHING:
            if call.endpoint != UNKNOWN and host_of(call.endpoint) != "idp":
                return False
        elif call.endpoint != self.endpoint:
            return False
        if call.endpoint not in ("token", "managed_identity") and self.effective == Fault(EXPIRED_TOKENS):
            return False
        if self.match is None:
            return True
        if isinstance(self.match, Mapping):
            return all(getattr(call, name, None) == value for name, value in self.match.items())
        return bool(self.match(call))


class Injections:
    """The faults in force; of several that fit, the newest wins."""

    def __init__(self, seed: int | None, on_change: Callable[[], None]) -> None:
        self._random = random.Random(seed)  # noqa: S311 (chance of faults, reproducible by seed)
        self._active: list[Injection] = []
        self._pending: dict[asyncio.TimerHandle, str] = {}
        self._on_change = on_change

    @property
    def active(self) -> tuple[Injection, ...]:
        """The faults in force, oldest first."""
        return tuple(self._active)

    def add(self, injection: Injection, seconds: float | None = None) -> Injection:
        """Put a fault in force, for `seconds` if given."""
        if seconds is not None:
            check_number("seconds", seconds)
        loop = asyncio.get_running_loop()
        self._active.append(injection)
        if seconds is not None:
            injection.timers["expiry"] = loop.call_later(seconds, self.remove, injection)
        if isinstance(injection.fault, Flapping):
            self._flap_later(injection, injection.fault.period)
        self._on_change()
        return injection

    def remove(self, injection: Injection) -> None:
        """End a fault; ending it twice does nothing."""
        if injection not in self._active:
            return
        self._active.remove(injection)
        for timer in injection.timers.values():
            timer.cancel()
        injection.on = False
        injection.ended.set()
        self._on_change()

    def schedule(self, plan: Iterable[tuple[float, float, Fault, str]]) -> None:
        """Put faults in force from `start` to `stop`, in seconds from now."""
        planned = []
        for start, stop, fault, endpoint in plan:
            check_number("start", start)
            check_number("stop", stop)
            check(start < stop, f"a fault must start before it stops, not from {start} to {stop}")
            planned.append((start, stop - start, Injection(fault, endpoint)))
        for start, seconds, injection in planned:
            self._add_later(start, seconds, injection)

    def heal(self, endpoint: str | None = None) -> None:
        """End the faults of an endpoint, or all of them, and cancel those scheduled."""
        if endpoint is not None:
            host_of(endpoint)
        for injection in self.active:
            if endpoint in (None, injection.endpoint):
                self.remove(injection)
        for timer, scheduled in list(self._pending.items()):
            if endpoint in (None, scheduled):
                timer.cancel()
                del self._pending[timer]

    def pick(self, call: Call) -> Injection | None:
        """Return the fault that a call meets, and count it."""
        for injection in reversed(self._active):
            effective = injection.effective
            if effective is None or effective.host_wide or injection.left == 0 or not injection.applies_to(call):
                continue
            if injection.probability < 1 and self._random.random() >= injection.probability:
                continue
            if injection.left is not None:
                injection.left -= 1
            return injection
        return None

    def host_wide(self, host: Host | None, name: str) -> Fault | None:
        """Return the fault of a name that breaks a whole host now."""
        for injection in reversed(self._active):
            if injection.effective == Fault(name) and host_of(injection.endpoint) == host:
                return injection.fault
        return None

    def describe(self) -> list[dict[str, Any]]:
        """List the faults in force for people and other processes."""
        return [
            {"fault": one.fault.name, "endpoint": one.endpoint, "on": one.on, "left": one.left} for one in self._active
        ]

    def _add_later(self, start: float, seconds: float, injection: Injection) -> None:
        def begin() -> None:
            del self._pending[timer]
            self.add(injection, seconds)

        timer = asyncio.get_running_loop().call_later(start, begin)
        self._pending[timer] = injection.endpoint

    def _flap_later(self, injection: Injection, period: float) -> None:
        def flip() -> None:
            injection.toggle()
            self._on_change()
            self._flap_later(injection, period)

        injection.timers["flip"] = asyncio.get_running_loop().call_later(period, flip)


def _check_match(match: object) -> None:
    if match is None or callable(match):
        return
    check(isinstance(match, Mapping), f"match must be a function of a Call, or a mapping of its fields, not {match!r}")
    for name, value in dict(match).items():  # type: ignore[call-overload]
        check(name in _MATCHED, f"match names {name!r}, by which no call is known before its answer: use {_MATCHED}")
        check(value is None or isinstance(value, str), f"match must be texts, or None, not {name}={value!r}")
