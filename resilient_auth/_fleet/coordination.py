"""One exchange for a whole fleet: look at what others have, ask alone, tell the others (G5, G8, G11).

                    ┌─ another process has obtained it ───────────────▶ serve that
look at the store ──┼─ others have seen the provider fail ────────────▶ leave it alone; one of all goes first again
                    └─ neither ─▶ take the lease ─┬─ had ─▶ exchange ─▶ write the token or the failure, end the lease
                             ▲                    └─ another's ─▶ wait for its result, or for its end
                             └── lost before an attempt ◀── exchange

A store that fails is no store: what is then decided is decided alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from .._engine.single_flight import Flight, LeaseLost, Outcome
from .._policy.freshness import Freshness, assess, due_after
from .._policy.levels import ProviderRequest
from ..errors import (
    AcquisitionTimeout,
    CircuitOpen,
    LocalResourcesExhausted,
    Overloaded,
    ProviderUnavailable,
    StoreUnavailable,
    Throttled,
)
from ..settings import LEASE_SPARE
from ..token import Token, TokenRequest, fingerprint
from .accounts import SharedCache
from .user_record import UserRecord, token_key

if TYPE_CHECKING:
    from .._engine.cache import CacheEntry, Exchange
    from .._engine.engine import Engine
    from ..store import Lease
    from .records import Hint

__all__ = ["LOOK_AGAIN", "look", "shared", "throttled"]

#: Seconds after which the store is looked at again for a token while its provider may not be asked.
LOOK_AGAIN = 1.0
#: Seconds after a back-off for which its lease lasts: enough to begin the next attempt.
_AFTER_BACK_OFF = 2.0
#: Seconds between two looks at a lease that another process holds; they grow.
_POLLS = (0.02, 0.05, 0.1, 0.2, 0.4)
#: Seconds after which those who left the first step to another process look again.
_AFTER_PROBE = (1.0, 3.0)
#: Seconds by which a hint is shorter than what it tells of, so that its own process isn't held up by it.
_HINT_SLACK = 0.25


def look(engine: Engine, entry: CacheEntry, shared_cache: SharedCache, *, reuse: bool = True) -> Outcome | None:
    """Look at what the fleet knows of a token, and of those who could give it.

    Args:
        engine: Whose store is used.
        entry: Whose token.
        shared_cache: The application's place in that store.
        reuse: As for `shared`.

    Returns:
        A token that another process, or this one in an earlier life, has obtained, where it is better than what is
        held. Else why no exchange should begin now, as far as this process or another one knows. Else None.
    """
    entry.looked_at = engine.clock.monotonic()
    user_record: UserRecord | None = None
    hints: Mapping[str, Hint] = {}
    names = [name for asked in entry.ways for name in _hint_names(shared_cache, asked)]
    with suppress(StoreUnavailable):
        user_record, hints = shared_cache.look(entry.request.subject, names, entry.request)
    entry.hints = tuple(hints)
    found = None if user_record is None or not reuse else _better(engine, entry, shared_cache, user_record)
    if found is not None:
        return Outcome(found, stored=True)
    refusal = _refusal(engine, entry, shared_cache, hints)
    return None if refusal is None else Outcome(error=refusal, refused=True)


def _better(engine: Engine, entry: CacheEntry, shared_cache: SharedCache, user_record: UserRecord) -> Token | None:
    """Find a token that is better than what is held."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    found = user_record.find(entry.request, wall, now)
    if found is None and entry.request.flow == "silent":
        found = _users_token(engine, user_record, entry, shared_cache, wall, now)
    if found is None or fingerprint(found.secret) == entry.refused:
        return None
    held = entry.token
    if held is not None and held.remaining(wall, now) > 0:
        fresh = assess(found, wall, now, engine.settings.freshness) is Freshness.FRESH
        if not fresh or found.secret == held.secret:
            return None
    return found


