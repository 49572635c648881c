"""Which credential an application uses: a new one is tried before the old one is dropped (G24).

look ─▶ the one that works is still the one ──────────────▶ use it
  │
  ├─▶ a new one ─▶ try it ─┬─ accepted ─▶ it is the one; CredentialRotated
  │                        └─ refused ──▶ the old one goes on; CredentialRejected; tried again a minute later
  └─▶ none that can be used ─────────────▶ the old one goes on; CredentialRejected
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

from ..._process import forks
from ...clock import Clock
from ...errors import ConfigurationError
from ...events import CredentialExpiring, CredentialRejected, CredentialRotated, Event, emit
from .certificate import Unusable
from .sources import CredentialSource, Given, source_of

__all__ = ["DAY", "Rotation", "date", "mark_passed", "rotation_for", "tell_elsewhere"]

#: Days ahead of a certificate's end on which its owner is warned (G24); and on its end.
_WARN_AHEAD = (60, 30, 7, 1, 0)
DAY = 86400.0
#: Seconds after which a credential that was refused is tried again: a directory knows new ones only after a while.
_TRY_AGAIN = 60.0
#: What a provider says to a credential that it doesn't take (RFC 6749, section 5.2); Keycloak says the second.
_REFUSALS = frozenset({"invalid_client", "unauthorized_client"})


#: Whether a watch tells owners of their certificates' ends, once for a whole fleet.
_told_elsewhere = False


def tell_elsewhere(on: bool) -> None:
    """Leave it to somebody else to tell owners of their certificates' ends, or do it here again."""
    global _told_elsewhere
    _told_elsewhere = on


class Rotation:
    """Keep the credential that works, and the one that is to replace it.

    Args:
        source: Gives the credential of the moment.
        client_id: The application's.
        authority: The origin of its provider.
        clock: The engine's.
    """

    def __init__(self, source: CredentialSource, client_id: str, authority: str, clock: Clock) -> None:
        self.source = source
        self._client_id, self._authority, self._clock = client_id, authority, clock
        #: The one that was found last, and the one that the provider has taken.
        self._newest: Given | None = None
        self._proven: Given | None = None
        self._refused: Given | None = None
        self._try_again_at = -math.inf
        self._trouble: tuple[str, str] | None = None
        #: Numbers the looks at the source; and the one that found the newest.
        self._turns, self._looked = itertools.count(1), 0
        #: Of which end, and how many days ahead, the owner was warned last.
        self._warned: tuple[float, int] | None = None
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Take a lock of one's own, also in a forked child."""
        self._lock = threading.Lock()

    def candidates(self) -> list[Given]:
        """Return what to authenticate with, in the order in which to try.

        Raises:
            ConfigurationError: There is nothing.
        """
        forks.notice()
        turn = next(self._turns)
        try:
            newest, trouble = self.source.look(self._newest), None
        except Unusable as error:
            newest, trouble = None, error
        told: list[Event | None] = []
        with self._lock:
            proven = self._proven
            if trouble is not None:
                code, detail = trouble.code, trouble.detail
                held = proven or self._newest
                if held is not None and self._trouble != (code, detail):
                    told.append(self._event(CredentialRejected, code=code, detail=detail))
                self._trouble = (code, detail)
                found = [] if held is None else [held]
            else:
                # Another thread, which looked later, may have been here sooner.
                if turn > self._looked:
                    self._newest, self._looked = newest, turn
                self._trouble = None
                found = self._in_order(self._newest, proven)
            if found:
                told.append(self._ending(found[0]))
        for event in told:
            if event is not None:
                emit(event)
        if not found and trouble is not None:
            raise ConfigurationError(f"client_credential: {self.source.name} can't be used: {trouble.detail}") from (
                trouble.__cause__
            )
        return found

    def _in_order(self, newest: Given | None, proven: Given | None) -> list[Given]:
        assert newest is not None  # noqa: S101 - the source has given it
        if proven is None or _same(newest, proven):
            return [newest]
        resting = self._refused is not None and _same(self._refused, newest)
        waits = resting and self._clock.monotonic() < self._try_again_at
        return [proven, newest] if waits else [newest, proven]

    def took(self, given: Given) -> None:
        """Note that the provider has taken one."""
        with self._lock:
            former = self._proven
            if former is not None and self._newest is not None and not _same(given, self._newest):
                return  # an exchange that began with the old one
            self._proven = given
            if self._refused is not None and _same(self._refused, given):
                self._refused = None
            rotated = former is not None and not _same(former, given)
        if rotated:
            emit(self._event(CredentialRotated, expires=date(given.ends)))

    def refused(self, given: Given, error: str) -> None:
        """Note that the provider hasn't taken one; where it is new, the old one goes on."""
        with self._lock:
            if self._proven is None or _same(given, self._proven):
                return
            known = self._refused is not None and _same(self._refused, given)
            self._refused, self._try_again_at = given, self._clock.monotonic() + _TRY_AGAIN
        if not known:
            emit(self._event(CredentialRejected, code=error[:100], detail="the provider doesn't take it"))

    def _event(self, kind: Callable[..., Event], **told: Any) -> Event:
        """Make an event about this application's credential."""
        return kind(
            at=self._clock.wall(),
            authority=self._authority,
            client_id=self._client_id,
            target=self.source.name,
            **told,
        )

    def _ending(self, given: Given) -> Event | None:
        """Return what the owner is to be told of a certificate's end, once for each mark that it has passed."""
        if given.ends is None:
            return None
        left = given.ends - self._clock.wall()
        mark = mark_passed(left)
        if mark is None or self._warned == (given.ends, mark) or _told_elsewhere:
            return None
        self._warned = (given.ends, mark)
        return self._event(CredentialExpiring, expires=date(given.ends), remaining=left)

    @property
    def ends(self) -> float | None:
        """Return when the certificate ends that is in use, in seconds since the epoch; None where there is none."""
        held = self._newest if self._refused is None else self._proven
        return None if held is None else held.ends

    def __repr__(self) -> str:
        return f"Rotation({self.source.name!r})"


def mark_passed(left: float) -> int | None:
    """Return the last mark, in days ahead of a credential's end, that has been passed with so many seconds left."""
    return min((days for days in _WARN_AHEAD if left <= days * DAY), default=None)


def is_refusal(answer: Any) -> bool:
    """Return whether a provider's answer says that it doesn't take the credential."""
    return isinstance(answer, dict) and str(answer.get("error")) in _REFUSALS


def rotation_for(credential: Any, client_id: str, authority: str, clock: Clock) -> Rotation | None:
    """Return how an application's credential is renewed; None where MSAL is given it once and for all.

    Raises:
        ConfigurationError: It can't be used; raised before any network call.
    """
    if isinstance(credential, Rotation):  # another application's of this client
        return credential
    source = source_of(credential)
    if source is None:
        return None
    rotation = Rotation(source, client_id, authority, clock)
    if not callable(credential):  # the owner's function may take its time: it is called on a worker
        rotation.candidates()
    return rotation


def _same(one: Given, other: Given) -> bool:
    """Return whether they are one credential, if not one object: keys have no equals, and assertions come anew."""
    first, second = one.credential, other.credential
    if isinstance(first, dict) and isinstance(second, dict):
        if first.get("client_assertion") and second.get("client_assertion"):
            return True
        shown = first.get("public_certificate")
        if isinstance(shown, str) and shown == second.get("public_certificate"):
            return True
    return bool(first == second)


def date(seconds: float | None) -> str:
    """Return a time as an ISO 8601 date in UTC; "" for none."""
    from datetime import UTC, datetime

    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
