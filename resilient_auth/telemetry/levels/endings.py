"""When credentials end: certificates, which are read, and secrets, whose ends the owner or a function tells (G24)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from ..._msal.rotation.trial import DAY
from ..._policy.checks import require
from ..._policy.endpoint import origin_of
from ..._process.credential_ends import CredentialEnd
from ...clock import Clock
from ...errors import ConfigurationError, ResilientAuthError
from ...events import Delivery, SecretEndsUnread, emit
from ..certificates import CertificateLife, lives

__all__ = ["Dates", "Endings", "SecretExpires"]

#: One end, or those of several secrets of one application.
Dates: TypeAlias = date | datetime | Iterable[date | datetime]
SecretExpires: TypeAlias = Mapping[str, Dates] | Callable[[], Mapping[str, Dates]]

_MOST: Final = 1000
#: Seconds after which a function is asked again: once it has told, and once it has failed.
_AGAIN, _AFTER_FAILURE = DAY, 3600.0


class Endings:
    """Know when this process's credentials end.

    Args:
        given: By client id, when secrets end; or a function that tells it, which is asked once a day on a thread of
            its own.
        clock: Tells the time.

    Raises:
        ConfigurationError: What is given is neither.
    """

    def __init__(self, given: SecretExpires | None, clock: Clock) -> None:
        self._clock = clock
        self._read = given if callable(given) else None
        self._certificates: tuple[CertificateLife, ...] = ()
        self._secrets = {} if given is None or callable(given) else _dates(given)
        self._asking: Delivery[Callable[[], object]] = Delivery(lambda ask: ask(), capacity=1)
        self._ask_at, self._under_way = -math.inf, False

    def renew(self) -> None:
        """Be usable in a forked child."""
        self._asking.renew()
        self._under_way = False

    def end(self) -> None:
        """Ask nobody any more."""
        self._asking.end()

    def _asked(self, read: Callable[[], Mapping[str, Dates]]) -> None:
        again = _AFTER_FAILURE
        try:
            told, wall = _dates(read()), self._clock.wall()
            # A directory lists those that are over, too, which nobody uses any more.
            self._secrets = {client_id: tuple(at for at in ends if at > wall) for client_id, ends in told.items()}
            again = _AGAIN
        except Exception as error:  # noqa: BLE001 - the owner's code, or a directory, may raise anything
            ours = isinstance(error, ResilientAuthError)
            code, detail = (error.code, str(error)) if isinstance(error, ResilientAuthError) else ("failed", "")
            detail = detail if ours else type(error).__name__
            emit(SecretEndsUnread(at=self._clock.wall(), target="secret_expires", code=code, detail=detail))
        finally:
            self._ask_at, self._under_way = self._clock.monotonic() + again, False

    def look(self) -> None:
        """Read certificates, and have the owner's function asked where that is due; may take a while."""
        self._certificates = tuple(lives())
        self._asking.revive()
        now, read = self._clock.monotonic(), self._read
        if read is None or self._under_way or now < self._ask_at:
            return
        self._under_way = True
        self._asking.put(partial(self._asked, read))

    def all(self) -> tuple[CredentialEnd, ...]:
        """Return all that were known at the last look, without reading anything."""
        wall = self._clock.wall()
        found = [
            CredentialEnd(
                credential="certificate",
                client_id=life.client_id,
                authority=origin_of(life.authority),
                target=life.target,
                at=life.ends,
                remaining=life.ends - wall,
            )
            for life in self._certificates
        ]
        found += [
            CredentialEnd(
                credential="secret",
                client_id=client_id,
                authority="",
                target="secret_expires",
                at=at,
                remaining=at - wall,
            )
            for client_id, ends in self._secrets.items()
            for at in ends
            # The first of two runs out while the second one is used: that is how they are replaced.
            if at > wall or max(ends) <= wall
        ]
        return tuple(dict.fromkeys(found))[:_MOST]


def _dates(given: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    hint = 'secret_expires must be such as {"<client id>": datetime.date(2027, 1, 31)}, or a function that returns that'
    require(isinstance(given, Mapping), f"{hint}, not {type(given).__name__}")
    found: dict[str, tuple[float, ...]] = {}
    for client_id, ends in given.items():
        require(isinstance(client_id, str) and bool(client_id), f"{hint}; {client_id!r} is no client id")
        several = [ends] if isinstance(ends, date) else ends
        if isinstance(several, (str, bytes, Mapping)) or not isinstance(several, Iterable):
            raise ConfigurationError(f"{hint}; {client_id} has {ends!r}")
        found[client_id] = tuple(_seconds(client_id, end, hint) for end in several)
    return found


def _seconds(client_id: str, end: object, hint: str) -> float:
    if isinstance(end, datetime):
        require(end.tzinfo is not None, f"secret_expires of {client_id} must have a time zone: {end!r}")
        return end.timestamp()
    if not isinstance(end, date):
        raise ConfigurationError(f"{hint}; {client_id} has {end!r}")
    # It runs out in the course of that day.
    return datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()
