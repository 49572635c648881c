"""The discovery documents of a provider: the last known good one, refreshed in the background (G14, G15)."""

from __future__ import annotations

import json
import threading
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cachetools

from .._engine.engine import Engine
from .._engine.single_flight import Flight, Outcome, carrying
from .._policy.endpoint import WireIdentity, origin_of
from .._policy.failure import Purpose
from .._policy.levels import ProviderRequest
from .._process import forks
from ..errors import (
    AttemptTimeout,
    CircuitOpen,
    Closed,
    ConfigurationError,
    MalformedAnswer,
    ProviderUnavailable,
    StoreUnavailable,
    Throttled,
)
from ..events import DiscoveryRejected, DiscoveryServedStale, emit, told_later
from .answers import Wire, WireResponse
from .discovery import ALIASES, Hosts, fault_in, hosts_for
from .exchange_context import ExchangeContext, current, time_left

__all__ = ["DOCUMENTS", "Document", "DocumentRequest", "Documents", "last_good"]

#: What is fetched for many exchanges, whichever of them is the first to need it.
DOCUMENTS = frozenset({Purpose.DISCOVERY, Purpose.ALIASES})
#: Seconds between two attempts to get a newer document.
_PAUSE = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document as it came, and when; times are on the monotonic clock."""

    answer: WireResponse
    obtained_at: float
    #: When a newer one was last asked for in vain.
    tried_at: float = float("-inf")


class Documents:
    """Hold documents by what was asked."""

    def __init__(self) -> None:
        self._documents: cachetools.LRUCache[Hashable, Document] = cachetools.LRUCache(1024)
        self.after_fork()
        forks.renew_in_children(self)

    def get(self, key: Hashable) -> Document | None:
        """Find a document."""
        with self._lock:
            found: Document | None = self._documents.get(key)
            return found

    def put(self, key: Hashable, document: Document) -> None:
        """Keep a document."""
        with self._lock:
            self._documents[key] = document

    def after_fork(self) -> None:
        """Take a lock of its own, also in a forked child, whose parent may have been in the middle of a change."""
        self._lock, self._documents = threading.Lock(), forks.rebuilt(self._documents)


#: The last known good documents of this process, shared by all application objects.
last_good = Documents()


class Requests(Protocol):
    """What sends a document's request: with retries, through the breakers, and checked."""

    engine: Engine
    wire: Wire
    #: Whether its owner has closed it.
    closed: bool

    def request_for(
        self, purpose: Purpose, url: str, exchange_context: ExchangeContext | None = None
    ) -> ProviderRequest:
        """Return what a request asks, of whom and for whom."""

    def ask(
        self,
        asked: ProviderRequest,
        method: str,
        url: str,
        options: dict[str, Any],
        exchange_context: ExchangeContext,
        *,
        replayable: bool,
    ) -> WireResponse:
        """Make an exchange's attempts."""


