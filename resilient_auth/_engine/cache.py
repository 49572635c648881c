"""The tokens of one application object, with what is known about getting each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import cachetools

from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._process import forks
from .._process.living import LiveObjects, unlocked, weakly
from ..errors import ProviderUnavailable
from ..events import TokenDropped, emit
from ..token import Token, TokenRequest, fingerprint
from .engine import Engine
from .shared import SharedEntry, SharedTokens
from .single_flight import Exchange
from .timers import Timer

__all__ = ["CacheEntry", "Memory", "forget_closed", "forget_hits", "memories"]

#: Seconds between two looks for tokens that are over, and at how many the lock is held.
_SWEEP_EVERY = 60.0
_AT_ONCE = 64


@dataclass(slots=True, eq=False, repr=False)
class CacheEntry(SharedEntry):
    """The place of one token. Its token is immutable and swapped whole; readers take no lock."""

    memory: Memory = field(kw_only=True)
    #: How to get it again with nobody asking; None where that can't be (a code, somebody's assertion).
    renew: Exchange | None = None
    failures: int = 0
    #: Monotonic time of the last failed exchange.
    failed_at: float = -1e9
    #: Monotonic time before which no background refresh begins, and how long that was to be from when it was set.
    not_before: float = 0.0
    rests: float = 0.0
    #: Monotonic time at which an exchange was begun last.
    tried_at: float = -1e9
    #: The provider's last answer was a denial.
    denied: bool = False
    last_error: ProviderUnavailable | None = None
    asked_at: float = -1e9
    made_at: float = -1e9
    owner: str | None = None
    #: Takes a token that must not be served any more out of MSAL's cache and the store.
    discard: Callable[[Token], None] | None = None
    #: Sets the timer of an entry that is kept fresh: for when it is due, or after some seconds; None for others.
    reschedule: Callable[[Engine, CacheEntry, float | None], None] | None = None
    timer: Timer | None = None
    #: The token whose service during a failure was told already.
    told: Token | None = None
    #: The token that MSAL's cache couldn't take: it isn't missed there.
    unkept: Token | None = None
    #: Tells the last exchange that was begun for a claims challenge apart.
    variant: str | None = None
    #: The calls that the face answers from this entry; see `Memory.hits`.
    signatures: tuple[Hashable, ...] = ()

    @property
    def pinned(self) -> bool:
        """Return whether it is kept fresh with nobody asking, and never evicted."""
        return self.reschedule is not None

    def rest(self, seconds: float, now: float) -> None:
        """Begin no background refresh for so long."""
        self.not_before, self.rests = now + seconds, seconds

    def rest_left(self, now: float) -> float:
        """Return for how many seconds no background refresh begins."""
        if self.not_before - now > self.rests:  # the clock was set back, which makes it no longer
            self.not_before = now + self.rests
        return max(0.0, self.not_before - now)


class _Entries(cachetools.LRUCache[TokenRequest, CacheEntry]):
    """Bounded; the entry that has been touched least recently goes first, a pinned one never."""

    def __init__(self, maxsize: int, evicted: Callable[[CacheEntry], None]) -> None:
        super().__init__(maxsize)
        self._evicted = evicted

    def popitem(self) -> tuple[TokenRequest, CacheEntry]:
        for _ in range(len(self)):
            request, entry = super().popitem()
            if not entry.pinned:
                break
            self[request] = entry
        else:  # all are pinned
            request, entry = super().popitem()
        self._evicted(entry)
        return request, entry


class Memory:
    """Hold an application's entries, at most `max_tokens` of them."""

    def __init__(self, max_tokens: int, engine: Engine) -> None:
        #: Whose policies hold for these tokens.
        self.engine = engine
        self._lock = threading.Lock()
        self._entries = _Entries(max_tokens, self._forget)
        #: Not yet told.
        self._evicted: list[CacheEntry] = []
        self._by_subject: dict[str | None, dict[TokenRequest, CacheEntry]] = {}
        #: What the face answers without asking anybody: call signature to prepared answer.
        self.hits: dict[Hashable, Any] = {}
        #: What others know of these tokens; None where they are this process's alone.
        self.shared: SharedTokens | None = None
        #: Monotonic time before which nobody looks for tokens that are over.
        self._sweep_at = engine.clock.monotonic() + _SWEEP_EVERY
        #: The lane of their own in which exchanges run that call the owner's code; None for their provider's.
        self.lane: str | None = None
        self.closed = False
        _memories.add(self)

    def find(self, request: TokenRequest) -> CacheEntry | None:
        """Find the entry of a request."""
        with self._lock:
            return self._entries.get(request)

    def entry(
        self, request: TokenRequest, authorities: tuple[Endpoint, ...], purpose: Purpose = Purpose.TOKEN
    ) -> CacheEntry:
        """Find the entry of a request, or make it; its authorities are those given."""
        with self._lock:
            entry: CacheEntry | None = self._entries.get(request)
            new = entry is None
            if entry is None:
                entry = CacheEntry(request, authorities, purpose, memory=self)
                entry.made_at = self.engine.clock.monotonic()
                self._entries[request] = entry
                self._by_subject.setdefault(request.subject, {})[request] = entry
            else:
                entry.ask_of(authorities)
            evicted, self._evicted = self._evicted, []
        if evicted:
            self._tell(evicted, "there are more than max_tokens")
        if new and entry.made_at >= self._sweep_at:
            self._sweep_soon(entry.made_at)
        return entry

    def remember_hit(self, entry: CacheEntry, token: Token, signature: Hashable, answer: Any) -> None:
        """Let the face answer `signature` with `answer`, made of `token`, unless that has been dropped meanwhile."""
        with self._lock:
            if entry.token is not token or self._entries.get(entry.request) is not entry:
                return
            if signature not in entry.signatures:
                if len(entry.signatures) >= 8:
                    return
                entry.signatures = (*entry.signatures, signature)
            self.hits[signature] = answer

    def put(self, entry: CacheEntry, token: Token, owner: str | None = None, *, generation: int | None = None) -> None:
        """Keep a token, unless the entry's was dropped since `generation`.

        Args:
            entry: Where.
            token: What.
            owner: The home account whose removal takes it along, where the request doesn't say.
            generation: The entry's when the token was asked for; None where it was there all the time.
        """
        with self._lock:
            if generation is not None and entry.generation != generation:
                return
            entry.token = token
            if owner is not None and self._entries.get(entry.request) is entry:
                entry.owner = owner
                self._by_subject.setdefault(owner, {})[entry.request] = entry

    def drop_all(self, code: str) -> None:
        """Forget all tokens."""
        with self._lock:
            dropped = self._clear_all(list(self._entries.values()))
        self._tell(dropped, code)

    def drop_subject(self, subject: str | None, code: str) -> None:
        """Forget the tokens of one home account or assertion; None is the application itself."""
        with self._lock:
            dropped = self._clear_all(list(self._by_subject.get(subject, {}).values()))
        self._tell(dropped, code)

    def drop_token(self, entry: CacheEntry, token: Token, code: str) -> bool:
        """Forget one token wherever it is kept, unless another one has taken its place already."""
        with self._lock:
            if entry.token is not token:
                return False
            entry.refused = fingerprint(token.secret)
            self._clear(entry)
        self._tell([entry], code)
        if entry.discard is not None:
            entry.discard(token)
        return True

    def suspect(self, entry: CacheEntry, token: Token) -> None:
        """Have a token replaced that an API has refused, unless that has happened; it is served until then."""
        with self._lock:
            if entry.token is not token or token.suspect:
                return
            entry.refused = fingerprint(token.secret)
            self._forget_hits(entry)
            entry.token = replace(token, suspect=True)

    def __iter__(self) -> Iterator[CacheEntry]:
        """List the entries without the lock: `health` may be called by a signal's handler, amid whatever holds it."""
        kept = unlocked(lambda: [(who, list(entries.values())) for who, entries in list(self._by_subject.items())])
        return iter([entry for subject, entries in kept for entry in entries if entry.request.subject == subject])

    def _sweep_soon(self, now: float) -> None:
        """Have what is over forgotten on a worker, now and then, where there is more and more to hold."""
        self._sweep_at = now + _SWEEP_EVERY
        with suppress(ProviderUnavailable):  # another time
            self.engine.run("memory", weakly(self, Memory.sweep))

    def sweep(self) -> None:
        """Forget the entries whose token is over, or never came, and for which nobody has asked for long.

        Users come and go: what can't be renewed without them would be kept until there are more than `max_tokens`.
        """
        held = list(self)
        for begin in range(0, len(held), _AT_ONCE):  # others get the lock in between
            with self._lock:
                for entry in held[begin : begin + _AT_ONCE]:
                    if self._is_over(entry):
                        entry.token = None
                        del self._entries[entry.request]
                        self._forget(entry)

    def _is_over(self, entry: CacheEntry) -> bool:
        engine, token = self.engine, entry.token
        if entry.pinned or entry.refused is not None:  # which would come back from a cache
            return False
        if self._by_subject.get(entry.request.subject, {}).get(entry.request) is not entry:
            return False
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        quiet = max(engine.settings.keep_trying, engine.settings.deadline + _SWEEP_EVERY)
        if now - max(entry.made_at, entry.asked_at, entry.failed_at) <= quiet:
            return False
        return token is None or token.remaining(wall, now) <= -engine.settings.fallback.grace

    def _tell(self, dropped: list[CacheEntry], code: str) -> None:
        for entry in dropped:
            emit(TokenDropped(at=self.engine.clock.wall(), request=entry.request, code=code))

    def _clear_all(self, entries: list[CacheEntry]) -> list[CacheEntry]:
        held = [entry for entry in entries if entry.token is not None]
        for entry in entries:
            self._clear(entry)
        return held

    def _clear(self, entry: CacheEntry) -> None:
        entry.token = None
        entry.denied = False
        entry.generation += 1
        self._forget_hits(entry)

    def _forget_hits(self, entry: CacheEntry) -> None:
        for signature in entry.signatures:
            self.hits.pop(signature, None)
        entry.signatures = ()

    def _forget(self, entry: CacheEntry) -> None:
        """Take an evicted entry out of the indexes; the lock is held by whoever evicts."""
        if entry.token is not None:
            self._evicted.append(entry)
        self._clear(entry)
        for subject in {entry.request.subject, entry.owner or entry.request.subject}:
            siblings = self._by_subject.get(subject)
            if siblings is not None:
                siblings.pop(entry.request, None)
                if not siblings:
                    del self._by_subject[subject]
        if entry.timer is not None:
            entry.timer.cancel()

    def after_fork(self) -> None:
        """Start with a lock of one's own in a forked child; timers and flights were the parent's.

        A thread of the parent's may have been in the middle of a change: all is built anew from the entries.
        """
        self._lock = threading.Lock()
        entries = list(self._entries.values())
        self._entries, self._evicted, self._by_subject = _Entries(int(self._entries.maxsize), self._forget), [], {}
        self.hits.clear()
        for entry in entries:
            entry.timer, entry.not_before, entry.signatures = None, 0.0, ()
            self._entries[entry.request] = entry
            for subject in {entry.request.subject, entry.owner or entry.request.subject}:
                self._by_subject.setdefault(subject, {})[entry.request] = entry


def forget_closed(memory: Memory) -> None:
    """Let go of what is known against the authorities of a closed application, where no other one asks them."""
    memory.closed = True
    others = [other for other in _memories.all() if other.engine is memory.engine and not other.closed]
    asked = {endpoint.site for other in others for entry in other for endpoint in entry.authorities}
    for site in {endpoint.site for entry in memory for endpoint in entry.authorities} - asked:
        memory.engine.levels.forget(site)
        memory.engine.sightings.forget(site)


_memories: LiveObjects[Memory] = LiveObjects()


def forget_hits() -> None:
    """Have every answer that is ready made anew, counted or not."""
    for memory in _memories.all():
        memory.hits.clear()


def memories() -> list[Memory]:
    """List the memories of all living application objects."""
    return _memories.all()


@forks.renewed
def _after_fork() -> None:
    for memory in _memories.all():
        memory.after_fork()
