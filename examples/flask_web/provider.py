"""Whether somebody can sign in right now: what is seen of the provider in passing, and a look before each sign-in."""

import threading
from typing import Any
from urllib.parse import urlsplit

import requests
import resilient_auth as ra
from resilient_auth.clock import Clock

#: Seconds for which a look that found the provider counts, and one that didn't; and that a look may take.
FOUND_COUNTS, MISSED_COUNTS, LOOK_TAKES = 1.0, 5.0, 2.0
#: Seconds for which a glance at this process's breakers counts, and for which all users are told of a look in vain.
GLANCE_COUNTS, MISS_IS_TOLD = 1.0, 60.0


class Provider:
    """Tell users about an outage before they run into it."""

    def __init__(self, authority: str, *, clock: Clock) -> None:
        parts = urlsplit(authority)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._document = f"{authority}/v2.0/.well-known/openid-configuration"
        self._clock = clock
        self._lock = threading.Lock()
        self._look_again_at = self._glance_again_at = float("-inf")
        self._told_until = float("-inf")
        self._answers = True
        self._failing = False

    def is_failing(self) -> bool:
        """Return whether the exchanges of this process fail. Asks nobody; for the banner on every page."""
        if self._clock.monotonic() >= self._glance_again_at:
            self._glance_again_at = self._clock.monotonic() + GLANCE_COUNTS
            self._failing = any(breaker.failing_since is not None for breaker in self._breakers())
        return self._failing or self._clock.monotonic() < self._told_until

    def retry_after(self) -> float | None:
        """Return in how many seconds a sign-in makes sense; None for now. Looks at the provider, seldom and briefly.

        Without it a user would be sent to a page that never comes, and no answer of ours would help any more.
        """
        waits = [b.retry_after for b in self._breakers() if b.state == "open" and b.retry_after is not None]
        if waits:
            return max(waits)
        with self._lock:
            # Under the lock: of all who want to sign in, one looks.
            if self._clock.monotonic() >= self._look_again_at:
                self._answers = self._look()
                now = self._clock.monotonic()
                self._look_again_at = now + (FOUND_COUNTS if self._answers else MISSED_COUNTS)
                self._told_until = now if self._answers else now + MISS_IS_TOLD
            return None if self._answers else MISSED_COUNTS

    def _breakers(self) -> list[Any]:
        return [breaker for breaker in ra.health().breakers if breaker.authority == self._origin]

    def _look(self) -> bool:
        try:
            return requests.get(self._document, timeout=LOOK_TAKES).status_code < 500
        except requests.RequestException:
            return False
