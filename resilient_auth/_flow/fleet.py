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

from .._policy.freshness import Freshness, assess, due_after
from .._policy.levels import Asked
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
from .partition import Partition, token_key
from .shelf import Shelf
from .single_flight import Flight, LeaseLost, Outcome

if TYPE_CHECKING:
    from ..store import Lease
    from .engine import Engine
    from .memory import Exchange, Slot
    from .stored import Hint

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


def look(engine: Engine, slot: Slot, shelf: Shelf, *, reuse: bool = True) -> Outcome | None:
    """Look at what the fleet knows of a token, and of those who could give it.

    Args:
        engine: Whose store is used.
        slot: Whose token.
        shelf: The application's place in that store.
        reuse: As for `shared`.

    Returns:
        A token that another process, or this one in an earlier life, has obtained, where it is better than what is
        held. Else why no exchange should begin now, as far as this process or another one knows. Else None.
    """
    slot.looked_at = engine.clock.monotonic()
    partition: Partition | None = None
    hints: Mapping[str, Hint] = {}
    names = [name for asked in slot.ways for name in _hint_names(shelf, asked)]
    with suppress(StoreUnavailable):
        partition, hints = shelf.look(slot.request.subject, names, slot.request)
    slot.hints = tuple(hints)
    found = None if partition is None or not reuse else _better(engine, slot, shelf, partition)
    if found is not None:
        return Outcome(found, stored=True)
    refusal = _refusal(engine, slot, shelf, hints)
    return None if refusal is None else Outcome(error=refusal, refused=True)


def _better(engine: Engine, slot: Slot, shelf: Shelf, partition: Partition) -> Token | None:
    """Find a token that is better than what is held."""
    wall, now = engine.clock.wall(), engine.clock.monotonic()
    found = partition.find(slot.request, wall, now)
    if found is None and slot.request.flow == "silent":
        found = _users_token(engine, partition, slot, shelf, wall, now)
    if found is None or fingerprint(found.secret) == slot.refused:
        return None
    held = slot.token
    if held is not None and held.remaining(wall, now) > 0:
        fresh = assess(found, wall, now, engine.settings.freshness) is Freshness.FRESH
        if not fresh or found.secret == held.secret:
            return None
    return found


def _users_token(
    engine: Engine, partition: Partition, slot: Slot, shelf: Shelf, wall: float, now: float
) -> Token | None:
    """Find a user's token among the entries of MSAL's cache."""
    settings = engine.settings.freshness
    entry = partition.find_entry(slot.request, wall, shelf.owns)
    if entry is None:
        return slot.read() if slot.read is not None else None
    life = float(entry["expires_on"]) - wall
    # A wall clock that was set back since makes no token live longer than it was given for.
    whole = life if "cached_at" not in entry else max(1.0, float(entry["expires_on"]) - float(entry["cached_at"]))
    life = min(life, whole)
    refresh_in = float(entry["refresh_on"]) - wall + (whole - life) if "refresh_on" in entry else None
    due = due_after(whole, None if refresh_in is None else max(0.0, refresh_in), settings, engine.jitter)
    return Token(
        secret=str(entry["secret"]),
        token_type=str(entry.get("token_type", "Bearer")),
        obtained_on=wall - (whole - life),
        obtained_at=now - (whole - life),
        life=whole,
        due_after=due,
        refresh_on=int(entry["refresh_on"]) if "refresh_on" in entry else None,
    )


def _refusal(engine: Engine, slot: Slot, shelf: Shelf, hints: Mapping[str, Hint]) -> ProviderUnavailable | None:
    """Return why no exchange should begin now, as far as this process or another one of the fleet knows."""
    alone = engine.refusal(slot.ways)
    if alone is not None:
        return alone
    told: ProviderUnavailable | None = None
    for asked in slot.ways:
        left = [hints[n] for n in _hint_names(shelf, asked) if n in hints and hints[n].left > 0]
        if not left:
            return None
        last = max(left, key=lambda hint: hint.left)
        kind = Throttled if last.code == Throttled.code else CircuitOpen
        told = kind(
            f"{asked.endpoint} isn't asked for {last.left:.0f} s more: another process has been told {last.code} "
            f"({last.detail})",
            authority=asked.endpoint.origin,
            retry_after=last.left,
        )
    return told


