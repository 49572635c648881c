"""What the package decides, told to whoever wants to know.

Every decision is a frozen dataclass. A listener runs on a thread of its own that ends when there is nothing to tell;
one that raises or blocks harms nobody but itself. No event holds a token, a secret or an assertion; whose token it is
is told as a hash, and every text is one printable line, whoever wrote it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from ._process import forks
from .errors import printable
from .token import TokenRequest

__all__ = [
    "ApiRefusedToken",
    "BreakerClosed",
    "BreakerHalfOpen",
    "BreakerIsolated",
    "BreakerOpened",
    "BulkheadRefused",
    "ClaimsServiceRefused",
    "CooldownStarted",
    "DecisionSubstituted",
    "DenyListRejected",
    "DiscoveryRejected",
    "DiscoveryServedStale",
    "Event",
    "ExchangeDenied",
    "ExchangeFailed",
    "ExchangesOverdue",
    "ExpiredTokenAccepted",
    "FallbackServed",
    "GraceServed",
    "HedgeSent",
    "KeysAnomaly",
    "KeysRefreshFailed",
    "KeysRefreshed",
    "Listener",
    "PinnedKeysInUse",
    "ProviderSeenDown",
    "ProviderSeenUp",
    "RefreshScheduled",
    "RemovalPostponed",
    "RemovalWritten",
    "RetryScheduled",
    "SourceSwitched",
    "StoreFailed",
    "StoreRecovered",
    "StoreRejected",
    "TokenAcquired",
    "TokenDropped",
    "TokenOnDenyList",
    "TokenServed",
    "emit",
    "subscribe",
]

_log = logging.getLogger("resilient_auth")
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What was decided, at `at` seconds since the epoch."""

    level: ClassVar[int] = logging.DEBUG
    at: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) and (shown := _shown(value)) is not value:
                object.__setattr__(self, field.name, shown)

    def __str__(self) -> str:
        told = (f"{f.name}={getattr(self, f.name)!s}" for f in fields(self) if f.name != "at")
        return printable(f"{type(self).__name__} {' '.join(told)}")