def _users_token(
    engine: Engine, user_record: UserRecord, entry: CacheEntry, shared_cache: SharedCache, wall: float, now: float
) -> Token | None:
    """Find a user's token among the entries of MSAL's cache."""
    settings = engine.settings.freshness
    msal_entry = user_record.find_entry(entry.request, wall, shared_cache.owns)
    if msal_entry is None:
        return entry.read() if entry.read is not None else None
    life = float(msal_entry["expires_on"]) - wall
    # A wall clock that was set back since makes no token live longer than it was given for.
    whole = (
        life
        if "cached_at" not in msal_entry
        else max(1.0, float(msal_entry["expires_on"]) - float(msal_entry["cached_at"]))
    )
    life = min(life, whole)
    refresh_in = float(msal_entry["refresh_on"]) - wall + (whole - life) if "refresh_on" in msal_entry else None
    due = due_after(whole, None if refresh_in is None else max(0.0, refresh_in), settings, engine.jitter)
    return Token(
        secret=str(msal_entry["secret"]),
        token_type=str(msal_entry.get("token_type", "Bearer")),
        obtained_on=wall - (whole - life),
        obtained_at=now - (whole - life),
        life=whole,
        due_after=due,
        refresh_on=int(msal_entry["refresh_on"]) if "refresh_on" in msal_entry else None,
    )


def _refusal(
    engine: Engine, entry: CacheEntry, shared_cache: SharedCache, hints: Mapping[str, Hint]
) -> ProviderUnavailable | None:
    """Return why no exchange should begin now, as far as this process or another one of the fleet knows."""
    alone = engine.refusal(entry.ways)
    if alone is not None:
        return alone
    told: ProviderUnavailable | None = None
    for asked in entry.ways:
        left = [hints[n] for n in _hint_names(shared_cache, asked) if n in hints and hints[n].left > 0]
        if not left:
            return None
        last = max(left, key=lambda hint: hint.left)
        kind = Throttled if last.code == Throttled.code else CircuitOpen
        told = kind(
            f"{asked.endpoint}: next request in {last.left:.0f} s, since another process saw "
            f"{last.code} ({last.detail})",
            authority=asked.endpoint.origin,
            retry_after=last.left,
        )
    return told


def _hint_names(shared_cache: SharedCache, asked: ProviderRequest) -> tuple[str, ...]:
    """Name what may be known of an authority: that it fails for this very token, or for its grant at this tenant, or as
    such; that it throttles.

    Nothing is known over a wire of which other processes can't tell whether theirs is like it.
    """
    endpoint, request, wire = asked.endpoint, asked.request, asked.endpoint.wire.fleet
    if wire is None or request is None:
        return ()
    return (
        f"{endpoint.origin} over {wire} {shared_cache.name(request.subject)} {_digest(request)}",
        f"{endpoint.origin}/{endpoint.realm} over {wire} {asked.purpose.value} by {asked.grant}",
        f"{endpoint.origin} over {wire} {asked.purpose.value}",
        *filter(None, (throttled(asked), throttled(asked, whole=True))),
    )


def _digest(request: TokenRequest) -> str:
    """Name a request by all that tells it from others, at a length that every store takes."""
    return fingerprint(token_key(request))


def throttled(asked: ProviderRequest, *, whole: bool = False) -> str | None:
    """Name the hint that patience was asked for; None where nobody else could go by it.

    Args:
        asked: What was throttled.
        whole: Whether all of the application's requests are meant.
    """
    endpoint, wire = asked.endpoint, asked.endpoint.wire.fleet
    if wire is None:
        return None
    party = asked.party
    who = None if whole else _digest(party) if isinstance(party, TokenRequest) else str(party)
    return f"throttled {json.dumps([endpoint.origin, endpoint.realm, wire, asked.client_id, who])}"


def shared(
    engine: Engine, entry: CacheEntry, shared_cache: SharedCache, exchange: Exchange, *, reuse: bool
) -> Exchange:
    """Make an exchange of a fleet out of one.

    Args:
        engine: Whose store is used.
        entry: Whose token.
        shared_cache: The application's place in that store.
        exchange: How to ask the provider.
        reuse: Whether a token that another process obtains meanwhile will do: not after a claims challenge.
    """

    def run(flight: Flight) -> Outcome:
        while True:
            turn = _Turn(engine, shared_cache)
            try:
                return _exchange(engine, entry, shared_cache, exchange, flight, turn, reuse=reuse)
            except _Found as another:
                return another.outcome
            except LeaseLost:
                # Another process may ask by now: what it gets will do here too.
                if engine.clock.monotonic() >= flight.deadline:
                    raise _not_in_time(entry) from None
            finally:
                turn.end()

    return run