def _hint_names(shelf: Shelf, asked: Asked) -> tuple[str, ...]:
    """Name what may be known of an authority: that it fails for this very token, or for its grant at this tenant, or as
    such; that it throttles.

    Nothing is known over a wire of which other processes can't tell whether theirs is like it.
    """
    endpoint, request, wire = asked.endpoint, asked.request, asked.endpoint.wire.fleet
    if wire is None or request is None:
        return ()
    return (
        f"{endpoint.origin} over {wire} {shelf.name(request.subject)} {_digest(request)}",
        f"{endpoint.origin}/{endpoint.realm} over {wire} {asked.purpose.value} by {asked.grant}",
        f"{endpoint.origin} over {wire} {asked.purpose.value}",
        *filter(None, (throttled(asked), throttled(asked, whole=True))),
    )


def _digest(request: TokenRequest) -> str:
    """Name a request by all that tells it from others, at a length that every store takes."""
    return fingerprint(token_key(request))


def throttled(asked: Asked, *, whole: bool = False) -> str | None:
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


def shared(engine: Engine, slot: Slot, shelf: Shelf, exchange: Exchange, *, reuse: bool) -> Exchange:
    """Make an exchange of a fleet out of one.

    Args:
        engine: Whose store is used.
        slot: Whose token.
        shelf: The application's place in that store.
        exchange: How to ask the provider.
        reuse: Whether a token that another process obtains meanwhile will do: not after a claims challenge.
    """

    def run(flight: Flight) -> Outcome:
        while True:
            turn = _Turn(engine, shelf)
            try:
                return _exchange(engine, slot, shelf, exchange, flight, turn, reuse=reuse)
            except _Found as another:
                return another.outcome
            except LeaseLost:
                # Another process may ask by now: what it gets will do here too.
                if engine.clock.monotonic() >= flight.deadline:
                    raise _not_in_time(slot) from None
            finally:
                turn.end()

    return run


def _exchange(
    engine: Engine, slot: Slot, shelf: Shelf, exchange: Exchange, flight: Flight, turn: _Turn, *, reuse: bool
) -> Outcome:
    """Make an exchange when it is this process's turn.

    Raises:
        _Found: Another process has made it meanwhile, or has seen the provider fail.
        LeaseLost: Another process may make it by now.
    """
    if not reuse or engine.clock.monotonic() - slot.looked_at > LOOK_AGAIN:
        _look_for_others(engine, slot, shelf, reuse=reuse)
    turn.first = _go_first(engine, slot, shelf)
    turn.take(_take_turn(engine, slot, shelf, flight, reuse=reuse))
    # Whoever had the lease before may just have written what is wanted here, or used up the refresh token.
    _look_for_others(engine, slot, shelf, reuse=reuse)
    flight.on_back_off, flight.before_attempt = turn.hold_on, turn.may_attempt
    used = shelf.refresh_tokens(slot.request.subject)
    outcome = _ask(engine, slot, shelf, exchange, flight, turn.fence)
    again = outcome.denied and _has_rotated(slot, shelf, used)
    return _ask(engine, slot, shelf, exchange, flight, turn.fence) if again else outcome


class _Turn:
    """The leases under which one exchange is made: on its token and, after a failure, on going first."""

    def __init__(self, engine: Engine, shelf: Shelf) -> None:
        self._stored = shelf.stored
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


def _look_for_others(engine: Engine, slot: Slot, shelf: Shelf, *, reuse: bool) -> None:
    """Look whether this exchange is needed, and may be made.

    Raises:
        _Found: It isn't, or mayn't.
    """
    found = look(engine, slot, shelf, reuse=reuse)
    if found is not None:
        raise _Found(found)


def _has_rotated(slot: Slot, shelf: Shelf, used: frozenset[str]) -> bool:
    """Tell whether a refresh token was refused since another process, which took us for dead, has used it meanwhile."""
    if slot.request.flow != "silent":
        return False
    with suppress(StoreUnavailable):
        return shelf.load(slot.request.subject) is not None and shelf.refresh_tokens(slot.request.subject) != used
    return False


