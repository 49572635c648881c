"""How the application stands: time to dark for every token, every breaker's state; and manual control of those."""

from __future__ import annotations

import sys
import time
import types

from .._engine.cache import memories
from .._engine.exchange import under_way
from .._engine.lanes import LaneStatus
from .._engine.workers import lanes
from .._fleet.write_back import removals_pending
from .._policy.blame.sightings import blames
from .._policy.blame.verdict import Blame
from .._policy.breaker import Breaker, breakers
from .._policy.freshness import assess
from .._policy.key_reports import KeysHealth, reporters
from .._process import credential_ends, forks, session_ends
from .._process.write_reports import WritesHealth, write_reporters
from .._store.gate import stores
from ..errors import ConfigurationError
from ..token import fingerprint
from .foreseen import Advice, Forecast, GoesDark, foresee
from .standing import Health, TokenHealth
from .survival import holdings_of, stores_age, take_stock, whom
from .verdict import Seen, beside_stores, judge

__all__ = [
    "Advice",
    "Blame",
    "Forecast",
    "GoesDark",
    "Health",
    "KeysHealth",
    "LaneStatus",
    "TokenHealth",
    "WritesHealth",
    "forecast",
    "health",
    "isolate",
    "reset",
]


def health() -> Health:
    """Return how every token and every breaker of this process stands, without a network call or a secret.

    No lock is waited for: the handler of a signal may call it, whatever it has interrupted.
    """
    forks.notice()
    tokens: list[TokenHealth] = []
    at: float | None = None
    for memory in memories():
        engine = memory.engine
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        at = wall if at is None else at
        for entry in () if memory.closed else memory:  # what its owner has closed is asked for by nobody
            token, request = entry.token, entry.request
            if token is None and entry.last_error is None:
                continue
            flight, (authority, tenant) = under_way(engine, entry), whom(request.authority)
            remaining = 0.0 if token is None else max(0.0, token.remaining(wall, now))
            wanted = entry.pinned or now - entry.asked_at <= engine.settings.keep_trying
            tokens.append(
                TokenHealth(
                    authority=authority,
                    tenant=tenant,
                    client_id=request.client_id,
                    flow=request.flow,
                    scopes=request.scopes,
                    subject=None if request.subject is None else fingerprint(request.subject),
                    state=assess(token, wall, now, engine.settings.freshness).value,
                    time_to_dark=remaining,
                    pinned=entry.pinned,
                    # One that ran out unasked is no trouble: whoever asks next gets a new one, unless that is known
                    # to fail.
                    in_use=remaining > 0 or (wanted and entry.last_error is not None),
                    failures=entry.failures + int(flight is not None and flight.last_error is not None),
                    last_code=None if entry.last_error is None else entry.last_error.code,
                )
            )
    held = tuple(stores())
    seen = Seen(
        at=time.time() if at is None else at,
        tokens=tuple(tokens),
        breakers=tuple(breaker.status() for breaker in breakers()),
        blame=tuple(beside_stores(blame, held) for blame in blames()),
        stores=held,
        removals_pending=removals_pending(),
        keys=tuple(reporter.report() for reporter in reporters.all()),
        lanes=tuple(lanes()),
        credentials=tuple(end for one in credential_ends.reporters.all() for end in one.credential_ends()),
        writes=tuple(sorted((one.report() for one in write_reporters.all()), key=lambda each: each.name)),
    )
    verdict, reasons = judge(seen)
    return Health(
        verdict=verdict,
        reasons=reasons,
        time_to_dark=min((token.time_to_dark for token in tokens if token.in_use), default=None),
        tokens=seen.tokens,
        breakers=seen.breakers,
        blame=seen.blame,
        stores=seen.stores,
        removals_pending=seen.removals_pending,
        keys=seen.keys,
        lanes=seen.lanes,
        credentials=seen.credentials,
        forecast=foresee(
            [holding for memory in memories() for holding in holdings_of(memory)],
            [keys for one in reporters.all() if (keys := one.foreseen()) is not None],
            [ends for one in session_ends.reporters.all() for ends in one.session_ends()],
            at=seen.at,
            stores_age=stores_age(),
        ),
        writes=seen.writes,
    )


def forecast() -> Forecast:
    """Return what goes dark when, if the providers died now; the stores are looked into for it.

    It may block for as long as they allow. `health().forecast` is the same without another look, and never blocks.
    """
    take_stock()
    found = health().forecast
    assert found is not None  # noqa: S101 - health has it
    return found


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
    if not isinstance(authority, str):
        raise ConfigurationError(
            f"authority must be an origin, such as https://login.microsoftonline.com, not {type(authority).__name__}"
        )
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