def _shown(value: object) -> object:
    """Make of an event's field what may be shown to anybody, in any way."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple):
        return tuple(map(_shown, value))
    return value.shown() if isinstance(value, TokenRequest) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAcquired(Event):
    """A provider gave a token, or a store had one."""

    level = logging.INFO
    request: TokenRequest
    expires_in: float
    #: Seconds that the exchange took.
    took: float
    #: `store` where another process, or this one in an earlier life, had obtained it.
    source: str = "identity_provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServed(Event):
    """A valid token was served because no fresh one could be had; told once per failed refresh and token."""

    level = logging.WARNING
    request: TokenRequest
    remaining: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceServed(Event):
    """An expired token was served, since the owner opted in; told each time."""

    level = logging.WARNING
    request: TokenRequest
    past_expiry: float
    outage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDropped(Event):
    """A token was forgotten: removed, challenged, evicted or replaced by the application."""

    request: TokenRequest
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFailed(Event):
    """No answer could be had from a provider for this request."""

    level = logging.WARNING
    request: TokenRequest
    #: The error's stable code.
    code: str
    detail: str
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeDenied(Event):
    """The provider works and said no."""

    level = logging.WARNING
    request: TokenRequest
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshScheduled(Event):
    """A refresh ahead of need, or a probe of a provider that failed, is to run after `delay` seconds."""

    request: TokenRequest
    delay: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed and another one follows after `delay` seconds: the first word of an outage."""

    level = logging.WARNING
    authority: str
    purpose: str
    attempt: int
    delay: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangesOverdue(Event):
    """Exchanges haven't come back in their time, and others go on in their places; what they call hangs."""

    level = logging.WARNING
    #: The authority that they ask; and for whom, where that is told apart.
    lane: str
    #: How many of that lane were left behind so far and haven't come back.
    left_behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CooldownStarted(Event):
    """The provider asked for `seconds` of patience (429)."""

    level = logging.WARNING
    authority: str
    purpose: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(Event):
    """A dependency failed too often and is left alone for `seconds`."""

    level = logging.WARNING
    name: str
    seconds: float
    cause: str
    #: Over which it is asked, where that isn't the default one.
    wire: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHalfOpen(Event):
    """A break is over, and a probe may go out."""

    name: str
    wire: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(Event):
    """A dependency works again, after `seconds` in which it didn't."""

    level = logging.WARNING
    name: str
    seconds: float
    wire: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerIsolated(Event):
    """An operator took a dependency out of use, or put it back."""

    level = logging.WARNING
    name: str
    isolated: bool
    wire: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryServedStale(Event):
    """The last known good document was served, since no newer one could be had."""

    level = logging.WARNING
    url: str
    age: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryRejected(Event):
    """A discovery document was not of the right shape and was thrown away."""

    level = logging.WARNING
    url: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSwitched(Event):
    """A credential gives tokens for these scopes from another one of its sources (G12)."""

    level = logging.WARNING
    scopes: tuple[str, ...]
    source: str
    #: The one that gave them before.
    previous: str
    #: The code of the failure that made it switch, or `recovered` when it went back.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefusedToken(Event):
    """An API answered 401 to a token, with a claims challenge or without."""

    level = logging.INFO
    origin: str
    claims: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadRefused(Event):
    """A call to an API was refused, since too many are under way."""

    level = logging.WARNING
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackServed(Event):
    """A fallback's answer was served in place of an API's; `code` says what had failed."""

    level = logging.WARNING
    name: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSent(Event):
    """A request that had no answer yet was sent to an API a second time."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed(Event):
    """A store's medium, or the owner's token cache, began to fail; told once until it recovers.

    Tokens come from memory meanwhile.
    """

    level = logging.WARNING
    store: str
    #: A stable code, such as `timeout`, `connection_failed`, `full`, `read_only` or `failed`.
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """A store's medium works again, after `seconds` in which it didn't."""

    level = logging.WARNING
    store: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRejected(Event):
    """What a store held could not be verified and counts as absent; told once a minute at most, per kind and reason."""

    level = logging.WARNING
    store: str
    #: The kind of record; `file` where a whole file was set aside.
    kind: str
    #: `edited`, `foreign`, `malformed`, `unknown_key` or `newer_schema`.
    reason: str
    #: How many, since it was last told.
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPostponed(Event):
    """A sign-out couldn't be written to the store, and other processes haven't heard of it; it is tried again."""

    level = logging.WARNING
    store: str
    #: A hash of whose; None for the application's own tokens.
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalWritten(Event):
    """A sign-out that was postponed is in the store now."""

    level = logging.WARNING
    store: str
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshed(Event):
    """An issuer's key set was fetched."""

    level = logging.INFO
    issuer: str
    keys: int
    added: tuple[str, ...]
    #: Known keys that it doesn't list; they live on for a while.
    missing: tuple[str, ...]
    #: Why keys in it aren't used.
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshFailed(Event):
    """An issuer's keys couldn't be fetched; those that are held go on being used."""

    level = logging.WARNING
    issuer: str
    #: The error's stable code.
    code: str
    detail: str
    #: How many keys can still be used, and the seconds since they were fetched; None where they never were.
    keys: int
    age: float | None
    retry_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAnomaly(Event):
    """A fetched key set is odd, and doesn't replace what is held."""

    level = logging.WARNING
    issuer: str
    #: `empty`; `changed`: another key under a known `kid`; `shrank`: fewer keys than before.
    kind: str
    kids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedKeysInUse(Event):
    """Tokens are verified with the owner's pinned keys, since none could be fetched; told once."""

    level = logging.WARNING
    issuer: str
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSeenDown(Event):
    """Scheduled probes of a provider's discovery document and token endpoint failed, twice in a row."""

    level = logging.WARNING
    issuer: str
    #: How the last probe failed.
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSeenUp(Event):
    """A probe of the provider had an answer again, after `seconds` in which none had."""

    level = logging.WARNING
    issuer: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredTokenAccepted(Event):
    """A token past its expiry was accepted, since the owner opted in and the provider is down; told each time."""

    level = logging.WARNING
    issuer: str
    #: A hash of the token's subject.
    subject: str
    client_id: str | None
    past_expiry: float
    outage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOnDenyList(Event):
    """A token was refused because of the deny-list."""

    level = logging.WARNING
    issuer: str
    #: What of it is listed: `kid`, `oid`, `sid` or `token_id`; `check` where the owner's function said so.
    matched: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyListRejected(Event):
    """A deny-list's file couldn't be read; what was read last holds."""

    level = logging.WARNING
    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSubstituted(Event):
    """A claims service couldn't be asked, and something else decided; told each time."""

    level = logging.WARNING
    #: The service's origin.
    name: str
    provenance: str
    allowed: bool
    #: Why it couldn't be asked.
    code: str
    #: Seconds since the service said what was served; 0 where it didn't.
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsServiceRefused(Event):
    """A claims service is up and doesn't take our questions: an address, a credential or a body is wrong."""

    level = logging.ERROR
    name: str
    #: The HTTP status; 0 where no token could be had to ask with.
    status: int
    detail: str


