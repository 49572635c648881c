"""Answers of a credential, made ready in azure-core's shapes, and served again for as long as nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._engine.cache import CacheEntry
from .._msal.session import Session
from .._process import observing
from ..token import Token
from .azure_shapes import AccessToken, AccessTokenInfo

__all__ = ["CachedAnswer", "prepared"]

#: Seconds by the wall clock after which both clocks are read again.
_SURE = 1.0


@dataclass(slots=True, init=False, repr=False, eq=False)
class CachedAnswer:
    """A token in both of azure-core's shapes, with all that tells whether it may still be served."""

    token: Token
    access: AccessToken
    info: AccessTokenInfo
    #: What `keep` sets.
    entry: CacheEntry
    home: Mapping[str, Any]
    cache_name: str
    cache: Any
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    due_on: float
    due_at: float
    #: While the wall clock shows a time in here, both clocks were read less than a second ago. After a suspension, or
    #: when it is set, it shows another one.
    sure_from: float
    sure_until: float

    #: How often it was served; None where nobody observes this process.
    served: observing.Count | None

    def __init__(self, token: Token, served: observing.Count | None) -> None:
        expires_on = int(token.expires_on)
        self.token = token
        self.served = served
        self.access = AccessToken(token.secret, expires_on)
        # Whoever asks again from then on finds the refresh begun, or done.
        refresh_on = min(math.ceil(token.obtained_on + token.due_after), expires_on)
        self.info = AccessTokenInfo(token.secret, expires_on, token_type=token.token_type, refresh_on=refresh_on)

    def keep(self, session: Session, entry: CacheEntry, *, at_most: float | None) -> bool:
        """Note what must stay as it is for this to be served again; return whether it may be at all.

        Args:
            session: Whose token it is.
            entry: The token's place.
            at_most: Seconds after which somebody is asked in any case; None for when a refresh is due.
        """
        cache = session.look_at_cache()
        if not session.watchable and cache is not None:  # others change it unseen
            return False
        clock, token = session.engine.clock, self.token
        self.entry, self.home, self.cache_name, self.cache = entry, session.home, session.cache_name, cache
        self.monotonic, self.wall = clock.monotonic, clock.wall
        self.due_on = token.obtained_on + token.due_after
        self.due_at = token.obtained_at + token.due_after
        if at_most is not None:
            self.due_at = min(self.due_at, clock.monotonic() + at_most)
        return self.is_fresh() and entry.token is token

    def stands(self) -> bool:
        """Return whether it may be served as it is, which it then is."""
        if (
            self.entry.token is self.token
            and (self.sure_from <= self.wall() < self.sure_until or self.is_fresh())
            and self.home[self.cache_name] is self.cache
        ):
            served = self.served
            if served is not None:
                served.count += 1
            return True
        return False

    def is_fresh(self) -> bool:
        """Return whether no refresh is due on either clock, and for how long that is sure by the wall clock alone."""
        wall = self.wall()
        left = min(self.due_on - wall, self.due_at - self.monotonic(), _SURE)
        self.sure_from, self.sure_until = wall, wall + left
        return left > 0


def prepared(token: Token, entry: CacheEntry | None) -> CachedAnswer:
    """Return the answer that a token is, counted where somebody observes this process."""
    observer = observing.observer
    if observer is None or entry is None:
        return CachedAnswer(token, None)
    return CachedAnswer(token, observer.served("token", request=entry.request))
