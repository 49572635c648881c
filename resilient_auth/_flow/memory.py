"""The tokens of one application object, with what is known about getting each of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Any

import cachetools

from .. import _forks
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.levels import Asked
from .._policy.living import Living
from ..errors import ProviderUnavailable
from ..events import TokenDropped, emit
from ..token import Token, TokenRequest, fingerprint
from .shelf import Shelf
from .single_flight import Flight, Outcome
from .timers import Timer

__all__ = ["Exchange", "Memory", "Slot"]

#: Seconds between two looks for tokens that are over, and at how many the lock is held.
_SWEEP_EVERY = 60.0
_AT_ONCE = 64

#: Ask the provider: given the flight, which has the deadline, tell how it ended. Runs on a worker.
Exchange = Callable[[Flight], Outcome]


class Slot:
    """The place of one token. Its token is immutable and swapped whole; readers take no lock."""

    __slots__ = (
        "__weakref__",
        "asked_at",
        "authorities",
        "denied",
        "discard",
        "failed_at",
        "failures",
        "generation",
        "hints",
        "last_error",
        "looked_at",
        "made_at",
        "memory",
        "not_before",
        "owner",
        "pinned",
        "purpose",
        "read",
        "refused",
        "renew",
        "request",
        "rests",
        "signatures",
        "timer",
        "token",
        "told",
        "tried_at",
        "unkept",
    )

    def __init__(
        self, request: TokenRequest, memory: Memory, authorities: tuple[Endpoint, ...], purpose: Purpose
    ) -> None:
        self.request = request
        #: What the authorities are asked for; each purpose has a breaker of its own.
        self.purpose = purpose
        self.memory = memory
        #: The endpoints that can give this token, in order of preference.
        self.authorities = authorities
        self.token: Token | None = None
        #: How to get it again with nobody asking; None where that can't be (a code, somebody's assertion).
        self.renew: Exchange | None = None
        self.failures = 0
        #: Monotonic time of the last failed exchange.
        self.failed_at = -1e9
        #: Monotonic time before which no refresh is begun behind, and how long that was to be from when it was set.
        self.not_before = self.rests = 0.0
        #: Monotonic time at which an exchange was begun last.
        self.tried_at = -1e9
        #: The provider's last answer was a denial.
        self.denied = False
        self.last_error: ProviderUnavailable | None = None
        self.asked_at = self.made_at = -1e9
        self.owner: str | None = None
        #: The fingerprint of a token that an API has refused, and that must not come back from a cache or a store.
        self.refused: str | None = None
        #: Finds the token in MSAL's cache, into which the store's entries are put; None where it isn't kept there.
        self.read: Callable[[], Token | None] | None = None
        #: Takes a token that must not be served any more out of MSAL's cache and the store.
        self.discard: Callable[[Token], None] | None = None
        #: Monotonic time at which the store was last looked at.
        self.looked_at = -1e9
        #: The names of what the fleet knew against the provider when the exchange under way began.
        self.hints: tuple[str, ...] = ()
        self.pinned = False
        self.timer: Timer | None = None
        #: The token whose service during a failure was told already.
        self.told: Token | None = None
        #: The token that MSAL's cache couldn't take: it isn't missed there.
        self.unkept: Token | None = None
        #: Counts what was forgotten, so that an exchange begun before doesn't bring it back.
        self.generation = 0
        #: The calls that the face answers from this slot; see `Memory.hits`.
        self.signatures: tuple[Hashable, ...] = ()

    @property
    def ways(self) -> list[Asked]:
        """What is asked of each authority that can give this token."""
        return [Asked.of(self.request, endpoint, self.purpose) for endpoint in self.authorities]

    def rest(self, seconds: float, now: float) -> None:
        """Begin no refresh behind for so long."""
        self.not_before, self.rests = now + seconds, seconds

    def rest_left(self, now: float) -> float:
        """Return for how many seconds no refresh is begun behind."""
        if self.not_before - now > self.rests:  # the clock was set back, which makes it no longer
            self.not_before = now + self.rests
        return max(0.0, self.not_before - now)


class _Slots(cachetools.LRUCache[TokenRequest, Slot]):
    """Bounded; the slot that has been touched least recently goes first, a pinned one never."""

    def __init__(self, maxsize: int, evicted: Callable[[Slot], None]) -> None:
        super().__init__(maxsize)
        self._evicted = evicted

    def popitem(self) -> tuple[TokenRequest, Slot]:
        for _ in range(len(self)):
            request, slot = super().popitem()
            if not slot.pinned:
                break
            self[request] = slot
        else:  # all are pinned
            request, slot = super().popitem()
        self._evicted(slot)
        return request, slot


class Memory:
    """Hold an application's slots, at most `max_tokens` of them."""

    def __init__(self, max_tokens: int, engine: Any) -> None:
        #: Whose policies hold for these tokens; typed loosely, since the engine knows of memories.
        self.engine = engine
        self._lock = threading.Lock()
        self._slots = _Slots(max_tokens, self._forget)
        #: Not yet told.
        self._evicted: list[Slot] = []
        self._by_subject: dict[str | None, dict[TokenRequest, Slot]] = {}
        #: What the face answers without asking anybody: call signature to prepared answer.
        self.hits: dict[Hashable, Any] = {}
        #: The application's place in the owner's store, if there is one.
        self.shelf: Shelf | None = None
        #: Monotonic time before which nobody looks for tokens that are over.
        self._sweep_at = engine.clock.monotonic() + _SWEEP_EVERY
        #: The lane of their own in which exchanges run that call the owner's code; None for their provider's.
        self.lane: str | None = None
        self.closed = False
        _memories.add(self)

    def find(self, request: TokenRequest) -> Slot | None:
        """Find the slot of a request."""
        with self._lock:
            return self._slots.get(request)

    def slot(self, request: TokenRequest, authorities: tuple[Endpoint, ...], purpose: Purpose = Purpose.TOKEN) -> Slot:
        """Find the slot of a request, or make it."""
        with self._lock:
            slot: Slot | None = self._slots.get(request)
            new = slot is None
            if slot is None:
                slot = Slot(request, self, authorities, purpose)
                slot.made_at = self.engine.clock.monotonic()
                self._slots[request] = slot
                self._by_subject.setdefault(request.subject, {})[request] = slot
            evicted, self._evicted = self._evicted, []
        self._tell(evicted, "there are more than max_tokens")
        if new:
            self._sweep_soon()
        return slot

    def remember_hit(self, slot: Slot, token: Token, signature: Hashable, answer: Any) -> None:
        """Let the face answer `signature` with `answer`, made of `token`, unless that has been dropped meanwhile."""
        with self._lock:
            if slot.token is not token or self._slots.get(slot.request) is not slot:
                return
            if signature not in slot.signatures:
                if len(slot.signatures) >= 8:
                    return
                slot.signatures = (*slot.signatures, signature)
            self.hits[signature] = answer

    def put(self, slot: Slot, token: Token, owner: str | None = None, *, generation: int | None = None) -> None:
        """Keep a token, unless the slot's was dropped since `generation`.

        Args:
            slot: Where.
            token: What.
            owner: The home account whose removal takes it along, where the request doesn't say.
            generation: The slot's when the token was asked for; None where it was there all the time.
        """
        with self._lock:
            if generation is not None and slot.generation != generation:
                return
            slot.token = token
            if owner is not None and self._slots.get(slot.request) is slot:
                slot.owner = owner
                self._by_subject.setdefault(owner, {})[slot.request] = slot

    def drop_all(self, reason: str) -> None:
        """Forget all tokens."""
        with self._lock:
            dropped = self._clear_all(list(self._slots.values()))
        self._tell(dropped, reason)

    def drop_subject(self, subject: str | None, reason: str) -> None:
        """Forget the tokens of one home account or assertion; None is the application itself."""
        with self._lock:
            dropped = self._clear_all(list(self._by_subject.get(subject, {}).values()))
        self._tell(dropped, reason)

    def drop_token(self, slot: Slot, token: Token, reason: str) -> bool:
        """Forget one token wherever it is kept, unless another one has taken its place already."""
        with self._lock:
            if slot.token is not token:
                return False
            slot.refused = fingerprint(token.secret)
            self._clear(slot)
        self._tell([slot], reason)
        if slot.discard is not None:
            slot.discard(token)
        return True

    def __iter__(self) -> Iterator[Slot]:
        """List the slots without the lock: `health` may be called by a signal's handler, amid whatever holds it."""
        while True:
            try:
                kept = [(subject, list(slots.values())) for subject, slots in list(self._by_subject.items())]
            except RuntimeError:  # another thread has just added one
                continue
            return iter([slot for subject, slots in kept for slot in slots if slot.request.subject == subject])

    def _sweep_soon(self) -> None:
        """Have what is over forgotten on a worker, now and then, where there is more and more to hold."""
        now = self.engine.clock.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_EVERY
        reference = weakref.ref(self)

        def run() -> None:
            memory = reference()
            if memory is not None:
                memory.sweep()

        with suppress(ProviderUnavailable):  # another time
            self.engine.run("memory", run)

    def sweep(self) -> None:
        """Forget the slots whose token is over, or never came, and for which nobody has asked for long.

        Users come and go: what can't be renewed without them would be kept until there are more than `max_tokens`.
        """
        held = list(self)
        for begin in range(0, len(held), _AT_ONCE):  # others get the lock in between
            with self._lock:
                for slot in held[begin : begin + _AT_ONCE]:
                    if self._is_over(slot):
                        slot.token = None
                        del self._slots[slot.request]
                        self._forget(slot)

    def _is_over(self, slot: Slot) -> bool:
        engine, token = self.engine, slot.token
        if slot.pinned or slot.refused is not None:  # which would come back from a cache
            return False
        if self._by_subject.get(slot.request.subject, {}).get(slot.request) is not slot:
            return False
        wall, now = engine.clock.wall(), engine.clock.monotonic()
        quiet = max(engine.settings.keep_trying, engine.settings.deadline + _SWEEP_EVERY)
        if now - max(slot.made_at, slot.asked_at, slot.failed_at) <= quiet:
            return False
        return token is None or bool(token.remaining(wall, now) <= -engine.settings.fallback.grace)

    def _tell(self, dropped: list[Slot], reason: str) -> None:
        for slot in dropped:
            emit(TokenDropped(at=self.engine.clock.wall(), request=slot.request, reason=reason))

    def _clear_all(self, slots: list[Slot]) -> list[Slot]:
        held = [slot for slot in slots if slot.token is not None]
        for slot in slots:
            self._clear(slot)
        return held

    def _clear(self, slot: Slot) -> None:
        slot.token = None
        slot.denied = False
        slot.generation += 1
        for signature in slot.signatures:
            self.hits.pop(signature, None)
        slot.signatures = ()

    def _forget(self, slot: Slot) -> None:
        """Take an evicted slot out of the indexes; the lock is held by whoever evicts."""
        if slot.token is not None:
            self._evicted.append(slot)
        self._clear(slot)
        for subject in {slot.request.subject, slot.owner or slot.request.subject}:
            siblings = self._by_subject.get(subject)
            if siblings is not None:
                siblings.pop(slot.request, None)
                if not siblings:
                    del self._by_subject[subject]
        if slot.timer is not None:
            slot.timer.cancel()

    def after_fork(self) -> None:
        """Start with a lock of one's own in a forked child; timers and flights were the parent's.

        A thread of the parent's may have been in the middle of a change: all is built anew from the slots.
        """
        self._lock = threading.Lock()
        slots = list(self._slots.values())
        self._slots, self._evicted, self._by_subject = _Slots(int(self._slots.maxsize), self._forget), [], {}
        self.hits.clear()
        if self.shelf is not None:
            self.shelf.after_fork()
        for slot in slots:
            slot.timer, slot.not_before, slot.signatures = None, 0.0, ()
            self._slots[slot.request] = slot
            for subject in {slot.request.subject, slot.owner or slot.request.subject}:
                self._by_subject.setdefault(subject, {})[slot.request] = slot


def forget_closed(memory: Memory) -> None:
    """Let go of what is known against the authorities of a closed application, where no other one asks them."""
    memory.closed = True
    others = [other for other in _memories.all() if other.engine is memory.engine and not other.closed]
    asked = {endpoint.site for other in others for slot in other for endpoint in slot.authorities}
    for site in {endpoint.site for slot in memory for endpoint in slot.authorities} - asked:
        memory.engine.levels.forget(site)


_memories: Living[Memory] = Living()


def memories() -> list[Memory]:
    """List the memories of all living application objects."""
    return _memories.all()


@_forks.renewed
def _after_fork() -> None:
    for memory in _memories.all():
        memory.after_fork()