def _exchange(
    engine: Engine,
    entry: CacheEntry,
    shared_cache: SharedCache,
    exchange: Exchange,
    flight: Flight,
    turn: _Turn,
    *,
    reuse: bool,
) -> Outcome:
    """Make an exchange when it is this process's turn.

    Raises:
        _Found: Another process has made it meanwhile, or has seen the provider fail.
        LeaseLost: Another process may make it by now.
    """
    if not reuse or engine.clock.monotonic() - entry.looked_at > LOOK_AGAIN:
        _look_for_others(engine, entry, shared_cache, reuse=reuse)
    turn.first = _go_first(engine, entry, shared_cache)
    turn.take(_take_turn(engine, entry, shared_cache, flight, reuse=reuse))
    # Whoever had the lease before may just have written what is wanted here, or used up the refresh token.
    _look_for_others(engine, entry, shared_cache, reuse=reuse)
    flight.on_back_off, flight.before_attempt = turn.hold_on, turn.may_attempt
    used = shared_cache.refresh_tokens(entry.request.subject)
    outcome = _ask(engine, entry, shared_cache, exchange, flight, turn.fence)
    again = outcome.denied and _has_rotated(entry, shared_cache, used)
    return _ask(engine, entry, shared_cache, exchange, flight, turn.fence) if again else outcome


class _Turn:
    """The leases under which one exchange is made: on its token and, after a failure, on going first."""

    def __init__(self, engine: Engine, shared_cache: SharedCache) -> None:
        self._stored = shared_cache.stored
        self._now = engine.clock.monotonic
        self._attempt = engine.settings.attempt_timeout
        #: None where the store failed: then each process decides alone.
        self._lease: Lease | None = None
        #: Monotonic time at which it ends, unless it was lost before.
        self._until = 0.0
        self.first: Lease | None = None

    @property
    def fence(self) -> int:
        """That of the lease; 0 for none."""
        return 0 if self._lease is None else self._lease.fence

    def take(self, lease: tuple[Lease, float] | None) -> None:
        """Have taken a lease, which ends at the given monotonic time."""
        self._lease, self._until = (None, 0.0) if lease is None else lease

    def may_attempt(self) -> bool:
        """Return whether an attempt may begin; if so, no other process makes one before it has ended."""
        if self._lease is None or self._until - self._now() >= self._attempt + LEASE_SPARE / 2:
            return True
        return self._renew(self._attempt + LEASE_SPARE)

    def hold_on(self, seconds: float) -> None:
        """Keep the leases through a back-off, which is everybody's: no other process asks sooner (G9, G10)."""
        self._renew(max(self._attempt + LEASE_SPARE, seconds + _AFTER_BACK_OFF))

    def _renew(self, seconds: float) -> bool:
        until = self._now() + seconds
        try:
            kept = self._lease is not None and self._stored.store.renew(self._lease, seconds) is not None
            if self.first is not None:
                self._stored.store.renew(self.first, seconds)
        except StoreUnavailable:
            # Not known to be lost, and not renewed: it is good for what is left of it.
            return self._until - self._now() >= self._attempt
        self._until = until if kept else 0.0
        return kept

    def end(self) -> None:
        """End the leases."""
        for lease in (self._lease, self.first):
            if lease is not None:
                self._stored.release(lease)


def _look_for_others(engine: Engine, entry: CacheEntry, shared_cache: SharedCache, *, reuse: bool) -> None:
    """Look whether this exchange is needed, and may be made.

    Raises:
        _Found: It isn't, or mayn't.
    """
    found = look(engine, entry, shared_cache, reuse=reuse)
    if found is not None:
        raise _Found(found)


def _has_rotated(entry: CacheEntry, shared_cache: SharedCache, used: frozenset[str]) -> bool:
    """Return whether a refresh token was refused because another process, which took us for dead, has used it."""
    if entry.request.flow != "silent":
        return False
    with suppress(StoreUnavailable):
        return (
            shared_cache.load(entry.request.subject) is not None
            and shared_cache.refresh_tokens(entry.request.subject) != used
        )
    return False


