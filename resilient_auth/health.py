"""How the application stands: time to dark for every token, every breaker's state; and manual control of those."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from ._engine.cache import memories
from ._engine.exchange import under_way
from ._engine.lanes import LaneStatus
from ._engine.workers import lanes
from ._fleet.write_back import removals_pending
from ._policy.breaker import Breaker, BreakerStatus, breakers
from ._policy.endpoint import PLAIN, Endpoint, origin_of
from ._policy.freshness import Freshness, assess
from ._policy.key_reports import KeysHealth, reporters
from ._process import forks
from ._store.gate import StoreStatus, stores
from .errors import ConfigurationError
from .token import fingerprint

__all__ = ["Health", "KeysHealth", "LaneStatus", "TokenHealth", "health", "isolate", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHealth:
    """How one token stands."""

    #: The identity provider's origin, and the tenant, policy or realm there.
    authority: str
    tenant: str
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
    last_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the whole process stands. `str` of it is a report for a person."""

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

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with numbers rounded to milliseconds; it holds no token and no user's id."""
        return {**{field.name: _json(getattr(self, field.name)) for field in fields(self)}, "ready": self.ready}

    def __str__(self) -> str:
        return "\n".join(_report(self))


def _json(value: object) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, tuple):
        return [_json(each) for each in value]
    if is_dataclass(value):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    return value


def _report(health: Health) -> Iterator[str]:
    """Write the verdict first, then a line for whatever there is to tell."""
    time_left = "no token in use" if health.time_to_dark is None else f"{_span(health.time_to_dark)} to dark"
    yield f"{health.verdict.upper()}: {time_left}, {'ready' if health.ready else 'not ready'}"
    for token in health.tokens:
        whose = "" if token.subject is None else f" for {token.subject}"
        failed = f", {_times(token.failures)}, last with {token.last_code}" if token.last_code else ""
        left = f"{_span(token.time_to_dark)} left" if token.time_to_dark else "nothing left"
        what = f"{token.flow} {' '.join(token.scopes)}{whose} at {token.authority}/{token.tenant}".rstrip("/")
        yield f"  token {what}: {token.state}, {left}{failed}"
    for breaker in health.breakers:
        over = f" over {breaker.wire}" if breaker.wire else ""
        after = f" after {breaker.last_code}" if breaker.state != "closed" and breaker.last_code else ""
        probe = "" if breaker.retry_after is None else f"; next probe in {_span(breaker.retry_after)}"
        yield f"  circuit {breaker.name}{over}: {breaker.state}{after}{probe}"
    for keys in health.keys:
        age = "never fetched" if keys.age is None else f"fetched {_span(keys.age)} ago"
        failed = f", {_times(keys.failures)}, last with {keys.last_code}" if keys.last_code else ""
        held = f"{keys.keys} {keys.state}" if keys.keys else "none held"
        yield f"  signing keys of {keys.issuer}: {held}, {age}{failed}"
    for store in health.stores:
        failed = f" with {store.last_code}" if store.last_code else ""
        records = f", {store.unreadable} records unreadable" if store.unreadable else ""
        yield f"  store {store.target}: {store.state}{failed}{records}"
    for lane in health.lanes:
        yield f"  lane {lane.name}: {lane.active} under way, {lane.waiting} waiting, {lane.overdue} overdue"
    if health.removals_pending:
        yield f"  sign-outs not yet in a store: {health.removals_pending}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _times(failures: int) -> str:
    return f"failed {failures} time{'' if failures == 1 else 's'}"


def health() -> Health:
    """Return how every token and every breaker of this process stands, without a network call or a secret.

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
                    authority=origin_of(request.authority),
                    tenant=Endpoint.of(request.authority, PLAIN).realm,
                    client_id=request.client_id,
                    flow=request.flow,
                    scopes=request.scopes,
                    subject=None if request.subject is None else fingerprint(request.subject),
                    state=assess(token, wall, now, engine.settings.freshness).value,
                    time_to_dark=remaining,
                    pinned=entry.pinned,
                    failures=entry.failures + int(flight is not None and flight.last_error is not None),
                    last_code=None if entry.last_error is None else entry.last_error.code,
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
    """Stop all requests to an authority until `reset`: manual control, such as for a rehearsal (G26).

    Tokens that are valid are still served. Holds for this process.

    Args:
        authority: Its origin, such as `https://login.microsoftonline.com`; or an API's, or a store such as `redis`.

    Raises:
        ConfigurationError: No application of this process has asked it for anything yet.
    """
    for breaker in _breakers_of(authority):
        breaker.isolate()


def reset(authority: str) -> None:
    """End an isolation, or a break: requests to the authority may be sent again at once.

    Args:
        authority: As for `isolate`.

    Raises:
        ConfigurationError: No application of this process has asked it for anything yet.
    """
    for breaker in _breakers_of(authority):
        breaker.reset()


def _breakers_of(authority: str) -> list[Breaker]:
    forks.notice()
    known = breakers()
    found = [breaker for breaker in known if breaker.dependency.whom == authority.rstrip("/")]
    if not found:
        origins = ", ".join(sorted({breaker.dependency.whom for breaker in known})) or "none yet"
        raise ConfigurationError(f"authority must be one that was asked before ({origins}), not {authority!r}")
    return found


class _CallableModule(types.ModuleType):
    """A module that can be called, since importing it puts it in the place of the package's function of that name."""

    def __call__(self) -> Health:
        return health()


sys.modules[__name__].__class__ = _CallableModule