class Listener(Protocol):
    """Anything that can be called with an event."""

    def __call__(self, event: Event, /) -> object: ...


class _Subscription:
    """Deliver events to one listener, in order, on a thread that lives while there are any."""

    CAPACITY = 1024

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.dropped = 0
        self.ended = False
        self._renew()

    def end(self) -> None:
        """Deliver nothing more, not even what is queued."""
        with self._lock:
            self.ended = True
            self._queue.clear()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Event] = deque()
        self._running = False

    def put(self, event: Event) -> None:
        with self._lock:
            if self.ended:
                return
            if len(self._queue) >= self.CAPACITY:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(event)
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._deliver, name="resilient-auth-events", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down, or no thread can be had: events are the least of it
            self._running = False

    def _deliver(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._running = False
                    return
                event = self._queue.popleft()
            try:
                self.listener(event)
            except BaseException as error:  # noqa: BLE001 - its faults, exits included, stay its own
                _log.warning("A listener failed on %s: %s", type(event).__name__, type(error).__name__)


_subscriptions: tuple[_Subscription, ...] = ()
_changing = threading.Lock()
_here = threading.local()


@contextmanager
def told_later() -> Iterator[None]:
    """Hold back what is emitted on this thread in this block until its end.

    For what holds a lock, or has others wait: a log handler runs on the thread that emits, and may ask for a token.
    """
    if getattr(_here, "held", None) is not None:
        yield
        return
    held: list[Event] = []
    _here.held = held
    try:
        yield
    finally:
        _here.held = None
        for event in held:
            emit(event)


def emit(event: Event) -> None:
    """Log an event and hand it to the listeners, without waiting for any of them."""
    held = getattr(_here, "held", None)
    if held is not None:
        held.append(event)
        return
    if _log.isEnabledFor(event.level):
        _log.log(event.level, "%s", event)
    for subscription in _subscriptions:
        subscription.put(event)


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have `listener` called with every event from now on.

    Args:
        listener: Called with one `Event` at a time, in order, on a background thread. What it raises is logged by type
            and goes no further; while it blocks, up to 1,024 events are kept for it, the newest.

    Returns:
        A function that ends the subscription.

    Raises:
        TypeError: `listener` can't be called.
    """
    if not callable(listener):
        raise TypeError(f"listener must be a function that takes an event, not {type(listener).__name__}")
    global _subscriptions
    forks.notice()
    subscription = _Subscription(listener)
    with _changing:
        _subscriptions = (*_subscriptions, subscription)

    def unsubscribe() -> None:
        global _subscriptions
        forks.notice()
        with _changing:
            _subscriptions = tuple(s for s in _subscriptions if s is not subscription)
        subscription.end()

    return unsubscribe


@forks.renewed
def _after_fork() -> None:
    global _changing
    _changing = threading.Lock()
    for subscription in _subscriptions:
        subscription._renew()
