"""What fails together, and no more: a request, a grant at a tenant, a provider (G11).

    provider ──── grant at a tenant, policy or realm ──── request
    opens when    opens when different                    opens when it fails
    different     requests fail                           again and again
    grants fail

Each has a breaker of its own, and a call needs all of them. What fails counts once for the level above until it has
succeeded again, so that one request, grant or tenant that always fails is its own matter. That no connection can be
made is the provider's at once, whoever sees it. What a person sends, a password or a code, is anybody's to choose: for
those the provider's breaker alone is asked, and all that fail so count as one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import cachetools

from .._process.forks import rebuilt
from ..clock import Clock, Jitter
from ..errors import CircuitOpen
from ..token import TokenRequest
from .breaker import Breaker, BreakerOptions, Dependency, Permit, dismiss
from .endpoint import Endpoint
from .failure import Purpose

__all__ = ["Levels", "Permits", "ProviderRequest"]

#: What is sent there is a person's, where it is for no token that is held.
_OF_PEOPLE = frozenset({Purpose.TOKEN, Purpose.USER_REALM, Purpose.WS_TRUST})
_MOST_BREAKERS = 1024

_K = TypeVar("_K", bound=Hashable)
Kind = tuple[Endpoint, Purpose, str]


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """Say what is asked, of whom and for whom: equal ones share what is known against them.

    Args:
        endpoint: Whom.
        purpose: What for.
        client_id: By which application.
        grant: How a token is asked for.
        request: The token that is held or is to be; None for a document, and for what is nobody else's.
        subject: Whose request it is, where that is nobody else's; it must be no secret.
    """

    endpoint: Endpoint
    purpose: Purpose = Purpose.TOKEN
    client_id: str = ""
    grant: str = ""
    request: TokenRequest | None = None
    subject: str | None = None
    # What is asked for again and again is worked out once.
    #: The provider as a whole, over the same wire.
    site: Endpoint = field(init=False, repr=False, compare=False)
    #: Whether what is sent is a person's.
    by_person: bool = field(init=False, repr=False, compare=False)
    #: Whether there is nothing else to ask that provider for that purpose.
    is_whole: bool = field(init=False, repr=False, compare=False)
    #: What fails together.
    kind: Kind = field(init=False, repr=False, compare=False)
    #: What is throttled, and spends retries, by itself.
    party: Hashable = field(init=False, repr=False, compare=False)
    #: What counts as one among different requests: all of a user's do, and each of the application's own.
    whose: Hashable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        request = self.request
        by_person = request is None and self.purpose in _OF_PEOPLE
        party = request or self.subject or self.grant
        worked_out = (
            ("site", self.endpoint.site),
            ("by_person", by_person),
            ("is_whole", request is None and not self.endpoint.realm and not by_person),
            ("kind", (self.endpoint, self.purpose, "" if by_person else self.grant)),
            ("party", party),
            ("whose", party if request is None else request.subject or request),
        )
        for name, value in worked_out:
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, request: TokenRequest, endpoint: Endpoint, purpose: Purpose) -> ProviderRequest:
        """Return what is asked for a token that is held or is to be."""
        return cls(endpoint, purpose, request.client_id, request.flow, request)


class Permits:
    """One call's leave to go out, of every level; given back without a verdict where none was given."""

    __slots__ = ("_asked", "_levels", "_permits", "_site", "_unsaid")

    def __init__(self, levels: Levels, asked: ProviderRequest, permits: list[tuple[Breaker, Permit]]) -> None:
        self._levels = levels
        self._asked = asked
        self._site = permits[0][1]
        self._permits = permits
        #: What is taken by the first verdict, which counts.
        self._unsaid = [None]

    def success(self) -> None:
        """Say that the provider gave what was asked for."""
        if not self._is_first():
            return
        recovered: list[Breaker] = []
        for breaker, permit in self._permits:
            closed = breaker.closed
            permit.success()
            if not closed and breaker.closed:
                recovered.append(breaker)
        self._levels.answered(self._asked, recovered)

    def denied(self) -> None:
        """Say that the provider works and said no: the request doesn't fail any more, and nothing is said of others."""
        if self._is_first():
            self._give_back()
            self._levels.answered(self._asked, [])

    def failure(self, code: str, *, of_host: bool = False) -> None:
        """Say that it failed, with a stable code.

        Args:
            code: What happened.
            of_host: Whether no connection could be made: no other request would have fared better.
        """
        if not self._is_first():
            return
        if of_host:
            self._site.failure(code, whoever=True)
            self._give_back()
            return
        # The narrowest level first: what a level has counted before is no news for those above it.
        site, *below = self._levels.permits_to_fail(self._asked, self._permits)
        news = True
        for permit in reversed(below):
            news = permit.failure(code)
        if news or not self._permits[0][0].closed:
            site.failure(code)
        else:
            site.none()

    def none(self) -> None:
        """Say nothing of the provider."""
        if self._is_first():
            self._give_back()

    def _is_first(self) -> bool:
        try:
            self._unsaid.pop()
        except IndexError:
            return False
        return True

    def _give_back(self) -> None:
        for _, permit in self._permits:
            permit.none()

    def __enter__(self) -> Permits:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unsaid:
            self.none()


