"""How a process stands, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from .._engine.lanes import LaneStatus
from .._policy.blame.verdict import Blame
from .._policy.circuit.status import BreakerStatus
from .._policy.key_reports import KeysHealth
from .._process.credential_ends import CredentialEnd
from .._process.write_reports import WritesHealth
from .._store.gate import StoreStatus
from .foreseen import Forecast
from .wording import as_json, at_time, span

__all__ = ["Health", "TokenHealth", "Verdict", "at_time", "span"]

Verdict = Literal["ok", "degraded", "at risk", "down"]


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
    #: Still valid, or asked for a moment ago and known to fail; others don't count for the verdict.
    in_use: bool = False
    #: Failed exchanges since the last success, one that is under way and has failed once included; and how the
    #: provider failed last, as an error's code.
    failures: int
    last_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the whole process stands. `str` of it is a report for a person."""

    #: "ok": nothing fails; a routine refresh is no failure. "degraded": something fails, and what is held lasts. "at
    #: risk": what is held ends within a quarter of an hour, and can't be renewed. "down": somebody who asks now gets
    #: nothing.
    verdict: Verdict
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
    #: Whose fault it is that something fails at an identity provider, as far as can be told; the one to look at first
    #: comes first.
    blame: tuple[Blame, ...] = ()
    #: When applications' certificates and secrets end; known while `resilient_auth.telemetry.watch` is on.
    credentials: tuple[CredentialEnd, ...] = ()
    #: The writes that are made in the background.
    writes: tuple[WritesHealth, ...] = ()
    #: Why the verdict is what it is, in plain words, the worst first. Where it is "ok" they tell at most of what will
    #: be trouble, such as a credential that ends in a few weeks.
    reasons: tuple[str, ...] = ()
    #: What goes dark when, if the providers died now. Stores are seen as `resilient_auth.forecast` has found them last.
    forecast: Forecast | None = None

    @property
    def ready(self) -> bool:
        """Return whether a readiness probe should pass: an outage with valid tokens in hand is no reason to stop."""
        return self.verdict != "down"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with numbers rounded to milliseconds; it holds no token and no user's id."""
        return {**{field.name: as_json(getattr(self, field.name)) for field in fields(self)}, "ready": self.ready}

    def __str__(self) -> str:
        return "\n".join(_report(self))


def _report(health: Health) -> Iterator[str]:
    """Write the verdict first, then a line for whatever there is to tell."""
    time_left = "no token in use" if health.time_to_dark is None else f"{span(health.time_to_dark)} to dark"
    yield f"{health.verdict.upper()}: {time_left}, {'ready' if health.ready else 'not ready'}"
    for reason in health.reasons:
        yield f"  {reason}"
    for blame in health.blame:
        over = f" over {blame.wire}" if blame.wire else ""
        whom = f" for {blame.client_id}" if blame.client_id else ""
        since = at_time(blame.since)
        yield f"  blame {blame.authority}{over}{whom}: {blame.what} since {since}, {'; '.join(blame.evidence)}"
    for token in health.tokens:
        whose = "" if token.subject is None else f" for {token.subject}"
        failed = f", {_times(token.failures)}, last with {token.last_code}" if token.last_code else ""
        left = f"{span(token.time_to_dark)} left" if token.time_to_dark else "nothing left"
        what = f"{token.flow} {' '.join(token.scopes)}{whose} at {token.authority}/{token.tenant}".rstrip("/")
        yield f"  token {what}: {token.state}, {left}{failed}"
    for breaker in health.breakers:
        over = f" over {breaker.wire}" if breaker.wire else ""
        after = f" after {breaker.last_code}" if breaker.state != "closed" and breaker.last_code else ""
        probe = "" if breaker.retry_after is None else f"; next probe in {span(breaker.retry_after)}"
        yield f"  circuit {breaker.name}{over}: {breaker.state}{after}{probe}"
    for keys in health.keys:
        age = "never fetched" if keys.age is None else f"fetched {span(keys.age)} ago"
        failed = f", {_times(keys.failures)}, last with {keys.last_code}" if keys.last_code else ""
        held = f"{keys.keys} {keys.state}" if keys.keys else "none held"
        yield f"  signing keys of {keys.issuer}: {held}, {age}{failed}"
    for store in health.stores:
        failed = f" with {store.last_code}" if store.last_code else ""
        records = f", {store.unreadable} records unreadable" if store.unreadable else ""
        yield f"  store {store.target}: {store.state}{failed}{records}"
    for lane in health.lanes:
        yield f"  lane {lane.name}: {lane.active} under way, {lane.waiting} waiting, {lane.overdue} overdue"
    if health.forecast is not None and health.forecast.parts:
        yield f"  if the provider died now: {health.forecast.headline}"
    for writes in health.writes:
        oldest = f", the oldest for {span(writes.oldest)}" if writes.pending else ""
        dead = f", {writes.dead} dead letters" if writes.dead else ""
        yield f"  writes {writes.name}: {writes.pending} waiting{oldest}{dead}"
    if health.removals_pending:
        yield f"  sign-outs not yet in a store: {health.removals_pending}"


def _times(failures: int) -> str:
    return f"failed {failures} time{'' if failures == 1 else 's'}"