class _Found(Exception):
    """Another process has the token, or knows why nobody should ask for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _ask(
    engine: Engine, entry: CacheEntry, shared_cache: SharedCache, exchange: Exchange, flight: Flight, fence: int
) -> Outcome:
    """Ask the provider, and tell the others how that went."""
    request = entry.request
    on_behalf = request.flow == "on_behalf_of"
    generation = entry.generation
    kept: Token | None = None
    try:
        with shared_cache.discarding() if on_behalf else shared_cache.saving_later():
            outcome = exchange(flight)
        kept = outcome.token if entry.generation == generation else None
    except (CircuitOpen, Throttled, Overloaded, AcquisitionTimeout, LocalResourcesExhausted):
        raise  # the transport has told of a throttling; the others say nothing about the provider
    except ProviderUnavailable as error:
        _tell(engine, entry, shared_cache, error)
        raise
    finally:
        # Before the lease ends, however it ended: a refresh token that was rotated must be found by the next one.
        with suppress(StoreUnavailable):
            shared_cache.save(request.subject, request, kept, anew=on_behalf, fence=fence)
    if outcome.result is None and outcome.token is None and not shared_cache.knows(request.subject):
        raise ProviderUnavailable(
            "it is unknown whether this account is signed in: it isn't in memory, and the store is unavailable",
            authority=entry.authorities[0].origin,
            retry_after=LOOK_AGAIN,
        )
    for name in entry.hints:
        shared_cache.stored.clear_hint(name)
    entry.hints = ()
    return outcome


def _tell(engine: Engine, entry: CacheEntry, shared_cache: SharedCache, error: ProviderUnavailable) -> None:
    """Let the other processes know that the provider fails, so that they needn't each find out."""
    ways = entry.ways
    asked = next((way for way in ways if way.endpoint.origin == error.authority), ways[0])
    now = engine.clock.monotonic()
    least = max(error.retry_after or 0.0, engine.settings.retry.first_delay)
    site, kind, request = engine.levels.stand(asked)
    # A failure is this token's affair; a wider breaker that opens is all of theirs who go by it.
    times = max((at for at in (site, kind, request) if at is not None), default=now), kind, site
    for name, opens_at in zip(_hint_names(shared_cache, asked), times, strict=False):
        if opens_at is not None:
            seconds = max(least, opens_at - now)
            shared_cache.stored.post_hint(name, seconds - _HINT_SLACK, error.code, error.message)


def _go_first(engine: Engine, entry: CacheEntry, shared_cache: SharedCache) -> Lease | None:
    """After a failure that the fleet knows of, let one process of all ask first.

    Raises:
        CircuitOpen: Another one does.
    """
    tokens_own = {name for asked in entry.ways for name in _hint_names(shared_cache, asked)[:1]}
    everybodys = [name for name in entry.hints if name not in tokens_own]
    if not everybodys:
        return None  # the lease on this token is enough
    try:
        lease = shared_cache.stored.store.lease(f"probe {everybodys[0]}", engine.settings.attempt_timeout + LEASE_SPARE)
    except StoreUnavailable:
        return None
    if lease is None:
        authority = entry.authorities[0].origin
        raise CircuitOpen(
            f"{authority}: circuit open; another process is probing it",
            authority=authority,
            retry_after=engine.jitter(*_AFTER_PROBE),
        )
    return lease


def _take_turn(
    engine: Engine, entry: CacheEntry, shared_cache: SharedCache, flight: Flight, *, reuse: bool
) -> tuple[Lease, float] | None:
    """Take the lease on an exchange, or wait while another process has it. None: the store fails, go alone.

    Returns:
        The lease, and the monotonic time at which it ends.

    Raises:
        _Found: The other one has obtained it meanwhile, or has seen the provider fail.
        AcquisitionTimeout: There is no time left.
    """
    request = entry.request
    # Two exchanges with one refresh token must not overlap; others needn't wait for each other.
    silent = request.flow == "silent"
    name = (
        shared_cache.users_name(request.subject)
        if silent
        else f"{shared_cache.name(request.subject)} {_digest(request)}"
    )
    clock, seconds = engine.clock, engine.settings.attempt_timeout + LEASE_SPARE
    turn = 0
    try:
        while True:
            until = clock.monotonic() + seconds
            lease = shared_cache.stored.store.lease(f"exchange {name}", seconds)
            if lease is not None:
                return lease, until
            pause = engine.jitter(0.5, 1.5) * _POLLS[min(turn, len(_POLLS) - 1)]
            turn += 1
            if clock.monotonic() + pause >= flight.deadline:
                raise _not_in_time(entry)
            _pause(clock.wait, clock.monotonic, pause)
            _look_for_others(engine, entry, shared_cache, reuse=reuse)
    except StoreUnavailable:
        return None


def _not_in_time(entry: CacheEntry) -> AcquisitionTimeout:
    endpoint = entry.authorities[0]
    return AcquisitionTimeout(
        f"deadline exceeded waiting for another process that is requesting this token from {endpoint}",
        authority=endpoint.origin,
    )


def _pause(wait: Callable[..., bool], monotonic: Callable[[], float], seconds: float) -> None:
    done = threading.Condition(threading.Lock())
    ends = monotonic() + seconds
    with done:
        while (left := ends - monotonic()) > 0:
            wait(done, left)
