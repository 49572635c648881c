"""Hints: what one process has just learned of a provider, told to the others so that they needn't each find out."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import cachetools

from .._policy.failure import LONGEST_RETRY_AFTER
from .._policy.levels import ProviderRequest
from .._process import forks
from ..clock import Clock
from ..errors import StoreUnavailable
from ..store import Record, Store
from ..token import TokenRequest, fingerprint
from .bodies import body_in, body_of, finite
from .user_record import token_key

__all__ = ["HINT", "Hint", "HintNames", "Hints", "hint_names", "request_digest", "throttled"]

HINT: Final = "hint"
#: The same name under this kind ends when the hint says so: by the store's clock, the one that all processes share.
_LASTING = "hint-lasting"
#: Seconds for which a hint outlives the time that it names, so that one process goes first then and not all.
_HINT_REST = 120.0
#: Seconds for which a hint that lasts still holds at least, whatever a wall clock says of its end.
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Hint:
    """What another process has just learned of a provider."""

    #: Seconds from now until it may be asked again; 0 or less when that has passed.
    left: float
    #: The error's code, and what it said.
    code: str
    detail: str


class HintNames(NamedTuple):
    """Under which names something may be known against a request."""

    #: That it fails for this very token, for its grant at this tenant, or as such.
    failing: tuple[str, ...] = ()
    #: That this request is throttled, or the whole application.
    throttled: tuple[str, ...] = ()


@functools.lru_cache(1024)
def hint_names(subject: str, asked: ProviderRequest, wire: str | None) -> HintNames:
    """Return under which names something may be known against a request.

    Nothing is known over a wire of which other processes can't tell whether theirs is like it.

    Args:
        subject: Names the application and the user in the store.
        asked: The request.
        wire: What the request's wire is called in all processes, by which alone requests aren't told apart.
    """
    endpoint, request = asked.endpoint, asked.request
    if wire is None or request is None:
        return HintNames()
    digest = request_digest(request)
    failing = (
        f"{endpoint.origin} over {wire} {subject} {digest}",
        f"{endpoint.origin}/{endpoint.realm} over {wire} {asked.purpose.value} by {asked.grant}",
        f"{endpoint.origin} over {wire} {asked.purpose.value}",
    )
    names = (throttled(asked), throttled(asked, whole=True))
    return HintNames(failing, tuple(name for name in names if name is not None))


def request_digest(request: TokenRequest) -> str:
    """Name a request by all that tells it from others, at a length that every store takes."""
    return fingerprint(token_key(request))


def throttled(asked: ProviderRequest, *, whole: bool = False) -> str | None:
    """Name the hint that something is throttled; None where nobody else could go by it.

    Args:
        asked: What was throttled.
        whole: Whether all of the application's requests are meant.
    """
    endpoint, wire = asked.endpoint, asked.endpoint.wire.fleet
    if wire is None:
        return None
    party = asked.party
    who = None if whole else request_digest(party) if isinstance(party, TokenRequest) else str(party)
    return f"throttled {json.dumps([endpoint.origin, endpoint.realm, wire, asked.client_id, who])}"


class Hints:
    """Post hints in a store, and judge those of others. No method fails when the store does."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        #: Which version of each hint was seen last, and the monotonic time at which it was seen first.
        self._seen: cachetools.LRUCache[str, tuple[str, float]] = cachetools.LRUCache(1024)
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child, whose parent may have been in the middle of a change."""
        self._lock, self._seen = threading.Lock(), forks.rebuilt(self._seen)

    def judged(self, told: Mapping[str, Record | None]) -> dict[str, Hint]:
        """Return what the records that were read say now, by name; those that there are."""
        wall, now = self._clock.wall(), self._clock.monotonic()
        hints: dict[str, Hint] = {}
        by_wall: dict[str, float] = {}
        for name, record in told.items():
            body = None if record is None else body_in(record.value, name)
            if record is None or body is None:
                continue
            try:
                posted, seconds = finite(body["posted"]), finite(body["seconds"])
                code, detail = str(body["code"]), str(body["detail"])
            except (KeyError, TypeError, ValueError):
                continue
            with self._lock:
                version, seen = self._seen.get(name, ("", 0.0))
                if version != record.version:
                    version, seen = self._seen[name] = record.version, now
            # It was written before it was first seen here: it can't hold for longer than it says from then.
            hints[name] = Hint(min(seconds, LONGEST_RETRY_AFTER) - (now - seen), code, detail)
            by_wall[name] = posted + seconds - wall
        doubtful = [name for name, hint in hints.items() if hint.left > 0]
        if not doubtful:
            return hints
        try:
            lasting = self._store.read_many([(_LASTING, name) for name in doubtful])
        except StoreUnavailable:  # what else was read is good
            return {}
        for name, record in zip(doubtful, lasting, strict=True):
            # Nobody knows how far two machines' wall clocks are apart: they say when to look again, and no more.
            most = hints[name].left
            lasts = record is not None and body_in(record.value, name) is not None
            left = min(most, max(by_wall[name], _LEAST)) if lasts else 0.0
            hints[name] = replace(hints[name], left=left)
        return hints

    def post(self, name: str, seconds: float, code: str, detail: str) -> None:
        """Tell other processes to leave a provider alone for `seconds`."""
        seconds = min(seconds, LONGEST_RETRY_AFTER)
        body = body_of(name, {"posted": self._clock.wall(), "seconds": seconds, "code": code, "detail": detail})
        with suppress(StoreUnavailable):
            self._store.write(_LASTING, name, body_of(name, {}), ttl=seconds)
            self._store.write(HINT, name, body, ttl=seconds + _HINT_REST)

    def clear(self, name: str) -> None:
        """Tell other processes that a provider works."""
        with suppress(StoreUnavailable):
            self._store.erase(HINT, name)
            self._store.erase(_LASTING, name)