class Levels:
    """Hold the breakers around providers. Those below a provider's are made when something of theirs fails.

    Args:
        options: The owner's limits, for each level.
        clock: See `Breaker`.
        jitter: See `Breaker`.
    """

    def __init__(self, options: BreakerOptions, *, clock: Clock, jitter: Jitter) -> None:
        self._options = options
        self._clock = clock
        self._jitter = jitter
        self._sites: _Kept[tuple[Endpoint, Purpose]] = _Kept(_MOST_BREAKERS)
        self._kinds: _Kept[Kind] = _Kept(_MOST_BREAKERS)
        self._requests: _Kept[ProviderRequest] = _Kept(_MOST_BREAKERS)
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Make it usable in a forked child: a thread of the parent's may have been in the middle of a change."""
        self._lock = threading.Lock()
        self._sites, self._kinds, self._requests = rebuilt(self._sites), rebuilt(self._kinds), rebuilt(self._requests)
        for breaker in (*self._sites.values(), *self._kinds.values(), *self._requests.values()):
            breaker.renew_lock()

    def site(self, endpoint: Endpoint, purpose: Purpose) -> Breaker:
        """Return the breaker around a provider as a whole, over one wire, for one purpose."""
        with self._lock:
            place = endpoint.site, purpose
            return self._found(self._sites, place, *place)

    def around(self, asked: ProviderRequest) -> list[tuple[Breaker, Hashable]]:
        """List the breakers that a call needs, the widest first, each with whom the call is for there."""
        below = not (asked.is_whole or asked.by_person)
        with self._lock:
            place = asked.site, asked.purpose
            site = self._sites.get(place) or self._found(self._sites, place, *place)
            kind, request = (self._kinds.get(asked.kind), self._requests.get(asked)) if below else (None, None)
        found: list[tuple[Breaker, Hashable]] = [(site, None if asked.is_whole else asked.kind)]
        if kind is not None:
            found.append((kind, asked.whose if asked.request else None))
        if request is not None:
            found.append((request, None))
        return found

    def check(self, asked: ProviderRequest) -> None:
        """Raise `CircuitOpen` if a call would be refused now, with the longest wait of all levels."""
        refusal: CircuitOpen | None = None
        for breaker, who in self.around(asked):
            try:
                breaker.check(who)
            except CircuitOpen as error:
                if error.retry_after is None:  # until an operator says otherwise
                    raise
                if refusal is None or error.retry_after > (refusal.retry_after or 0.0):
                    refusal = error
        if refusal is not None:
            raise refusal

    def admit(self, asked: ProviderRequest) -> Permits:
        """Take leave for one call; its verdict is owed.

        Raises:
            CircuitOpen: No call may be made now; `retry_after` says for how long.
        """
        around = self.around(asked)
        if len(around) > 1:  # of one, what it says itself is all
            self.check(asked)
        permits: list[tuple[Breaker, Permit]] = []
        try:
            for breaker, who in around:
                permits.append((breaker, breaker.admit(who)))
        except CircuitOpen:
            for _, permit in permits:
                permit.none()
            raise
        return Permits(self, asked, permits)

    def hasten(self, asked: ProviderRequest) -> None:
        """Say that somebody has nothing left to serve; see `Breaker.hasten`."""
        for breaker, _ in self.around(asked):
            breaker.hasten()

    def stand(self, asked: ProviderRequest) -> tuple[float | None, float | None, float | None]:
        """Return the monotonic times from which the provider, the grant there and the request are asked again.

        None for each that is closed, or isolated.
        """
        around = self.around(asked)
        with self._lock:
            kind = self._kinds.get(asked.kind)
        times = {b: b.opens_at(who) for b, who in around}
        site = around[0][0]
        request = [time for b, time in times.items() if b is not site and b is not kind]
        return times[site], None if kind is None else times.get(kind), request[0] if request else None

    def opens_at(self, asked: ProviderRequest) -> float | None:
        """Return the monotonic time from which a call is let through; None where all levels are closed."""
        return max((time for time in self.stand(asked) if time is not None), default=None)

    def closed(self, asked: ProviderRequest) -> bool:
        """Return whether all levels are closed."""
        return all(breaker.closed for breaker, _ in self.around(asked))

    def failing(self, asked: ProviderRequest) -> tuple[bool, float]:
        """Return whether a level is observed to be down, and for how long; see `Breaker.failing`."""
        down = [seconds for seen, seconds in (b.failing() for b, _ in self.around(asked)) if seen]
        return bool(down), max(down, default=0.0)

    def failing_since(self, asked: ProviderRequest) -> float | None:
        """Return since when a provider that dies now will count as down; None where nothing of it fails yet.

        Without a lock: a signal's handler may ask, amid what holds it.
        """
        site = self._sites.peek((asked.site, asked.purpose))
        if not (self._kinds or self._requests):  # nearly always, and health asks for every token
            return None if site is None else site.failing_at
        # One below that is closed learns nothing more of a provider to which no connection can be made.
        below = (self._kinds.peek(asked.kind), self._requests.peek(asked))
        counts = [level for level in below if level is not None and not level.closed]
        times = [level.failing_at for level in (*counts, *([] if site is None else [site]))]
        return min((time for time in times if time is not None), default=None)

    def permits_to_fail(self, asked: ProviderRequest, permits: list[tuple[Breaker, Permit]]) -> list[Permit]:
        """List the permits of a call that has failed, the widest level's first; levels that there weren't are made."""
        site = permits[0][1]
        if asked.by_person or asked.is_whole:
            return [site]
        with self._lock:
            kind = self._found(self._kinds, asked.kind, asked.endpoint, asked.purpose, _part(asked))
            below: list[tuple[Breaker, Hashable]] = [(kind, asked.whose if asked.request else None)]
            if asked.request is not None:
                part = f"{_part(asked)} of {_shown(asked.request)}"
                below.append((self._found(self._requests, asked, asked.endpoint, asked.purpose, part), None))
        held = dict(permits)
        found = [site]
        for breaker, who in below:
            with suppress(CircuitOpen):  # opened meanwhile, by others' failures
                found.append(held.get(breaker) or breaker.admit(who))
        return found

    def answered(self, asked: ProviderRequest, recovered: Iterable[Breaker]) -> None:
        """Note that a request was answered, and let go of what is known against those below a level that recovered."""
        if not self._requests:
            return
        over: list[Breaker] = []
        with self._lock:
            request = self._requests.pop(asked, None)
            if request is not None:
                over.append(request)
            site, kind = self._sites.get((asked.site, asked.purpose)), self._kinds.get(asked.kind)
            for breaker in recovered:
                for key in list(self._requests):
                    whole = key.endpoint.site == asked.site and key.purpose is asked.purpose
                    if (breaker is kind and key.kind == asked.kind) or (breaker is site and whole):
                        over.append(self._requests.pop(key))
        for breaker in over:
            breaker.reset()
            dismiss(breaker)

    def forget(self, endpoint: Endpoint, purpose: Purpose | None = None) -> None:
        """Let go of what is known against a provider of which nobody asks anything any more; an isolation stays."""
        site = endpoint.site
        over: list[Breaker] = []

        def drop(kept: _Kept[_K], of: Callable[[_K], tuple[Endpoint, Purpose]]) -> None:
            for key, breaker in list(kept.items()):
                where, what_for = of(key)
                if where.site == site and purpose in (None, what_for) and breaker.status().state != "isolated":
                    over.append(kept.pop(key))

        with self._lock:
            drop(self._sites, lambda key: key)
            drop(self._kinds, lambda key: key[:2])
            drop(self._requests, lambda key: (key.endpoint, key.purpose))
        for breaker in over:
            breaker.reset()
            dismiss(breaker)

    def _found(self, kept: _Kept[_K], key: _K, endpoint: Endpoint, purpose: Purpose, part: str = "") -> Breaker:
        """Find a breaker, or make it; the lock is held."""
        breaker: Breaker | None = kept.get(key)
        if breaker is None:
            around = Dependency(authority=endpoint.origin, purpose=purpose, part=part, wire=endpoint.wire.label)
            breaker = kept[key] = Breaker(around, self._options, clock=self._clock, jitter=self._jitter)
        return breaker


class _Kept(cachetools.LRUCache[_K, Breaker]):
    """Bounded; health tells nothing of those that had to go."""

    def popitem(self) -> tuple[_K, Breaker]:
        key, breaker = super().popitem()
        dismiss(breaker)
        return key, breaker

    def peek(self, key: _K) -> Breaker | None:
        """Return one without a lock: it stays in its place among those that were wanted last."""
        try:
            return cachetools.Cache.__getitem__(self, key)
        except KeyError:
            return None


def _part(asked: ProviderRequest) -> str:
    """Return a grant at a tenant, policy or realm."""
    by, at = asked.grant and f"by {asked.grant}", asked.endpoint.realm and f"at {asked.endpoint.realm}"
    return " ".join(filter(None, (by, at)))


def _shown(request: TokenRequest) -> str:
    """Return what tells a request from others of its kind; whose it is, as a hash."""
    who = request.shown().subject
    return " ".join(request.scopes) + (f" for {who}" if who else "")
