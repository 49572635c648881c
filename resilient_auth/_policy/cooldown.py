"""What a provider throttles (G8): a request, or an application when several of its requests were throttled."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import cachetools

from .._process.forks import rebuilt
from .levels import ProviderRequest

__all__ = ["Cooldowns"]

#: Seconds after a cool-down within which another one is one more in a row.
_IN_A_ROW = 60.0
#: So many different requests that are throttled, with none answered in between, are the application's affair.
_SEVERAL = 3
_MOST = 16_384


@dataclass(frozen=True, slots=True)
class _Cooldown:
    """An end on the monotonic clock, and how many came in a row."""

    ends: float
    in_a_row: int


class Cooldowns:
    """Remember who must not be asked, and until when.

    Cool-downs in a row get longer, up to `longest`, where the provider asks for less: one that never says when must not
    be asked every few seconds for ever.

    Args:
        monotonic: Gives the time.
        step: Seconds by which each one in a row is longer, at least.
        longest: Seconds up to which they grow.
    """

    def __init__(self, monotonic: Callable[[], float], step: float, longest: float) -> None:
        self._monotonic = monotonic
        self._step = step
        self._longest = longest
        self._kept: cachetools.LRUCache[Hashable, _Cooldown] = cachetools.LRUCache(_MOST)
        #: By endpoint and client, the requests that were throttled since one was answered.
        self._throttled: cachetools.LRUCache[Hashable, dict[Hashable, None]] = cachetools.LRUCache(_MOST)
        #: When the clock was looked at last.
        self._seen = -math.inf
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Make it usable in a forked child: a thread of the parent's may have been in the middle of a change."""
        self._lock = threading.Lock()
        self._kept, self._throttled = rebuilt(self._kept), rebuilt(self._throttled)

    def begin(self, asked: ProviderRequest, seconds: float) -> tuple[float, bool]:
        """Begin a cool-down, or make one longer.

        Returns:
            For how many seconds it lasts, and whether it is everybody's of that application.
        """
        client = (asked.endpoint, asked.client_id)
        with self._lock:
            now = self._now()
            throttled = self._throttled.setdefault(client, {})
            if len(throttled) < _SEVERAL:
                throttled[asked.whose] = None
            several = len(throttled) >= _SEVERAL
            lasts = self._begin((*client, asked.party), seconds, now)
            if several:
                lasts = max(lasts, self._begin((*client, None), seconds, now))
        return lasts, several

    def _begin(self, key: Hashable, seconds: float, now: float) -> float:
        before = self._kept.get(key)
        in_a_row = 1
        if before is not None and now - before.ends < _IN_A_ROW:
            in_a_row = before.in_a_row + 1
            seconds = max(seconds, min(self._longest, self._step * in_a_row), before.ends - now)
        self._kept[key] = _Cooldown(now + seconds, in_a_row)
        return seconds

    def _now(self) -> float:
        """Read the clock, and take along what was noted where it was set back, as when a machine is restored."""
        now = self._monotonic()
        back, self._seen = self._seen - now, now
        if back > 0:
            for key, cooldown in list(self._kept.items()):
                self._kept[key] = _Cooldown(cooldown.ends - back, cooldown.in_a_row)
        return now

    def answered(self, asked: ProviderRequest) -> None:
        """Note that a request was answered: those that are throttled are so by themselves."""
        if not self._throttled:
            return
        with self._lock:
            self._throttled.pop((asked.endpoint, asked.client_id), None)

    def left(self, asked: ProviderRequest) -> float:
        """Return for how many seconds a request must not be made; 0 where it may."""
        if not self._kept:
            return 0.0
        with self._lock:
            now = self._now()
            keys = ((asked.endpoint, asked.client_id, party) for party in (asked.party, None))
            ends = [cooldown.ends for key in keys if (cooldown := self._kept.get(key)) is not None]
        return max(0.0, max(ends, default=now) - now)