@dataclass(frozen=True, slots=True)
class DocumentRequest:
    """A document that is wanted: how it is asked for, over what, and which hosts it may name."""

    transport: Requests
    purpose: Purpose
    url: str
    options: dict[str, Any]
    asked: str
    wire: WireIdentity
    hosts: Hosts

    @classmethod
    def of(cls, transport: Requests, purpose: Purpose, url: str, options: dict[str, Any]) -> DocumentRequest:
        """Return the request for the document at an address."""
        wire, params = transport.wire.identity, options.get("params") or {}
        asked = f"{purpose} {url} {json.dumps(params, sort_keys=True, default=str)}"
        hosts = hosts_for(purpose, url, params, transport.engine.settings.discovery_hosts)
        return cls(transport, purpose, url, options, asked, wire, hosts)

    @property
    def key(self) -> tuple[WireIdentity, str]:
        """What applications must have in common to share it."""
        return self.wire, self.asked

    def answer(self) -> WireResponse:
        """Return the last known good document, and have a newer one fetched in the background when it is old."""
        engine, held = self.transport.engine, last_good.get(self.key)
        if held is not None and fault_in(self.purpose, held.answer.text, self.hosts) is not None:
            held = None  # another application's owner allows what this one's doesn't
        params = self.options.get("params") or {}
        if held is None and self.purpose is Purpose.ALIASES and params.get("api-version") == "1.1":
            held = Document(WireResponse(200, ALIASES, {"content-type": "application/json"}), float("-inf"))
            last_good.put(self.key, held)
        if held is None:
            return self._fetch()
        now = engine.clock.monotonic()
        if now - held.obtained_at > engine.settings.discovery_refresh and now - held.tried_at > _PAUSE:
            self._fetch_in_background(held)
        return held.answer

    def _fetch(self) -> WireResponse:
        """Have a document fetched, once for all who wait for it."""
        engine = self.transport.engine
        outer = current()
        asked = self.transport.request_for(self.purpose, self.url, outer)
        authority = asked.endpoint.origin
        engine.levels.hasten(asked)  # somebody has none at all
        if engine.settings.store is None:
            engine.levels.check(asked)
        wait = engine.settings.discovery_wait if outer is None else time_left(engine)
        # However long this one waits: who comes next joins it.
        ends = engine.clock.monotonic() + max(wait, engine.settings.attempt_timeout)

        def fetch(flight: Flight) -> None:
            outcome = Outcome()
            with carrying(flight.key), told_later():
                try:
                    outcome = Outcome(result=self._stored() or self._fetch_now(outer))
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
                    outcome = Outcome(error=error)
                finally:
                    engine.flights.land(flight, outcome)

        until = engine.clock.monotonic() + wait
        while True:
            flight = engine.join(("document", self.key), ends, f"{asked.endpoint.lane} {self.purpose}", fetch)
            outcome = flight.wait(until - engine.clock.monotonic())
            if outcome is None:
                raise AttemptTimeout(f"{authority} gave no discovery document within {wait:g} s", authority=authority)
            # Another application, which was closed while it asked for both, has closed nothing of this one's.
            if not isinstance(outcome.error, Closed) or self.transport.closed:
                break
        if outcome.error is not None:
            raise outcome.error
        answer: WireResponse = outcome.result
        return answer

    def _fetch_now(self, outer: ExchangeContext | None = None) -> WireResponse:
        """Fetch a document, and keep it when it is good.

        A constructor doesn't wait through a back-off for it; an exchange does, for as long as it has time.
        """
        engine, clock, url = self.transport.engine, self.transport.engine.clock, self.url
        exchange_context = ExchangeContext(clock.monotonic() + engine.settings.attempt_timeout, attempts=1)
        if outer is not None:
            exchange_context = ExchangeContext(outer.deadline, flight=outer.flight)
        asked = self.transport.request_for(self.purpose, url, exchange_context)
        answer = self.transport.ask(asked, "GET", url, dict(self.options), exchange_context, replayable=True)
        if answer.status_code == 200:
            fault = fault_in(self.purpose, answer.text, self.hosts)
            engine.sightings.document(asked, fault)
            if fault is not None:
                emit(DiscoveryRejected(at=clock.wall(), target=url, detail=fault))
                message = f"{origin_of(url)} gave a discovery document that can't be used: {fault}"
                raise MalformedAnswer(message, authority=origin_of(url))
            last_good.put(self.key, Document(answer, clock.monotonic()))
            # A session may have been told meanwhile to verify, or not to.
            if self.transport.wire.identity.keeps == self.wire.keeps:
                with suppress(StoreUnavailable):
                    body = {"text": answer.text, "obtained_on": clock.wall()}
                    engine.shared.publish(self.asked, self.wire, body)
        return answer

    def _stored(self) -> WireResponse | None:
        """Find the document that another process, or this one in an earlier life, got last."""
        engine = self.transport.engine
        clock = engine.clock
        with suppress(StoreUnavailable, KeyError, TypeError, ValueError):
            body = engine.shared.document(self.asked, self.wire)
            if body is not None and fault_in(self.purpose, str(body["text"]), self.hosts) is None:
                answer = WireResponse(200, str(body["text"]), {"content-type": "application/json"})
                age = max(0.0, clock.wall() - float(body["obtained_on"]))
                last_good.put(self.key, Document(answer, clock.monotonic() - age))
                return answer
        return None

    def _fetch_in_background(self, held: Document) -> None:
        """Have a newer document fetched, and nobody wait for it."""
        engine = self.transport.engine

        def fetch(flight: Flight) -> None:
            with carrying(flight.key), told_later():
                try:
                    self._fetch_now()
                except (ConfigurationError, ProviderUnavailable) as error:
                    last_good.put(self.key, replace(held, tried_at=engine.clock.monotonic()))
                    if not isinstance(error, (CircuitOpen, Throttled)):
                        age = engine.clock.monotonic() - held.obtained_at
                        emit(DiscoveryServedStale(at=engine.clock.wall(), target=self.url, age=age, code=error.code))
                finally:
                    engine.flights.land(flight, Outcome(result=held.answer))

        lane = self.transport.request_for(self.purpose, self.url).endpoint.lane
        ends = engine.clock.monotonic() + engine.settings.attempt_timeout
        engine.join(("document", self.key), ends, f"{lane} {self.purpose}", fetch)