class _Found(Exception):
    """Another process has the token, or knows why nobody should ask for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _ask(engine: Engine, slot: Slot, shelf: Shelf, exchange: Exchange, flight: Flight, fence: int) -> Outcome:
    """Ask the provider, and tell the others how that went."""
    request = slot.request
    on_behalf = request.flow == "on_behalf_of"
    generation = slot.generation
    kept: Token | None = None
    try:
        with shelf.discarding() if on_behalf else shelf.saving_later():
            outcome = exchange(flight)
        kept = outcome.token if slot.generation == generation else None
    except (CircuitOpen, Throttled, Overloaded, AcquisitionTimeout, LocalResourcesExhausted):
        raise  # the transport has told of a throttling; the others say nothing about the provider
    except ProviderUnavailable as error:
        _tell(engine, slot, shelf, error)
        raise
    finally:
        # Before the lease ends, however it ended: a refresh token that was rotated must be found by the next one.
        with suppress(StoreUnavailable):
            shelf.save(request.subject, request, kept, anew=on_behalf, fence=fence)
    if outcome.result is None and outcome.token is None and not shelf.knows(request.subject):
        raise ProviderUnavailable(
            "whether this account is signed in can't be told: it isn't in memory, and the store is unavailable",
            authority=slot.authorities[0].origin,
            retry_after=LOOK_AGAIN,
        )
    for name in slot.hints:
        shelf.stored.clear_hint(name)
    slot.hints = ()
    return outcome


def _tell(engine: Engine, slot: Slot, shelf: Shelf, error: ProviderUnavailable) -> None:
    """Let the other processes know that the provider fails, so that they needn't each find out."""
    ways = slot.ways
    asked = next((way for way in ways if way.endpoint.origin == error.authority), ways[0])
    now = engine.clock.monotonic()
    least = max(error.retry_after or 0.0, engine.settings.retry.first_delay)
    site, kind, request = engine.levels.stand(asked)
    # A failure is this token's affair; a wider breaker that opens is all of theirs who go by it.
    times = max((at for at in (site, kind, request) if at is not None), default=now), kind, site
    for name, opens_at in zip(_hint_names(shelf, asked), times, strict=False):
        if opens_at is not None:
            seconds = max(least, opens_at - now)
            shelf.stored.post_hint(name, seconds - _HINT_SLACK, error.code, error.message)


def _go_first(engine: Engine, slot: Slot, shelf: Shelf) -> Lease | None:
    """After a failure that the fleet knows of, let one process of all ask first.

    Raises:
        CircuitOpen: Another one does.
    """
    tokens_own = {name for asked in slot.ways for name in _hint_names(shelf, asked)[:1]}
    everybodys = [name for name in slot.hints if name not in tokens_own]
    if not everybodys:
        return None  # the lease on this token is enough
    try:
        lease = shelf.stored.store.lease(f"probe {everybodys[0]}", engine.settings.attempt_timeout + LEASE_SPARE)
    except StoreUnavailable:
        return None
    if lease is None:
        authority = slot.authorities[0].origin
        raise CircuitOpen(
            f"another process asks {authority} whether it works again",
            authority=authority,
            retry_after=engine.jitter(*_AFTER_PROBE),
        )
    return lease


def _take_turn(engine: Engine, slot: Slot, shelf: Shelf, flight: Flight, *, reuse: bool) -> tuple[Lease, float] | None:
    """Take the lease on an exchange, or wait while another process has it. None: the store fails, go alone.

    Returns:
        The lease, and the monotonic time at which it ends.

    Raises:
        _Found: The other one has obtained it meanwhile, or has seen the provider fail.
        AcquisitionTimeout: There is no time left.
    """
    request = slot.request
    # Two exchanges with one refresh token must not overlap; others needn't wait for each other.
    silent = request.flow == "silent"
    name = shelf.users_name(request.subject) if silent else f"{shelf.name(request.subject)} {_digest(request)}"
    clock, seconds = engine.clock, engine.settings.attempt_timeout + LEASE_SPARE
    turn = 0
    try:
        while True:
            until = clock.monotonic() + seconds
            lease = shelf.stored.store.lease(f"exchange {name}", seconds)
            if lease is not None:
                return lease, until
            pause = engine.jitter(0.5, 1.5) * _POLLS[min(turn, len(_POLLS) - 1)]
            turn += 1
            if clock.monotonic() + pause >= flight.deadline:
                raise _not_in_time(slot)
            _pause(clock.wait, clock.monotonic, pause)
            _look_for_others(engine, slot, shelf, reuse=reuse)
    except StoreUnavailable:
        return None


def _not_in_time(slot: Slot) -> AcquisitionTimeout:
    endpoint = slot.authorities[0]
    return AcquisitionTimeout(
        f"another process has been asking {endpoint} for this token, and hasn't got it in time",
        authority=endpoint.origin,
    )


def _pause(wait: Callable[..., bool], monotonic: Callable[[], float], seconds: float) -> None:
    done = threading.Condition(threading.Lock())
    ends = monotonic() + seconds
    with done:
        while (left := ends - monotonic()) > 0:
            wait(done, left)
