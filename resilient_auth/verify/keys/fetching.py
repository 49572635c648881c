"""An issuer's discovery document and key set: fetched over its wire when they are due, and kept in the store."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import NamedTuple

from ..._engine.engine import Engine
from ..._engine.shared import ALONE
from ..._policy.endpoint import origin_of
from ..._policy.failure import Purpose
from ..._wire.connection import HttpxWire
from ..._wire.http_client import Transport
from ...errors import MalformedAnswer, ProviderUnavailable, StoreUnavailable
from ..options import KeyOptions
from ..trust import Trust, host_of, named_host
from .documents import Facts, FoundKeys, UnusableDocument, facts_in, keys_in
from .key_set import KeySet

__all__ = ["DocumentFetcher", "Kept"]


class Kept(NamedTuple):
    """What the store keeps of an issuer."""

    found: FoundKeys
    #: When they were fetched, on this process's monotonic clock.
    obtained_at: float
    #: What its discovery document says, and that itself.
    facts: Facts | None
    discovery: str

    def into(self, keys: KeySet) -> KeySet:
        """Return a set with these in it, where there was none."""
        return keys.restored(self.found.usable, self.obtained_at, self.found.unfit)


class DocumentFetcher:
    """Fetch the documents of one issuer, on a worker.

    Args:
        engine: Whose breakers and store are used.
        wire: Sends the requests.
        trust: What is expected of the documents.
        algorithms: Those that keys are wanted for.
        options: The owner's.
    """

    def __init__(
        self, engine: Engine, wire: HttpxWire, trust: Trust, algorithms: frozenset[str], options: KeyOptions
    ) -> None:
        self._engine = engine
        self._wire = wire
        self._trust = trust
        self._algorithms = algorithms
        self._options = options
        self._hosts = frozenset(host for host in (host_of(trust.discovery), *map(named_host, options.hosts)) if host)
        self._origin = origin_of(trust.discovery)
        #: What the discovery document says, once it was there.
        self.facts: Facts | None = None
        self._facts_at = -inf
        self._discovery_text = ""
        self.renew()

    def renew(self) -> None:
        """Begin with connections of its own: at first, and in a forked child."""
        self.transport = Transport(self._engine, self._wire, "keys")

    def fetch(self, ends: float, *, urgent: bool) -> tuple[FoundKeys, str, float]:
        """Fetch what is due.

        Returns:
            The keys, the text of their set, and when they were asked for.

        Raises:
            ProviderUnavailable: They can't be fetched, or used.
        """
        options = self._options
        facts = self._discover(ends, urgent)
        sent_at = self._engine.clock.monotonic()
        text = self.transport.fetch(Purpose.KEYS, facts.jwks_uri, ends=ends, largest=options.largest, urgent=urgent)
        try:
            return keys_in(text, self._algorithms, options.most_keys), text, sent_at
        except UnusableDocument as error:
            # Its address may have moved.
            self._facts_at = -inf
            raise MalformedAnswer(f"{self._origin} gave a key set that can't be used: {error}") from None

    def _discover(self, ends: float, urgent: bool) -> Facts:
        """Return the facts, from a new discovery document where one is due and can be had."""
        if self._trust.keys_alone:
            return Facts(self._trust.discovery, None, None)
        now = self._engine.clock.monotonic()
        if self.facts is not None and now - self._facts_at < self._options.discovery_every:
            return self.facts
        try:
            text = self.transport.fetch(
                Purpose.DISCOVERY, self._trust.discovery, ends=ends, largest=self._options.largest, urgent=urgent
            )
            try:
                self.facts = facts_in(text, self._trust, self._hosts)
            except UnusableDocument as error:
                message = f"{self._origin} gave a discovery document that can't be used: {error}"
                raise MalformedAnswer(message, authority=self._origin) from None
        except ProviderUnavailable:
            if self.facts is None:
                raise
            return self.facts
        self._facts_at, self._discovery_text = now, text
        return self.facts

    @property
    def _document(self) -> str:
        return f"keys {self._trust.discovery}"

    def keep(self, text: str, obtained_on: float) -> None:
        """Put a good key set into the store, with the discovery document that led to it."""
        if self._trust.plain:
            return  # it is what this machine says; others have another one of that name
        body = {"discovery": self._discovery_text, "keys": text, "obtained_on": obtained_on}
        # A store that fails has no say in whether the keys are good.
        with suppress(StoreUnavailable):
            self._engine.shared.publish(self._document, self._wire.identity, body)

    @property
    def has_store(self) -> bool:
        """Return whether anything is kept."""
        return self._engine.shared is not ALONE

    def kept(self) -> Kept | None:
        """Return what another process, or this one in an earlier life, has kept; None where nothing can be used.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        try:
            kept = self._engine.shared.document(self._document, self._wire.identity)
            if kept is None:
                return None
            text = str(kept["discovery"])
            facts = None if self._trust.keys_alone else facts_in(text, self._trust, self._hosts)
            found = keys_in(str(kept["keys"]), self._algorithms, self._options.most_keys)
            clock = self._engine.clock
            obtained_at = clock.monotonic() - max(0.0, clock.wall() - float(kept["obtained_on"]))
        except (UnusableDocument, KeyError, TypeError, ValueError):
            return None
        return Kept(found, obtained_at, facts, text)

    def restore(self) -> Kept | None:
        """Return what is kept, and go by its discovery document where there is no other."""
        try:
            kept = self.kept()
        except StoreUnavailable:
            return None
        if kept is not None:
            self.facts = self.facts or kept.facts
            self._discovery_text = self._discovery_text or kept.discovery
        return kept
