"""One exchange for a whole fleet: look at what others have, ask alone, tell the others (G5, G8, G11).

                    ┌─ another process has obtained it ───────────────▶ serve that
look at the store ──┼─ others have seen the provider fail ────────────▶ leave it alone; one of all goes first again
                    └─ neither ─▶ take the lease ─┬─ had ─▶ exchange ─▶ write the token or the failure, end the lease
                             ▲                    └─ another's ─▶ wait for its result, or for its end
                             └── lost before an attempt ◀── exchange

A store that fails is no store: what is then decided is decided alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

from .._engine.engine import Engine
from .._engine.shared import LOOK_AGAIN, SharedEntry
from .._engine.single_flight import Exchange, Flight, LeaseLost, Outcome
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
from ..token import Token, fingerprint
from .accounts import SharedCache
from .hints import Hint, HintNames, hint_names, request_digest
from .turn import Turn
from .user_record import UserRecord
from .write_back import STORE_LANE

__all__ = ["Coordinator"]

#: Seconds between two looks at a lease that another process holds; they grow.
_POLLS = (0.02, 0.05, 0.1, 0.2, 0.4)
#: Seconds after which those who left the first step to another process look again.
_AFTER_PROBE = (1.0, 3.0)
#: Seconds by which a hint is shorter than what it tells of, so that its own process isn't held up by it.
_HINT_SLACK = 0.25


class Coordinator:
    """Get one application's tokens once for all processes that share its store.

    Args:
        engine: Whose policies hold.
        shared_cache: The application's place in the store.
    """

    lane = STORE_LANE

    def __init__(self, engine: Engine, shared_cache: SharedCache) -> None:
        self._engine = engine
        self.shared_cache = self._cache = shared_cache
        self._records = shared_cache.stored

    def look(self, entry: SharedEntry, *, reuse: bool = True) -> Outcome | None:
        """Look at what the fleet knows of a token, and of those who could give it.

        Args:
            entry: Whose token.
            reuse: As for `exchange`.

        Returns:
            A token that another process, or this one in an earlier life, has obtained, where it is better than what is
            held. Else why no exchange should begin now, as far as this process or another one knows. Else None.
        """
        entry.looked_at = self._engine.clock.monotonic()
        user_record: UserRecord | None = None
        hints: Mapping[str, Hint] = {}
        names = [name for asked in entry.ways for some in self._names(entry, asked) for name in some]
        with suppress(StoreUnavailable):
            user_record, hints = self._cache.look(entry.request.subject, names, entry.request)
        entry.hints = tuple(hints)
        found = None if user_record is None or not reuse else self._better(entry, user_record)
        if found is not None:
            return Outcome(found, stored=True)
        refusal = self._engine.refusal(entry.ways) or self._told_of(entry, hints)
        return None if refusal is None else Outcome(error=refusal, refused=True)

    def _better(self, entry: SharedEntry, user_record: UserRecord) -> Token | None:
        """Find a token that is better than what is held."""
        engine = self._engine
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        found = self.token_in(user_record, entry)
        if found is None:
            return None
        held = entry.token
        if held is not None and held.remaining(wall, now) > 0:
            fresh = assess(found, wall, now, engine.settings.freshness) is Freshness.FRESH
            if not fresh or found.secret == held.secret:
                return None
        return found

    def token_in(self, user_record: UserRecord, entry: SharedEntry) -> Token | None:
        """Find the token of an entry in a record: one that would be served if nothing better were held."""
        wall, now = self._engine.clock.wall(), self._engine.clock.monotonic()
        found = user_record.find(entry.request, wall, now)
        if found is None and entry.request.flow == "silent":
            found = self._users_token(user_record, entry, wall, now)
        return None if found is None or fingerprint(found.secret) == entry.refused else found

    def _users_token(self, user_record: UserRecord, entry: SharedEntry, wall: float, now: float) -> Token | None:
        """Find a user's token among the entries of MSAL's cache."""
        msal_entry = user_record.find_entry(entry.request, wall, self._cache.owns)
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
        least = None if refresh_in is None else max(0.0, refresh_in)
        return Token(
            secret=str(msal_entry["secret"]),
            token_type=str(msal_entry.get("token_type", "Bearer")),
            obtained_on=wall - (whole - life),
            obtained_at=now - (whole - life),
            life=whole,
            due_after=due_after(whole, least, self._engine.settings.freshness, self._engine.jitter),
            refresh_on=int(msal_entry["refresh_on"]) if "refresh_on" in msal_entry else None,
        )

    def _names(self, entry: SharedEntry, asked: ProviderRequest) -> HintNames:
        """Return under which names something may be known against one of an entry's requests."""
        return hint_names(self._cache.name(entry.request.subject), asked, asked.endpoint.wire.fleet)

    def _told_of(self, entry: SharedEntry, hints: Mapping[str, Hint]) -> ProviderUnavailable | None:
        """Return why no exchange should begin now, as far as another process of the fleet knows."""
        told: ProviderUnavailable | None = None
        for asked in entry.ways if hints else ():
            names = [name for some in self._names(entry, asked) for name in some]
            left = [hints[name] for name in names if name in hints and hints[name].left > 0]
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

    def exchange(self, entry: SharedEntry, exchange: Exchange, *, reuse: bool) -> Exchange:
        """Make an exchange of a fleet out of one.

        Args:
            entry: Whose token.
            exchange: How to ask the provider.
            reuse: Whether a token that another process obtains meanwhile will do: not after a claims challenge.
        """

        def run(flight: Flight) -> Outcome:
            while True:
                turn = Turn(self._engine, self._records.store)
                try:
                    return self._exchange(entry, exchange, flight, turn, reuse=reuse)
                except _Found as another:
                    return another.outcome
                except LeaseLost:
                    # Another process may ask by now: what it gets will do here too.
                    if self._engine.clock.monotonic() >= flight.deadline:
                        raise _not_in_time(entry) from None
                finally:
                    turn.end()

        return run

    def _exchange(self, entry: SharedEntry, exchange: Exchange, flight: Flight, turn: Turn, *, reuse: bool) -> Outcome:
        """Make an exchange when it is this process's turn.

        Raises:
            _Found: Another process has made it meanwhile, or has seen the provider fail.
            LeaseLost: Another process may make it by now.
        """
        if not reuse or not entry.looked_lately(self._engine.clock.monotonic()):
            self._look_for_others(entry, reuse=reuse)
        self._go_first(entry, turn)
        self._take_turn(entry, flight, turn, reuse=reuse)
        # Whoever had the lease before may just have written what is wanted here, or used up the refresh token.
        self._look_for_others(entry, reuse=reuse)
        flight.on_back_off, flight.before_attempt = turn.hold_on, turn.may_attempt
        used = self._cache.refresh_tokens(entry.request.subject)
        outcome = self._ask(entry, exchange, flight, turn.fence)
        again = outcome.denied and self._has_rotated(entry, used)
        return self._ask(entry, exchange, flight, turn.fence) if again else outcome

    def _look_for_others(self, entry: SharedEntry, *, reuse: bool) -> None:
        """Look whether this exchange is needed, and may be made.

        Raises:
            _Found: It isn't, or mayn't.
        """
        found = self.look(entry, reuse=reuse)
        if found is not None:
            raise _Found(found)

    def _go_first(self, entry: SharedEntry, turn: Turn) -> None:
        """After a failure that the fleet knows of, let one process of all ask first.

        Raises:
            CircuitOpen: Another one does.
        """
        tokens_own = {name for asked in entry.ways for name in self._names(entry, asked).failing[:1]}
        everybodys = [name for name in entry.hints if name not in tokens_own]
        # Without one, the lease on this token is enough.
        if everybodys and not turn.go_first(everybodys[0]):
            authority = entry.authorities[0].origin
            raise CircuitOpen(
                f"{authority}: circuit open; another process is probing it",
                authority=authority,
                retry_after=self._engine.jitter(*_AFTER_PROBE),
            )

    def _take_turn(self, entry: SharedEntry, flight: Flight, turn: Turn, *, reuse: bool) -> None:
        """Take the lease on an exchange, or wait while another process has it; without one where the store fails.

        Raises:
            _Found: The other one has obtained it meanwhile, or has seen the provider fail.
            AcquisitionTimeout: There is no time left.
        """
        request = entry.request
        # Two exchanges with one refresh token must not overlap; others needn't wait for each other.
        silent = request.flow == "silent"
        name = (
            self._cache.users_name(request.subject)
            if silent
            else f"{self._cache.name(request.subject)} {request_digest(request)}"
        )
        monotonic = self._engine.clock.monotonic
        polls = 0
        with suppress(StoreUnavailable):
            while not turn.take(name):
                pause = self._engine.jitter(0.5, 1.5) * _POLLS[min(polls, len(_POLLS) - 1)]
                polls += 1
                if monotonic() + pause >= flight.deadline:
                    raise _not_in_time(entry)
                self._pause(pause)
                self._look_for_others(entry, reuse=reuse)

    def _pause(self, seconds: float) -> None:
        clock, done = self._engine.clock, threading.Condition(threading.Lock())
        ends = clock.monotonic() + seconds
        with done:
            while (left := ends - clock.monotonic()) > 0:
                clock.wait(done, left)

    def _has_rotated(self, entry: SharedEntry, used: frozenset[str]) -> bool:
        """Return whether a refresh token was refused because another process, which took us for dead, has used it."""
        subject = entry.request.subject
        if entry.request.flow != "silent":
            return False
        with suppress(StoreUnavailable):
            return self._cache.load(subject) is not None and self._cache.refresh_tokens(subject) != used
        return False

    def _ask(self, entry: SharedEntry, exchange: Exchange, flight: Flight, fence: int) -> Outcome:
        """Ask the provider, and tell the others how that went."""
        request, cache = entry.request, self._cache
        on_behalf = request.flow == "on_behalf_of"
        generation = entry.generation
        kept: Token | None = None
        try:
            with cache.discarding() if on_behalf else cache.saving_later():
                outcome = exchange(flight)
            kept = outcome.token if entry.generation == generation else None
        except (CircuitOpen, Throttled, Overloaded, AcquisitionTimeout, LocalResourcesExhausted):
            raise  # the transport has told of a throttling; the others say nothing about the provider
        except ProviderUnavailable as error:
            self._tell(entry, error)
            raise
        finally:
            # Before the lease ends, however it ended: a refresh token that was rotated must be found by the next one.
            with suppress(StoreUnavailable):
                cache.save(request.subject, request, kept, anew=on_behalf, fence=fence)
        if outcome.result is None and outcome.token is None and not cache.knows(request.subject):
            raise ProviderUnavailable(
                "it is unknown whether this account is signed in: it isn't in memory, and the store is unavailable",
                authority=entry.authorities[0].origin,
                retry_after=LOOK_AGAIN,
            )
        for name in entry.hints:
            self._records.hints.clear(name)
        entry.hints = ()
        return outcome

    def _tell(self, entry: SharedEntry, error: ProviderUnavailable) -> None:
        """Let the other processes know that the provider fails, so that they needn't each find out."""
        engine, ways = self._engine, entry.ways
        asked = next((way for way in ways if way.endpoint.origin == error.authority), ways[0])
        now = engine.clock.monotonic()
        least = max(error.retry_after or 0.0, engine.settings.retry.first_delay)
        site, kind, request = engine.levels.stand(asked)
        # A failure is this token's affair; a wider breaker that opens is all of theirs who go by it.
        times = max((at for at in (site, kind, request) if at is not None), default=now), kind, site
        names = self._names(entry, asked).failing
        for name, opens_at in zip(names, times, strict=False):
            if opens_at is not None:
                seconds = max(least, opens_at - now)
                self._records.hints.post(name, seconds - _HINT_SLACK, error.code, error.message)


class _Found(Exception):
    """Another process has the token, or knows why nobody should ask for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _not_in_time(entry: SharedEntry) -> AcquisitionTimeout:
    endpoint = entry.authorities[0]
    return AcquisitionTimeout(
        f"deadline exceeded waiting for another process that is requesting this token from {endpoint}",
        authority=endpoint.origin,
    )
