"""What the checks of one examination share."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..._wire.answers import WireResponse
from ..._wire.connection import HttpxWire
from ..._wire.environment import proxy_for
from ..._wire.network.connect import connect
from ..._wire.trail import Trail
from ...clock import Clock, SystemClock
from ...errors import ConfigurationError
from ...settings import Settings
from .configuration import Setup

__all__ = ["Patient", "address_of", "authority_of"]


@dataclass(slots=True)
class Patient:
    """What is examined, and what earlier checks have found out of it."""

    setup: Setup
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    clock: Clock = field(default_factory=SystemClock)
    #: The answer to the question for the discovery document, the wall time at which it came, and the document in it.
    answer: WireResponse | None = None
    answered_at: float = 0.0
    document: Mapping[str, Any] | None = None

    @property
    def proxy(self) -> str | None:
        """Return the proxy through which the provider is asked; None for none.

        Raises:
            ConfigurationError: It can't be used.
        """
        return proxy_for(self.setup.document_url, None)

    @property
    def peer(self) -> tuple[str, int]:
        """Return the host and the port that a connection is made to: the proxy's, where there is one."""
        return address_of(self.proxy or self.setup.document_url)

    @property
    def provider(self) -> tuple[str, int]:
        """Return the host and the port of the provider."""
        return address_of(self.setup.document_url)

    @property
    def owners_hosts(self) -> tuple[str, ...]:
        """Return the hosts that the settings in the environment trust besides the provider's own."""
        try:
            return Settings.from_env(environ=self.environ).discovery_hosts
        except ConfigurationError:
            return ()  # which the check of the settings says

    def get(self, url: str, trail: Trail | None = None) -> WireResponse:
        """Ask as the engine's wire does: by the same proxies, trust and bounds; the trail says how far it came."""
        wire = HttpxWire(self.clock, self.setup.timeout, verify=self.setup.verify)
        try:
            ends = self.clock.monotonic() + self.setup.timeout
            return wire.send("GET", url, ends=ends, timeout=self.setup.timeout, trail=trail)
        finally:
            wire.close()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a host within the time for one check."""
        connected = connect(host, port, self.setup.timeout)
        connected.settimeout(self.setup.timeout)
        return connected


def address_of(url: str) -> tuple[str, int]:
    """Return the host and the port in a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 1080)


def authority_of(host: str, port: int) -> str:
    """Return a host and a port as a URL has them, an address of IPv6 in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
