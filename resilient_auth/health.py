"""How the application stands: time to dark for every token, every breaker's state, and an operator's hand on those."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Literal

from ._engine.cache import memories
from ._engine.refresh import under_way
from ._engine.workers import LaneStatus, lanes
from ._fleet.accounts import removals_pending
from ._policy.breaker import Breaker, BreakerStatus, breakers
from ._policy.freshness import Freshness, assess
from ._policy.key_reports import KeysHealth, reporters
from ._process import forks
from ._store.gate import StoreStatus, stores
from .errors import ConfigurationError
from .token import fingerprint

__all__ = ["Health", "KeysHealth", "LaneStatus", "TokenHealth", "health", "isolate", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHealth:
    """Return how one token stands."""

    authority: str
    client_id: str
    flow: str
    scopes: tuple[str, ...]
    #: A hash of whose token it is; None for the application's own.
    subject: str | None
    state: Literal["fresh", "due", "expiring", "expired"]
    #: Seconds until there is nothing valid left to serve.
    time_to_dark: float
    #: Refreshed ahead without traffic.
    pinned: bool
    #: Failed exchanges since the last success, one that is under way and has failed once included; and how the
    #: provider failed last, as an error's code.
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Return how the whole process stands."""

    #: "ok": all is fresh and closed; "degraded": something is due, failing or open, and every token that was asked for
    #: is still valid; "dark": somebody who asks now gets nothing.
    verdict: Literal["ok", "degraded", "dark"]
    #: Seconds until the first token that is in use goes dark; None when none is held.
    time_to_dark: float | None
    tokens: tuple[TokenHealth, ...]
    breakers: tuple[BreakerStatus, ...]
    #: The stores that are open. One that fails leaves the verdict at "degraded": tokens come from memory.
    stores: tuple[StoreStatus, ...] = ()
    #: Sign-outs that the stores couldn't be told of yet.
    removals_pending: int = 0
    #: The signing keys with which tokens are verified, issuer by issuer.
    keys: tuple[KeysHealth, ...] = ()
    #: The lanes in which exchanges and calls of stores are under way, or from which some haven't come back.
    lanes: tuple[LaneStatus, ...] = ()

    @property
    def ready(self) -> bool:
        """Return whether a readiness probe should pass: an outage with valid tokens in hand is no reason to stop."""
        return self.verdict != "dark"


def health() -> Health:
    """Look at every token and every breaker of this process. Nothing is asked of anybody, no secret is told.

    No lock is waited for: the handler of a signal may call it, whatever it has interrupted.
    """
    forks.notice()
    tokens: list[TokenHealth] = []
    in_use: list[float] = []
    for memory in memories():
        engine = memory.engine
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        for entry in memory:
            token, request = entry.token, entry.request
            if token is None and entry.last_error is None:
                continue
            flight = under_way(engine, entry)
            remaining = 0.0 if token is None else max(0.0, token.remaining(wall, now))
            wanted = entry.pinned or now - entry.asked_at <= engine.settings.keep_trying
            # One that ran out unasked is no trouble: whoever asks next gets a new one, unless that is known to fail.
            if remaining > 0 or (wanted and entry.last_error is not None):
                in_use.append(remaining)
            tokens.append(
                TokenHealth(
                    authority=request.authority,
                    client_id=request.client_id,
                    flow=request.flow,
                    scopes=request.scopes,
                    subject=None if request.subject is None else fingerprint(request.subject),
                    state=assess(token, wall, now, engine.settings.freshness).value,
                    time_to_dark=remaining,
                    pinned=entry.pinned,
                    failures=entry.failures + int(flight is not None and flight.last_error is not None),
                    last_error=None if entry.last_error is None else entry.last_error.code,
                )
            )
    removals = removals_pending()
    states = tuple(breaker.status() for breaker in breakers())
    kept = stores()
    keys = tuple(reporter.report() for reporter in reporters.all())
    busy = tuple(lanes())
    # Keys that nobody has needed yet are no trouble.
    dark = any(remaining <= 0 for remaining in in_use) or any(k.state == "none" and k.failures for k in keys)
    troubled = (
        any(status.state != "closed" for status in states)
        or any(token.state in (Freshness.DUE.value, Freshness.EXPIRING.value) for token in tokens)
        or any(token.failures for token in tokens)
        or any(store.state != "ok" for store in kept)
        or removals
        or any(lane.overdue for lane in busy)
        or any(issuer.failures or issuer.state == "stale" for issuer in keys)
    )
    return Health(
        verdict="dark" if dark else "degraded" if troubled else "ok",
        time_to_dark=min(in_use, default=None),
        tokens=tuple(tokens),
        breakers=states,
        stores=tuple(kept),
        removals_pending=removals,
        keys=keys,
        lanes=busy,
    )


def isolate(authority: str) -> None:
    """Ask an authority nothing more until `reset`: an operator's decision, such as for a rehearsal (G26).

    Tokens that are valid are still served. Holds for this process.

    Args:
        authority: Its origin, such as `https://login.microsoftonline.com`.

    Raises:
        ConfigurationError: No application of this process has asked it for a token yet.
    """
    for breaker in _breakers_of(authority):
        breaker.isolate()


def reset(authority: str) -> None:
    """Take an isolation back, or a break: the authority may be asked again at once.

    Args:
        authority: Its origin, such as `https://login.microsoftonline.com`.

    Raises:
        ConfigurationError: No application of this process has asked it for a token yet.
    """
    for breaker in _breakers_of(authority):
        breaker.reset()


def _breakers_of(authority: str) -> list[Breaker]:
    forks.notice()
    known = breakers()
    found = [breaker for breaker in known if breaker.authority == authority.rstrip("/")]
    if not found:
        origins = ", ".join(sorted({breaker.authority for breaker in known})) or "none yet"
        raise ConfigurationError(f"authority must be one that was asked for a token ({origins}), not {authority!r}")
    return found


class _CallableModule(types.ModuleType):
    """Whoever imports this module puts it in the place of the package's function of the same name."""

    def __call__(self) -> Health:
        return health()


sys.modules[__name__].__class__ = _CallableModule
