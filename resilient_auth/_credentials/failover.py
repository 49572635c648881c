"""Failover between a credential's sources: which needn't be asked now, and what to tell when all have failed (G12)."""

from __future__ import annotations

from .._engine.exchange import under_way
from .._engine.recovery import refresh_in_background
from .._msal.plans import Plan
from ..errors import AcquisitionTimeout, ProviderUnavailable
from .request import CredentialRequest
from .sources import Source

__all__ = ["doubt", "known_failure", "worst"]


def known_failure(source: Source, plan: Plan, wanted: CredentialRequest) -> ProviderUnavailable | None:
    """Return why a source needn't be asked now; it goes on being asked in the background."""
    entry, engine = plan.entry, source.session.engine
    if entry is None or wanted.claims:
        return None
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    if entry.token is not None and entry.token.remaining(wall, now) > 0:
        return None
    flight = under_way(engine, entry)
    if flight is not None and flight.doubted:
        entry.asked_at = now
        still_waiting = AcquisitionTimeout(f"{source.name} hasn't answered yet", authority=source.name)
        return flight.last_error or entry.last_error or still_waiting
    error, renew = entry.last_error, entry.renew
    if error is None or renew is None:
        return None
    entry.asked_at = now
    refresh_in_background(engine, entry, renew)
    return error


def doubt(source: Source, plan: Plan) -> None:
    """Have nobody else wait for an exchange that one has waited for in vain."""
    flight = None if plan.entry is None else under_way(source.session.engine, plan.entry)
    if flight is not None:
        flight.doubted = True


def worst(failures: list[tuple[Source, ProviderUnavailable]]) -> ProviderUnavailable:
    """Choose the failure to tell: the last source's, which says when it makes sense to ask any of them again."""
    _, error = failures[-1]
    error.retry_after = min((f.retry_after for _, f in failures if f.retry_after is not None), default=None)
    for source, other in failures[:-1]:
        error.add_note(f"{source.name} was asked before: {other.code}")
    return error
